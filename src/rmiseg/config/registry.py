"""Every data set, model, loss, metric, transform, augmentation, labels' format, callback, logger, export by its name.

What the package has itself is registered in the same way as what plugins add:

    @register("loss", "focal", options=FocalOptions)
    class FocalLoss(nn.Module): ...

A name that ends in a colon stands for a family, of which every member is called PREFIX:NAME, such as "smp:Unet"; then
what was registered is called with the member's own name first.

Nothing is imported before somebody asks for it by name, so that the command line can list names at once: `BUILT_IN`
says in which module each of the package's own components is. Plugins are imported when the program begins, see
`load_plugins`. No file (recipe, checkpoint, data set) can make anything be imported: those only name things.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ENTRY_POINTS = "rmiseg.plugins"

GIVEN = "python:"
"""Beginning of the name of a component that was given to `Trainer` as an object; the rest says which, for people."""

BUILT_IN: dict[str, dict[str, str]] = {
    "dataset": {
        "folder": "rmiseg.data.sets.folder",
        "voc": "rmiseg.data.sets.voc",
        "cityscapes": "rmiseg.data.sets.cityscapes",
        "coco": "rmiseg.data.sets.coco",
        "coco-stuff": "rmiseg.data.sets.coco_stuff",
        "coco-panoptic": "rmiseg.data.sets.coco_panoptic",
        "ade20k": "rmiseg.data.sets.ade20k",
        "camvid": "rmiseg.data.sets.camvid",
        "demo": "rmiseg.data.sets.demo",
    },
    "model": {
        "deeplabv3": "rmiseg.models.deeplab",
        "deeplabv3plus": "rmiseg.models.deeplab",
        "pspnet": "rmiseg.models.pspnet",
        "upernet": "rmiseg.models.upernet",
        "linear": "rmiseg.models.upernet",
        "unet": "rmiseg.models.unet",
        "smp:": "rmiseg.models.external.smp",
        "torchvision:": "rmiseg.models.external.torchvision_models",
        "hf:": "rmiseg.models.external.huggingface",
    },
    "loss": {
        "rmi": "rmiseg.losses.rmi",
        "ce": "rmiseg.losses.pixelwise",
        "bce": "rmiseg.losses.pixelwise",
        "pyramid": "rmiseg.losses.pyramid",
        "affinity": "rmiseg.losses.affinity",
        "focal": "rmiseg.losses.focal",
        "dice": "rmiseg.losses.dice",
        "lovasz": "rmiseg.losses.lovasz",
        "ohem": "rmiseg.losses.ohem",
        "smp:": "rmiseg.losses.external",
        "monai:": "rmiseg.losses.external",
    },
    "metric": {
        "iou": "rmiseg.evaluation.metrics",
        "cldice": "rmiseg.evaluation.centerlines",
    },
    "transform": {
        "scale-crop": "rmiseg.data.transforms.pipeline",
    },
    "augmentation": {
        "flip-vertical": "rmiseg.data.transforms.augmentations",
        "rotate": "rmiseg.data.transforms.augmentations",
        "blur": "rmiseg.data.transforms.augmentations",
        "noise": "rmiseg.data.transforms.augmentations",
        "gamma": "rmiseg.data.transforms.augmentations",
        "erase": "rmiseg.data.transforms.augmentations",
        "cutmix": "rmiseg.data.transforms.mixing",
        "copy-paste": "rmiseg.data.transforms.mixing",
        "torchvision:": "rmiseg.data.transforms.libraries",
        "albumentations:": "rmiseg.data.transforms.libraries",
    },
    "labels": {
        "coco": "rmiseg.data.labels.coco",
        "labelme": "rmiseg.data.labels.labelme",
        "cvat": "rmiseg.data.labels.cvat",
        "label-studio": "rmiseg.data.labels.label_studio",
        "supervisely": "rmiseg.data.labels.supervisely",
        "via": "rmiseg.data.labels.via",
        "voc-masks": "rmiseg.data.labels.voc_masks",
        "yolo": "rmiseg.data.labels.yolo",
        "coco-panoptic": "rmiseg.data.labels.numbered_masks",
        "darwin": "rmiseg.data.labels.darwin",
        "datumaro": "rmiseg.data.labels.datumaro",
        "hasty": "rmiseg.data.labels.hasty",
        "imagej": "rmiseg.data.labels.imagej",
        "kaggle-columns": "rmiseg.data.labels.kaggle",
        "kaggle-rows": "rmiseg.data.labels.kaggle",
        "qupath": "rmiseg.data.labels.qupath",
        "roboflow-masks": "rmiseg.data.labels.numbered_masks",
        "street-polygons": "rmiseg.data.labels.street_polygons",
        "vott": "rmiseg.data.labels.vott",
    },
    "callback": {},
    "logger": {
        "csv": "rmiseg.training.loggers.table",
        "tensorboard": "rmiseg.training.loggers.event_files",
        "wandb": "rmiseg.training.loggers.weights_and_biases",
        "mlflow": "rmiseg.training.loggers.tracking_server",
    },
    "export": {
        "onnx": "rmiseg.exports.onnx_file",
        "onnx-int8": "rmiseg.exports.onnx_int8",
        "openvino": "rmiseg.exports.openvino_files",
        "executorch": "rmiseg.exports.executorch_file",
        "torch-export": "rmiseg.exports.torch_program",
        "torch-aoti": "rmiseg.exports.torch_aoti",
        "triton-server": "rmiseg.exports.triton_server",
        "safetensors": "rmiseg.exports.hub_folder",
    },
}
"""The module that registers each of the package's own components. A new one is a file and a line here."""

KINDS = tuple(BUILT_IN)

OWN_OPTIONS = {"data": "dataset", "model": "model", "loss": "loss"}
"""The kind of component that each section of the options names, and whose own options it carries."""


@dataclass(frozen=True)
class Component:
    """Something that can be chosen by its name.

    Attributes:
        kind: One of `KINDS`.
        name: Its name; of a family, with the colon at its end.
        make: The class or function that was registered.
        options: The dataclass of its own options; None if it has none.
        origin: The module that registered it.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    options: type | None
    origin: str

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of its own options, of those that have one."""
        own = fields(self.options) if self.options is not None else ()
        made = {each.name: each.default_factory() for each in own if each.default_factory is not MISSING}
        return made | {each.name: each.default for each in own if each.default is not MISSING}


_components: dict[tuple[str, str], Component] = {}
_plugins: dict[str, bool] = {}  # and whether it came with an installed package


def register(kind: str, name: str, *, options: type | None = None) -> Callable[[T], T]:
    """Register a class or function under a name: a decorator that returns it as it is.

    Args:
        kind: dataset, model, loss, metric, transform, augmentation, labels, callback, logger or export.
        name: What recipes and the command line call it.
        options: A dataclass of its own options, each with type, default and a docstring. They are given as
            loss.options, model.options or data.options, and become keyword arguments.

    Raises:
        ValueError: There is no such kind, or the name is taken.
        TypeError: options is no dataclass.
    """
    _check_kind(kind)
    if options is not None and not is_dataclass(options):
        raise TypeError(f"options of {kind} {name} must be a dataclass, not {options!r}")

    def decorator(made: T) -> T:
        origin = getattr(made, "__module__", "")
        known = _components.get((kind, name))
        own = BUILT_IN[kind].get(name)
        if (known is not None and known.origin != origin) or (own is not None and own != origin):
            raise ValueError(f"the {kind} {name!r} exists already, from {known.origin if known else own}")
        assert callable(made)
        _components[kind, name] = Component(kind, name, made, options, origin)
        return made

    return decorator


def names(kind: str) -> tuple[str, ...]:
    """The names of a kind, the package's own first; families end in a colon. Nothing is imported."""
    _check_kind(kind)
    return tuple(dict.fromkeys([*BUILT_IN[kind], *(name for each, name in _components if each == kind)]))


def find(kind: str, name: str, made_with: Iterable[str] = ()) -> Component:
    """The component of a name.

    Args:
        kind: One of `KINDS`.
        name: Its name, or PREFIX:NAME of a family.
        made_with: Plugins that the run was made with which names it, for the error message.

    Raises:
        ValueError: There is none of that name; the message lists those that there are.
    """
    if not is_known(kind, name):
        raise ValueError(f"{kind} {none_of(kind, name, made_with)}")
    key = _key(kind, name)
    if (kind, key) not in _components:
        importlib.import_module(BUILT_IN[kind][key])
    return _components[kind, key]


def is_known(kind: str, name: str) -> bool:
    """Tell whether there is a component of this name, or a family that it belongs to. Nothing is imported."""
    key = _key(kind, name)
    return key in names(kind) and not (name == key and key.endswith(":"))


def _key(kind: str, name: str) -> str:
    """The name under which a component was registered: its own, or its family's."""
    prefix, colon, _ = name.partition(":")
    return name if name in names(kind) else prefix + colon


def none_of(kind: str, name: str, made_with: Iterable[str] = ()) -> str:
    """The complaint about a name that is none of a kind: those that there are, and the plugin that may be missing."""
    if name.startswith(GIVEN):
        own = name.removeprefix(GIVEN)
        return f"{own} was given in Python when the run was made; it can only be given there again, see rmiseg.Trainer"
    known = [f"{each}NAME" if each.endswith(":") else each for each in names(kind)]
    missing = [plugin for plugin in made_with if plugin not in _plugins]
    if missing:
        options = " ".join(f"--plugin {plugin}" for plugin in missing)
        return f"{name} is not known here; the run was made with the plugin {', '.join(missing)}: give {options}"
    return f"{name} is none of {', '.join(known) or 'those here, for there are none'}{did_you_mean(name, known)}"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question at the end of a message, after the name that may have been meant; "" if there is none.

    Args:
        name: The name that was given.
        known: Those that there are.
        prefix: What stands before them for people.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import the plugins of installed packages (entry points of the group rmiseg.plugins), and further modules.

    Args:
        modules: Names of modules, which may lie in the current folder, or paths of Python files.

    Raises:
        ImportError: One cannot be imported.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.value not in _plugins:
            try:
                entry.load()
            except Exception as error:  # a plugin may fail in any way
                raise ImportError(f"the plugin {entry.name} of an installed package fails: {error}") from error
            _plugins[entry.value] = True
    for module in modules:
        name = os.path.normpath(module) if module.endswith(".py") else module
        if name in _plugins:
            continue
        try:
            _import(name)
        except ModuleNotFoundError as error:
            raise ImportError(f"--plugin {module}: {error}; name a module, or the path of a Python file") from error
        except Exception as error:  # a plugin may fail in any way
            raise ImportError(
                f"--plugin {module} fails: {type(error).__name__}: {error} (RMISEG_TRACEBACK=1 shows where)"
            ) from error
        _plugins[name] = False


def given_name(part: Any) -> str:
    """The name, for the files of a run, of a class instance, class or function that was given in Python."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    module = kind.__module__
    if module == "__main__" and (script := getattr(sys.modules[module], "__file__", None)):
        module = Path(script).stem  # as if it had been imported
    return f"{GIVEN}{module}.{kind.__qualname__}"


def short_name(name: str) -> str:
    """The name of a component for people: of one that was given in Python, its own name alone."""
    return name.rpartition(".")[2] if name.startswith(GIVEN) else name


def loss_title(name: str, plus: Iterable[str]) -> str:
    """The name of a loss for people, with the losses that are added to it."""
    return " + ".join(map(short_name, (name, *plus)))


def loaded_plugins() -> tuple[str, ...]:
    """The plugins that `load_plugins` imported."""
    return tuple(_plugins)


def plugin_arguments() -> list[str]:
    """Arguments of the command line by which another process imports the same plugins."""
    return [argument for name, installed in _plugins.items() if not installed for argument in ("--plugin", name)]


def _import(module: str) -> None:
    if not module.endswith(".py"):
        with _current_folder():
            importlib.import_module(module)
        return
    path = Path(module)
    if not path.is_file():
        raise ModuleNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made  # as pickle and dataclasses expect
    spec.loader.exec_module(made)


@contextmanager
def _current_folder() -> Iterator[None]:
    """The current folder on the path of modules, last, for as long as a plugin is imported."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _check_kind(kind: str) -> None:
    if kind not in BUILT_IN:
        raise ValueError(f"there is no kind {kind!r} of extension; the kinds are {', '.join(BUILT_IN)}")

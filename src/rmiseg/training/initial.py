"""Weights that a training begins with: those of another model, and what is known of its classes by their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from rmiseg.config.recipes import shortened
from rmiseg.inference.conversion import initial_weights
from rmiseg.models.conversion import fit
from rmiseg.models.conversion.own import OWN
from rmiseg.runtime.words import some


def initialize(
    model: nn.Module,
    path: str | Path,
    console: Console,
    classes: Sequence[str] = (),
    build_with: Callable[..., nn.Module] | None = None,
) -> None:
    """Load those of a checkpoint's weights that fit, and say which do not, and what its classes begin.

    Args:
        model: The model to load them into.
        path: See `initial_weights`.
        console: Where to say so.
        classes: Names of the classes of the model, if they are known.
        build_with: Builds such a model of `num_classes` classes, which shows where the classes are.

    Raises:
        ValueError: None fits.
    """
    weights, theirs = initial_weights(path)
    others = bool(theirs) and bool(classes) and tuple(theirs) != tuple(classes)
    shared = [name for name in classes if name in theirs] if others else []
    rows = class_rows(model, _built(build_with, len(classes) + 1)) if shared and build_with else set()
    by_name = with_rows_by_name(weights, model, rows, theirs, classes)
    fitting = fit({**weights, **by_name}, model)
    if not fitting.found:
        raise ValueError(f"init: no weights of {path} fit the model; is it another architecture or backbone?")
    model.load_state_dict(fitting.found, strict=False)
    origin = "" if fitting.family is OWN else f" ({fitting.family.title})"
    lines = [f"Initial weights from {path}{origin}: {len(fitting.found)} of {len(model.state_dict())} tensors"]
    if by_name:
        parts = {
            "Classes that begin as those of the same name": shared,
            "new": [name for name in classes if name not in theirs],
            "there alone": [name for name in theirs if name not in classes],
        }
        lines.append("; ".join(f"{title}: {some(names, 20)}" for title, names in parts.items() if names))
    elif others and len(theirs) == len(classes):
        lines.append(
            f"warning: the classes of {path} are {shortened(', '.join(theirs), 200)}, and those of the data "
            f"{shortened(', '.join(classes), 200)}: each begins as the one in its place. Give them in the same order"
        )
    misshapen = [text.partition(" ")[0] for text in fitting.misshapen]
    for title, names in (
        ("Not in the checkpoint, or of another shape there", fitting.missing + misshapen),
        ("In the checkpoint alone", fitting.unused),
        ("Of one class there, which is class 1 here", fitting.doubled),
    ):
        if names:
            lines.append(f"{title}: {some(names, 8)}")
    if fitting.misshapen:
        lines.append("; ".join(fitting.misshapen[:4]))
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _built(build_with: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    """A model whose shapes alone count: without numbers, where its code needs none while it is built."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_with(num_classes=num_classes)
        except Exception:  # which code raises that needs some; if it is another, it comes again
            return build_with(num_classes=num_classes)


def class_rows(model: nn.Module, larger: nn.Module) -> set[str]:
    """Names of the entries that have a row for each class.

    Args:
        model: A model.
        larger: The same with one class more.

    Returns:
        Those with one row more there; none if the number of classes shows in any other way, so that rows are not all.
    """
    own, its = ({name: value.shape for name, value in each.state_dict().items()} for each in (model, larger))
    differing = {name for name in own if own[name] != its.get(name)}
    in_rows = all((own[name][0] + 1, *own[name][1:]) == its.get(name) for name in differing)
    return differing if in_rows and own.keys() == its.keys() else set()


def with_rows_by_name(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    rows: Collection[str],
    theirs: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Tensor]:
    """Entries of a model whose rows are those of a file, each of the class of the same name.

    Args:
        weights: Entries of the file, under the model's names.
        model: The model, whose own rows stay where the file has no such class.
        rows: Names of the entries that have a row for each class, and perhaps further rows after these.
        theirs: Names of the classes of the file.
        classes: Names of the classes of the model.

    Returns:
        Those that the file has; none if it has one of another width, which is no such classifier then.
    """
    found = {}
    pairs = [(place, theirs.index(each)) for place, each in enumerate(classes) if each in theirs]
    for name, value in model.state_dict().items():
        if name not in rows or name not in weights:
            continue
        further = len(value) - len(classes)
        if weights[name].shape != (len(theirs) + further, *value.shape[1:]):
            return {}
        behind = [(len(classes) + place, len(theirs) + place) for place in range(further)]
        places, sources = (list(each) for each in zip(*pairs, *behind))
        found[name] = value.detach().cpu().clone()
        found[name][places] = weights[name][sources].to(value.dtype)
    return found

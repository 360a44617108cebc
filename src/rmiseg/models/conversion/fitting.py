"""Finding the family of a file, and which of its entries fit a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rmiseg.models.conversion.family import BODY, Family
from rmiseg.models.conversion.mmsegmentation import MMSEGMENTATION
from rmiseg.models.conversion.original import ORIGINAL
from rmiseg.models.conversion.own import OWN
from rmiseg.models.conversion.pytorch_encoding import PYTORCH_ENCODING
from rmiseg.models.conversion.smp_files import SMP
from rmiseg.models.conversion.timm_files import TIMM
from rmiseg.models.conversion.torchvision_files import TORCHVISION
from rmiseg.models.conversion.wrapping import beginnings, without

FAMILIES = (OWN, ORIGINAL, PYTORCH_ENCODING, *MMSEGMENTATION, SMP, TORCHVISION, TIMM)
"""Every family; a file is of the first that recognizes it."""

COUNTER = "num_batches_tracked"
"""Entry that files of early PyTorch versions lack, and that only norms without momentum use."""


@dataclass(frozen=True)
class Fit:
    """Entries of a file that fit a model, and those that do not.

    Attributes:
        family: Family of the file.
        found: Entries that fit, under the model's names.
        missing: Names of the model that the file has no entry for.
        misshapen: Names of the model whose entry has another shape in the file, with both shapes.
        unused: Names of the file that nothing in the model stands for.
        doubled: Names of the model of two classes whose entry in the file is of one, with a sigmoid behind it: class 0
            has the logit 0, with which softmax gives class 1 what the sigmoid gave.
    """

    family: Family
    found: dict[str, Tensor]
    missing: list[str]
    misshapen: list[str]
    unused: list[str]
    doubled: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every entry of the model was found."""
        return not self.missing and not self.misshapen


def recognize(names: Iterable[str]) -> Family:
    """Return the family of a file with entries of these names."""
    names = [name for name in names if isinstance(name, str)]
    return next(family for family in FAMILIES if family.recognizes(names))


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a file under the names that its program gives them, if its network is part of another."""
    outer = beginnings(state)
    for family in (*FAMILIES[1:-1], OWN):  # OWN last: a network of others may be somebody's attribute `network`
        for beginning in outer:
            if family.recognizes(entries := without(beginning, state)):
                return entries
    return dict(state)


def backbone_entries(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a file that are a backbone's, under timm's names."""
    family = recognize(state)
    if family is TIMM:
        return dict(state)
    renamed = {family.own_name(name): value for name, value in state.items()}
    return {name.removeprefix(BODY): value for name, value in renamed.items() if name and name.startswith(BODY)}


def fit(state: Mapping[str, Any], model: nn.Module) -> Fit:
    """Find the entries of a file that fit a model of this package.

    Args:
        state: Tensors by name, whatever program wrote them. Values that are no tensors are passed over.
        model: The model, whose weights are not touched.
    """
    own = model.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    family = recognize(tensors)
    names = _names(tensors, own, family)
    known = {_plain(name): name for name in own}
    found: dict[str, Tensor] = {}
    misshapen, unused, doubled = [], [], []
    for name, value in tensors.items():
        target = known.get(_plain(names[name] or ""))
        if target is None:
            unused.append(name)
        elif _is_sigmoid(value, own[target], getattr(model, "num_classes", None)):
            found[target] = torch.cat([torch.zeros_like(value), value])
            doubled.append(target)
        elif value.shape != own[target].shape:
            misshapen.append(f"{target} {_mismatch(value, own[target], getattr(model, 'num_classes', None))}")
        else:
            found[target] = family.own_value(target, value)
    if any((each or "").startswith("refine.") for each in names.values()) and "refine.conv.weight" not in own:
        # The file's classifier reads what a convolution makes that the model does not have.
        unused += [name for name, ours in names.items() if (ours or "").startswith("classifier.")]
        found = {name: value for name, value in found.items() if not name.startswith("classifier.")}
        misshapen = [text for text in misshapen if not text.startswith("classifier.")]
    named = {*found, *(text.split(" ")[0] for text in misshapen)}
    missing = [name for name in own if name not in named and not name.endswith(COUNTER)]
    return Fit(family, found, missing, misshapen, unused, doubled)


def _names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], family: Family) -> dict[str, str | None]:
    """The model's names of a file's entries: the same, or within a network of another library, or by the table."""
    known = {_plain(name) for name in own}

    def fitting(names: dict[str, str | None]) -> int:
        return sum(_plain(name or "") in known for name in names.values())

    outer = beginnings(tensors)
    for beginning, prefix in itertools.product(outer, ("", "network.")):
        names: dict[str, str | None] = {name: prefix + name.removeprefix(beginning) for name in tensors}
        if fitting(names) > len(own) // 2:
            return names
    if family is not TIMM:
        return {name: family.own_name(name) for name in tensors}
    return max(
        ({name: TIMM.own_name(name.removeprefix(beginning)) for name in tensors} for beginning in outer), key=fitting
    )


def _is_sigmoid(theirs: Tensor, ours: Tensor, num_classes: int | None) -> bool:
    """Return whether an entry of a last layer is of one class, in place of two."""
    return (
        num_classes == 2
        and theirs.ndim > 0
        and (len(theirs), len(ours)) == (1, 2)
        and theirs.shape[1:] == ours.shape[1:]
    )


def _mismatch(theirs: Tensor, ours: Tensor, num_classes: int | None) -> str:
    """Say how two shapes differ: in the number of classes, or otherwise."""
    if theirs.ndim and theirs.shape[1:] == ours.shape[1:] and len(ours) == num_classes:
        return f"is of {len(theirs)} classes instead of {num_classes}"
    return f"is {tuple(theirs.shape)} instead of {tuple(ours.shape)}"


def _plain(name: str) -> str:
    """A name that a classification model and its feature extractor share: timm renames stages.0 to stages_0."""
    return name.replace(".", "_")

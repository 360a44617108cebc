"""The losses that are compared, all called alike: integer labels, and logits at any stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from rmiseg.kernels.backends import IMPLEMENTATIONS
from rmiseg.losses import BCELoss, CELoss, RMILoss, upsample_logits

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

REFERENCE = "cross-entropy"
IGNORE_INDEX = 255


class Setting(NamedTuple):
    """Setting that a loss is built for; pool and region size are those of RMI."""

    num_classes: int
    pool_size: int
    region_size: int


class Candidate(NamedTuple):
    """One of the losses that are compared.

    Attributes:
        title: Its name in tables and pictures.
        build: Makes the loss.
        cost: Roughly how many times as long as cross entropy it takes; for the progress bar.
        pools: Whether the pool size matters to it.
        package: The package that it comes from, which may not be installed.
        default: Whether it is measured unless others are asked for.
        compiled: Whether its first run compiles it, for the shape that it sees there.
    """

    title: str
    build: Callable[[Setting], Loss]
    cost: float
    pools: bool = False
    package: str | None = None
    default: bool = True
    compiled: bool = False


def _cross_entropy(_: Setting) -> Loss:
    return _at_full_size(lambda logits, target: F.cross_entropy(logits, target, ignore_index=IGNORE_INDEX))


def _rmi(implementation: str) -> Callable[[Setting], Loss]:
    def build(setting: Setting) -> Loss:
        return RMILoss(
            setting.num_classes, setting.region_size, pool_size=setting.pool_size, implementation=implementation
        )

    return build


def _rmi_compiled(setting: Setting) -> Loss:
    # fullgraph: rather an error than a silent return to eager mode.
    return torch.compile(_rmi("plain")(setting), dynamic=False, fullgraph=True)


def _rmi_pytorch(setting: Setting) -> Loss:
    from rmi import RMILoss as OtherRMILoss

    # Its default, use_log_trace, computes the same number by torch.cholesky, which torch no longer has.
    loss = OtherRMILoss(
        with_logits=True, radius=setting.region_size, pool="avg", stride=setting.pool_size, use_log_trace=False
    )

    def with_one_hot_labels(logits: Tensor, target: Tensor) -> Tensor:
        # It knows no ignored pixels: they belong to no class here.
        labels = F.one_hot(target.where(target != IGNORE_INDEX, setting.num_classes), setting.num_classes + 1)
        value: Tensor = loss(logits, labels[..., :-1].movedim(-1, 1).to(logits.dtype))
        return value

    return _at_full_size(with_one_hot_labels)


def _smp_dice(_: Setting) -> Loss:
    from segmentation_models_pytorch.losses import DiceLoss

    return _at_full_size(DiceLoss("multiclass", ignore_index=IGNORE_INDEX))


def _smp_lovasz(_: Setting) -> Loss:
    from segmentation_models_pytorch.losses import LovaszLoss

    return _at_full_size(LovaszLoss("multiclass", ignore_index=IGNORE_INDEX))


def _at_full_size(loss: Loss) -> Loss:
    """The loss of logits interpolated to the size of the labels, as trainers do before a loss that needs it."""
    return lambda logits, target: loss(upsample_logits(logits, (target.shape[-2], target.shape[-1])), target)


CANDIDATES = {
    REFERENCE: Candidate("cross entropy", _cross_entropy, 1),
    "rmi": Candidate("RMI", _rmi("auto"), 1.5, pools=True),
    **{
        f"rmi-{name}": Candidate(f"RMI {name}", _rmi(name), 12 if name == "plain" else 1.5, True, None, name == "plain")
        for name in IMPLEMENTATIONS
        if name != "auto"
    },
    "rmi-compiled": Candidate("RMI compiled", _rmi_compiled, 60, pools=True, default=False, compiled=True),
    "ce": Candidate("CELoss", lambda setting: CELoss(setting.num_classes), 1),
    "bce": Candidate("BCELoss", lambda setting: BCELoss(setting.num_classes), 2),
    "rmi-pytorch": Candidate("rmi-pytorch", _rmi_pytorch, 12, pools=True, package="rmi-pytorch"),
    "smp-dice": Candidate("Dice (smp)", _smp_dice, 6, package="segmentation-models-pytorch"),
    "smp-lovasz": Candidate("Lovasz (smp)", _smp_lovasz, 40, package="segmentation-models-pytorch"),
}


def choose(names: list[str] | None) -> tuple[list[str], dict[str, list[str]]]:
    """The names of the candidates to measure, cross entropy first, and those left out, by the package they need.

    Raises:
        ValueError: A name that is unknown, or whose package is not installed.
    """
    unknown = [name for name in names or () if name not in CANDIDATES]
    if unknown:
        raise ValueError(f"losses: there is no {', '.join(unknown)}; there are {', '.join(CANDIDATES)}")
    asked = names if names is not None else [name for name, candidate in CANDIDATES.items() if candidate.default]
    missing: dict[str, list[str]] = {}
    for name in asked:
        package = CANDIDATES[name].package
        if package is not None and not is_installed(package):
            missing.setdefault(package, []).append(name)
    if names is not None and missing:
        raise ValueError(
            "; ".join(
                f"losses: {', '.join(lost)} of the package {package}, which is not installed: pip install {package}"
                for package, lost in missing.items()
            )
        )
    left_out = [name for lost in missing.values() for name in lost]
    return [name for name in dict.fromkeys([REFERENCE, *asked]) if name not in left_out], missing


def is_installed(package: str) -> bool:
    """Tell whether the distribution called `package` is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def random_labels(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Class ids (N, *size) in blocks of 8 pixels a side, 2 % of them ignored, for logits of the shape (N, C, *size)."""
    n, classes, *size = shape
    labels = torch.randint(0, classes, (n, *(side // 8 + 1 for side in size)), generator=generator)
    for dim, side in enumerate(size, 1):
        labels = labels.repeat_interleave(8, dim).narrow(dim, 0, side)
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.02, IGNORE_INDEX).contiguous()

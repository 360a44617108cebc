"""Derivatives of every kind, in every implementation: `torch.func`, forward mode, and what is traced or exported."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from rmiseg.kernels import native
from rmiseg.losses import SegmentationLoss, build_loss
from support.loss_cases import LOSSES, build, each_loss, labelled_batch

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*")

IMPLEMENTATIONS = ["auto", "chunked", "plain", *(["native"] if native.is_available() else [])]
TARGETS = ["ids", "soft", "volume", "binary", "multilabel"]


def cases():
    """Losses with implementations and kinds of target."""
    for case in LOSSES:
        if case in ("pyramid", "affinity"):
            yield case, None, "ids"
            continue
        for implementation in IMPLEMENTATIONS:
            for kind in TARGETS:
                if kind in ("binary", "multilabel") and "ce" in case.split("-"):
                    continue
                yield case, implementation, kind


each_case = pytest.mark.parametrize(("case", "implementation", "kind"), list(cases()))


def example(case, implementation, kind, dtype=torch.float64, seed=0):
    """A loss, and logits and target for it."""
    options = {} if implementation is None else {"implementation": implementation}
    logits, target = (torch.tensor(a) for a in labelled_batch(seed, 2, 3, 16, 20, 2))
    if kind == "soft":
        target = torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(seed)).softmax(1).to(dtype)
        target[0, :, 3:5] = 255
    elif kind == "volume":
        logits = torch.stack([logits, 0.9 * logits.roll(1, 3), 1.1 * logits, 0.8 * logits.roll(1, 3)], dim=2)
        target = torch.stack([target] * 8, dim=1)
    elif kind == "binary":
        logits, target = logits[:, :1], target.where(target != 2, 0)
    elif kind == "multilabel":
        target = torch.stack(
            [target.where(target != 2, 0), target.where(target != 2, 1), target.where(target != 2, 0)], 1
        )
    options |= {"mode": kind} if kind in ("binary", "multilabel") else {}
    loss = build(case, 1 if kind == "binary" else 3, **options)
    return loss, logits.to(dtype), target


def reverse(loss, logits, target):
    x = logits.detach().clone().requires_grad_()
    value = loss(x, target)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


@each_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_forward_mode_is_reverse_mode(case, implementation, kind, dtype):
    loss, logits, target = example(case, implementation, kind, dtype)
    value, gradient = reverse(loss, logits, target)
    tangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = (gradient.double() * tangent.double()).sum()
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 2e-2}[dtype]
    found = torch.func.jvp(lambda x: loss(x, target), (logits,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(forward_ad.make_dual(logits, tangent), target))
        parts = loss(forward_ad.make_dual(logits, tangent), target, return_parts=True)[1]
    assert "pixel" in parts
    for primal, derivative in (found, dual):
        assert primal.item() == pytest.approx(value.item(), rel=1e-5)
        assert abs(derivative.item() - expected.item()) <= tolerance * (gradient.double() * tangent).norm() + 1e-9


@each_case
def test_gradients_of_torch_func(case, implementation, kind):
    loss, logits, target = example(case, implementation, kind)
    value, gradient = reverse(loss, logits, target)
    for transform in (torch.func.grad, torch.func.jacrev):
        assert torch.allclose(transform(lambda x: loss(x, target))(logits), gradient, rtol=1e-6, atol=1e-10)
    assert torch.allclose(torch.func.functional_call(loss, {}, (logits, target)), value)
    # The gradient of every sample, as if it were alone.
    each = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None])))(logits, target)
    alone = [reverse(loss, logits[i : i + 1], target[i : i + 1])[1][0] for i in range(2)]
    assert torch.allclose(each, torch.stack(alone), rtol=1e-6, atol=1e-10)
    many = torch.func.vmap(lambda x: loss(x, target))(torch.stack([logits, 2 * logits]))
    assert torch.allclose(many, torch.stack([value, loss(2 * logits, target)]), rtol=1e-6)


@pytest.mark.parametrize("kind", ["ids", "soft"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[:3])
@pytest.mark.parametrize("case", ["rmi", "rmi-interp-ce", "ce", "bce"])
def test_second_derivatives_of_torch_func(case, implementation, kind):
    loss, logits, target = example(case, implementation, kind)
    logits = logits[:1, :, :3, :3]
    target = target[:1, ..., :6, :6]

    def value(x):
        return loss(x, target)

    plain = example(case, "plain", kind)[0]
    expected = torch.autograd.functional.hessian(lambda x: plain(x, target), logits)
    assert torch.allclose(torch.func.hessian(value)(logits), expected, rtol=1e-5, atol=1e-9)
    gradient = reverse(loss, logits, target)[1]
    assert torch.allclose(torch.func.jacfwd(value)(logits), gradient, rtol=1e-6, atol=1e-10)


@each_loss
def test_label_that_is_no_class_inside_of_transforms(case):
    loss, logits, target = example(case, None, "ids")
    target[1, 2, 3] = 7
    assert torch.func.vmap(lambda x, y: loss(x[None], y[None]))(logits, target).isnan().tolist() == [False, True]
    assert torch.func.grad(lambda x: loss(x, target))(logits).isnan().any()


def traced(loss, logits, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(loss, (logits, target), check_trace=False)


def made_fx(loss, logits, target):
    return make_fx(loss)(logits, target)


def exported(loss, logits, target):
    return torch.export.export(loss, (logits, target)).module()


RECORDERS = pytest.mark.parametrize("record", [traced, made_fx, exported])


@RECORDERS
@each_loss
def test_recorded_losses_see_the_labels_that_they_are_given(case, record):
    loss, logits, target = example(case, None, "ids", torch.float32)
    recorded = record(loss, logits, target)
    other = example(case, None, "ids", torch.float32, seed=1)[2]
    assert recorded(logits, other).item() == pytest.approx(loss(logits, other).item(), rel=1e-5)
    assert recorded(logits, torch.full_like(other, 255)).item() == 0
    other[0, 0, 0] = 7
    assert recorded(logits, other).isnan()


@RECORDERS
@pytest.mark.parametrize("case", ["rmi", "rmi-max", "rmi-interp-ce", "ce", "bce"])
@pytest.mark.parametrize("implementation", ["auto", "chunked"])
def test_recorded_without_a_gradient_it_has_one(case, record, implementation):
    """The example may be the first call, of an evaluation, and the next one of a training."""
    loss, logits, target = example(case, implementation, "ids", torch.float32)
    with torch.no_grad():
        recorded = record(loss, logits, target)
    expected = reverse(loss, logits, target)[1]
    assert torch.allclose(reverse(recorded, logits, target)[1], expected, rtol=1e-4, atol=1e-8)


@RECORDERS
@pytest.mark.parametrize("mode", ["binary", "multilabel"])
@pytest.mark.parametrize("case", ["rmi", "bce"])
def test_soft_masks_after_masks_of_zeros_and_ones(case, mode, record):
    loss, logits, target = example(case, None, mode, torch.float32)
    target = target.float().masked_fill(target == 255, 0)
    soft = 0.1 + 0.8 * target
    recorded = record(loss, logits, target)
    for masks in (soft, target):
        assert recorded(logits, masks).item() == pytest.approx(loss(logits, masks).item(), rel=1e-5)
    assert recorded(logits, soft + 2).isnan()


@pytest.mark.parametrize("mode", ["ids", "binary", "multilabel"])
@pytest.mark.parametrize("case", ["rmi", "bce"])
def test_traced_losses_take_batches_of_other_sizes(case, mode):
    loss, logits, target = example(case, None, mode, torch.float32)
    mask = torch.rand(len(target), *target.shape[-2:]) > 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorded = torch.jit.trace(lambda x, y, z: loss(x, y, mask=z), (logits, target, mask), check_trace=False)
    for batch in (slice(1), [0, 1, 1]):
        given = logits[batch], target[batch], mask[batch]
        expected = loss(*given[:2], mask=given[2]).item()
        assert recorded(*given).item() == pytest.approx(expected, rel=1e-5)
        assert traced(loss, logits, target)(*given[:2]).item() == pytest.approx(loss(*given[:2]).item(), rel=1e-5)


@RECORDERS
def test_probabilities_out_of_range_in_a_recorded_loss(record):
    loss, logits, target = build("ce", 3, from_probabilities=True), *example("ce", None, "ids", torch.float32)[1:]
    recorded = record(loss, logits.softmax(1), target)
    assert recorded(logits.softmax(1), target).isfinite()
    assert recorded(logits * 9, target).isnan()


@RECORDERS
@pytest.mark.parametrize("name", ["smp:Dice", "monai:Dice"])
def test_losses_of_other_libraries_refuse_to_be_recorded(name, record):
    pytest.importorskip("segmentation_models_pytorch" if name[0] == "s" else "monai")
    _, logits, target = example("ce", None, "ids", torch.float32)
    loss = build_loss(name, num_classes=3)
    assert not isinstance(loss, SegmentationLoss)
    with pytest.raises(RuntimeError, match="cannot be traced or exported: it depends on the number of valid pixels"):
        record(loss, logits, target)

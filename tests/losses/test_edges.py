"""Edges of what losses are given: dtypes, class 255, meta devices, samples without labels, perfect predictions."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from rmiseg.compat import original
from rmiseg.functional import RMI_ALPHA
from rmiseg.kernels import native
from rmiseg.losses import CELoss, RMILoss, build_loss
from support.loss_cases import LOSSES, build, each_loss, loss_batch

IMPLEMENTATIONS = ["auto", "chunked", "plain", *(["native"] if native.is_available() else [])]
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
RMI = pytest.mark.parametrize("case", [case for case in LOSSES if case.startswith("rmi")])
WEIGHTS = [1.0, 0.5, 2.0]


@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_of_the_result(case, dtype, reduction):
    logits, target = loss_batch(dtype=dtype)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    for options in ({}, {"class_weights": WEIGHTS}):
        loss = build(case, 3, reduction=reduction, **options)
        value, parts = loss(logits, target, return_parts=True)
        assert {value.dtype, *(part.dtype for part in parts.values())} == {expected}
        terms = loss.terms(logits, target)
        assert loss.from_sums(terms.sums, loss.counts(target)).dtype == expected


@pytest.mark.parametrize("case", ["rmi", "bce"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_dtype_of_the_result_for_masks(case, dtype):
    logits, target = loss_batch(dtype=dtype)
    masks = torch.stack([target == c for c in range(3)], dim=1)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert build(case, 3, mode="multilabel", class_weights=WEIGHTS)(logits, masks).dtype == expected
    assert build(case, 1, mode="binary")(logits[:, :1], masks[:, 0]).dtype == expected
    assert build(case, 3)(logits, masks.to(torch.float64)).dtype == expected


@each_loss
def test_dtype_does_not_depend_on_the_default(case):
    logits, target = loss_batch()
    expected = build(case, 3, check_target=False)(logits, target)
    torch.set_default_dtype(torch.float64)
    try:
        value = build(case, 3, check_target=False)(logits, target)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(value, expected)


@each_loss
def test_class_255_is_never_dropped_silently(case):
    with pytest.raises(ValueError, match=r"with num_classes=300, label 255 is a class.* write ignore_index=None"):
        build(case, 300)
    build(case, 255)
    logits, target = torch.randn(1, 300, 16, 16), torch.full((1, 16, 16), 255)
    assert build(case, 300, ignore_index=None).counts(target)[0] > 0
    assert build(case, 300, ignore_index=299).counts(target)[0] > 0
    assert build(case, 300, ignore_index=255)(logits, target) == 0


def test_class_255_elsewhere():
    logits, target = torch.randn(1, 300, 16, 16), torch.full((1, 16, 16), 255)
    assert original.RMILoss(300)(logits, target) != 0
    RMILoss(300, mode="multilabel")  # whose labels are 0 and 1
    pytest.importorskip("monai")
    with pytest.raises(ValueError, match="label 255 is a class"):
        build_loss("monai:Dice", num_classes=300)


@each_loss
def test_class_weights_under_the_meta_device(case):
    logits, target = loss_batch()
    expected = build(case, 3, class_weights=WEIGHTS)
    with torch.device("meta"):
        loss = build(case, 3, class_weights=WEIGHTS)
    assert torch.equal(loss(logits, target), expected(logits, target))
    assert "class_weights=[1.0, 0.5, 2.0]" in repr(loss.to("meta"))
    for moved in (loss.to_empty(device="cpu"), copy.deepcopy(loss), loss.half()):
        assert moved.class_weights.tolist() == WEIGHTS
        assert torch.equal(moved(logits, target), expected(logits, target))


@each_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_at_ignored_pixels(case, bad):
    if case in ("pyramid", "affinity"):
        pytest.skip("these resize logits, which mixes neighbors by definition")
    logits, target = loss_batch(ignored=0.2)
    ignored = (target == 255).unsqueeze(1).expand_as(logits)
    for implementation in IMPLEMENTATIONS:
        loss = build(case, 3, implementation=implementation)
        changed = logits.detach().masked_fill(ignored, bad).requires_grad_()
        value = loss(changed, target)
        value.backward()
        assert value.item() == pytest.approx(loss(logits, target).item(), rel=1e-6)
        assert not changed.grad[ignored].any()
        assert changed.grad.isfinite().all()


@implementations
@RMI
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_sample_without_a_valid_pixel_does_not_count(case, implementation, class_weights):
    logits, target = loss_batch(n=3, dtype=torch.float64)
    target[1] = 255
    options = {"implementation": implementation, "class_weights": class_weights}
    loss, others = build(case, 3, **options), torch.tensor([0, 2])
    expected, expected_parts = loss(logits[others], target[others], return_parts=True)
    value, parts = loss(logits, target, return_parts=True)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert parts["rmi"].item() == pytest.approx(expected_parts["rmi"].item(), rel=1e-12)
    each = build(case, 3, reduction="none", **options)(logits, target)
    assert each[1] == 0
    assert torch.allclose(each[others], build(case, 3, reduction="none", **options)(logits[others], target[others]))
    if case == "rmi-batch":  # of which each micro-batch is one
        return
    # Over micro-batches, of which one has no valid pixel at all.
    counts = sum(loss.counts(target[i : i + 1]) for i in range(3))
    total = sum(loss.from_sums(loss.terms(logits[i : i + 1], target[i : i + 1]).sums, counts) for i in range(3))
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_masks_of_which_some_are_not_known():
    """Each class as a binary loss would take it: unknown maps do not count."""
    logits, _ = loss_batch(n=2, dtype=torch.float64)
    masks = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) < 0.4).long()
    masks[0, 1] = 255
    loss, binary = RMILoss(3, pool_size=2, mode="multilabel"), RMILoss(1, pool_size=2, mode="binary")
    terms = loss.terms(logits, masks)
    each = [binary.terms(logits[:, c : c + 1], masks[:, c]) for c in range(3)]
    assert torch.allclose(terms.sums, sum(one.sums for one in each))
    assert terms.counts[1] == pytest.approx((2 + 1 + 2) / 3)
    assert torch.equal(terms.counts, loss.counts(masks))


def test_the_original_counts_every_sample():
    logits, target = loss_batch(n=2, h=48, w=48)
    target[1] = 255
    theirs = original.RMILoss(3, loss_weight_lambda=0.0)(logits, target)
    ours = RMILoss(3, pool="max", pool_size=3, weight_lambda=0.0)(logits, target)
    floor = 3 * 0.5 * math.log(RMI_ALPHA)
    assert theirs.item() == pytest.approx((ours.item() + floor) / 2, rel=1e-5)


def perfect(target, classes, dtype):
    labels = F.one_hot(target.where(target != 255, 0), classes).movedim(-1, 1)
    return (60.0 * (2 * labels - 1)).to(dtype)


@implementations
@RMI
@pytest.mark.parametrize("options", [{}, {"alpha": 0.05}, {"covariance": "mean"}, {"class_weights": WEIGHTS}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_is_attained(case, implementation, options, dtype):
    _, target = loss_batch(n=2, c=2, h=40, w=44, ignored=0.1)  # of class 2 there is none
    logits = perfect(target, 3, dtype).requires_grad_()
    config = {**LOSSES[case], "subtract_floor": True, "implementation": implementation, **options}
    loss = RMILoss(3, **config)
    terms = loss.terms(logits, target)
    assert terms.sums[1].item() == pytest.approx(0, abs=1e-4)
    assert terms.parts["rmi"].item() == pytest.approx(0, abs=1e-5)
    worse = loss.terms(logits.detach().roll(2, 3), target)
    assert worse.parts["rmi"] > 0.1
    x = logits.detach() / 40
    grads = []
    for subtract_floor in (True, False):
        x = x.detach().requires_grad_()
        RMILoss(3, **{**config, "subtract_floor": subtract_floor})(x, target).backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("implementation", ["auto", "plain"])
@pytest.mark.parametrize("pool", ["avg", "max", "interp"])
@pytest.mark.parametrize("kind", ["soft", "volume", "multilabel", "binary"])
def test_zero_is_attained_for_every_target(kind, pool, implementation):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 12, 14, 13) if kind == "volume" else (2, 3, 30, 34)
    options = {"mode": kind} if kind in ("multilabel", "binary") else {}
    if kind == "soft":
        target = torch.randn(shape, generator=generator, dtype=torch.float64).softmax(1)
        logits = target.logit()
    elif kind == "volume":
        target = torch.randint(0, 3, (2, *shape[2:]), generator=generator)
        logits = perfect(target, 3, torch.float64)
    else:
        target = (torch.rand(shape, generator=generator) < 0.3).long()
        target, logits = target[:, : 1 if kind == "binary" else 3], 60.0 * (2 * target.double() - 1)
        logits = logits[:, : target.shape[1]]
    loss = RMILoss(logits.shape[1], pool=pool, pool_size=2, region_size=2, implementation=implementation, **options)
    assert loss.terms(logits, target).parts["rmi"].item() == pytest.approx(0, abs=1e-5)


def test_parts_are_computed_where_asked_for():
    logits, target = loss_batch()
    for loss in (RMILoss(3), CELoss(3)):
        assert torch.equal(loss(logits, target), loss(logits, target, return_parts=True)[0])

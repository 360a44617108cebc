"""Calls as they happen in programs of others: default devices, wrong devices, no tensors, changed options."""

import warnings

import pytest
import torch
from torch.autograd.functional import jacobian

from rmiseg.kernels import native
from rmiseg.losses import CELoss, DiceLoss, RMILoss, build_loss
from support.loss_cases import build, each_loss, loss_batch

IMPLEMENTATIONS = ["auto", "chunked", "plain", *(["native"] if native.is_available() else [])]
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
META = torch.zeros(2, 24, 28, dtype=torch.long, device="meta")


def value_and_gradient(loss, logits, target):
    leaf = logits.detach().clone().requires_grad_()
    values = loss(leaf, target), loss(leaf, target, return_parts=True)[0]
    return *values, *torch.autograd.grad(sum(values).sum(), leaf)


@implementations
@each_loss
def test_default_device(case, implementation):
    """Memory is where the logits are; the default device may be another."""
    options = {} if case in ("pyramid", "affinity") else {"implementation": implementation}
    for more in ({}, {"class_weights": [1.0, 0.5, 2.0], "reduction": "none"}):
        loss = build(case, 3, **options, **more)
        for stride in (1, 2):
            logits, target = loss_batch(stride=stride)
            for kind in (torch.int64, torch.uint8):
                expected = value_and_gradient(loss, logits, target.to(kind))
                with torch.device("meta"):
                    found = value_and_gradient(loss, logits, target.to(kind))
                assert all(torch.equal(*pair) for pair in zip(expected, found))


@pytest.mark.parametrize("shape", [(2, 3, 24, 28), (1, 3, 12, 12, 12)])
def test_default_device_for_soft_targets_and_volumes(shape):
    logits, target = torch.randn(shape), torch.rand(shape).softmax(1)
    loss = RMILoss(3, pool_size=2)
    expected = value_and_gradient(loss, logits, target)
    with torch.device("meta"):
        found = value_and_gradient(loss, logits, target)
    assert all(torch.equal(*pair) for pair in zip(expected, found))


@each_loss
def test_tensors_on_two_devices(case):
    logits, target = loss_batch()
    for parts in ({}, {"return_parts": True}):
        with pytest.raises(ValueError, match="logits on cpu and target on meta: bring both to one device"):
            build(case, 3)(logits, META, **parts)
    with pytest.raises(ValueError, match="and mask on meta"):
        build(case, 3)(logits, target, mask=META.bool())
    with pytest.raises(ValueError, match="and target on meta"):
        build(case, 3).terms(logits, META)
    with pytest.raises(ValueError, match="and target on meta"):
        DiceLoss(3)(logits, META)


@each_loss
def test_meta_tensors_have_a_loss_without_a_value(case):
    logits = torch.zeros(2, 3, 24, 28, device="meta", requires_grad=True)
    value = build(case, 3)(logits, META)
    value.backward()
    assert value.device == logits.grad.device == META.device
    assert logits.grad.shape == logits.shape


@each_loss
@pytest.mark.parametrize("class_weights", [None, [1.0, 1.0, 1.0]])
def test_what_is_no_tensor(case, class_weights):
    logits, target = loss_batch()
    loss = build(case, 3, class_weights=class_weights)
    for output, message in (
        ({"out": logits, "aux": logits}, "logits must be a tensor, got dict; give one of its items: out, aux"),
        ((logits, logits), "logits must be a tensor, got tuple; give one of its 2 items"),
        (None, "logits must be a tensor, got NoneType"),
    ):
        with pytest.raises(TypeError, match=message):
            loss(output, target)
    with pytest.raises(TypeError, match="target must be a tensor, got ndarray"):
        loss(logits, target.numpy())
    with pytest.raises(TypeError, match="target must be a tensor, got ndarray"):
        loss.counts(target.numpy())
    with pytest.raises(TypeError, match="mask must be a tensor, got ndarray"):
        loss(logits, target, mask=(target == 0).numpy())


@each_loss
def test_floating_dtypes_that_are_none_of_ours(case):
    logits, target = loss_batch()
    with pytest.raises(ValueError, match=r"float32, float64\), got torch.float8_e4m3fn"):
        build(case, 3)(logits.detach().to(torch.float8_e4m3fn), target)


def test_class_ids_with_a_channel_as_floats():
    """As MONAI's transforms leave them."""
    for shape in ((2, 1, 24, 28), (2, 1, 8, 8, 8)):
        logits = torch.zeros(2, 3, *shape[2:])
        with pytest.raises(ValueError, match=r"use target\.squeeze\(1\)\.long\(\)"):
            RMILoss(3, pool_size=2)(logits, torch.zeros(shape))


def negated(tensor):
    """Equal values, which the memory holds with the other sign."""
    return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag


@implementations
@each_loss
def test_values_that_are_not_in_memory(case, implementation):
    options = {} if case in ("pyramid", "affinity") else {"implementation": implementation}
    logits, target = loss_batch()
    for more in ({}, {"reduction": "none"}):
        loss = build(case, 3, **options, **more)
        value = loss(logits, target)
        (expected,) = torch.autograd.grad(value, logits, torch.full_like(value, 2.0), retain_graph=True)
        strange = negated(logits.detach()).requires_grad_()
        assert strange.is_neg()
        again = loss(strange, target)
        assert torch.allclose(again, value)
        (found,) = torch.autograd.grad(again, strange, negated(torch.full_like(value, 2.0)))
        assert torch.allclose(found, expected)
        (nothing,) = torch.autograd.grad(value, logits, torch._efficientzerotensor(value.shape))
        assert not nothing.any()


@pytest.mark.parametrize("loss", [CELoss(3), RMILoss(3, pool_size=2), RMILoss(3, pool_size=2, reduction="none")])
def test_several_gradients_at_once(loss):
    logits, target = loss_batch()
    with pytest.raises(RuntimeError, match="one gradient at a time; build it with implementation='plain'"):
        jacobian(lambda x: loss(x, target), logits, vectorize=True)
    loss.implementation = "plain"
    found = jacobian(lambda x: loss(x, target), logits, vectorize=True)
    assert torch.allclose(found, jacobian(lambda x: loss(x, target), logits))


@each_loss
def test_class_weights_that_are_changed(case):
    logits, target = loss_batch()
    loss, expected = build(case, 3), build(case, 3, class_weights=[1.0, 0.5, 2.0])(logits, target)
    for weights in ([1.0, 0.5, 2.0], torch.tensor([1.0, 0.5, 2.0])):
        loss.class_weights = weights
        assert torch.equal(loss(logits, target), expected)
        assert torch.equal(loss.double()(logits, target), expected)
        with pytest.raises(ValueError, match="class_weights must be 3 finite numbers"):
            loss.class_weights = [1.0, 2.0]
        assert torch.equal(loss(logits, target), expected)
    loss.class_weights = None
    assert torch.equal(loss(logits, target), build(case, 3)(logits, target))


def test_options_that_cannot_be_changed():
    loss = build_loss("rmi", num_classes=3)
    for name, value in (("ignore_index", 0), ("num_classes", 4), ("mode", "multilabel")):
        with pytest.raises(AttributeError, match=name):
            setattr(loss, name, value)


def test_whole_numbers_of_any_type():
    numpy = pytest.importorskip("numpy")
    logits, target = loss_batch()
    expected = RMILoss(3, 2, pool_size=2, ignore_index=(255, 1))(logits, target)
    for kind in (numpy.int64, numpy.uint8, torch.tensor):
        loss = RMILoss(kind(3), kind(2), pool_size=kind(2), ignore_index=kind([255, 1]))
        assert torch.equal(loss(logits, target), expected)
        assert loss.num_classes == 3
        assert RMILoss(3, ignore_index=kind(255)).inputs.ignored == (255,)
    for options in ({"num_classes": 3.0}, {"num_classes": "3"}, {"num_classes": 3, "ignore_index": 255.0}):
        with pytest.raises(ValueError, match=f"{list(options)[-1]} must be an integer"):
            RMILoss(**options)


@pytest.mark.parametrize(
    ("loss", "logits"),
    [
        (lambda **options: RMILoss(1, mode="binary", **options), torch.zeros(2, 1, 32, 32)),
        (lambda **options: RMILoss(2, **options), torch.zeros(2, 2, 32, 32)),
        (lambda **options: CELoss(2, class_weights=[1, 2], **options), torch.zeros(2, 2, 32, 32)),
        (lambda **options: DiceLoss(2, **options), torch.zeros(2, 2, 32, 32)),
    ],
)
def test_masks_of_0_and_255(loss, logits):
    """Once, and only where nobody said that 255 is to be ignored."""
    masks = torch.zeros(2, 32, 32, dtype=torch.uint8)
    masks[0, 8:] = 255
    made = loss()
    with pytest.warns(UserWarning, match=r"holds 0 and 255 alone, and 255 is ignored.*\(target == 255\)\.long\(\)"):
        made(logits, masks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(logits, masks)
        loss(ignore_index=255)(logits, masks)
        masks[1] = 1
        loss()(logits, masks)
        loss()(logits, torch.zeros_like(masks))
        loss()(logits, torch.full_like(masks, 255))

"""What users of the losses count on, whatever the loss."""

import math

import pytest
import torch

from rmiseg.functional import RMI_FLOOR
from rmiseg.losses import RMILoss, build_loss
from support.loss_cases import build, each_loss, each_that_adds_up
from support.loss_cases import loss_batch as batch


@each_loss
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_logits_give_non_finite_loss_and_gradient(case, bad):
    logits, target = batch(ignored=0)
    with torch.no_grad():
        logits[0, 1, 3, 4] = bad
    value = build(case, 3)(logits, target)
    value.backward()
    assert not value.isfinite()
    assert not logits.grad.isfinite().all()


@each_loss
def test_all_infinite(case):
    logits, target = batch()
    x = torch.full_like(logits, math.inf, requires_grad=True)
    value = build(case, 3)(x, target)
    value.backward()
    assert not value.isfinite()
    assert not x.grad.isfinite().any()


@each_loss
def test_no_valid_pixel_gives_zero(case):
    logits, target = batch()
    value = build(case, 3)(logits, torch.full_like(target, 255))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@each_loss
def test_ignored_pixels_have_no_say(case):
    if case in ("pyramid", "affinity"):
        pytest.skip("these resize logits, which mixes neighbors by definition")
    logits, target = batch(ignored=0.3)
    changed = logits.detach().clone()
    ignored = (target == 255).unsqueeze(1).expand_as(changed)
    changed[ignored] = torch.randn(int(ignored.sum()))
    loss = build(case, 3)
    assert loss(changed, target).item() == loss(logits, target).item()
    loss(logits, target).backward()
    assert not logits.grad[ignored].any()


@each_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.uint16])
def test_any_label_dtype(case, dtype):
    logits, target = batch()
    loss = build(case, 3)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@each_loss
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2, None])
def test_ignore_index(case, ignore_index):
    logits, target = batch()
    if ignore_index in (0, 2):  # one of the classes: same as relabeling it as ignored
        expected = build(case, 3)(logits, target.masked_fill(target == ignore_index, 255))
        target = target.masked_fill(target == 255, ignore_index)
    elif ignore_index is None:
        target = target.masked_fill(target == 255, 1)
        expected = build(case, 3)(logits, target)
    else:
        expected = build(case, 3)(logits, target)
        target = target.masked_fill(target == 255, ignore_index)
    assert torch.equal(build(case, 3, ignore_index=ignore_index)(logits, target), expected)


@each_loss
@pytest.mark.parametrize("value", [3, 37, 254, -1])
def test_label_that_is_no_class_raises_on_the_cpu(case, value):
    logits, target = batch()
    target[1, 5, 6] = value
    with pytest.raises(ValueError, match=rf"target holds {value} in 1 pixels, first at sample 1, row 5, column 6"):
        build(case, 3)(logits, target)


@each_loss
def test_label_that_is_no_class_gives_nan_where_it_is_not_checked(case):
    logits, target = batch()
    target[1, 5, 6] = 37
    value = build(case, 3, check_target=False)(logits, target)
    value.backward()
    assert value.isnan()
    assert logits.grad.isnan().any()
    target[1, 5, 6] = 255
    assert build(case, 3, check_target=False)(logits, target).isfinite()


def test_fractional_label_raises():
    logits, target = batch()
    target = target.float()
    target[0, 0, 0] = 0.5
    with pytest.raises(ValueError, match=r"target holds 0\.5"):
        RMILoss(3)(logits, target)


@each_loss
def test_same_input_same_bits(case):
    loss = build(case, 3)
    results = []
    for _ in range(2):
        logits, target = batch(h=65, w=67, stride=2)
        value = loss(logits, target)
        value.backward()
        results.append((value.detach(), logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@each_loss
def test_memory_format_and_strides_do_not_matter(case):
    logits, target = batch()
    loss = build(case, 3)
    expected = loss(logits, target)
    assert loss(logits.contiguous(memory_format=torch.channels_last), target).item() == pytest.approx(
        expected.item(), rel=1e-6
    )
    wide = torch.zeros(2, 3, 24, 56)
    wide[..., ::2] = logits.detach()
    assert loss(wide[..., ::2], target).item() == pytest.approx(expected.item(), rel=1e-6)


@each_that_adds_up
def test_terms_of_micro_batches_add_up(case):
    """Gradient accumulation over unequal micro-batches is exactly the loss of the whole batch."""
    logits, target = batch(n=4)
    target[0, :12] = 255
    loss = build(case, 3)
    whole = loss(logits, target)
    (expected,) = torch.autograd.grad(whole, logits)
    micro = [loss.terms(logits[i : i + k], target[i : i + k]) for i, k in ((0, 1), (1, 3))]
    counts = sum(terms.counts for terms in micro)
    assert torch.equal(counts, sum(loss.counts(target[i : i + k]) for i, k in ((0, 1), (1, 3))))
    total = loss.from_sums(sum(terms.sums for terms in micro), counts)
    assert total.item() == pytest.approx(whole.item(), rel=1e-6)
    # One backward a micro-batch, each divided by the global counts: gradients add up as well.
    for terms in micro:
        loss.from_sums(terms.sums, counts).backward(retain_graph=True)
    assert torch.allclose(logits.grad, expected, rtol=1e-4, atol=1e-8)


@each_loss
def test_low_resolution_logits_are_interpolated_inside(case):
    logits, target = batch(h=33, w=41, stride=4)
    for align_corners in (False, True):
        loss = build(case, 3, align_corners=align_corners)
        full = torch.nn.functional.interpolate(logits, (33, 41), mode="bilinear", align_corners=align_corners)
        assert loss(logits, target).item() == pytest.approx(loss(full, target).item(), rel=1e-6)


@each_loss
def test_parts_are_detached_scalars(case):
    logits, target = batch()
    loss = build(case, 3)
    value, parts = loss(logits, target, return_parts=True)
    assert torch.equal(value, loss(logits, target))
    assert "pixel" in parts
    for part in parts.values():
        assert part.ndim == 0
        assert not part.requires_grad


@each_loss
def test_shapes_that_do_not_fit(case):
    logits, target = batch()
    loss = build(case, 3)
    for bad_logits, bad_target, message in (
        (logits[:, :2], target, "2 classes, but the loss was built with num_classes=3"),
        (logits[0], target, r"\(N, C, H, W\)"),
        (logits, target[:1], "N = 2"),
        (logits, target[:, None], r"squeeze\(1\)"),
        (logits, target[:, :20], "larger than the target"),
        (logits.long(), target, "floating point"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(bad_logits, bad_target)


def test_floor_of_absent_classes():
    """A class absent and predicted absent contributes the floor and no gradient, whatever the option.

    With `subtract_floor` the others are counted from what a perfect prediction reaches, at most 1/2 ln 2 above it.
    """
    target = torch.randint(0, 2, (2, 40, 40), generator=torch.Generator().manual_seed(0))
    logits = torch.full((2, 5, 40, 40), -30.0)
    logits[:, :2] = torch.randn(2, 2, 40, 40)
    values, grads = [], []
    for subtract_floor in (False, True):
        x = logits.clone().requires_grad_()
        value, parts = RMILoss(5, weight_lambda=0.0, subtract_floor=subtract_floor)(x, target, return_parts=True)
        value.backward()
        assert x.grad[:, 2:].abs().max() < 1e-8
        assert parts["rmi"] > 0
        values.append(value.item())
        grads.append(x.grad)
    assert 0 < values[0] - 5 * RMI_FLOOR - values[1] <= 2 * 0.5 * math.log(2)
    assert values[1] == pytest.approx(2 * parts["rmi"].item(), rel=1e-5)  # two classes are present
    assert torch.allclose(grads[0], grads[1])
    assert math.isclose(RMI_FLOOR, -3.8005, abs_tol=1e-4)


@pytest.mark.parametrize("pool_size", [1, 2, 4])
def test_absent_class_has_no_gradient_whatever_is_predicted(pool_size):
    x = torch.randn(2, 3, 40, 40, requires_grad=True)
    target = torch.randint(0, 2, (2, 40, 40))
    target[1] = 1
    RMILoss(3, weight_lambda=0.0, pool_size=pool_size)(x, target).backward()
    assert (x.grad[:, :2].abs().amax(dim=(2, 3)) > 0).tolist()[0] == [True, True]
    assert x.grad[:, 2].abs().max() == 0
    assert x.grad[1, 0].abs().max() == 0


@pytest.mark.parametrize("alpha", [5e-4, 0.02])
def test_mean_covariance_is_the_sum_with_another_alpha(alpha):
    """But for a constant: 1/2 ln of the number of regions, here 10 x 13, for each class."""
    logits, target = torch.randn(2, 3, 44, 56), torch.randint(0, 3, (2, 44, 56))
    values, grads = [], []
    for options in ({"alpha": alpha, "covariance": "mean"}, {"alpha": alpha * 10 * 13}):
        x = logits.clone().requires_grad_()
        value, parts = RMILoss(3, weight_lambda=0, **options)(x, target, return_parts=True)
        value.backward()
        values.append((value.item(), parts["rmi"].item()))
        grads.append(x.grad)
    assert torch.equal(*grads)
    assert values[0][0] == pytest.approx(values[1][0] - 3 / 2 * math.log(130), rel=1e-5)
    assert values[0][1] == pytest.approx(values[1][1], rel=1e-6)


def test_mean_covariance_does_not_depend_on_size():
    """A picture beside its copies: as much per region, so the same loss, but for the regions at the seams."""
    logits, target = torch.randn(1, 3, 256, 256), torch.randint(0, 3, (1, 32, 32)).repeat_interleave(8, 1)
    target = target.repeat_interleave(8, 2)
    large = [torch.cat([torch.cat([x, x], -1)] * 2, -2) for x in (logits, target)]
    values = {}
    for covariance in ("mean", "sum"):
        loss = RMILoss(3, covariance=covariance, alpha=0.05, weight_lambda=0, subtract_floor=True)
        values[covariance] = loss(*large).item() / loss(logits, target).item()
    assert values["mean"] == pytest.approx(1, abs=0.01)
    assert values["sum"] > 1.1


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": math.nan}, {"covariance": "max"}])
def test_covariance_options_that_are_none(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be"):
        RMILoss(3, **options)


def test_perfect_prediction_reaches_zero():
    target = torch.zeros(1, 64, 64, dtype=torch.long)
    target[:, 16:40, 20:50] = 1
    logits = 40.0 * (2 * torch.nn.functional.one_hot(target, 2).permute(0, 3, 1, 2).float() - 1)
    good = RMILoss(2, subtract_floor=True)(logits, target)
    shifted = RMILoss(2, subtract_floor=True)(logits.roll(3, dims=3), target)
    assert good == pytest.approx(0, abs=1e-5)
    assert shifted > 0.4


def test_one_pixel_class_and_one_class():
    target = torch.zeros(1, 32, 32, dtype=torch.long)
    target[0, 7, 9] = 1
    x = torch.randn(1, 2, 32, 32, requires_grad=True)
    RMILoss(2)(x, target).backward()
    assert x.grad.isfinite().all()
    y = torch.randn(1, 1, 32, 32, requires_grad=True)
    RMILoss(1)(y, torch.zeros(1, 32, 32)).backward()
    assert y.grad.isfinite().all()


def test_map_smaller_than_region():
    with pytest.raises(ValueError, match=r"\(8, 40\) is \(3, 11\) after pooling by 4, too small for regions of 5 x 5"):
        RMILoss(2, region_size=5)(torch.randn(1, 2, 8, 40), torch.zeros(1, 8, 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_size": 0}, "region_size must be at least 1, got 0"),
        ({"pool_size": -1}, "pool_size"),
        ({"pool": "mean"}, "avg, max, interp; got 'mean'"),
        ({"combine": "sum"}, "convex, additive"),
        ({"pixel_loss": "dice"}, "ce, bce"),
        ({"weight_lambda": 1.5}, "weight_lambda"),
    ],
)
def test_constructor_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        RMILoss(3, **options)


def test_build_loss_refuses():
    with pytest.raises(
        ValueError, match=r"loss dise is none of rmi, ce, bce, pyramid, affinity, focal, .*, smp:NAME, monai:NAME"
    ):
        build_loss("dise", num_classes=3)
    with pytest.raises(TypeError, match="the rmi loss has no option pool_stride; its options are region_size, pool"):
        build_loss("rmi", num_classes=3, pool_stride=4)
    with pytest.raises(TypeError, match="max_steps"):
        build_loss("affinity", num_classes=3)
    with pytest.raises(ValueError, match="num_classes"):
        build_loss("ce", num_classes=0)


@pytest.mark.slow
def test_losses_need_only_torch():
    """`pip install rmiseg` alone is enough for the losses: nothing of the training system is imported."""
    import subprocess
    import sys

    code = (
        "import sys, torch; before = set(sys.modules); from rmiseg import RMILoss; "
        "print([m for m in set(sys.modules) - before if m.split('.')[0] in "
        "('timm', 'torchvision', 'jsonargparse', 'rich', 'PIL', 'tensorboard', 'yaml')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@each_loss
@pytest.mark.parametrize("shape", [(2, 3, 0, 28), (2, 3, 1, 0)])
def test_logits_without_pixels_are_refused(case, shape):
    with pytest.raises(ValueError, match=r"have no pixels"):
        build(case, 3)(torch.zeros(shape, requires_grad=True), torch.zeros(2, 32, 32, dtype=torch.long))


@each_loss
def test_empty_batch_gives_zero(case):
    logits = torch.zeros(0, 3, 32, 32, requires_grad=True)
    assert build(case, 3)(logits, torch.zeros(0, 32, 32, dtype=torch.long)).item() == 0


@pytest.mark.parametrize("options", [{"region_size": 2.5}, {"pool_size": 4.0}, {"weight_lambda": math.nan}])
def test_rmi_refuses_what_is_not_a_proper_number(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RMILoss(3, **options)

"""Class weights, reductions, masks, several ignored labels: what users of other losses ask of any loss."""

import pytest
import torch
import torch.nn.functional as F

from rmiseg.functional import RMI_FLOOR
from rmiseg.losses import AffinityLoss, BCELoss, CELoss, RMILoss
from support.loss_cases import LOSSES, build, each_loss, each_that_adds_up, gradient, loss_batch

implementations = pytest.mark.parametrize("implementation", ["auto", "chunked", "plain"])

WEIGHTS = [0.5, 2.0, 0.0]


def batch(**options):
    return loss_batch(**options, dtype=torch.float64)


@implementations
def test_class_weights_of_cross_entropy_are_those_of_torch(implementation):
    logits, target = batch()
    value = CELoss(3, class_weights=WEIGHTS, implementation=implementation)(logits, target)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.cross_entropy(logits, target, weights, ignore_index=255)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)


@implementations
def test_class_weights_of_binary_cross_entropy_multiply_the_terms_of_classes(implementation):
    logits, target = batch(ignored=0)
    value = BCELoss(3, class_weights=WEIGHTS, implementation=implementation)(logits, target)
    labels = F.one_hot(target, 3).movedim(-1, 1).double()
    terms = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    weights = torch.tensor(WEIGHTS, dtype=torch.float64).view(1, 3, 1, 1)
    expected = (terms * weights).sum() / (target.numel() + 1)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)


@implementations
@pytest.mark.parametrize("subtract_floor", [False, True])
def test_class_weights_of_rmi_multiply_the_terms_of_classes(implementation, subtract_floor):
    logits, target = batch()
    options = {"weight_lambda": 0.0, "subtract_floor": subtract_floor, "implementation": implementation}
    loss = RMILoss(3, class_weights=WEIGHTS, **options)
    floor = 0 if subtract_floor else RMI_FLOOR
    expected = 0
    for c, weight in enumerate(WEIGHTS):
        # A class alone: as the only one, the others count and belong to none.
        alone = RMILoss(1, mode="binary", **options)
        own = (target == c).long().masked_fill(target == 255, 255)
        expected = expected + weight * alone(logits[:, c : c + 1], own)
    value = loss(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)
    assert value > sum(WEIGHTS) * floor


@implementations
def test_the_weight_of_a_binary_mask_multiplies_its_rmi(implementation):
    logits, target = loss_batch(c=1)
    options = {"mode": "binary", "weight_lambda": 0.0, "implementation": implementation}
    weighted = RMILoss(1, class_weights=[3.0], **options)(logits, target.clamp(max=1))
    assert weighted.item() == pytest.approx(3 * RMILoss(1, **options)(logits, target.clamp(max=1)).item(), rel=1e-6)


@each_loss
def test_weights_of_one_change_nothing(case):
    logits, target = batch()
    expected, value = build(case, 3)(logits, target), build(case, 3, class_weights=[1, 1, 1])(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)


@each_loss
@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 1.0], [1.0, float("nan"), 1.0]])
def test_class_weights_that_are_none(case, weights):
    with pytest.raises(ValueError, match="class_weights must be 3 finite numbers"):
        build(case, 3, class_weights=weights)


@each_that_adds_up
def test_weighted_terms_of_micro_batches_add_up(case):
    logits, target = batch(n=4)
    with torch.no_grad():
        target[0, :12] = 255
    loss = build(case, 3, class_weights=WEIGHTS)
    whole = loss(logits, target)
    micro = [loss.terms(logits[i : i + k], target[i : i + k]) for i, k in ((0, 1), (1, 3))]
    counts = sum(loss.counts(target[i : i + k]) for i, k in ((0, 1), (1, 3)))
    assert torch.allclose(counts, sum(terms.counts for terms in micro), rtol=1e-12)
    total = sum(loss.from_sums(terms.sums, counts) for terms in micro)
    assert total.item() == pytest.approx(whole.item(), rel=1e-10)
    assert total.item() == sum(loss.combine(terms.sums, counts) for terms in micro).item()  # its name in 0.1
    assert torch.allclose(gradient(total, logits), gradient(whole, logits), rtol=1e-8, atol=1e-12)


@each_loss
def test_reductions(case):
    """The loss of every sample as if it were alone, and the sum of those."""
    logits, target = batch(n=3)
    target[0] = 255
    each = build(case, 3, reduction="none")(logits, target)
    alone = torch.stack([build(case, 3)(logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert each.shape == (3,)
    assert torch.allclose(each, alone, rtol=1e-10)
    assert each[0] == 0
    total = build(case, 3, reduction="sum")(logits, target)
    assert torch.allclose(gradient(total, logits), gradient(alone.sum(), logits), atol=1e-10)
    assert total.item() == pytest.approx(each.sum().item())


@each_loss
def test_several_ignored_labels(case):
    logits, target = batch()
    expected = build(case, 3)(logits, target)
    target[0] = target[0].where(target[0] != 255, -1)
    assert torch.equal(build(case, 3, ignore_index=(255, -1))(logits, target), expected)
    with pytest.raises(ValueError, match=r"target holds -1 in .*ignore_index=255"):
        build(case, 3)(logits, target)


@each_loss
def test_mask_of_pixels_is_like_ignoring_them(case):
    logits, target = batch()
    mask = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    loss = build(case, 3)
    expected = loss(logits, target.masked_fill(~mask, 255))
    assert torch.equal(loss(logits, target, mask=mask), expected)
    assert torch.equal(loss(logits, target, mask=mask.unsqueeze(1)), expected)
    assert torch.equal(loss.counts(target, mask=mask), loss.counts(target.masked_fill(~mask, 255)))
    # What is masked may hold anything.
    assert torch.equal(loss(logits, target.masked_fill(~mask, 77), mask=mask), expected)


@each_loss
def test_mask_of_samples_is_like_leaving_them_out(case):
    logits, target = batch(n=3)
    mask = torch.tensor([True, False, True])
    loss = build(case, 3)
    value, parts = loss(logits, target, mask=mask, return_parts=True)
    expected, expected_parts = loss(logits[mask], target[mask], return_parts=True)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert parts == {name: pytest.approx(part.item()) for name, part in expected_parts.items()}
    assert torch.equal(loss.counts(target, mask=mask), loss.counts(target[mask]))


@each_loss
def test_masks_that_do_not_fit(case):
    logits, target = batch()
    with pytest.raises(ValueError, match="mask must be bool"):
        build(case, 3)(logits, target, mask=torch.ones(2))
    with pytest.raises(ValueError, match="mask must have shape"):
        build(case, 3)(logits, target, mask=torch.ones(2, 3, dtype=torch.bool))


def as_maps(target, classes):
    """One-hot maps of class ids, 255 in all of them where ignored."""
    valid = target != 255
    maps = F.one_hot(target.where(valid, 0), classes).movedim(-1, 1).double()
    return maps.masked_fill(~valid.unsqueeze(1), 255)


MULTICLASS = pytest.mark.parametrize("case", [case for case in LOSSES if case not in ("pyramid", "affinity")])
SIGMOID = pytest.mark.parametrize("case", ["rmi", "rmi-max", "bce"])


@MULTICLASS
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_one_hot_probabilities_are_class_ids(case, class_weights):
    logits, target = batch()
    loss = build(case, 3, class_weights=class_weights)
    value, expected = loss(logits, as_maps(target, 3)), loss(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)
    assert torch.allclose(loss.counts(as_maps(target, 3)).double(), loss.counts(target).double())


def test_cross_entropy_of_probabilities_is_that_of_torch():
    logits, _ = batch(stride=1)
    soft = torch.rand(2, 3, 24, 28, dtype=torch.float64).softmax(dim=1)
    value, expected = CELoss(3)(logits, soft), F.cross_entropy(logits, soft)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-12)


@MULTICLASS
def test_mixup_at_its_ends_and_between(case):
    """Pixel losses are linear in the target; RMI is least, among these, where prediction and target agree."""
    logits, target = batch(ignored=0)
    first, second = as_maps(target, 3), as_maps(target.roll(5, 2), 3)
    loss = build(case, 3)
    mixed = loss.terms(logits, 0.3 * first + 0.7 * second).sums[0]
    ends = [loss.terms(logits, maps).sums[0] for maps in (first, second)]
    assert mixed.item() == pytest.approx(0.3 * ends[0].item() + 0.7 * ends[1].item(), rel=1e-9)


@SIGMOID
@pytest.mark.parametrize("stride", [1, 2])
def test_binary_is_the_second_of_two_classes(case, stride):
    logits, target = batch(c=2, stride=stride)
    logits = logits[:, 1:].detach().requires_grad_()
    loss = build(case, 1, mode="binary")
    value = loss(logits, target)
    # One class, whose mask is given as a map.
    expected = build(case, 1)(
        logits, (target == 1).unsqueeze(1).double().masked_fill((target == 255).unsqueeze(1), 255)
    )
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)
    ignored = (target == 255).unsqueeze(1)
    for same in (target.unsqueeze(1), target.to(torch.uint8), target.float(), target.unsqueeze(1).double()):
        assert loss(logits, same).item() == pytest.approx(value.item(), rel=1e-6)
        assert torch.equal(loss.counts(same), loss.counts(target))
    assert loss(logits.squeeze(1), target).item() == value.item()
    assert loss(logits, (target == 1), mask=~ignored).item() == value.item()
    with pytest.raises(ValueError, match=r"target holds -0\.5, .* probabilities must be from 0 to 1"):
        loss(logits, target.float() - 0.5)
    target[0, 0, 0] = 2
    with pytest.raises(ValueError, match=r"target holds 2 in 1 pixels, .* labels must be 0 to 1 or ignore_index=255"):
        loss(logits, target)


@SIGMOID
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float64])
def test_multilabel_masks_without_overlap_are_classes(case, dtype, class_weights):
    logits, target = batch(stride=2)
    loss = build(case, 3, mode="multilabel", class_weights=class_weights)
    value = loss(logits, as_maps(target, 3).to(dtype))
    expected = build(case, 3, class_weights=class_weights)(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-10)


@SIGMOID
def test_multilabel_classes_are_on_their_own(case):
    """Overlapping masks, of which some are not known: the sum of binary losses."""
    logits, _ = batch(ignored=0)
    masks = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(0))
    masks[0, 1, :12] = 255
    loss, binary = build(case, 3, mode="multilabel"), build(case, 1, mode="binary")
    total = loss.terms(logits, masks)
    each = [binary.terms(logits[:, c : c + 1], masks[:, c]) for c in range(3)]
    assert torch.allclose(total.sums, sum(terms.sums for terms in each))
    assert total.counts[0] == pytest.approx(sum(terms.counts[0] for terms in each) / 3)
    assert torch.equal(loss.counts(masks), total.counts)
    masks[1, 2, 3, 4] = 7
    with pytest.raises(ValueError, match="target holds 7 in 1 pixels, first at sample 1, class 2, row 3, column 4"):
        loss(logits, masks)


@MULTICLASS
@pytest.mark.parametrize("soft", [False, True])
def test_from_probabilities(case, soft):
    logits, target = batch(stride=1)
    target = as_maps(target, 3) if soft else target
    softmax = case in ("ce", "rmi-interp-ce")
    probabilities = logits.softmax(dim=1) if softmax else logits.sigmoid()
    loss = build(case, 3, from_probabilities=True)
    value = loss(probabilities, target)
    if case == "rmi-interp-ce":  # RMI sees the softmax here
        assert value.isfinite()
        pixel = F.nll_loss(probabilities.log(), target.argmax(1) if soft else target, ignore_index=255)
        assert soft or loss(probabilities, target, return_parts=True)[1]["pixel"].item() == pytest.approx(pixel.item())
        return
    expected = build(case, 3)(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-7)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), atol=1e-8)


@MULTICLASS
def test_from_probabilities_at_the_ends_and_beyond(case):
    _, target = batch()
    certain = as_maps(target, 3).clamp(max=1).float().requires_grad_()
    loss = build(case, 3, from_probabilities=True)
    value = loss(certain, target)
    value.backward()
    assert value.isfinite()
    assert certain.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"from_probabilities=True takes values from 0 to 1, got -3 to 5"):
        loss(certain.detach() * 8 - 3, target)
    assert build(case, 3, from_probabilities=True, check_target=False)(certain.detach() * 8 - 3, target).isnan()


@MULTICLASS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_volumes(case, dtype):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 8, 9, 10), generator=generator)
    target[:, 0] = 255
    logits = torch.randn(2, 3, 4, 5, 5, generator=generator).to(dtype).requires_grad_()
    loss = build(case, 3)
    value = loss(logits, target)
    value.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.dtype == dtype
    expected = build(case, 3, implementation="plain")(logits.detach().double(), target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    target[1, 2, 3, 4] = 9
    with pytest.raises(ValueError, match=r"target holds 9 .* sample 1, slice 2, row 3, column 4"):
        loss(logits, target)


@pytest.mark.parametrize("case", ["rmi", "ce"])
def test_soft_targets_compile_and_keep_what_users_count_on(case):
    logits, target = batch(stride=2)
    logits = logits.detach().float().requires_grad_()
    soft, loss = as_maps(target, 3).float(), build(case, 3)
    expected = loss(logits, soft)
    torch._dynamo.reset()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(logits, soft)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient(value, logits), gradient(expected, logits), rtol=1e-4, atol=1e-7)
    nothing = loss(logits, torch.full_like(soft, 255))
    assert nothing.item() == 0
    assert not gradient(nothing, logits).any()
    infinite = loss(logits * float("inf"), soft)
    assert not infinite.isfinite()
    assert not gradient(infinite, logits).isfinite().any()
    unchecked = build(case, 3, check_target=False)
    assert unchecked(logits, soft + 1.5).isnan()
    assert loss(logits[:0], soft[:0]).item() == 0
    channels_last = logits.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    again = loss(channels_last, soft)
    assert torch.allclose(gradient(again, channels_last), gradient(expected, logits), rtol=1e-4, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(logits, soft), expected)


def test_targets_that_do_not_fit_a_mode():
    logits, target = torch.randn(2, 3, 24, 28), torch.zeros(2, 24, 28, dtype=torch.long)
    one_hot = F.one_hot(target, 3).movedim(-1, 1)
    for loss, bad, message in (
        (RMILoss(3), one_hot, r"one-hot targets must be floating point; class ids, target.argmax\(1\), are faster"),
        (RMILoss(3), one_hot[:, :2].float(), "num_classes=3 maps in dimension 1"),
        (RMILoss(3, mode="multilabel"), target, r"target must have shape \(N, C, H, W\)"),
        (RMILoss(3, mode="multilabel"), one_hot[:, :2], "num_classes=3 maps in dimension 1"),
        (RMILoss(3), one_hot.float().requires_grad_(), r"use target.detach\(\)"),
        (build("pyramid", 3), one_hot.float(), "PyramidLoss takes class ids"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(logits, bad)
    with pytest.raises(ValueError, match="class ids of volumes must be integers"):
        RMILoss(3)(torch.randn(2, 3, 8, 24, 28), torch.zeros(2, 8, 24, 28))
    with pytest.raises(ValueError, match=r"is \(2, 7, 8\) after pooling by 4, too small for regions of 3 x 3 x 3"):
        RMILoss(3)(torch.randn(2, 3, 4, 24, 28), torch.zeros(2, 4, 24, 28, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "multi"}, "mode must be one of multiclass, binary, multilabel; got 'multi'"),
        ({"reduction": "batchmean"}, "reduction must be one of mean, sum, none"),
        ({"mode": "binary"}, "mode='binary' has one logit a pixel, so num_classes must be 1; got 3"),
        ({"mode": "multilabel", "pixel_loss": "ce"}, "with mode='multilabel' use 'bce'"),
    ],
)
def test_loss_options_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        RMILoss(3, **options)
    with pytest.raises(ValueError, match="CELoss has no mode 'binary'"):
        CELoss(1, mode="binary")


def test_nonsense_that_would_train_nothing():
    with pytest.raises(ValueError, match="not all 0"):
        RMILoss(3, class_weights=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="init_step must be from 0 to max_steps, which is 10, got 11"):
        AffinityLoss(3, max_steps=10, init_step=11)

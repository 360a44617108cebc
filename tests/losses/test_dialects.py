"""Class weights, reductions, masks, several ignored labels: what users of other losses ask of any loss."""

import pytest
import torch
import torch.nn.functional as F
from test_definitions import LOSSES, build, random_batch

from rmiseg.losses import BCELoss, CELoss, RMILoss
from rmiseg.losses.functional import RMI_FLOOR

each_loss = pytest.mark.parametrize("case", LOSSES)
implementations = pytest.mark.parametrize("implementation", ["auto", "chunked", "plain"])

WEIGHTS = [0.5, 2.0, 0.0]


def batch(seed=0, n=2, c=3, h=24, w=28, stride=1, ignored=0.1):
    logits, target = random_batch(seed, n, c, h, w, stride, ignored)
    return torch.tensor(logits, requires_grad=True), torch.tensor(target)


def gradient(value, logits):
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


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


@each_loss
def test_weighted_terms_of_micro_batches_add_up(case):
    logits, target = batch(n=4)
    with torch.no_grad():
        target[0, :12] = 255
    loss = build(case, 3, class_weights=WEIGHTS)
    whole = loss(logits, target)
    micro = [loss.terms(logits[i : i + k], target[i : i + k]) for i, k in ((0, 1), (1, 3))]
    counts = sum(loss.counts(target[i : i + k]) for i, k in ((0, 1), (1, 3)))
    assert torch.allclose(counts, sum(terms.counts for terms in micro), rtol=1e-12)
    total = sum(loss.combine(terms.sums, counts) for terms in micro)
    assert total.item() == pytest.approx(whole.item(), rel=1e-10)
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

"""Dice, Lovasz, OHEM, focal and smoothed labels: against plain definitions, and what ignored pixels do to them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rmiseg.config import LossConfig
from rmiseg.losses import build_loss
from rmiseg.training.criterion import Criterion
from support.loss_cases import value_and_gradient

CASES = {
    "dice": {"smooth": 0.5},
    "lovasz": {},
    "lovasz-image": {"per_image": True},
    "ohem": {"threshold": 0.6, "least": 0.2},
    "focal": {"gamma": 1.5},
    "ce": {"label_smoothing": 0.1},
}
each_loss = pytest.mark.parametrize("case", CASES)


def make(case, classes=4, **options):
    return build_loss(case.split("-")[0], num_classes=classes, **CASES[case], **options)


def batch(n=2, c=4, h=9, w=13, ignored=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, h, w, generator=generator, dtype=dtype).mul_(2)
    target = torch.randint(0, c - 1, (n, h, w), generator=generator)  # the last class is absent
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits, target


def lovasz(p, y):
    """Sums over the thresholds of the Jaccard loss of the set of pixels whose error is at least that (definition)."""
    total = []
    for c in y.unique():
        truth = (y == c).double()
        errors = (truth - p[:, c]).abs()
        order = errors.argsort(descending=True)
        value, before = 0.0, 0.0
        for k in range(len(order)):
            wrong = torch.zeros_like(truth)
            wrong[order[: k + 1]] = 1
            predicted = torch.where(wrong.bool(), 1 - truth, truth)
            jaccard = 1 - (predicted * truth).sum() / torch.maximum(predicted, truth).sum()
            value = value + errors[order[k]] * (jaccard - before)
            before = jaccard
        total.append(value)
    return sum(total) / len(total)


def definition(case, logits, target):
    valid = target != 255
    if case == "lovasz-image":
        return sum(definition("lovasz", x[None], y[None]) for x, y in zip(logits, target)) / len(logits)
    x, y = logits.movedim(1, -1)[valid], target[valid]
    p, entropy = x.softmax(dim=1), F.cross_entropy(x, y, reduction="none")
    if case == "dice":
        truth, s = F.one_hot(y, p.shape[1]), CASES[case]["smooth"]
        dice = 1 - (2 * (p * truth).sum(0) + s) / (p.sum(0) + truth.sum(0) + s)
        return dice[truth.any(0)].mean()
    if case == "lovasz":
        return lovasz(p, y)
    if case == "focal":
        return ((1 - p.gather(1, y[:, None])[:, 0]) ** CASES[case]["gamma"] * entropy).mean()
    if case == "ce":
        return 0.9 * entropy.mean() - 0.1 * p.log().mean()
    hard = entropy[p.gather(1, y[:, None])[:, 0] < CASES[case]["threshold"]]
    least = -(-len(entropy) // 5)
    return hard.mean() if len(hard) >= least else entropy.topk(least).values.mean()


@each_loss
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_definition(case, ignored):
    logits, target = batch(ignored=ignored)
    found, gradient = value_and_gradient(make(case), logits, target)
    expected, expected_gradient = value_and_gradient(lambda x, y: definition(case, x, y), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("name", "member", "options"), [("dice", "Dice", {"smooth": 0.0}), ("lovasz", "Lovasz", {})])
def test_as_in_segmentation_models_pytorch(name, member, options):
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = batch(dtype=torch.float32)
    logits = logits[:, :3]  # where every class is there, means over classes agree
    other = getattr(losses, f"{member}Loss")("multiclass", ignore_index=255, **options)
    expected, expected_gradient = value_and_gradient(other, logits, target)
    found, gradient = value_and_gradient(build_loss(name, num_classes=3, **options), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert (gradient - expected_gradient).norm() <= 1e-3 * expected_gradient.norm()


def test_label_smoothing_as_in_torch():
    logits, target = batch()
    weights = [0.5, 1.0, 2.0, 4.0]
    expected = F.cross_entropy(logits, target, torch.tensor(weights).double(), ignore_index=255, label_smoothing=0.1)
    found = build_loss("ce", num_classes=4, label_smoothing=0.1, class_weights=weights)(logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    soft = F.one_hot(target.clamp(max=3), 4).movedim(-1, 1).double().masked_fill((target == 255)[:, None], 255)
    again = build_loss("ce", num_classes=4, label_smoothing=0.1)(logits, soft)
    assert again.item() == pytest.approx(make("ce")(logits, target).item(), rel=1e-6)


@each_loss
def test_ignored_pixels_change_neither_value_nor_gradient(case):
    logits, target = batch()
    ignored = (target == 255).unsqueeze(1)
    found, gradient = value_and_gradient(make(case), logits, target)
    changed = torch.where(ignored, 7 * torch.randn_like(logits), logits)
    again, other = value_and_gradient(make(case), changed, target)
    assert found.item() == pytest.approx(again.item(), rel=1e-12)
    assert torch.allclose(gradient, other)
    assert (gradient.masked_select(ignored) == 0).all()


@each_loss
def test_nothing_valid_gives_zero(case):
    logits, target = batch()
    value, gradient = value_and_gradient(make(case), logits, torch.full_like(target, 255))
    assert value == 0
    assert (gradient == 0).all()


@each_loss
def test_small_half_precision_logits(case):
    logits, target = batch(h=8, w=12, dtype=torch.float32)
    small = logits[..., ::2, ::2].half()
    value, gradient = value_and_gradient(make(case), small, target)
    full = F.interpolate(small.float(), (8, 12), mode="bilinear")
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.float16
    assert value.item() == pytest.approx(make(case)(full, target).item(), rel=1e-6)


@each_loss
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite(case, wrong):
    logits, target = batch()
    logits[0, 1, 4, 5], target[0, 4, 5] = wrong, 0
    value, gradient = value_and_gradient(make(case), logits, target)
    assert not value.isfinite()
    assert not gradient.isfinite().all()


@each_loss
def test_sure_and_right_is_zero(case):
    _, target = batch()
    logits = 80 * F.one_hot(target.clamp(max=3), 4).movedim(-1, 1).double()
    value, gradient = value_and_gradient(make(case), logits, target)
    if case != "ce":  # which smoothed labels do not let be sure
        assert value.item() == pytest.approx(0, abs=1e-9)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dice", {"smooth": -1}, "smooth must be 0 or more, not -1"),
        ("ohem", {"threshold": 0}, "threshold must be above 0 and at most 1, not 0"),
        ("ohem", {"least": 2}, "least must be above 0"),
        ("focal", {"gamma": -1}, "gamma must be 0 or more"),
        ("ce", {"label_smoothing": 1.5}, "label_smoothing must be a share"),
        ("lovasz", {"num_classes": 1}, "lovasz needs at least 2 classes"),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, **{"num_classes": 3, **options})


def test_added_in_training():
    """With a weight alone, or with options beside it."""
    logits, target = batch(dtype=torch.float32)
    plus = {"dice": 0.5, "ohem": {"weight": 2.0, "least": 0.5, "threshold": 0.1}}
    criterion = Criterion(LossConfig(name="ce", plus=plus), 4, total_steps=10)
    value, parts = criterion(logits, None, target, criterion.counts(target), 0)
    terms = [
        build_loss("ce", num_classes=4),
        build_loss("dice", num_classes=4),
        build_loss("ohem", num_classes=4, least=0.5, threshold=0.1),
    ]
    expected = [term(logits, target).item() for term in terms]
    assert value.item() == pytest.approx(expected[0] + 0.5 * expected[1] + 2 * expected[2], rel=1e-5)
    assert parts["plus ohem"] == pytest.approx(expected[2], rel=1e-5)
    for wrong, message in (({"least": 0.5}, "ohem needs a weight"), ({"weight": 1.0, "leest": 1}, "no option of that")):
        with pytest.raises(ValueError, match=message):
            Criterion(LossConfig(name="ce", plus={"ohem": wrong}), 4, total_steps=10)

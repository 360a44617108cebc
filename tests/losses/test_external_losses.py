"""Losses of other libraries: of exactly the pixels that count, and otherwise as the library has them."""

import sys

import pytest
import torch

from rmiseg.config.registry import find
from rmiseg.losses import build_loss
from support.loss_cases import value_and_gradient

CLASSES = 3
CASES = {
    "smp:Dice": {},
    "smp:DiceLoss": {"log_loss": True, "smooth": 1.0},
    "smp:Jaccard": {"class_weights": [1.0, 2.0, 0.5]},
    "smp:Tversky": {"alpha": 0.3, "beta": 0.7, "gamma": 1.5},
    "smp:Focal": {"gamma": 1.0},
    "smp:Lovasz": {},
    "smp:LovaszLoss": {"per_image": True},
    "smp:SoftCE": {"smooth_factor": 0.1},
    "smp:SoftCrossEntropy": {},
    "monai:Dice": {},
    "monai:DiceLoss": {"batch": True, "squared_pred": True},
    "monai:DiceCE": {"lambda_ce": 0.5},
    "monai:DiceCELoss": {"weight": [1.0, 2.0, 0.5], "batch": True},
    "monai:DiceFocal": {},
    "monai:GeneralizedDice": {"include_background": False},
    "monai:GeneralizedDiceFocal": {},
    "monai:Tversky": {"alpha": 0.3, "beta": 0.7},
    "monai:Focal": {"gamma": 1.0},
}
each_loss = pytest.mark.parametrize("name", CASES)


def make(name, **options):
    prefix, _, member = name.partition(":")
    pytest.importorskip("segmentation_models_pytorch" if prefix == "smp" else "monai")
    return find("loss", name).make(member, num_classes=CLASSES, **CASES.get(name, {}), **options)


def batch(n=2, ignored=True, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, CLASSES, 9, 11, generator=generator, dtype=dtype).mul_(2)
    target = torch.randint(0, CLASSES, (n, 9, 11), generator=generator)
    if ignored:
        target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    return logits, target


@each_loss
def test_without_ignored_pixels_it_is_the_loss_of_the_library(name):
    logits, target = batch(ignored=False)
    loss = make(name)
    found, gradient = value_and_gradient(loss, logits, target)
    inner = loss.loss  # of whole images
    labels = target if name.startswith("smp") else target.unsqueeze(1)
    expected, expected_gradient = value_and_gradient(lambda x, y: inner(x, labels), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-8)


@each_loss
def test_ignored_pixels_change_neither_value_nor_gradient(name):
    logits, target = batch()
    ignored = (target == 255).unsqueeze(1)
    changed = torch.where(ignored, 7 * torch.randn(logits.shape), logits)
    found, gradient = value_and_gradient(make(name), logits, target)
    again, other_gradient = value_and_gradient(make(name), changed, target)
    assert torch.equal(found, again)
    assert torch.equal(gradient, other_gradient)
    assert (gradient.masked_select(ignored) == 0).all()
    assert gradient.abs().sum() > 0


@each_loss
def test_ignored_pixels_are_as_if_they_were_cut_off(name):
    logits, target = batch(ignored=False)
    expected, expected_gradient = value_and_gradient(make(name), logits[..., :7], target[..., :7])
    target[..., 7:] = 255
    found, gradient = value_and_gradient(make(name), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient[..., :7], expected_gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["Dice", "Jaccard", "Tversky", "Focal", "Lovasz"])
def test_where_smp_ignores_pixels_rightly_it_is_the_same(name):
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = batch()
    expected, expected_gradient = value_and_gradient(
        getattr(losses, f"{name}Loss")("multiclass", ignore_index=255), logits, target
    )
    found, gradient = value_and_gradient(build_loss(f"smp:{name}", num_classes=CLASSES), logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-8)


def test_soft_cross_entropy_divides_by_the_pixels_that_count():
    logits, target = batch()
    found = make("smp:SoftCrossEntropy")(logits, target)
    expected = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@each_loss
def test_nothing_valid_gives_zero(name):
    logits, target = batch()
    value, gradient = value_and_gradient(make(name), logits, torch.full_like(target, 255))
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", ["monai:Dice", "monai:DiceCE", "smp:LovaszLoss"])
def test_samples_without_a_valid_pixel_are_left_out(name):
    logits, target = batch()
    expected = make(name)(logits[:1], target[:1])
    target[1] = 255
    assert make(name)(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["smp:Dice", "monai:Dice"])
def test_ignored_labels_can_be_chosen(name):
    logits, target = batch()
    expected = make(name)(logits, target)
    moved = target.masked_fill(target == 255, -1)
    assert torch.equal(make(name, ignore_index=-1)(logits, moved), expected)
    assert torch.equal(make(name, ignore_index=[255, -1])(logits, moved), expected)
    with pytest.raises(ValueError, match="target holds 255"):
        make(name, ignore_index=None)(logits, target)


@pytest.mark.parametrize("name", ["smp:Dice", "monai:Dice"])
def test_small_half_precision_logits(name):
    logits, target = batch()
    loss = make(name)
    small = logits[..., ::2, ::2].half()
    full = torch.nn.functional.interpolate(small.float(), (9, 11), mode="bilinear")
    value, gradient = value_and_gradient(loss, small, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.float16
    assert value.item() == pytest.approx(loss(full, target).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("smp:Dise", {}, ValueError, "unknown loss 'smp:Dise'; those of smp are Dice, .*did you mean smp:Dice"),
        ("smp:MCC", {}, ValueError, "'smp:MCC' cannot be taken: it is for two classes, and takes probabilities; those"),
        ("smp:SoftBCEWithLogitsLoss", {}, ValueError, "masks that may overlap"),
        ("monai:HausdorffDTLoss", {}, ValueError, "it asks for the neighbors of a pixel"),
        ("monai:Perceptual", {}, ValueError, "unknown loss 'monai:Perceptual'; those of monai are Dice, DiceCE"),
        ("smp:Dice", {"mode": "binary"}, ValueError, "mode cannot be chosen; it is 'multiclass' here"),
        ("monai:Dice", {"sigmoid": True}, ValueError, "sigmoid cannot be chosen"),
        ("smp:Focal", {"reduction": "none"}, ValueError, "reduction cannot be chosen"),
        ("smp:Dice", {"smoth": 1}, TypeError, "smp:Dice has no option smoth; its options are classes, log_loss"),
        ("smp:Dice", {"num_classes": 1}, ValueError, "needs at least 2 classes"),
    ],
)
def test_what_cannot_be_is_refused(name, options, error, message):
    pytest.importorskip("segmentation_models_pytorch" if name.startswith("smp") else "monai")
    with pytest.raises(error, match=message):
        build_loss(name, **{"num_classes": 3, **options})


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("smp:Dice", "segmentation_models_pytorch.losses", "smp"), ("monai:Dice", "monai.losses", "monai")],
)
def test_missing_library_names_the_extra(name, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf'the loss {name} needs .*pip install "\.\[{extra}\]"'):
        build_loss(name, num_classes=3)

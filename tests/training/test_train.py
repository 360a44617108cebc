"""One training step, and the options that change it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from rmiseg.config import DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from rmiseg.config.registry import find
from rmiseg.data import IGNORE_INDEX, ClassTable, Sample, Split, normalize
from rmiseg.evaluation.evaluate import evaluate_model
from rmiseg.losses import build_loss
from rmiseg.models import build_model
from rmiseg.training.assembly import complete, train_dataset
from rmiseg.training.criterion import Criterion
from rmiseg.training.optim import build_optimizer
from rmiseg.training.step import TrainStep, grouped

LOSSES = ["rmi", "ce", "bce", "pyramid", "affinity", "focal"]


class Tiny(nn.Module):
    """One convolution at stride 2, and an auxiliary head."""

    image_mean, image_std, num_classes = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 3

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 3, 3, stride=2, padding=1)

    def forward(self, images):
        logits = self.backbone(images)
        return logits, 0.5 * logits


def batch(images, masks, names="ab"):
    return {"image": images, "mask": masks, "name": list(names)}


@pytest.mark.parametrize("class_weights", [None, [1.0, 0.2, 3.0]])
@pytest.mark.parametrize("loss", LOSSES)
def test_accumulated_batches_are_one_large_batch(loss, class_weights):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8, generator=generator)
    masks = torch.randint(0, 3, (5, 48, 48), dtype=torch.uint8, generator=generator)
    masks[0, :40] = 255  # so that batches differ in how many pixels count
    gradients, losses = [], []
    for batches in ([batch(images, masks)], [batch(images[:2], masks[:2]), batch(images[2:], masks[2:])]):
        torch.manual_seed(1)
        model = Tiny()
        optimizer = build_optimizer(model, OptimConfig(lr=0.1, momentum=0.0, weight_decay=0.0))
        before = model.backbone.weight.detach().clone()
        criterion = Criterion(LossConfig(name=loss, class_weights=class_weights), 3, total_steps=10)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        take_step = TrainStep(model, model, criterion, optimizer, scaler, None, torch.device("cpu"))
        losses.append(take_step(batches, 2).parts["loss"])
        gradients.append(before - model.backbone.weight.detach())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (gradients[1] - gradients[0]).norm() <= 1e-4 * gradients[0].norm()


def test_auxiliary_head_has_its_share():
    generator = torch.Generator().manual_seed(0)
    logits, auxiliary = torch.randn(2, 2, 3, 24, 24, generator=generator)
    target = torch.randint(0, 3, (2, 48, 48), generator=generator)
    criterion = Criterion(LossConfig(name="ce", aux_weight=0.4), 3, total_steps=10)
    counts = criterion.counts(target)
    _, alone = criterion(logits, None, target, counts, 0)
    _, other = criterion(auxiliary, None, target, counts, 0)
    _, both = criterion(logits, auxiliary, target, counts, 0)
    assert both["loss"].item() == pytest.approx((alone["loss"] + 0.4 * other["loss"]).item())
    assert both["auxiliary"].item() == pytest.approx(other["loss"].item())


@pytest.mark.parametrize("loss", LOSSES)
def test_class_weights_reach_the_loss_and_the_auxiliary_loss(loss):
    generator = torch.Generator().manual_seed(0)
    logits, auxiliary = torch.randn(2, 2, 3, 24, 24, generator=generator)
    target = torch.randint(0, 3, (2, 48, 48), generator=generator)
    weights = [0.5, 1.0, 4.0]
    criterion = Criterion(LossConfig(name=loss, class_weights=weights, aux_weight=0.4), 3, total_steps=10)
    _, parts = criterion(logits, auxiliary, target, criterion.counts(target), 0)
    low = F.interpolate(auxiliary, (48, 48), mode="bilinear")
    expected = F.cross_entropy(low, target, torch.tensor(weights)).item()
    assert parts["auxiliary"].item() == pytest.approx(expected, rel=1e-5)
    unweighted = Criterion(LossConfig(name=loss, aux_weight=0.4), 3, total_steps=10)
    _, without = unweighted(logits, None, target, unweighted.counts(target), 0)
    main = (parts["loss"] - 0.4 * parts["auxiliary"]).item()
    assert main != pytest.approx(without["loss"].item(), rel=1e-3)


def test_grouped():
    assert list(grouped(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(grouped([], 2)) == []


@pytest.mark.parametrize(
    ("image_scale", "largest", "reduction"),
    [(1.0, 2.0, 1), (0.5, 1.25, 1), (0.5, 1.0, 2), (0.1, 2.0, 4), (0.01, 2.0, 8)],
)
def test_large_photographs_are_read_at_reduced_size(tmp_path, image_scale, largest, reduction):
    """And image and mask stay together."""
    ids = np.random.default_rng(0).integers(0, 2, (3, 4), dtype=np.uint8).repeat(200, 0).repeat(200, 1)
    Image.fromarray(ids).save(tmp_path / "m.png")
    Image.fromarray(255 * ids).save(tmp_path / "i.jpg")
    classes = ClassTable(("a", "b"), (0, 1), (), ((0, 0, 0), (9, 9, 9)))
    split = Split("train", (Sample("i", tmp_path / "i.jpg", tmp_path / "m.png"),), classes)
    config = DataConfig(crop_size=(40, 40), image_scale=image_scale, scale_range=(largest / 2, largest), scale_step=0)
    dataset = train_dataset(split, config)
    assert dataset.reduction == reduction
    assert dataset.transform.transforms[0].image_scale == image_scale * reduction
    for seed in range(4):
        item = dataset[0, seed]
        assert item["mask"].shape == (40, 40)
        valid = item["mask"] != IGNORE_INDEX
        assert ((item["image"][0] > 127) == (item["mask"] == 1))[valid].float().mean() > 0.9


def test_frozen_norm_stays_as_it_is_in_training_mode():
    model = build_model("deeplabv3plus", num_classes=2, backbone="test_efficientnet", weights="none")
    model.freeze_norm()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, OptimConfig(lr=0.1))
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    moved = {name.rpartition(".")[0] for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert norms
    assert moved
    assert not norms & moved


@pytest.mark.parametrize(("loss", "auxiliary"), [("rmi", "ce"), ("ce", "ce"), ("bce", "bce"), ("affinity", "affinity")])
def test_losses_of_the_original(loss, auxiliary):
    model = ModelConfig(name="pspnet", compat="original")
    asked = TrainConfig(model=model, loss=LossConfig(name=loss))
    config = complete(asked)
    assert (config.loss.align_corners, config.loss.aux_loss) == (True, auxiliary)
    assert complete(replace(asked, model=ModelConfig(name="pspnet"))).loss.aux_loss == "ce"
    criterion = Criterion(config.loss, 3, total_steps=10)
    logits, target = torch.randn(2, 3, 17, 17), torch.randint(3, (2, 33, 33))
    counts = criterion.counts(target)
    both, _ = criterion(logits, logits, target, counts, step=1)
    alone, _ = criterion(logits, None, target, counts, step=1)
    (expected, _), term = criterion.auxiliary(logits, target, counts[1], 1, 1.0), criterion.auxiliary
    assert type(term.loss) is find("loss", auxiliary).make
    torch.testing.assert_close(both, alone + 0.4 * expected)


def test_the_original_aligns_corners():
    loss = LossConfig(align_corners=False)
    with pytest.raises(ValueError, match=r"leave loss\.align_corners out"):
        complete(TrainConfig(model=ModelConfig(compat="original"), loss=loss))
    with pytest.raises(ValueError, match="backbone is a ResNet"):
        complete(TrainConfig(model=ModelConfig(compat="original", backbone="convnext_atto")))


class Plain(Tiny):
    """Without the auxiliary head."""

    align_corners = False

    def forward(self, images):
        return self.backbone(images)


def test_loss_of_a_validation_image():
    """The mean of the images' losses at full size; images on which the loss is not defined are left out."""
    torch.manual_seed(0)
    model, criterion = Plain(), Criterion(LossConfig(), 3, total_steps=10)
    masks = [torch.randint(3, (1, *size), dtype=torch.uint8) for size in ((40, 50), (3, 4), (32, 32))]
    batches = [batch(torch.randint(256, (1, 3, *m.shape[1:]), dtype=torch.uint8), m, [f"{len(m)}"]) for m in masks]
    of_image = partial(criterion.of_image, step=1)
    evaluation = evaluate_model(model, batches, 3, loss=of_image)
    images = normalize(batches[0]["image"], model.image_mean, model.image_std)
    expected = build_loss("rmi", num_classes=3)(model(images), masks[0])
    assert evaluation.losses[0] == pytest.approx(expected.item(), rel=1e-5)
    assert np.isnan(evaluation.losses[1])  # smaller than a region
    assert evaluation.loss == pytest.approx((evaluation.losses[0] + evaluation.losses[2]) / 2)
    assert np.isnan(evaluate_model(model, batches, 3).loss)

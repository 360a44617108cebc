"""Models that classify masks: their logits of pixels, images of any size, training and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import EomtConfig, EomtDinov3Config, Mask2FormerConfig, MaskFormerConfig

from rmiseg.cli import main
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.models import build_model
from rmiseg.models.external.mask_classifiers import pixel_logits

pytestmark = pytest.mark.slow

CLASSES = 4


def config_of(kind: str) -> transformers.PretrainedConfig:
    """A configuration of few parameters."""
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    vit = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_blocks": 2, "num_queries": 7}
    detr = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 7}
    detr |= {f"{part}_{size}": 4 for part in ("encoder", "decoder") for size in ("attention_heads", "ffn_dim")}
    features = {"mask_feature_size": 32, "backbone_config": swin, "num_labels": CLASSES}
    if kind == "maskformer":
        return MaskFormerConfig(fpn_feature_size=32, decoder_config=transformers.DetrConfig(**detr), **features)
    if kind == "mask2former":
        layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "num_queries": 7}
        sizes = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "hidden_dim": 32, "feature_size": 32}
        return Mask2FormerConfig(**features, **layers, **sizes)
    if kind == "eomt":
        return EomtConfig(image_size=64, patch_size=16, num_labels=CLASSES, **vit)
    return EomtDinov3Config(image_size=64, patch_size=16, intermediate_size=32, num_labels=CLASSES, **vit)


@pytest.fixture
def saved(tmp_path):
    """Writes a random model of a kind, as the hub has them; gives the folder and the model."""

    def save(kind: str) -> tuple[Path, torch.nn.Module]:
        torch.manual_seed(0)
        model = transformers.AutoModelForUniversalSegmentation.from_config(config_of(kind))
        if kind.startswith("eomt"):
            model.attn_mask_probs.zero_()  # as at the end of their training
        model.save_pretrained(tmp_path / kind)
        return tmp_path / kind, model.eval()

    return save


def test_the_logits_are_of_the_sums_over_masks():
    generator = torch.Generator().manual_seed(1)
    classes = torch.randn(2, 9, CLASSES + 1, generator=generator, dtype=torch.float64)
    masks = 3 * torch.randn(2, 9, 5, 6, generator=generator, dtype=torch.float64)
    sums = np.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    assert sums.sum(1).max() > 1  # which no probabilities are
    expected = sums / np.maximum(sums.sum(1, keepdims=True), 1)
    logits = pixel_logits(classes, masks)
    np.testing.assert_allclose(logits.sigmoid(), expected, atol=2e-6)
    assert (logits.argmax(1).numpy() == sums.argmax(1)).all()


def test_logits_of_certain_masks_are_finite_and_so_are_their_gradients():
    classes = torch.tensor([[[100.0, 0.0, 0.0]]], requires_grad=True)
    masks = torch.tensor([[[[-300.0, 300.0, 0.0]]]], requires_grad=True)
    logits = pixel_logits(classes, masks)
    assert logits.isfinite().all()
    assert logits[0, :, 0, 1].tolist() == pytest.approx([13.8, -13.8], abs=0.1)
    logits.square().sum().backward()
    assert classes.grad.isfinite().all()
    assert masks.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["maskformer", "mask2former", "eomt", "eomt_dinov3"])
def test_the_model_is_that_of_transformers(saved, kind):
    folder, theirs = saved(kind)
    ours = build_model(f"hf:{folder}", num_classes=CLASSES).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output, logits = theirs(pixel_values=images), ours(images)
    expected = pixel_logits(output.class_queries_logits, output.masks_queries_logits)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["maskformer", "mask2former", "eomt", "eomt_dinov3"])
def test_images_of_any_size_and_a_step(saved, kind):
    model = build_model(f"hf:{saved(kind)[0]}", num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 139, 130)).shape == (1, 3, 35, 33)
    model.train()(torch.randn(2, 3, 96, 128)).square().mean().backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None and "layernorm" not in name]
    backbone = {id(each) for each in model.backbone.parameters()}
    assert (len(backbone) < len([*model.parameters()])) == (not kind.startswith("eomt"))


def test_positions_of_another_grid_are_between_the_learned_ones(saved):
    model = build_model(f"hf:{saved('eomt')[0]}", num_classes=CLASSES)
    positions = model.network.embeddings.position_embeddings
    ids = torch.arange(16)[None]
    positions.grid = positions.learned
    torch.testing.assert_close(positions(ids)[0], positions.weight)
    positions.grid = (8, 6)
    finer = positions(ids).detach().reshape(8, 6, -1)
    learned = positions.weight.detach().reshape(4, 4, -1)
    assert not torch.equal(finer[0], finer[1])
    torch.testing.assert_close(finer.mean((0, 1)), learned.mean((0, 1)), atol=0.2, rtol=0)


def test_train_evaluate_export(saved, shapes, tmp_path):
    folder, run = saved("eomt")[0], tmp_path / "run"
    options = ["--data.root", shapes, "--data.crop_size", "48,64", "--data.batch_size", "2", "--data.workers", "0"]
    options += ["--model.name", f"hf:{folder}", "--train.steps", "2", "--train.panels", "0", "--out", run]
    assert main(["train", *map(str, options)]) == 0
    (folder / "config.json").unlink()
    assert main(["evaluate", str(run)]) == 0
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "exported")]) == 0
    assert load_checkpoint(run).architecture["config"]["model_type"] == "eomt"

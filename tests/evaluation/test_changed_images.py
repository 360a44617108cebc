"""Evaluations of images that are others by now."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from miniatures import write_shapes
from rmiseg.config import DataConfig, EvaluateConfig, ModelConfig
from rmiseg.data import load_split
from rmiseg.evaluation.compare import compare_evaluations, print_comparison
from rmiseg.evaluation.scoring import evaluate, find_or_score
from rmiseg.inference.checkpoint import Checkpoint, save_checkpoint
from rmiseg.models import build_model


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    root = write_shapes(tmp_path / "data")
    classes = load_split("folder", root, "val").classes
    options = ModelConfig(backbone="test_efficientnet", weights="none")
    weights = build_model("deeplabv3plus", num_classes=3, backbone=options.backbone, weights="none").state_dict()
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    path.parent.mkdir(parents=True)
    save_checkpoint(path, Checkpoint(weights, options, DataConfig(root=str(root), workers=0), classes, 1, {}))
    return tmp_path / "run"


def _repaint(folder):
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            changed = Image.fromarray(255 - np.asarray(image))
        changed.save(path)


def _found(run, **options):
    console = Console(record=True, width=400, file=io.StringIO())
    saved = find_or_score(EvaluateConfig(checkpoint=str(run), device="cpu"), console, **options)
    return saved, "evaluating again" in console.export_text()


def test_changed_images_are_scored_again(run):
    first = evaluate(run, device="cpu")
    assert not _found(run)[1]
    _repaint(run.parent / "data" / "images")
    saved, again = _found(run, moved_to=str(run.parent / "data"))
    assert not again  # these are the same, somebody says
    saved, again = _found(run)
    assert again
    assert saved.report["fingerprint"] != first.report["fingerprint"]
    assert saved.report["confusion"] != first.report["confusion"]
    assert not _found(run)[1]
    (run.parent / "data").rename(run.parent / "elsewhere")
    assert not _found(run)[1]  # nothing is there to be looked at


def test_a_comparison_tells_of_other_images_of_the_same_names(run):
    first = evaluate(run, device="cpu")
    console = Console(record=True, width=400, file=io.StringIO())
    print_comparison(compare_evaluations(first, first, resamples=10, seed=0), console, images=1)
    assert "note:" not in console.export_text()
    _repaint(run.parent / "data" / "images")
    comparison = compare_evaluations(first, evaluate(run, device="cpu"), resamples=10, seed=0)
    assert comparison["images_changed"]
    print_comparison(comparison, console, images=1)
    assert "note: A and B were not scored on the same files" in console.export_text()

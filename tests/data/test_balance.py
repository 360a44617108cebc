"""Class weights from the frequencies of the classes."""

import numpy as np
import pytest
import yaml

from miniatures import write_image, write_values
from rmiseg.cli import main
from rmiseg.data import balanced_weights, load_split


@pytest.fixture
def root(tmp_path):
    """Two images of 16 pixels: 8 of class 0 and 4 of class 1; 6 of class 0, 2 of class 2; class 3 is nowhere."""
    for name, counts in (("a", {0: 8, 1: 4, 255: 4}), ("b", {0: 6, 2: 2, 255: 8})):
        values = [value for value, count in counts.items() for _ in range(count)]
        write_image(tmp_path / "images" / f"{name}.png", size=(4, 4))
        write_values(tmp_path / "masks" / f"{name}.png", np.array(values).reshape(4, 4))
    classes = yaml.safe_dump({"classes": ["ground", "tree", "house", "nothing"], "ignore": 255})
    (tmp_path / "dataset.yaml").write_text(classes)
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("a\nb\n")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_median_frequency(root, workers):
    frequencies = [14 / 20, 4 / 12, 2 / 8]
    expected = [(4 / 12) / frequency for frequency in frequencies] + [1.0]
    assert balanced_weights(load_split("folder", root, "train"), workers) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_training_writes_the_weights_down(root, tmp_path):
    options = {
        "data.root": root,
        "data.crop_size": "[16,16]",
        "data.batch_size": 2,
        "data.workers": 0,
        "out": tmp_path / "run",
    }
    options |= {"model.backbone": "resnet18", "model.weights": "none", "train.steps": 1, "loss.rmi.pool_size": 2}
    options |= {"loss.class_weights": "balanced"}
    assert main(["train", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["loss"]["class_weights"] == pytest.approx([0.47619, 1, 1.33333, 1])
    # what was written down is a recipe, and given weights are checked
    again = ["train", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert main([*again, "--out", str(tmp_path / "bad"), "--loss.class_weights", "[1, 2]"]) == 1

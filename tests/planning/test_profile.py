"""Facts of a data set and of a machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rmiseg.data import load_split
from rmiseg.planning import GIGABYTE, profile_data, this_machine
from rmiseg.planning.machine import parse_memory


def write(root, masks: list[np.ndarray], classes=("ground", "line", "block")):
    for index, mask in enumerate(masks):
        for folder, array in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks", mask.astype(np.uint8))):
            (root / folder / "train").mkdir(parents=True, exist_ok=True)
            (root / folder / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / "train" / f"{index}.png")
            Image.fromarray(array).save(root / folder / "val" / f"{index}.png")
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": list(classes)}))
    return [load_split("folder", root, name) for name in ("train", "val")]


def test_profile(tmp_path):
    mask = np.zeros((60, 80))
    mask[:, 10:12] = 1
    mask[20:40, 40:60] = 2
    mask[:, 70:] = 255
    facts = profile_data(*write(tmp_path, [mask, np.where(mask == 2, 0, mask)]))
    ground, line, block = facts.classes
    assert (facts.images, facts.val_images, facts.size, facts.masks) == (2, 2, (60, 80), 2)
    assert facts.ignored == pytest.approx(1 / 8)
    assert (line.width, block.width) == (2, pytest.approx(10))
    assert (line.images, block.images) == (2, 1)
    assert line.share == pytest.approx(120 / 4200)
    assert (facts.thinnest, facts.rarest) == (line, line)
    assert ground.name == "ground"


def test_upper_and_lower_halves(tmp_path):
    mask = np.zeros((61, 80))
    mask[:15, :] = 1
    assert profile_data(*write(tmp_path / "sky", [mask])).upright == pytest.approx(2 * 15 / 61)
    assert profile_data(*write(tmp_path / "turned", [mask, mask[::-1]])).upright == 0


def test_absent_classes_and_whole_images(tmp_path):
    facts = profile_data(*write(tmp_path, [np.zeros((8, 8))]))
    assert [each.images for each in facts.classes] == [1, 0, 0]
    assert facts.shown == facts.classes[:1]
    assert facts.thinnest.width == np.inf


def test_nothing_to_learn(tmp_path):
    with pytest.raises(ValueError, match="all pixels of the 1 masks that were looked at are ignored"):
        profile_data(*write(tmp_path, [np.full((8, 8), 255)]))


def test_images_of_20000_pixels(tmp_path):
    """Their headers are enough to say what to do."""
    train, val = write(tmp_path, [np.eye(8)])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "images/train/0.png")
    with pytest.raises(ValueError, match=r"0\.png is 20000 x 20000 pixels.*Cut it"):
        profile_data(train, val)
    Image.new("1", (20_000, 3000)).save(tmp_path / "images/train/0.png")
    assert profile_data(train, val).largest == (3000, 20_000)


def test_a_sample_of_many(tmp_path, monkeypatch):
    train, val = write(tmp_path, [np.eye(8)] * 9)
    monkeypatch.setattr("rmiseg.planning.profile.MASKS", 3)
    assert profile_data(train, val).masks == 3
    monkeypatch.setattr("rmiseg.planning.profile.PIXELS", 100)
    assert profile_data(train, val).masks == 2


@pytest.mark.parametrize(
    ("text", "gigabytes"), [("24 GB", 24), ("24gb", 24), ("24", 24), ("8192 MiB", 8), ("1.5 TB", 1536)]
)
def test_memory_of_a_gpu(text, gigabytes):
    assert parse_memory(text) == gigabytes * 2**30


@pytest.mark.parametrize("text", ["", "a lot", "-3 GB", "0 GB", "3 KB", "10000 TB"])
def test_no_memory_of_a_gpu(text):
    with pytest.raises(ValueError, match="24 GB"):
        parse_memory(text)


def test_machine():
    machine = this_machine(torch.device("cpu"))
    assert (machine.device, machine.memory, machine.has_gpu) == ("cpu", 0, False)
    assert machine.cores >= 1
    other = this_machine(torch.device("cpu"), "24 GB")
    assert (other.device, other.usable) == ("cuda", int(0.95 * 24 * 2**30))
    assert "24 GB" in str(other)


@pytest.mark.parametrize(("free", "expected"), [(23.0, 23.5), (24.0, 24.0), (9.0, 9.5)])
def test_memory_that_others_hold(free, expected, monkeypatch):
    """Counts as taken, that of this process does not: half a gigabyte by now, and what its tensors have."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * GIGABYTE), 24 * GIGABYTE))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    machine = this_machine(torch.device("cuda"))
    assert machine.memory / GIGABYTE == pytest.approx(expected, abs=0.02)
    assert f"{machine.memory / GIGABYTE:.0f} GB free" in str(machine)

"""Images of five bands from check to export, as somebody does who writes no code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmiseg.cli import main
from rmiseg.inference import sources
from rmiseg.inference.predictor import Predictor

tifffile = pytest.importorskip("tifffile")
pytestmark = pytest.mark.slow

PLACE = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
]
TRAINING = [
    *("--data.crop_size", "[32,32]", "--data.batch_size", "4", "--data.workers", "0", "--data.color_jitter", "0.1"),
    *("--model.backbone", "test_efficientnet", "--model.weights", "none", "--train.steps", "2"),
]


def write_data(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for index in range(count):
            values = rng.integers(100, 200, (40, 48, 5)) * np.array([1, 2, 4, 8, 16])
            mask = np.zeros((40, 48), np.uint8)
            mask[8:24, 8:30] = 1
            values[..., 4] += 3000 * mask.astype(np.int64)
            options = {"planarconfig": "contig", "photometric": "minisblack", "extratags": PLACE}
            tifffile.imwrite(
                root / "images" / split / f"{index}.tif", values.astype(np.uint16), compression="zlib", **options
            )
            Image.fromarray(mask).save(root / "masks" / split / f"{index}.png")
    (root / "dataset.yaml").write_text("classes: [ground, field]\nbands: {red: 3, green: 2, blue: 1}\n")


def test_five_bands_from_check_to_export(tmp_path, capsys, monkeypatch):
    root, run = tmp_path / "data", tmp_path / "run"
    write_data(root)
    assert main(["data", "check", "--root", str(root), "--workers", "0"]) == 0
    assert "images of 5 bands, of which 3, 2, 1 are red, green and blue" in capsys.readouterr().out
    assert main(["train", *TRAINING, "--data.root", str(root), "--out", str(run)]) == 0
    assert main(["train", *TRAINING, "--data.root", str(root), "--out", str(run), "--resume", "auto"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert main(["export", str(run), "--format", "torch-export,safetensors"]) == 0
    described = json.loads((run / "export" / "config.json").read_text())["data"]
    assert described["bands"] == len(described["value_range"]) == 5
    assert described["picture"] == [3, 2, 1]

    image = root / "images" / "val" / "0.tif"
    out = tmp_path / "out"
    options = ["--write", "index,overlay,geotiff", "--window", "32"]
    assert main(["predict", str(run), str(image), "--out", str(out), *options]) == 0
    ids = np.array(Image.open(out / "index" / "0.png"))
    with tifffile.TiffFile(out / "geotiff" / "0.tif") as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), ids)
        assert file.pages[0].tags[33922].value == PLACE[1][3]
    # The same in strips, read tile by tile.
    monkeypatch.setattr(sources, "LARGE", 1000)
    assert main(["predict", str(run), str(image), "--out", str(tmp_path / "strips"), *options]) == 0
    for name in ("index/0.png", "overlay/0.png", "geotiff/0.tif"):
        np.testing.assert_array_equal(
            np.array(Image.open(out / name)), np.array(Image.open(tmp_path / "strips" / name)), name
        )
    # What was exported predicts the same.
    whole = Predictor.from_run(run)(image)
    np.testing.assert_array_equal(Predictor.from_run(run / "export")(image), whole)
    np.testing.assert_array_equal(Predictor.from_run(run)(tifffile.imread(image)), whole)
    capsys.readouterr()
    other = tmp_path / "rgb.png"
    Image.new("RGB", (30, 30)).save(other)
    assert main(["predict", str(run), str(other), "--out", str(tmp_path / "rgb")]) == 1
    assert "it has 3 bands, and 5 are expected" in capsys.readouterr().err

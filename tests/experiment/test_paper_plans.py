"""The plans of the paper's tables, each with every row from end to end, on miniatures and with a small backbone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from miniatures import every, write_camvid, write_cityscapes, write_values, write_voc
from rmiseg.cli import main
from rmiseg.config.recipes import merged
from rmiseg.experiment import driver
from rmiseg.experiment.plan import read_plan

FOLDER = Path(__file__).parents[2] / "experiments"
TINY = {
    "data": {"crop_size": [65, 65], "batch_size": 2, "workers": 0},
    "model": {"backbone": "resnet10t", "weights": "none"},
    "optim": {"warmup_steps": 1},
    "train": {"steps": 2, "val_every": 2},
}
FILES = {
    "voc": ["comp6_test_cls/2008_000006.png", 6],
    "cityscapes": ["cityscapes/berlin_000000_000019_labelIds.png", 6],
    "camvid": ["*.png", 0],
}
"""What a test server takes, and the methods that have it."""


def write_data(name: str, folder: Path) -> Path:
    if name == "camvid":
        return write_camvid(folder)
    if name == "cityscapes":
        return write_cityscapes(folder)
    root = write_voc(folder)
    for image in ("2007_000032", "2007_000039", "2008_000002"):
        write_values(root / "SegmentationClassAug" / f"{image}.png", every(*range(21)))
    return root


def small(name: str, folder: Path) -> Path:
    """The plan of the paper on a data set, made small."""
    content = yaml.safe_load((FOLDER / f"{name}-paper.yaml").read_text())
    content["recipe"] = str((FOLDER / content["recipe"]).resolve())
    content["train"] = merged(content["train"], TINY)
    path = folder / f"{name}-paper.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_rows_of_the_paper():
    """As many as tables 1 and 3 have; RMI with average pooling by 4 and R 3, and by 6 and R 3, are rows of both."""
    plan = read_plan(FOLDER / "voc-paper.yaml")
    assert set(plan.published) == set(plan.rows)
    assert len(plan.rows) == 14 + 2 + 4 + 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["camvid", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("cityscapes", "voc"))]
)
def test_every_row_from_end_to_end(name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pydensecrf")

    def train_all(titles: dict[Path, str], *options: object) -> None:  # a process for each takes its time
        for recipe in titles:
            options[-1](recipe)
            assert main(["train", str(recipe)]) == 0

    monkeypatch.setattr(driver, "train_all", train_all)
    plan = small(name, tmp_path)
    arguments = ["experiment", str(plan), "--root", str(write_data(name, tmp_path / "data")), "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 0, capsys.readouterr().err
    rows = read_plan(plan).rows
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        assert sorted(row["method"] for row in csv.DictReader(file)) == sorted(rows)
    report = (tmp_path / "out" / "results.md").read_text()
    if name == "voc":
        assert "published mIoU" in report
        assert "| DeepLabv3 RMI | 78.71 |" in report
    pattern, count = FILES[name]
    files = sorted((tmp_path / "out").glob(f"*/seed1/test*/**/{pattern}"))
    assert len(files) == count
    written = [path.stat().st_mtime_ns for path in files]
    monkeypatch.setattr(driver, "train_all", lambda titles, *options: pytest.fail("trained again") if titles else None)
    assert main(arguments) == 0
    assert [path.stat().st_mtime_ns for path in files] == written

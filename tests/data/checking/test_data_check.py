"""The check reads everything, goes on after each problem, and says what and where."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from miniatures import HEIGHT, WIDTH, write_image, write_mask
from rmiseg.data import check_dataset, print_report


def printed(report) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=140))
    return stream.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_clean_data_set(split_root, workers):
    report = check_dataset("folder", split_root, workers=workers)
    assert report.problem_count == 0
    assert report.warnings == []
    train, val = report.splits
    assert (train.name, train.images, train.masks) == ("train", 5, 5)
    assert (val.name, val.images, val.masks) == ("val", 2, 2)
    assert train.smallest == train.largest == (WIDTH, HEIGHT)
    half = (HEIGHT - 1) * WIDTH // 2  # the first row is ignored
    assert train.class_pixels.tolist() == [5 * half, 3 * half, 2 * half]
    assert train.class_images.tolist() == [5, 3, 2]
    assert train.ignored_pixels == 5 * WIDTH
    text = printed(report)
    assert text.rstrip().splitlines()[-1] == "no problems in 7 images"
    for part in ("tree", "24 x 16", "46.88%", "6.25%"):
        assert part in text


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_wrong_at_once(split_root, workers):
    images, masks = split_root / "images" / "train", split_root / "masks" / "train"
    write_mask(masks / "train0.png", value=37)
    (images / "train1.png").write_bytes((images / "train1.png").read_bytes()[:300])
    (masks / "train2.png").unlink()
    write_mask(masks / "train3.png", size=(10, 10))
    (masks / "train4.png").write_bytes(b"")
    write_mask(masks / "lonely.png")
    write_image(images / "val_like.jpg", size=(50, 8))
    write_mask(masks / "val_like.png", value=37, size=(50, 8))

    report = check_dataset("folder", split_root, workers=workers)
    train, val = report.splits
    assert val.problem_count == 0
    assert train.images == 6
    assert train.masks == 6
    assert [path.name for path in train.images_without_mask] == ["train2.png"]
    assert [path.name for path in train.masks_without_image] == ["lonely.png"]
    assert len(train.unreadable) == 2
    assert len(train.size_mismatches) == 1
    assert list(train.unknown_values) == [37]
    unknown = train.unknown_values[37]
    assert [path.name for path in unknown.files] == ["train0.png", "val_like.png"]
    assert unknown.pixels == (HEIGHT - 1) * WIDTH // 2 + 7 * 25
    assert train.smallest == (24, 8)
    assert train.largest == (50, 16)
    assert train.problem_count == report.problem_count == 1 + 2 + 1 + 2
    # Unknown pixels count neither as a class nor as ignored.
    known = {"train0": (15 * 12, 24), "train1": (15 * 24, 24), "train3": (90, 10), "val_like": (7 * 25, 50)}
    assert train.class_pixels.sum() == sum(pixels for pixels, _ in known.values())
    assert train.ignored_pixels == sum(pixels for _, pixels in known.values())

    text = printed(report)
    for part in (
        "value 37: 355 pixels in 2 masks",
        "train0.png",
        "images without mask (1)",
        "train2.png",
        "24 x 16 pixels, but its mask",
        "cannot read image",
        "cannot read mask",
        "1 mask without image",
        "lonely.png",
        "add each to `classes` or `ignore`",
    ):
        assert part in text
    assert text.rstrip().splitlines()[-1].startswith("6 problems in 8 images")


def test_empty_split_is_a_problem(split_root):
    (split_root / "images" / "test").mkdir()
    report = check_dataset("folder", split_root, workers=0)
    assert report.problem_count == 1
    assert "test: no images" in printed(report)


def test_lists_are_checked(folder_root):
    (folder_root / "train.txt").write_text("photo_1\nphoto_2\nphoto_99\n")
    (folder_root / "val.txt").write_text("photo_2\nphoto_3\n")
    report = check_dataset("folder", folder_root, workers=0)
    assert report.problem_count == 1
    assert any("in both train and val" in warning and "photo_2" in warning for warning in report.warnings)
    assert "train.txt, line 3" in printed(report)


def test_absent_class_is_a_warning(split_root):
    (split_root / "dataset.yaml").write_text("classes: [ground, tree, house, boat]\nignore: 255")
    report = check_dataset("folder", split_root, workers=0)
    assert report.problem_count == 0
    assert report.warnings == ["class boat (mask value 3) does not occur in train, val"]
    assert printed(report).rstrip().splitlines()[-1] == "no problems in 7 images, 1 warning"


def test_unknown_colors(split_root):
    for path in (split_root / "masks").rglob("*.png"):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.stack([values, values, values], -1)).save(path)
    (split_root / "dataset.yaml").write_text("classes: {a: [0, 0, 0], b: [1, 1, 1]}\nignore: [255, 255, 255]\n")
    report = check_dataset("folder", split_root, ["train"], workers=0)
    assert [split.name for split in report.splits] == ["train"]
    assert list(report.splits[0].unknown_values) == [(2, 2, 2)]
    assert "value (2, 2, 2)" in printed(report)


def test_camvid_is_read_once(camvid_root):
    report = check_dataset("camvid", camvid_root(), workers=0)
    assert [split.name for split in report.splits] == ["train", "val", "test"]
    assert report.problem_count == 0
    assert report.splits[0].class_images.tolist() == [4] * 11


def test_long_lists_are_shortened(split_root):
    for path in (split_root / "masks" / "train").iterdir():
        path.unlink()
    report = check_dataset("folder", split_root, workers=0)
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=140), most=2)
    assert "... and 3 more" in stream.getvalue()


def test_markup_in_names_is_printed_as_it_is(split_root):
    write_image(split_root / "images" / "train" / "a[bold].png")
    assert "a[bold].png" in printed(check_dataset("folder", split_root, workers=0))


def test_nothing_can_be_checked(split_root):
    with pytest.raises(ValueError, match="no split 'test'"):
        check_dataset("folder", split_root, ["test"])
    with pytest.raises(ValueError, match="workers"):
        check_dataset("folder", split_root, workers=-1)


def test_progress_shows_rate(split_root):
    stream = io.StringIO()
    check_dataset("folder", split_root, workers=0, console=Console(file=stream, width=140, force_terminal=True))
    assert "7/7" in stream.getvalue()
    assert "img/s" in stream.getvalue()

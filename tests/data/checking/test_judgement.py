"""What `data check` and training refuse before any step: masks from which nothing, or something else, is learned."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from miniatures import every, write_image, write_mask, write_values
from rmiseg.data import check_dataset, load_split, open_training_data, print_report
from rmiseg.data import training as opening
from rmiseg.data.image_files.deep import turned
from rmiseg.data.image_files.masks import read_raw_mask

CASES = Path(__file__).parents[1] / "cases"


def case(name: str, tmp_path: Path) -> Path:
    """A case whose pairs lie in train and in val."""
    root = tmp_path / name
    for folder in ("images", "masks"):
        for split in ("train", "val"):
            shutil.copytree(CASES / name / folder, root / folder / split)
    shutil.copy(CASES / name / "dataset.yaml", root)
    return root


def data_set(root: Path, classes: str, *masks: np.ndarray, val: np.ndarray | None = None) -> Path:
    for index, values in enumerate(masks):
        write_image(root / "images" / "train" / f"{index}.png")
        write_values(root / "masks" / "train" / f"{index}.png", values)
    write_image(root / "images" / "val" / "v.png")
    write_values(root / "masks" / "val" / "v.png", masks[0] if val is None else val)
    (root / "dataset.yaml").write_text(classes)
    return root


def problems(root: Path) -> list[str]:
    """Those that the check finds, after training was seen to say the same."""
    found = check_dataset("folder", root, workers=0).problems
    if found:
        with pytest.raises(ValueError, match="says more") as error:
            open_training_data("folder", str(root), ("train", "val"))
        assert str(error.value).splitlines()[:-1] == found
    else:
        open_training_data("folder", str(root), ("train", "val"))
    return found


def said(root: Path) -> str:
    stream = io.StringIO()
    open_training_data("folder", str(root), ("train", "val"), console=Console(file=stream, width=200))
    return stream.getvalue()


def test_masks_of_0_and_255_with_two_classes(tmp_path):
    root = case("bin255", tmp_path)
    (problem,) = problems(root)
    assert "no mask of train holds the class defect, but 255 (5.7% of the pixels) is ignored" in problem
    assert "`classes: {background: 0, defect: 255}`" in problem
    (root / "dataset.yaml").write_text("classes: {background: 0, defect: 255}")
    assert problems(root) == []


@pytest.mark.parametrize(
    ("classes", "masks", "message"),
    [
        ("classes: [a, b]\nignore: 255", [every(0, 255)], "`classes: {a: 0, b: 255}`"),  # even if it is said to be so
        ("classes: [a, b, c]", [every(0, 1, 255)], "`classes: {a: 0, b: 1, c: 255}`; if it is to be ignored"),
        ("classes: [a, b, c]", [every(0, 255)], "the classes b, c.*the like of this.*{a: 0, b: 255}"),
        ("classes: [a, b]", [every(255)], "the classes a, b, but 255"),
        ("classes: [a, b]", [every(0)], "hold one class, a, alone"),
        ("classes: [road]", [every(0)], "names one class, road, .*`classes: {background: 0, road: 1}`"),
        ("classes: {a: [0, 0, 0], b: [9, 9, 9]}\nignore: [255, 255, 255]", [every(0, 255)], r"{a: \[0, 0, 0\], b: \["),
    ],
)  # fmt: skip
def test_nothing_to_learn(tmp_path, classes, masks, message):
    root = data_set(tmp_path, classes, *masks)
    if "[0, 0, 0]" in classes:
        for path in (root / "masks").rglob("*.png"):
            Image.open(path).convert("RGB").save(path)
    (problem,) = problems(root)
    assert re.search(message, problem), problem


@pytest.mark.parametrize(
    ("classes", "masks"),
    [
        ("classes: [a, b, c]\nignore: 255", [every(0, 1, 255)]),
        ("classes: [a, b, c]", [every(0, 1)]),
        ("classes: [a, b]", [every(0), every(1)]),
    ],
)
def test_an_absent_class_that_may_be_meant(tmp_path, classes, masks):
    assert problems(data_set(tmp_path, classes, *masks)) == []


def test_an_image_out_of_sight_of_the_sample_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "SAMPLE", 2)
    masks = [every(0, 255)] * 9
    masks[4] = every(0, 1, 255)
    assert problems(data_set(tmp_path, "classes: [a, b]", *masks)) == []


def test_many_absent_classes_are_one_line(tmp_path):
    root = data_set(tmp_path, f"classes: [{', '.join(f'c{i}' for i in range(200))}]", every(0, 1))
    report = check_dataset("folder", root, workers=0)
    (warning,) = report.warnings
    assert warning.startswith("198 of 200 classes do not occur in train, val: c2, c3, ")
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=140))
    assert stream.getvalue().count("\n") < 30


def test_palettes_that_differ_are_refused(tmp_path):
    root = case("gimp_palette", tmp_path)
    (problem,) = problems(root)
    for part in ("value 0 is the color [", "a0.png", "a1.png", "[0, 255, 0]", "[255, 0, 0]"):
        assert part in problem
    (root / "dataset.yaml").write_text("classes: {background: [0, 0, 0], scratch: [255, 0, 0], dent: [0, 255, 0]}")
    assert problems(root) == []
    split = load_split("folder", root, "train")
    for index, name in enumerate(("a0", "a1")):
        right = np.asarray(Image.open(CASES / "gimp_palette" / "RIGHT_class_ids" / f"{name}.png"))
        np.testing.assert_array_equal(split.read_mask(index), right)


@pytest.mark.parametrize(
    ("palettes", "values", "differ"),
    [
        ([[0, 0, 0, 9, 9, 9], [0, 0, 0, 9, 9, 9, 7, 7, 7]], [every(0, 1)] * 2, False),
        ([[0, 0, 0, 9, 9, 9, 1, 1, 1], [0, 0, 0, 9, 9, 9, 7, 7, 7]], [every(0, 1)] * 2, False),  # where unused
        ([[0, 0, 0] * 3, [0, 0, 0] * 3], [every(0, 1), every(1)], False),  # a palette that says nothing
        ([[0, 0, 0, 9, 9, 9], [0, 0, 0, 8, 8, 8, 9, 9, 9]], [every(0, 1), every(0, 2)], True),
    ],
)
def test_palettes(tmp_path, palettes, values, differ):
    root = data_set(tmp_path, "classes: [a, b, c]", *values, val=every(0, 1))
    for index, (palette, ids) in enumerate(zip(palettes, values)):
        image = Image.fromarray(ids)
        image.putpalette(palette)
        image.save(root / "masks" / "train" / f"{index}.png")
    assert bool(problems(root)) == differ


def test_an_orientation_of_the_image_alone_is_a_warning(tmp_path):
    root = case("exif180", tmp_path)
    assert problems(root) == []
    report = check_dataset("folder", root, workers=0)
    for text in (report.warnings[0], said(root)):
        assert "1 image turned by the EXIF orientation, with a mask that has none" in text
        assert "IMG_0.jpg" in text


def test_a_mask_is_turned_by_its_own_orientation(tmp_path):
    split = load_split("folder", CASES / "exif180_both", "train")
    for index in range(len(split)):
        pixels, ids = split.read(index)
        np.testing.assert_array_equal(pixels.mean(axis=-1) > 128, ids == 1)
    report = check_dataset("folder", CASES / "exif180_both", workers=0)
    (warning,) = report.warnings
    assert "with the pixels of one of train" in warning  # and nothing of orientations
    assert report.problems == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_of_every_orientation(tmp_path, orientation, suffix):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"m{suffix}", exif=exif)
    expected = turned(values, orientation)
    np.testing.assert_array_equal(read_raw_mask(tmp_path / f"m{suffix}", rgb=False).values, expected)
    np.testing.assert_array_equal(read_raw_mask(tmp_path / f"m{suffix}", rgb=True).values[..., 0], expected)


def test_a_square_image_turned_by_a_quarter_is_a_warning(tmp_path):
    write_mask(tmp_path / "masks" / "train" / "a.png", size=(20, 20))
    write_mask(tmp_path / "masks" / "val" / "b.png", size=(20, 20))
    write_image(tmp_path / "images" / "val" / "b.png", size=(20, 20))
    image = Image.new("RGB", (20, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    (tmp_path / "images" / "train").mkdir()
    image.save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    assert "turned by the EXIF orientation" in said(tmp_path)


def test_a_mask_turned_otherwise_than_its_image_is_a_warning(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1))
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / "masks" / "train" / "0.png"
    Image.open(path).save(path, exif=exif)
    assert "1 mask turned by an EXIF orientation that the image does not have" in said(root)


def test_a_class_written_in_two_ways_is_refused(tmp_path):
    masks = [every(0, 255), every(0, 1), every(0, 255)]
    root = data_set(tmp_path / "a", "classes: [a, b]", *masks)
    (problem,) = problems(root)
    assert re.search(r"3 masks of train and val, such as .*0\.png, hold 255, which is ignored unless", problem)
    assert re.search(r"none of these holds b, as others do, such as .*1\.png with 1: ", problem)
    assert "`classes: {a: 0, b: [1, 255]}`; if 255 is to be ignored, `ignore: 255`" in problem
    for line in ("classes: {a: 0, b: [1, 255]}", "classes: [a, b]\nignore: 255"):
        (root / "dataset.yaml").write_text(line)
        assert problems(root) == []
    (root / "dataset.yaml").write_text("classes: {a: 0, b: [1, 255]}")
    ids = [load_split("folder", root, "train").read_mask(index) for index in range(3)]
    assert all(np.array_equal(np.unique(each), [0, 1]) for each in ids)
    assert problems(data_set(tmp_path / "b", "classes: [a, b]", every(0, 1, 255), every(0, 1))) == []


def test_a_class_written_in_two_ways_where_values_are_read_by_the_nearest(tmp_path):
    for name, classes, values, line in (
        ("a", "classes: {a: 0, b: 255}", [every(0, 255), every(0, 1)], "{a: 0, b: [255, 1]}"),
        ("b", "classes: {a: 0, b: 1}", [every(0, 1), every(0, 200)], "{a: 0, b: [1, 200]}"),
    ):
        root = data_set(tmp_path / name, f"{classes}\nnearest: true", *values)
        (problem,) = problems(root)
        assert f"`classes: {line}` into dataset.yaml" in problem
        assert "1.png of train holds two values, and `nearest: true` reads" in problem
        (root / "dataset.yaml").write_text(f"classes: {line}\nnearest: true")
        assert problems(root) == []
    nearly = data_set(tmp_path / "c", "classes: {a: 0, b: 255}\nnearest: true", every(0, 254), every(3, 255))
    assert problems(nearly) == []


def test_the_share_that_is_ignored_is_told_where_nobody_said_so(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1, 1, 255))
    assert "25.00% of the pixels hold 255 and are ignored, which is so unless dataset.yaml says otherwise" in said(root)
    assert "25.00% of the pixels" in check_dataset("folder", root, workers=0).splits[0].notes[0]
    (root / "dataset.yaml").write_text("classes: [a, b]\nignore: 255")
    assert "of the pixels hold" not in said(root)


def test_smoothed_masks_are_judged_by_their_exact_values(tmp_path):
    """With `nearest`, dark edges of an object of 255 would be what is learned in place of the object."""
    smooth = every(*[0] * 40, 1, 40, 90, 130, 200, *[255] * 20)
    root = data_set(tmp_path, "classes: [a, b]\nnearest: true", smooth)
    (problem,) = problems(root)
    assert "no mask of train holds the class b, but 255" in problem
    (root / "dataset.yaml").write_text("classes: {a: 0, b: 255}\nnearest: true")
    assert problems(root) == []


@pytest.mark.parametrize(
    ("names", "values", "line"),
    [
        ("background, a, b", [0, 128, 255], "{background: 0, a: 128, b: 255}"),
        ("background, a", [1, 2], "{background: 1, a: 2}"),
        ("background, a", [0, 65535], "{background: 0, a: 65535}"),
        ("background, a, b", [0, 257, 514], "{background: 0, a: 257, b: 514}"),
        ("background, a, b", [0, 3, 7, 9], ""),
    ],
)
def test_the_line_for_as_many_other_values_as_there_are_classes(tmp_path, names, values, line):
    mask = np.resize(np.array(values, np.uint16), (16, 24))
    root = data_set(tmp_path, f"classes: [{names}]", mask)
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(mask).save(path)  # 16 bits
    stream = io.StringIO()
    print_report(check_dataset("folder", root, workers=0), Console(file=stream, width=200))
    with pytest.raises(ValueError, match=r"holds values that are neither|says more") as error:
        open_training_data("folder", str(root), ("train", "val"))
    for text in (stream.getvalue(), str(error.value)):
        assert (f"If these follow in the same order, write this into dataset.yaml: `classes: {line}`" in text) == (
            line != ""
        )
    if line:
        (root / "dataset.yaml").write_text(f"classes: {line}")
        assert problems(root) == []


def test_masks_of_the_other_way_round(tmp_path):
    mask = np.full((16, 24), 255, np.uint8)
    mask[4:8] = 0
    (problem,) = problems(data_set(tmp_path, "classes: [background, a]", mask))
    assert "since most pixels hold it, `classes: {background: 255, a: 0}`" in problem


@pytest.mark.parametrize("broken", [False, True])
def test_masks_that_training_cannot_read_are_told_before_its_first_step(tmp_path, broken):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1), every(0, 1), every(0, 7))
    if broken:
        (root / "masks" / "train" / "2.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"cannot read mask .*2\.png" if broken else "neither a class nor ignored: 7"):
        open_training_data("folder", str(root), ("train", "val"))
    open_training_data("folder", str(root), ("train", "val"), on_error="skip")


def test_a_split_that_training_lacks_is_told(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1))
    for folder in ("images", "masks"):
        (root / folder / "train").rename(root / folder / "test")
    warning = check_dataset("folder", root, workers=0).warnings[0]
    assert "no split train, which training needs" in warning
    assert "`--data.train_split NAME`" in warning
    with pytest.raises(ValueError, match=r"no split 'train'; it has val, test.*data\.train_split"):
        open_training_data("folder", str(root), ("train", "val"))
    assert check_dataset("folder", root, ["val"], workers=0).warnings == []


def test_the_folder_of_masks_that_was_taken_is_told(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1))
    shutil.copytree(root / "masks", root / "labels")
    assert f"masks are read from {root / 'masks'}, and not from labels/ beside it" in said(root)


def test_one_class_gets_the_line_for_what_the_masks_hold(tmp_path):
    for name, classes, values, line in (
        ("a", "classes: {b: 255}", (0, 255), "background: 0, b: 255"),
        ("b", "classes: [b]", (0, 1), "background: 0, b: 1"),
        ("c", "classes: [b]", (0, 255), "background: 0, b: 255"),
        ("d", "classes: {b: 1}", (7, 1), "background: 7, b: 1"),
    ):
        assert f"`classes: {{{line}}}`" in problems(data_set(tmp_path / name, classes, every(*values)))[0]


def test_a_split_of_which_all_is_ignored_is_refused(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1), val=every(255))
    assert problems(root)[0].startswith("every pixel of the masks of val is ignored (255)")


def test_masks_of_val_that_write_a_class_in_another_way(tmp_path):
    assert problems(data_set(tmp_path / "a", "classes: [a, b]", every(0, 1))) == []
    (problem,) = problems(data_set(tmp_path / "b", "classes: [a, b]", every(0, 1), val=every(0, 255)))
    assert problem.startswith("1 mask of val, such as ")


def test_sizes_that_differ_are_told_before_the_first_step(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1))
    write_values(root / "masks" / "val" / "v.png", np.pad(every(0, 1), 1))
    with pytest.raises(ValueError, match=r"v\.png is .*pixels, but its mask .*save one in the size of the other"):
        open_training_data("folder", str(root), ("train", "val"))


def test_smoothed_edges_that_pass_a_class_are_a_warning(tmp_path):
    values = [*[0] * 50, *[128] * 50, *[255] * 50, *range(0, 255, 5)]
    root = data_set(tmp_path, "classes: {a: 0, b: 128, c: 255}\nnearest: true", every(*values))
    assert "of the pixels of class b hold another value that is nearest to 128" in said(root)
    assert "nearest to" not in said(data_set(tmp_path / "x", "classes: {a: 0, b: 128, c: 255}", every(0, 128, 255)))


def test_classes_in_transparency(tmp_path):
    root = data_set(tmp_path, "classes: {a: 0, b: 255}", every(0, 255))
    for path in root.glob("masks/*/*.png"):
        alpha = Image.fromarray(every(0, 255))
        Image.merge("LA", (Image.new("L", alpha.size, 255), alpha)).save(path)
    assert "Is the class in the transparency of" in problems(root)[0]
    for path in root.glob("masks/*/*.png"):
        Image.merge("LA", (alpha, alpha)).save(path)
    assert "with transparent pixels" in said(root)


def test_images_that_are_none_are_told_before_the_first_step(tmp_path):
    root = data_set(tmp_path, "classes: [a, b]", every(0, 1), every(0, 1))
    (root / "images" / "train" / "1.png").write_text("<html>403</html>")
    with pytest.raises(ValueError, match=r"1\.png: it is a web page, and no image"):
        open_training_data("folder", str(root), ("train", "val"))
    open_training_data("folder", str(root), ("train", "val"), on_error="skip")


def test_masks_that_are_all_the_same_are_told(tmp_path):
    drawn = np.zeros((48, 64), np.uint8)
    drawn[10:30, 20:40] = 1
    others = [np.roll(drawn, 3 * index, axis=1) for index in range(6)]
    classes = "classes: [ground, tree]\n"
    of_splits = [drawn] * 6, [drawn] * 4 + others[1:3], [drawn] * 3 + others[1:4], others
    told = [
        warning
        for name, masks in zip("abcd", of_splits)
        for warning in check_dataset("folder", data_set(tmp_path / name, classes, *masks), workers=0).warnings
        if "pixel for pixel" in warning
    ]
    assert [each[:35] for each in told] == [
        "train: 6 of 6 masks are the same, p",
        "train: 4 of 6 masks are the same, p",
    ]

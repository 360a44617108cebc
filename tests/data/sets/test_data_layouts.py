"""Finding files: the layouts folder, camvid and demo, and what is said when something is missing."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from miniatures import write_image, write_mask
from rmiseg.data import available_splits, load_split, read_mask, scan_split, write_demo_data
from rmiseg.data.sets import demo
from rmiseg.data.sets.folder import read_classes
from rmiseg.data.training import open_training_data


def names(split) -> list[str]:
    return [sample.name for sample in split.samples]


# The registry


def test_unknown_data_set_names_the_valid_ones():
    with pytest.raises(ValueError, match=r"vox.*folder, voc, .*camvid, demo"):
        load_split("vox", "x", "train")


def test_unknown_split_names_the_existing_ones(split_root):
    with pytest.raises(ValueError, match=r"'test'.*train, val"):
        load_split("folder", split_root, "test")


@pytest.mark.parametrize("name", ["folder", "camvid", "demo"])
def test_no_root(name):
    with pytest.raises(ValueError, match="--root"):
        available_splits(name, "")


@pytest.mark.parametrize("name", ["folder", "camvid"])
def test_root_that_does_not_exist(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        available_splits(name, tmp_path / "nowhere")


def test_root_that_is_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="no split"):
        available_splits("camvid", tmp_path)


# Folder: splits


def test_subfolders_are_splits(split_root):
    assert available_splits("folder", split_root) == ("train", "val")
    split = load_split("folder", split_root, "val")
    assert names(split) == ["val/val0", "val/val1"]
    assert split.samples[1].image == split_root / "images" / "val" / "val1.png"
    assert split.samples[1].mask == split_root / "masks" / "val" / "val1.png"
    assert split.classes.names == ("ground", "tree", "house")


def test_usual_splits_come_first(split_root):
    for split in ("extra", "test"):
        (split_root / "images" / split).mkdir()
    assert available_splits("folder", split_root) == ("train", "val", "test", "extra")


def test_made_splits_are_a_partition_that_depends_on_names_only(folder_root):
    assert available_splits("folder", folder_root) == ("train", "val")
    train, val = (names(load_split("folder", folder_root, split)) for split in ("train", "val"))
    assert len(val) == 2
    assert sorted(train + val) == [f"photo_{index}" for index in range(10)]
    assert val == ["photo_3", "photo_9"]  # the same on every machine, for ever
    assert names(load_split("folder", folder_root, "val")) == val


@pytest.mark.parametrize("content", [b"photo_3\nphoto_1.jpg\n\n", b"\xef\xbb\xbfphoto_3\r\n\r\n  photo_1.jpg \r\n"])
def test_lists(folder_root, content):
    (folder_root / "train.txt").write_bytes(content)
    assert available_splits("folder", folder_root) == ("train",)
    assert names(load_split("folder", folder_root, "train")) == ["photo_3", "photo_1"]
    with pytest.raises(ValueError, match=r"no split 'val'.*it has train"):
        load_split("folder", folder_root, "val")


def test_lists_may_name_files_in_subfolders(split_root):
    (split_root / "test.txt").write_text("val/val1\ntrain/train0.png\n")
    assert names(load_split("folder", split_root, "test")) == ["val/val1", "train/train0"]


def test_list_with_an_unknown_name(folder_root):
    (folder_root / "train.txt").write_text("photo_3\n\nphoto_33\n")
    with pytest.raises(ValueError, match=r"train\.txt, line 3: there is no image 'photo_33'"):
        load_split("folder", folder_root, "train")


def test_list_with_a_name_twice(folder_root):
    (folder_root / "val.txt").write_text("photo_3\nphoto_3.jpg\n")
    with pytest.raises(ValueError, match=r"val\.txt, line 2.*already in line 1"):
        load_split("folder", folder_root, "val")


def test_names_with_dots_and_hidden_files(tmp_path):
    for name in ("a.v1", "a.v2"):
        write_image(tmp_path / "images" / "train" / f"{name}.JPG")
        write_mask(tmp_path / "masks" / "train" / f"{name}.PNG")
    (tmp_path / "images" / "train" / "._a.v1.jpg").write_bytes(b"macOS")
    (tmp_path / "images" / "train" / "Thumbs.db").write_bytes(b"Windows")
    (tmp_path / "images" / ".DS_Store").write_bytes(b"macOS")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    found = [names(load_split("folder", tmp_path, split)) for split in ("train", "val")]
    assert sorted(found) == [["train/a.v1"], ["train/a.v2"]]


# Folder: what can be wrong


@pytest.mark.parametrize("part", ["images", "masks"])
def test_missing_folder_shows_the_layout(folder_root, part):
    shutil.rmtree(folder_root / part)
    with pytest.raises(FileNotFoundError, match=rf"{part} does not exist(.|\n)*images/train/") as error:
        load_split("folder", folder_root, "train")
    assert str(folder_root) in str(error.value)


def test_images_without_mask(split_root):
    for index in (1, 3):
        (split_root / "masks" / "train" / f"train{index}.png").unlink()
    with pytest.raises(ValueError, match="2 problem") as error:
        load_split("folder", split_root, "train")
    assert "train1.png has no mask" in str(error.value)
    assert "beside 3 complete pairs" in str(error.value)
    assert len(scan_split("folder", split_root, "train").images_without_mask) == 2
    assert len(load_split("folder", split_root, "val").samples) == 2  # the other split is not concerned


def test_masks_without_image_are_harmless(split_root):
    write_mask(split_root / "masks" / "train" / "lonely.png")
    split = load_split("folder", split_root, "train")
    assert len(split.samples) == 5
    assert [path.name for path in split.masks_without_image] == ["lonely.png"]


def test_made_splits_name_masks_without_image_once(folder_root):
    write_mask(folder_root / "masks" / "lonely.png")
    found = [scan_split("folder", folder_root, split).masks_without_image for split in ("train", "val")]
    assert [len(paths) for paths in found] == [1, 0]


def test_two_images_of_one_name(split_root):
    write_image(split_root / "images" / "train" / "train0.jpg")
    with pytest.raises(ValueError, match=r"train0\.png have the same name"):
        load_split("folder", split_root, "train")


def test_jpeg_masks_are_refused(split_root):
    mask = split_root / "masks" / "train" / "train0.png"
    Image.open(mask).save(mask.with_suffix(".jpg"))
    mask.unlink()
    with pytest.raises(ValueError, match=r"packed as JPEG, which does not keep .*save masks as PNG"):
        open_training_data("folder", str(split_root), ("train", "val"))


def test_images_beside_subfolders(split_root):
    write_image(split_root / "images" / "stray.png")
    with pytest.raises(ValueError, match=r"subfolders \(train, val\) and images \(stray\.png\)"):
        load_split("folder", split_root, "train")


def test_empty_split(split_root):
    shutil.rmtree(split_root / "images" / "val")
    (split_root / "images" / "val").mkdir()
    with pytest.raises(ValueError, match=r"split val .* has no images"):
        load_split("folder", split_root, "val")


# Folder: dataset.yaml


def classes_from(root, text: str):
    (root / "dataset.yaml").write_text(text)
    return read_classes(root)


def test_classes_as_list(tmp_path):
    classes = classes_from(tmp_path, "classes: [a, b]")
    assert (classes.names, classes.values, classes.ignore) == (("a", "b"), (0, 1), (255,))


def test_classes_as_values(tmp_path):
    classes = classes_from(tmp_path, "classes: {a: 7, b: 3}\nignore: [0, 9]\ncolors: [[1, 2, 3], [4, 5, 6]]")
    assert (classes.values, classes.ignore) == ((7, 3), (0, 9))
    assert classes.palette == ((1, 2, 3), (4, 5, 6))


def test_255_as_a_class_is_not_ignored(tmp_path):
    classes = classes_from(tmp_path, "classes: {background: 0, thing: 255}")
    assert (classes.values, classes.ignore) == ((0, 255), ())


@pytest.mark.parametrize("ignore", ["[1, 1, 1]", "[[1, 1, 1]]"])
def test_classes_as_colors(tmp_path, ignore):
    classes = classes_from(tmp_path, f"classes: {{a: [0, 0, 0], b: [128, 0, 0]}}\nignore: {ignore}")
    assert classes.rgb
    assert classes.values == classes.palette == ((0, 0, 0), (128, 0, 0))
    assert classes.ignore == ((1, 1, 1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there must be an entry `classes`"),
        ("klasses: [a]", "there must be an entry `classes`"),
        ("classes: [a]\nignored: 3", "unknown entry 'ignored'"),
        ("classes: []", "must be a list of names"),
        ("classes: 3", "must be a list of names"),
        ("classes: [true, false]", "need quotes"),
        ("classes: {a: 0, b: 010}", r"dataset\.yaml: line 1: 010 is 8 in YAML 1\.1, and 10 in YAML 1\.2"),
        ("classes: [a, a]", "'a' is given twice"),
        ("classes: {a: 0, b: x}", "'x' is neither a mask value"),
        ("classes: {a: 0, b: [1, x]}", "neither a mask value"),
        ("classes: {a: 0, b: [[1, 2, 3]]}", "cannot be mixed"),
        ("classes: {a: 0, b: 0}", "0 is given twice"),
        ("classes: {a: 0, b: 1, a: 2}", "'a' is given twice"),
        ("classes: [a, b]\nignore: 1", "1 is given twice"),
        ("classes: [a, b]\nignore: nothing", "'nothing' is neither"),
        ("classes: [a, b]\ncolors: [[0, 0, 0]]", "2 class names.*1 palette"),
        ("classes: [a, b]\ncolors: red", "`colors` must be a list"),
        ("classes: [a", "dataset.yaml"),
    ],
)
def test_mistakes_in_dataset_yaml(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        classes_from(tmp_path, text)
    assert "dataset.yaml" in str(error.value)


@pytest.mark.parametrize("colors", [False, True], ids=["values", "colors"])
def test_missing_dataset_yaml_suggests_one_that_works(split_root, colors):
    if colors:
        for path in (split_root / "masks").rglob("*.png"):
            values = np.asarray(Image.open(path))
            Image.fromarray(np.stack([values, values // 2, values], -1)).save(path)
    (split_root / "dataset.yaml").unlink()
    with pytest.raises(ValueError, match=r"dataset\.yaml is missing") as error:
        load_split("folder", split_root, "train")
    suggestion = str(error.value).split("\n\n", 1)[1]
    classes = classes_from(split_root, suggestion)
    if colors:
        assert classes.values == ((0, 0, 0), (1, 0, 1), (2, 1, 2), (255, 127, 255))
    else:
        assert (classes.values, classes.ignore) == ((0, 1, 2), (255,))
    for sample in load_split("folder", split_root, "train").samples:
        read_mask(sample.mask, classes)


def test_suggestion_takes_255_beside_0_for_a_class(split_root):
    for path in (split_root / "masks").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 255 * 255).save(path)
    (split_root / "dataset.yaml").unlink()
    with pytest.raises(ValueError, match="class_255: 255"):
        load_split("folder", split_root, "train")


# CamVid


@pytest.mark.parametrize("lists", [True, False])
def test_camvid(camvid_root, lists):
    root = camvid_root(lists)
    assert available_splits("camvid", root) == ("train", "val", "test", "trainval")
    train, val, both = (load_split("camvid", root, split) for split in ("train", "val", "trainval"))
    assert (len(train.samples), len(val.samples), len(both.samples)) == (4, 2, 6)
    assert both.samples == train.samples + val.samples
    assert train.samples[0].image == root / "train" / "0001TP_000000.png"
    assert train.samples[0].mask == root / "trainannot" / "0001TP_000000.png"
    assert train.classes.names[0] == "Sky"
    assert train.classes.names[10] == "Bicyclist"
    assert len(train.classes) == 11
    assert train.classes.palette[3] == (128, 64, 128)
    ids = read_mask(train.samples[0].mask, train.classes)
    assert set(ids.ravel().tolist()) == {*range(11), 255}


def test_camvid_names_what_is_missing(camvid_root):
    root = camvid_root()
    (root / "train" / "0001TP_000001.png").unlink()
    (root / "trainannot" / "0001TP_000002.png").unlink()
    with (root / "train.txt").open("a") as file:
        file.write("\nonly-one-column.png\n")
    with pytest.raises(ValueError, match="3 problem") as error:
        load_split("camvid", root, "train")
    for part in ("0001TP_000001.png is listed in train.txt", "0001TP_000002.png has no mask", "line 6"):
        assert part in str(error.value)


def test_camvid_without_lists_finds_masks_without_image(camvid_root):
    root = camvid_root(lists=False)
    (root / "val" / "0001TP_000001.png").unlink()
    split = load_split("camvid", root, "val")
    assert len(split.samples) == 1
    assert split.masks_without_image == (root / "valannot" / "0001TP_000001.png",)


# Demo


@pytest.fixture
def tiny_volume(monkeypatch):
    """A volume of random blobs in place of the template."""
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 3, (32, 16, demo.LAST + 1), dtype=np.uint8)
    monkeypatch.setattr(demo, "_load_volume", lambda: (tissue * np.float32(0.4), tissue))


def test_demo_splits_keep_a_gap():
    slices = demo.split_slices()
    assert len(slices["train"]) > 3 * len(slices["val"])
    assert min(abs(train - val) for train in slices["train"] for val in slices["val"]) >= 2


def test_demo_is_a_folder_data_set(tmp_path, tiny_volume):
    root = tmp_path / "new" / "demo"
    split = load_split("demo", root, "val")
    assert names(split) == [f"val/slice_{z:03d}" for z in demo.split_slices()["val"]]
    assert split.classes.names == ("background", "gray matter", "white matter")
    assert load_split("folder", root, "val") == split
    mask = Image.open(split.samples[0].mask)
    assert mask.mode == "P"
    _, expected = demo._load_volume()
    np.testing.assert_array_equal(read_mask(split.samples[0].mask, split.classes), expected[..., 33])
    assert [entry.name for entry in root.parent.iterdir()] == ["demo"]  # nothing left behind
    assert yaml.safe_load((root / "dataset.yaml").read_text())["classes"][1] == "gray matter"


def test_demo_is_written_once_and_always_the_same(tmp_path, tiny_volume, monkeypatch):
    (tmp_path / "a").mkdir()  # an empty folder is fine
    first = write_demo_data(tmp_path / "a")
    second = write_demo_data(tmp_path / "b")
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    monkeypatch.setattr(demo, "_load_volume", None)  # would fail if called
    assert write_demo_data(tmp_path / "a") == first


def test_demo_does_not_touch_other_data(tmp_path, tiny_volume):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="does not hold the complete demo data"):
        write_demo_data(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_demo_failure_leaves_nothing(tmp_path, tiny_volume, monkeypatch):
    monkeypatch.setattr(demo, "_write_yaml", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_demo_data(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


def test_demo_without_nilearn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[demo\]"'):
        write_demo_data(tmp_path / "demo")


@pytest.mark.slow
def test_demo_of_the_real_template(tmp_path):
    pytest.importorskip("nilearn")
    root = write_demo_data(tmp_path / "demo")
    train = load_split("demo", root, "train")
    image, mask = (np.asarray(Image.open(path)) for path in (train.samples[40].image, train.samples[40].mask))
    assert image.shape == mask.shape == (192, 160)
    assert image.dtype == np.uint8
    means, stds = zip(*((image[mask == c].mean(), image[mask == c].std()) for c in range(3)))
    assert means[0] < means[1] < means[2]
    # One pixel says little: gray and white matter overlap.
    assert means[2] - means[1] < 1.5 * max(stds[1:])
    assert 0.3 < (mask > 0).mean() < 0.7

"""COCO, with the classes of PASCAL VOC, of COCO-Stuff, and of its panoptic annotations."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import COCO_SIZE, STUFF_VALUES, every, write_values
from rmiseg.data import available_splits, drawn_masks, load_split

# COCO


def test_coco(coco_root, cache):
    before = sorted(coco_root.rglob("*"))
    assert available_splits("coco", coco_root) == ("train", "val", "test")
    split = load_split("coco", coco_root, "train")
    assert list(split.names) == ["000000000001", "000000000002", "000000000003"]  # the others have too few pixels
    assert split.samples[0].image == coco_root / "train2017" / "000000000001.jpg"
    aeroplane, chair, person, tv = (split.classes.names.index(n) for n in ("aeroplane", "chair", "person", "tvmonitor"))

    expected = np.zeros(COCO_SIZE[::-1], np.uint8)
    expected[:40, :40] = aeroplane
    expected[10:18, 10:18] = person
    np.testing.assert_array_equal(split.read_mask(0), expected)
    expected = np.zeros(COCO_SIZE[::-1], np.uint8)
    expected[8:, 32:] = chair
    np.testing.assert_array_equal(split.read_mask(1), expected)
    expected[8:, 32:] = person
    expected[10:20, 40:50] = tv
    np.testing.assert_array_equal(split.read_mask(2), expected)

    val = load_split("coco", coco_root, "val")
    assert np.bincount(val.read_mask(0).ravel())[val.classes.names.index("sofa")] == 32 * 32
    assert [sample.mask for sample in load_split("coco", coco_root, "test", masks=False).samples] == [None]
    assert sorted(coco_root.rglob("*")) == before  # nothing is written beside the data
    assert not list(cache.rglob("*.tmp"))


def test_coco_masks_are_drawn_once(coco_root, monkeypatch, capsys):
    first = load_split("coco", coco_root, "train")
    assert "Drawing the masks" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)  # no longer needed
    assert load_split("coco", coco_root, "train") == first
    assert capsys.readouterr().err == ""


def test_coco_masks_are_drawn_again_when_the_annotations_change(coco_root):
    first = load_split("coco", coco_root, "train")
    path = coco_root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    path.write_text(json.dumps(content))
    second = load_split("coco", coco_root, "train")
    assert len(second.samples) == 4  # the cup has become a person
    assert first.samples[0].mask != second.samples[0].mask
    os.utime(path)
    assert load_split("coco", coco_root, "train") == second  # the content has not changed


def test_masks_of_equal_annotations_by_size_and_time(coco_root, tmp_path):
    """Another root, and then another content, with the same name, size and time of the file."""
    first = load_split("coco", coco_root, "train")
    other = tmp_path / "other"
    shutil.copytree(coco_root, other)
    path = other / "annotations" / "instances_train2017.json"
    stat = path.stat()
    assert stat.st_mtime_ns == (coco_root / "annotations" / path.name).stat().st_mtime_ns
    second = load_split("coco", other, "train")
    assert second.samples[0].mask != first.samples[0].mask
    np.testing.assert_array_equal(second.read_mask(0), first.read_mask(0))

    path.write_text(path.read_text().replace('"category_id": 5,', '"category_id": 1,'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    changed = load_split("coco", other, "train")
    person = changed.classes.names.index("person")
    assert np.unique(changed.read_mask(0)).tolist() == [0, person]


def test_coco_masks_drawn_by_several_processes(coco_root, monkeypatch, cache):
    expected = load_split("coco", coco_root, "train")
    masks = [expected.read_mask(index) for index in range(len(expected))]
    shutil.rmtree(cache)
    monkeypatch.setattr(drawn_masks, "WORTH_A_PROCESS", 2)
    monkeypatch.setattr(drawn_masks, "usable_cores", lambda: 2)
    again = load_split("coco", coco_root, "train")
    assert again == expected
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(again.read_mask(index), mask)
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"height": 48', '"height": 47'))
    with pytest.raises(
        ValueError,
        match=r"instances_train2017\.json: annotation 3 is drawn on 64 x 48 pixels, but its image has 64 x 47",
    ):
        load_split("coco", coco_root, "train")


def test_coco_drawing_goes_on_after_an_interruption(coco_root, monkeypatch, cache):
    drawn_so_far = []
    save = Image.Image.save

    def stop_at_the_third(self, *args, **options):
        drawn_so_far.append(self)
        if len(drawn_so_far) == 3:
            raise OSError("disk full")
        save(self, *args, **options)

    monkeypatch.setattr(Image.Image, "save", stop_at_the_third)
    with pytest.raises(OSError, match="disk full"):
        load_split("coco", coco_root, "train")
    assert len(list(cache.rglob("*.png"))) == 2
    assert not list(cache.rglob("images.json"))
    assert len(load_split("coco", coco_root, "train").samples) == 3
    assert len(drawn_so_far) == 4  # two are not drawn again


def test_coco_of_2014_in_folder_images(coco_root):
    for split in ("train", "val"):
        path = coco_root / "annotations" / f"instances_{split}2017.json"
        path.rename(path.with_name(f"instances_{split}2014.json"))
        (coco_root / "images").mkdir(exist_ok=True)
        (coco_root / f"{split}2017").rename(coco_root / "images" / f"{split}2014")
    assert load_split("coco", coco_root, "val").samples[0].image.parent == coco_root / "images" / "val2014"


def test_coco_without_pycocotools(coco_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "\.\[coco\]"'):
        load_split("coco", coco_root, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', r"instances_train2017\.json is damaged"),
        ('{"images": [], "annotations": []}', r"instances_train2017\.json does not hold .*categories"),
        ("[]", r"instances_train2017\.json does not hold"),
    ],
)
def test_coco_with_bad_annotations(coco_root, content, message):
    (coco_root / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_split("coco", coco_root, "train")


def test_coco_with_regions_of_another_size(coco_root):
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"height": 48', '"height": 47'))
    with pytest.raises(
        ValueError,
        match=r"^\S+instances_train2017\.json: annotation 3 is drawn on 64 x 48 pixels, but its image has 64 x 47",
    ):
        load_split("coco", coco_root, "train")


def test_coco_with_a_category_that_is_not_listed(coco_root):
    path = coco_root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"category_id": 5,', '"category_id": 500,'))
    message = r"instances_train2017\.json: annotation \d+ has the category 500, which is none of .*\[\d"
    with pytest.raises(ValueError, match=message):
        load_split("coco", coco_root, "train")


def test_cache_folder(monkeypatch, tmp_path):
    assert drawn_masks.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RMISEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert drawn_masks.cache_folder() == tmp_path / "rmiseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert drawn_masks.cache_folder() == Path.home() / ".cache" / "rmiseg"


# COCO-Stuff and COCO's panoptic annotations


@pytest.mark.parametrize("place", ["stuffthingmaps", "annotations"])
def test_coco_stuff(coco_root, place):
    for split, number in (("train", 5), ("val", 1)):
        for image in (coco_root / f"{split}2017").iterdir():
            write_values(
                coco_root / place / f"{split}2017" / f"{image.stem}.png", every(*STUFF_VALUES, 255, size=COCO_SIZE)
            )
            write_values(coco_root / place / f"{split}2017" / f"{image.stem}_labelTrainIds.png", every(0))
        assert len(load_split("coco-stuff", coco_root, split).samples) == number
    split = load_split("coco-stuff", coco_root, "train")
    assert len(split.classes) == 171
    named = dict(zip(split.classes.values, split.classes.names))
    assert (named[0], named[89], named[91], named[181]) == ("person", "toothbrush", "banner", "wood")
    np.testing.assert_array_equal(split.read_mask(0), every(*range(171), 255, size=COCO_SIZE))


def test_coco_panoptic(panoptic_root, monkeypatch):
    assert available_splits("coco-panoptic", panoptic_root) == ("train", "val", "test")
    split = load_split("coco-panoptic", panoptic_root, "train")
    assert len(split.samples) == 5
    assert (len(split.classes), split.classes.names[132]) == (133, "rug-merged")
    np.testing.assert_array_equal(split.read_mask(0), np.resize([255, 0, 132, 0], COCO_SIZE[::-1]))
    monkeypatch.setattr(drawn_masks, "_draw", None)  # would fail if called
    assert load_split("coco-panoptic", panoptic_root, "train") == split


@pytest.mark.parametrize(
    ("category", "message"), [(12, "the category 12 of its segment"), (None, "is not in `segments")]
)
def test_panoptic_segments_that_say_nothing(panoptic_root, category, message):
    """Of a category that COCO does not have, or that the annotations leave out: not void in silence."""
    path = panoptic_root / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    segments = content["annotations"][0]["segments_info"]
    if category is None:
        segments.pop()
    else:
        segments[-1]["category_id"] = category
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{content['annotations'][0]['file_name']}: .*{message}"):
        load_split("coco-panoptic", panoptic_root, "train")


def test_panoptic_masks_are_drawn_again_when_their_segments_change(panoptic_root):
    first = load_split("coco-panoptic", panoptic_root, "train")
    segments = panoptic_root / "annotations" / "panoptic_train2017"
    path = min(segments.iterdir())
    Image.new("RGB", COCO_SIZE).save(path)
    second = load_split("coco-panoptic", panoptic_root, "train")
    assert second.samples[0].mask != first.samples[0].mask
    assert np.unique(second.read_mask(0)).tolist() == [255]


def test_coco_panoptic_with_index_pngs(panoptic_root):
    shutil.rmtree(panoptic_root / "annotations" / "panoptic_val2017")
    with pytest.raises(FileNotFoundError, match="annotations/panoptic_val2017 does not exist"):
        load_split("coco-panoptic", panoptic_root, "val")
    folder = panoptic_root / "annotations" / "panoptic_semantic_val2017"
    write_values(folder / "000000000006.png", every(0, 1, 92, 200, size=COCO_SIZE))
    split = load_split("coco-panoptic", panoptic_root, "val")
    assert split.samples[0].mask.parent == folder
    np.testing.assert_array_equal(split.read_mask(0), every(255, 0, 80, 132, size=COCO_SIZE))

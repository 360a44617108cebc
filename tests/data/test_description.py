"""dataset.yaml as people write it."""

from __future__ import annotations

import codecs

import numpy as np
import pytest
import tifffile
from PIL import Image

from miniatures import write_mask, write_values
from rmiseg.data import read_mask
from rmiseg.data.description import read_description
from rmiseg.data.suggestion import suggest


def described(root, text: str | bytes, name: str = "dataset.yaml"):
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_description(root)


@pytest.mark.parametrize(
    "text",
    ["classes: [a, b]", "names: [a, b]", "classes: {0: a, 1: b}", "names: {0: a, 1: b}", "classes: {a: 0, b: 1}"],
)
def test_every_way_to_name_classes(tmp_path, text):
    classes = described(tmp_path, text).classes
    assert (classes.names, classes.values) == (("a", "b"), (0, 1))


def test_yml(tmp_path):
    assert described(tmp_path, "classes: [a, b]", "dataset.yml").path.name == "dataset.yml"
    with pytest.raises(ValueError, match=r"both .*dataset\.yaml and .*dataset\.yml"):
        described(tmp_path, "classes: [a, b]")


def test_colors_as_web_pages_have_them(tmp_path):
    classes = described(tmp_path, "classes: {a: '#000000', b: '#ff0080'}\nignore: '#FFFFFF'").classes
    assert classes.values == ((0, 0, 0), (255, 0, 128))
    assert classes.ignore == ((255, 255, 255),)
    with pytest.raises(ValueError, match="begins with # needs quotes"):
        described(tmp_path, "classes:\n  a: [0, 0, 0]\n  b: #ff0080")


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_latin_1_is_answered_with_the_remedy(mark, tmp_path):
    with pytest.raises(ValueError, match=r"dataset.yaml: line 2 is not UTF-8 \(byte 0xf6\).*save the file as UTF-8"):
        described(tmp_path, mark + "classes:\n- größe\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b]\nnames: [a, b]", "give the classes once"),
        ("classes: {0: a, 1: a}", r"the name 'a' for 0, 1: `a: \[0, 1\]` is one class of several"),
        ("classes: [a, b]\nrange: 4095", "`range` must be two numbers"),
        ("classes: [a, b]\nrange: [4095, 0]", "must be two numbers"),
        ("classes: [a, b]\nnearest: 3", "`nearest` must be true or false"),
    ],
)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        described(tmp_path, text)
    assert "dataset.yaml" in str(error.value)


def smooth_mask(path):
    values = np.zeros((40, 600), np.uint8)
    values[:, 300:] = 255
    values[:, 297:303] = [20, 60, 100, 140, 180, 220]
    Image.fromarray(values).save(path)
    return path


def test_smoothed_edges_are_recognised(tmp_path):
    path = smooth_mask(tmp_path / "m.png")
    classes = described(tmp_path, "classes: {a: 0, b: 255}").classes
    with pytest.raises(
        ValueError, match=r"99\.0% of the pixels are classes or ignored.*hold 6 values.*`nearest: true`"
    ):
        read_mask(path, classes)
    ids = read_mask(path, described(tmp_path, "classes: {a: 0, b: 255}\nnearest: true").classes)
    np.testing.assert_array_equal(ids, np.tile(np.arange(600) >= 300, (40, 1)))
    assert "nearest: true" in suggest([path])
    assert "class_255: 255" in suggest([path])


def test_nearest_color(tmp_path):
    Image.fromarray(np.array([[[0, 0, 0], [120, 10, 0], [250, 3, 5], [255, 255, 250]]], np.uint8)).save(
        tmp_path / "m.png"
    )
    text = "classes: {a: [0, 0, 0], b: [255, 0, 0]}\nignore: [255, 255, 255]\nnearest: true"
    assert read_mask(tmp_path / "m.png", described(tmp_path, text).classes).tolist() == [[0, 0, 1, 255]]


def test_masks_of_some_other_values_are_not_called_smoothed(tmp_path):
    write_mask(tmp_path / "m.png", value=37)
    with pytest.raises(ValueError, match="37") as error:
        read_mask(tmp_path / "m.png", described(tmp_path, "classes: [a, b]").classes)
    assert "smoothed" not in str(error.value)


@pytest.mark.parametrize("text", ["classes: {'0': a, '1': b}", "names: {0: a, 1: b}"])
def test_numbers_first(tmp_path, text):
    (tmp_path / "dataset.yaml").write_text(text)
    classes = read_description(tmp_path).classes
    assert (classes.names, classes.values) == (("a", "b"), (0, 1))


def test_colors_without_quotes_are_answered_with_the_remedy(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: {a: #000000, b: #ff0000}")
    with pytest.raises(ValueError, match="a color that begins with # needs quotes"):
        read_description(tmp_path)


def test_small_objects_are_in_the_suggestion(tmp_path):
    values = np.zeros((100, 100), np.uint8)
    values[:5, :5] = 255
    values[5, :6] = [1, 30, 90, 150, 200, 250]
    write_values(tmp_path / "m.png", values)
    text = suggest([tmp_path / "m.png"])
    assert "class_255: 255" in text
    assert "nearest: true" in text


def numbered(root, counts, step=1):
    """Masks of that many objects each, which are numbered."""
    paths = []
    for count in counts:
        values = np.zeros((20, 20), np.int32)
        values.flat[:count] = 1 + step * np.arange(count)
        tifffile.imwrite(root / f"{count}.tif", values)
        paths.append(root / f"{count}.tif")
    return paths


def test_numbers_of_objects_are_no_classes(tmp_path):
    """As in masks of Cellpose and napari: all objects are one class, also those above 127, nearer to 255 than to 1."""
    paths = numbered(tmp_path, (0, 5, 300))
    classes = described(tmp_path, suggest(paths)).classes
    assert classes.names == ("background", "object")
    assert [int(read_mask(path, classes).sum()) for path in paths] == [0, 5, 300]


@pytest.mark.parametrize(("counts", "step"), [((30, 30), 1), ((5, 12), 1), ((30, 40), 3)])
def test_classes_are_no_numbers_of_objects(tmp_path, counts, step):
    """As many in each mask, few in all, or with gaps; of few it is said what else they may be."""
    text = suggest(numbered(tmp_path, counts, step))
    assert "object" not in described(tmp_path, text).classes.names
    assert ("# if the values number the objects of each image" in text) == (counts == (5, 12))


@pytest.mark.parametrize(
    ("nodata", "said"),
    [
        ("9", "ignore: 9  # 25.00%, which the files name as no data"),
        ("0", "class_0: 0  # 50.00%, which the files name as no data: a class, or to `ignore`?"),
        ("7", "class_9: 9  # 25.00%\n"),
    ],
)
def test_what_tiff_files_name_as_no_data(tmp_path, nodata, said):
    tag = (42113, "s", 0, nodata, True)
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 1], [9, 0]], np.uint8), extratags=[tag])
    assert said in suggest([tmp_path / "m.tif"])


def test_a_value_for_no_data_is_a_class_if_there_would_be_one_class_without_it(tmp_path):
    tag = (42113, "s", 0, "255", True)
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 255]], np.uint8), extratags=[tag])
    assert "class_255: 255  # 50.00%, which the files name as no data" in suggest([tmp_path / "m.tif"])


@pytest.mark.parametrize("name", ["train/_classes.csv", "labelmap.txt", "masks/a.txt", "train.txt"])
def test_a_file_of_a_labelling_tool_leads_to_the_import(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"dataset\.yaml is missing") as error:
        read_description(tmp_path, [tmp_path / "m.png"])
    assert (f"If {tmp_path / name} says so" in str(error.value)) == (name in ("train/_classes.csv", "labelmap.txt"))


def test_masks_that_cannot_be_read_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, np.nan]], np.float32))
    write_values(tmp_path / "b.png", np.array([[0, 1]], np.uint8))
    text = suggest([tmp_path / "a.tif"])
    assert text.startswith("# of 1 mask 1 cannot be read; the first: cannot read mask")
    assert described(tmp_path, text).classes.names == ("background", "something")
    assert "class_1: 1  # 50.00%" in suggest([tmp_path / "a.tif", tmp_path / "b.png"])


@pytest.mark.parametrize("name", ["", " ", "a\\0b", "\\e[2J", "\\ud800", "a\\rb", "a\\nb", "a\\tb"])
def test_names_that_terminals_and_files_cannot_take(tmp_path, name):
    (tmp_path / "dataset.yaml").write_text(f'classes: ["{name}", other]\n')
    with pytest.raises(ValueError, match=r"dataset\.yaml: .*without control characters"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "classes: [{a: 0}, {b: 1}]",
        "classes: {a: '0', b: '1'}",
        "classes: {a: 0.0, b: 1.0}",
        "classes:\n  - a: 0\n  - b: 1\n",
    ],
)
def test_slips_that_are_clear(tmp_path, text):
    classes = described(tmp_path, text).classes
    assert (classes.names, classes.values) == (("a", "b"), (0, 1))


def test_colors_before_names(tmp_path):
    classes = described(tmp_path, "classes: {'#000000': a, '#ff0000': b}").classes
    assert (classes.names, classes.values) == (("a", "b"), ((0, 0, 0), (255, 0, 0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "classes: [{name: background, id: 0}, {name: car, id: 1}]",
            r"such as `\{background: 0, something: 1\}`, not \[\{",
        ),
        ("classes: {background: [0, 0, 0, 255], car: [255, 0, 0, 255]}", "A color has three numbers, without alpha"),
        ("classes: {a: 1, b: 1}", "it can be one of them alone$"),
        (f"classes: {{a: 0, b: {'x' * 999}}}", r"x \.\.\. is neither a mask value"),
    ],
)
def test_near_misses_are_answered_with_what_is_right(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        described(tmp_path, text)


@pytest.mark.parametrize("value", [".inf", ".nan", "0.5", "'x'"])
def test_values_that_are_none(tmp_path, value):
    with pytest.raises(ValueError, match=r"neither a mask value such as 3 nor a color|given twice"):
        described(tmp_path, f"classes: {{a: 0, b: {value}}}")


def test_capitals_and_coding_of_the_file(tmp_path):
    (tmp_path / "Dataset.YAML").write_text("classes: [a, Straße]", encoding="utf-16")
    assert read_description(tmp_path).classes.names == ("a", "Straße")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("classes: {a: 0, b: [1, 255]}", ((0,), (1, 255))),
        ("classes: {a: 0, b: [1, 2, 255]}", ((0,), (1, 2, 255))),  # no color, beside a value
        ("classes: {a: [3, 4, 5, 6], b: [0, 1, 2]}", ((3, 4, 5, 6), (0, 1, 2))),
        ("classes: {a: [7], b: ['8', 9]}", ((7,), (8, 9))),
        ("classes: {a: [0, 0, 0], b: [[1, 1, 1], '#ff0000']}", (((0, 0, 0),), ((1, 1, 1), (255, 0, 0)))),
    ],
)
def test_classes_of_several_values(tmp_path, text, values):
    classes = described(tmp_path, text).classes
    assert tuple(map(classes.values_of, range(len(classes)))) == values
    assert classes.ignore == (() if classes.rgb or 255 in values[1] else (255,))
    raw = np.array([[each for several in values for each in several]], np.uint8)
    expected = [[index for index, several in enumerate(values) for _ in several]]
    for dtype in (np.uint8,) if classes.rgb else (np.uint8, np.uint16, np.int32):
        ids, unknown = classes.encode(raw.astype(dtype))
        assert (ids.tolist(), unknown) == (expected, {})


def test_a_value_of_two_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mask value 1 is given twice"):
        described(tmp_path, "classes: {a: 1, b: [2, 1]}")


def test_the_nearest_of_several_values(tmp_path):
    classes = described(tmp_path, "classes: {a: 0, b: [100, 255]}\nnearest: true").classes
    assert classes.encode(np.array([[3, 90, 180, 250]], np.uint8))[0].tolist() == [[0, 1, 1, 1]]
    assert classes.lossy

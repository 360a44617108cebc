"""The page of `rmiseg report`: what is in it, and what it does in a browser."""

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rmiseg.cli import main
from rmiseg.data import load_split, read_image, read_mask
from rmiseg.inference.predictor import Predictor
from rmiseg.reports.page import select_images, short_names
from support.accessibility import violations
from support.commands import error_of

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><img src=x onerror=alert(1)>{{ css }}"
TRAINING = [
    *("--data.crop_size", "[48,48]", "--data.batch_size", "4", "--data.workers", "0"),
    *("--model.backbone", "test_efficientnet", "--model.weights", "none"),
    *("--train.steps", "4", "--train.log_every", "1", "--train.norm_momentum", "0.3", "--train.precision", "fp32"),
]


@pytest.fixture(scope="module")
def data(shapes, tmp_path_factory) -> Path:
    """Shapes, with names that a page must not take for HTML."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shutil.copytree(shapes, root)
    (root / "dataset.yaml").write_text(yaml.safe_dump({"classes": ["ground", HOSTILE, "disc"]}))
    for folder in ("images", "masks"):
        (root / folder / "shape00.png").rename(root / folder / "<b>bold & 'quoted'.png")
    names = sorted(path.stem for path in (root / "masks").iterdir())
    (root / "train.txt").write_text("\n".join(names[5:]))
    (root / "val.txt").write_text("\n".join(names[:5]))
    return root


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (
        ("one", ["--loss.name", "rmi"]),
        ("<i>two", ["--seed", "1", "--loss.name", "ce", "--loss.plus", "{dice: 1}"]),
    ):
        arguments = ["train", *TRAINING, *options, "--data.root", str(data), "--out", str(folder / name)]
        assert main(arguments) == 0
    return [folder / "one", folder / "<i>two"]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    assert main(["report", *map(str, runs), "--out", str(out), "--images", "3"]) == 0
    return out


def content_of(page: Path) -> dict:
    """The data of a page, as a browser finds it."""

    class Scripts(HTMLParser):
        inside, found = False, ""

        def handle_starttag(self, tag, attributes):
            self.inside = ("id", "data") in attributes

        def handle_endtag(self, tag):
            self.inside = False

        def handle_data(self, text):
            self.found += text if self.inside else ""

    parser = Scripts()
    parser.feed(page.read_text(encoding="utf-8"))
    return json.loads(parser.found)


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_content(page, runs, data):
    content = content_of(page)
    split = load_split("folder", data, "val")
    assert content["data"] == {"name": "folder", "split": "val", "images": len(split.samples)}
    assert [entry["name"] for entry in content["classes"]] == ["ground", HOSTILE, "disc"]
    assert [run["name"] for run in content["runs"]] == ["one", "<i>two"]
    assert [run["loss"] for run in content["runs"]] == ["rmi", "ce + dice"]
    assert len(content["images"]) == 3
    for run, path in zip(content["runs"], runs):
        result = json.loads((path / "result.json").read_text())
        assert run["scores"]["mean_iou"] == pytest.approx(result["best"]["mean_iou"], abs=1e-9)
        scored = sum(iou is not None for iou in run["iou"])
        assert run["scope"] == ("" if scored == 3 else f" over {scored} of 3 classes")
        confusion = np.array(run["confusion"])
        hit = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - hit
        assert run["iou"] == pytest.approx(hit / union)
        assert run["curves"]["train/loss"][0] == [1, 2, 3, 4]
        assert run["curves"]["val/mIoU"][1][-1] == pytest.approx(result["last"]["mean_iou"], rel=1e-5)


def test_maps_hold_class_ids(page, runs, data):
    samples = {sample.name: sample for sample in load_split("folder", data, "val").samples}
    predictors = [Predictor.from_run(run) for run in runs]
    for image in content_of(page)["images"]:
        sample = samples[image["name"]]
        truth = read_mask(sample.mask, load_split("folder", data, "val").classes)
        expected = [np.minimum(truth, 3), *(predictor(read_image(sample.image)) for predictor in predictors)]
        for url, ids in zip([image["truth"], *image["predictions"]], expected):
            picture = decoded(url)
            assert picture.mode == "P"
            assert np.array_equal(np.asarray(picture), ids)
            assert np.array_equal(np.asarray(picture.convert("RGB")), ids[..., None].repeat(3, axis=2))
        # JPEG changes noise, but not the means of its blocks.
        blocks = [
            pixels.reshape(6, 8, 8, 8, 3).mean(axis=(1, 3))
            for pixels in (np.asarray(decoded(image["photo"])), read_image(sample.image))
        ]
        assert abs(blocks[0] - blocks[1]).mean() < 3
        for score, ids in zip(image["scores"], expected[1:]):
            counts = [
                (((ids == c) & (truth == c)).sum(), (((ids == c) | (truth == c)) & (truth < 3)).sum()) for c in range(3)
            ]
            assert score == pytest.approx(np.mean([hit / union for hit, union in counts if union]))


def test_page_stands_alone_and_escapes(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)|@import|url\(", text)
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    assert not list(page.parent.glob(".*"))


def test_pictures_are_made_smaller(runs, tmp_path):
    out = tmp_path / "small.html"
    assert main(["report", str(runs[0]), "--out", str(out), "--image_size", "32", "--images", "100"]) == 0
    content = content_of(out)
    assert len(content["images"]) == content["data"]["images"]
    for image in content["images"]:
        assert (image["width"], image["height"]) == (32, 24)
        assert decoded(image["photo"]).size == decoded(image["truth"]).size == (32, 24)


def test_select_images():
    nan = float("nan")
    scores = np.array([[0.1, 0.9, 0.5, nan, 0.6], [0.2, 0.8, 0.5, nan, 0.1]])
    assert select_images(scores, 3) == [0, 1, 4]  # worst, best, most changed
    assert sorted(select_images(scores, 9)) == [0, 1, 2, 4]
    assert select_images(scores[:1], 2) == [0, 1]
    assert select_images(np.full((2, 3), nan), 2) == [0, 1]  # nothing is judged: any
    assert select_images(np.array([[0.5, nan], [nan, nan]]), 2) == [0]


def test_names():
    assert short_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert short_names([Path("/a/x"), Path("/b/x")]) == ["a", "b"]
    assert short_names([Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/run")]) == ["a/x", "b/x", "b/y"]
    with pytest.raises(ValueError, match="twice"):
        short_names([Path("/a/x"), Path("/a/x")])


def test_refuses(runs, shapes, tmp_path, capsys):
    one = str(runs[0])
    out = ["--out", str(tmp_path / "report.html")]
    assert "is it a run's folder?" in error_of(["report", str(tmp_path), *out], capsys)
    assert "does not exist" in error_of(["report", one, str(tmp_path / "no"), *out], capsys)
    assert "given twice" in error_of(["report", one, one, *out], capsys)
    assert "no_such_folder" in error_of(["report", one, *out, "--root", str(tmp_path / "no_such_folder")], capsys)
    assert "it has train, val" in error_of(["report", one, *out, "--split", "test"], capsys)
    assert "images must be" in error_of(["report", one, *out, "--images", "0"], capsys)
    assert "is a folder" in error_of(["report", one, "--out", str(tmp_path)], capsys)
    (tmp_path / "file").touch()
    assert "file" in error_of(["report", one, "--out", str(tmp_path / "file" / "report.html")], capsys)
    assert "ground, square" in error_of(["report", one, *out, "--root", str(shapes)], capsys)
    assert main(["train", *TRAINING, "--data.root", str(shapes), "--out", str(tmp_path / "run")]) == 0
    assert "must have the same classes" in error_of(["report", one, str(tmp_path / "run"), *out], capsys)
    with pytest.raises(SystemExit):
        main(["report"])
    assert not (tmp_path / "report.html").exists()
    assert not list(tmp_path.glob(".report*"))


def test_interrupted_report_leaves_the_old_one(runs, tmp_path, monkeypatch):
    from rmiseg.reports import page as report

    out = tmp_path / "report.html"
    out.write_text("old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "render", interrupted)
    assert main(["report", str(runs[0]), "--out", str(out)]) == 130
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.fixture(scope="module")
def browser():
    """Chromium, where there is one; nothing is downloaded."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser, page):
    """The page, opened; at the end there must have been no error and no request."""
    problems = []
    context = browser.new_context(color_scheme="light", viewport={"width": 1200, "height": 900}, offline=True)
    opened = context.new_page()
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
    opened.goto(page.as_uri())
    yield opened
    context.close()
    assert problems == []


def painted(tab, side: str, card: int = 0) -> np.ndarray:
    """The pixels (H, W, 4) of one side's layer of a card, once it is drawn."""
    tab.wait_for_timeout(150)
    url = tab.evaluate(
        "([side, card]) => document.querySelectorAll(`canvas[data-side=${side}]`)[card].toDataURL()", [side, card]
    )
    return np.asarray(decoded(url).convert("RGBA"))


def test_names_are_shown_as_text(tab):
    assert tab.locator("#classes tbody th").nth(1).inner_text() == HOSTILE
    assert tab.locator("#summary tbody th").nth(1).inner_text() == "<i>two"
    assert tab.locator("img[src=x], #summary i, #gallery b").count() == 0


def test_theme(tab, browser, page):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(background)
    tab.click("#theme")
    dark = tab.evaluate(background)
    assert light != dark
    tab.reload()
    assert tab.evaluate(background) == dark  # remembered
    tab.click("#theme")
    assert tab.evaluate(background) == light
    system = browser.new_page(color_scheme="dark")
    system.goto(page.as_uri())
    assert system.evaluate(background) == dark
    system.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_accessibility(browser, page, scheme, width):
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}) as context:
        opened = context.new_page()
        opened.goto(page.as_uri())
        assert violations(opened) == []


def test_classes_are_sorted(tab, page):
    content = content_of(page)
    heading = tab.locator("#classes thead button").nth(2)
    names = [entry["name"] for entry in content["classes"]]
    iou = content["runs"][0]["iou"]
    shown = lambda: tab.locator("#classes tbody th").all_inner_texts()  # noqa: E731
    assert shown() == names
    heading.click()
    assert shown() == sorted(names, key=lambda name: -iou[names.index(name)])
    heading.click()
    assert shown() == sorted(names, key=lambda name: iou[names.index(name)])
    assert tab.locator("#classes th[aria-sort=ascending]").count() == 1


def test_gallery_is_sorted(tab, page):
    images = content_of(page)["images"]
    shown = lambda: tab.locator(".card strong").all_inner_texts()  # noqa: E731
    mean = {image["name"]: np.mean(image["scores"]) for image in images}
    change = {image["name"]: abs(np.subtract(*image["scores"])) for image in images}
    assert shown() == sorted(mean, key=mean.get)
    for order, expected in (
        ("best first", sorted(mean, key=lambda name: -mean[name])),
        ("most changed first", sorted(change, key=lambda name: -change[name])),
        ("by name", sorted(mean)),
    ):
        tab.select_option("#order", order)
        assert shown() == expected


def test_slider_moves_the_border(tab):
    slider = tab.locator(".stage input").first
    clip = "side => getComputedStyle(document.querySelector(`canvas[data-side=${side}]`)).clipPath"
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    tab.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    at = float(slider.input_value())
    assert 20 < at < 30
    assert tab.evaluate(clip, "left") == f"inset(0px {100 - at:g}% 0px 0px)"
    assert tab.evaluate(clip, "right") == f"inset(0px 0px 0px {at:g}%)"
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > at


def test_layers_and_classes(tab, page):
    content = content_of(page)
    tab.locator("#gallery").scroll_into_view_if_needed()
    tab.select_option("#order", "by name")
    image = min(content["images"], key=lambda each: each["name"])
    truth = np.asarray(decoded(image["truth"]))
    tab.select_option("#left", label="Truth")
    first = painted(tab, "left")
    colors = [tuple(int(entry["color"][at : at + 2], 16) for at in (1, 3, 5)) for entry in content["classes"]]
    assert np.array_equal(first[..., 3] > 0, truth < 3)
    for c in range(3):
        assert (first[truth == c][:, :3] == colors[c]).all()
    tab.locator("#legend button").nth(1).click()  # the first is "none"
    assert np.array_equal(painted(tab, "left")[..., 3] > 0, (truth < 3) & (truth != 0))
    tab.locator("#legend button").nth(0).click()  # all again
    assert np.array_equal(painted(tab, "left"), first)
    tab.select_option("#left", label="Image")
    assert not painted(tab, "left").any()
    tab.select_option("#left", label="Errors of one")
    prediction = np.asarray(decoded(image["predictions"][0]))
    assert np.array_equal(painted(tab, "left")[..., 3] > 0, (truth < 3) & (prediction != truth))


def test_confusion_matrix_of_each_run(tab, page):
    run = content_of(page)["runs"][1]
    tab.locator("#confusion-runs button").nth(1).click()
    cells = tab.locator("#matrix rect")
    assert cells.count() == 9
    cells.nth(1).hover()
    assert f"({run['confusion'][0][1]:,} pixels)" in tab.locator("#cell").inner_text()


def test_curves_can_be_read(tab):
    curve = tab.locator("#curves svg").first
    curve.hover()
    assert re.search(r"step \d+\s+one: [\d.]+", tab.locator("#tip").inner_text())


def test_phone(browser, page):
    phone = browser.new_page(viewport={"width": 360, "height": 740})
    phone.goto(page.as_uri())
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    assert phone.locator(".card").first.bounding_box()["width"] > 300
    phone.close()


def test_regions_that_scroll_can_be_reached_by_keyboard():
    page = (resources.files("rmiseg.reports") / "page.html").read_text(encoding="utf-8")
    regions = re.findall(r'<div class="scroll"([^>]*)>', page)
    assert len(regions) == 3
    for attributes in regions:
        assert 'tabindex="0" role="group" aria-label="' in attributes

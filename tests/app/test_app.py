"""The page of `rmiseg app`: its functions, the HTTP interface, and what a visitor sees in a browser."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rmiseg.app.files import download, kinds
from rmiseg.app.views import Seen, look, picture, shares
from rmiseg.cli import main
from rmiseg.config import AppConfig, DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.inference.checkpoint import Checkpoint
from rmiseg.inference.predictor import Predictor
from rmiseg.models import build_model
from support.accessibility import violations
from support.checkpoints import save_untrained

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMELESS = """
    const named = (each) => each.innerText.trim() || each.ariaLabel || each.title || each.querySelector("img[alt]");
    const buttons = [...document.querySelectorAll("button")].filter((each) => !named(each));
    return [...buttons, ...document.querySelectorAll("div[aria-label]:not([role])")]
      .filter((each) => each.offsetParent).map((each) => each.outerHTML.slice(0, 200));
"""
CLASSES = ClassTable(("ground", "a<b>", "disc"), (0, 1, 2), (255,), ((0, 0, 0), (255, 0, 0), (0, 9, 99)))


def make_run(folder: Path, classes: ClassTable = CLASSES) -> Path:
    save_untrained(folder / "checkpoints" / "best.pt", classes, step=7, scores={"mean_iou": 0.5})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / "one"), make_run(folder / "two")]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "street.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((180, 120)).save(path)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(runs: list[Path]) -> Iterator[str]:
    """The address of a page."""
    pytest.importorskip("gradio")
    from rmiseg.app.page import serve

    config = AppConfig(runs=list(map(str, runs)), port=free_port(), max_upload=1, max_pixels=200_000, device="cpu")
    blocks = serve(config, Console(quiet=True), block=False)
    yield f"http://127.0.0.1:{config.port}"
    blocks.close(verbose=False)


@pytest.fixture(scope="module")
def served(runs):
    with serving(runs) as url:
        yield url


def test_views(runs, image):
    predictor = Predictor.from_run(runs[0], "cpu")
    seen = look(predictor, image, 10**6)
    assert (seen.ids == predictor(image)).mean() > 0.999
    assert picture(seen, "image", (), 1.0, CLASSES) is seen.pixels
    for view in ("classes", "overlay", "confidence"):
        assert picture(seen, view, CLASSES.names, 0.5, CLASSES).shape == seen.pixels.shape
    assert np.array_equal(picture(seen, "overlay", (), 1.0, CLASSES), seen.pixels)
    assert sum(shares(seen, CLASSES).values()) == pytest.approx(1)


def test_too_large_an_image_is_refused_before_it_is_decoded(runs, image):
    with pytest.raises(ValueError, match="180 x 120 pixels, more than the 1000"):
        look(Predictor.from_run(runs[0], "cpu"), image, 1000)


def test_images_of_many_bands(tmp_path):
    """No browser shows them, nor does Pillow open them."""
    tifffile = pytest.importorskip("tifffile")
    shape = {"backbone": "test_efficientnet", "weights": "none"}
    model = build_model("deeplabv3plus", num_classes=3, in_channels=5, **shape)
    data = DataConfig(bands=5, value_range=(0.0, 1000.0), picture=(3, 2, 1))
    options = ModelConfig(name="deeplabv3plus", backbone="test_efficientnet")
    predictor = Predictor(Checkpoint(model.state_dict(), options, data, CLASSES, 7, {}), "cpu")
    pixels = np.random.default_rng(0).integers(0, 1000, (60, 80, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    assert look(predictor, tmp_path / "a.tif", 10**6).pixels.shape == (60, 80, 3)
    with pytest.raises(ValueError, match="80 x 60 pixels"):
        look(predictor, tmp_path / "a.tif", 100)


def test_http(served, runs, image, tmp_path):
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(served, verbose=False, download_files=str(tmp_path))
    mask, found = client.predict(client_module.handle_file(str(image)), api_name="/segment")
    assert (np.asarray(Image.open(mask)) == Predictor.from_run(runs[0], "cpu")(image)).mean() > 0.999
    assert list(found) == list(CLASSES.names)
    schema = json.load(urlopen(f"{served}/gradio_api/info"))
    assert list(schema["named_endpoints"]) == ["/segment"]
    large = tmp_path / "large.png"
    Image.new("RGB", (600, 600)).save(large)
    with pytest.raises(Exception, match=r"600 x 600 pixels, more than the 200000"):
        client.predict(client_module.handle_file(str(large)), api_name="/segment")
    no_image = tmp_path / "no.png"
    no_image.write_bytes(b"nothing")
    with pytest.raises(Exception, match=r"^cannot read image no\.png: it is of no kind of image"):
        client.predict(client_module.handle_file(str(no_image)), api_name="/segment")
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(1_100_000))
    with pytest.raises(Exception, match=r"(?i)too large|413|exceed"):
        client.predict(client_module.handle_file(str(heavy)), api_name="/segment")


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".jpg"), ("P", ".png"), ("I;16", ".png"), ("CMYK", ".jpg")])
def test_files_are_read_as_they_are(served, runs, image, tmp_path, mode, suffix):
    """And not by gradio before, which packs what is not RGB anew, and makes 16 bits white."""
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(served, verbose=False, download_files=str(tmp_path))
    path = tmp_path / f"a b{suffix}"
    picture = Image.open(image).convert("RGB")
    if mode == "I;16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        picture.convert(mode).save(path)
    mask, _ = client.predict(client_module.handle_file(str(path)), api_name="/segment")
    assert (np.asarray(Image.open(mask)) == Predictor.from_run(runs[0], "cpu")(path)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_large_images_are_not_decoded_whatever_their_mode(served, tmp_path, mode):
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(served, verbose=False, download_files=str(tmp_path))
    Image.new(mode, (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(Exception, match="9000 x 9000 pixels, more than the 200000"):
        client.predict(client_module.handle_file(str(tmp_path / "bomb.png")), api_name="/segment")


def test_no_other_file_is_read(served, tmp_path):
    """Neither one that a visitor names in place of an upload, nor one that a visitor asks for."""
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(served, verbose=False, download_files=str(tmp_path))
    secret = Path(__file__).resolve()
    with pytest.raises(Exception, match=r"(?i)not.*(allowed|accessible)|InvalidPath|Cannot"):
        client.predict({"path": str(secret), "meta": {"_type": "gradio.FileData"}}, api_name="/segment")
    with pytest.raises(Exception, match=r"403|404"):
        urlopen(f"{served}/gradio_api/file={secret}")


def test_refuses(runs, tmp_path, capsys):
    pytest.importorskip("gradio")
    assert main(["app", *map(str, [*runs, runs[0]])]) == 1
    assert "one run, or two to compare, not 3" in capsys.readouterr().err
    others = ClassTable(("ground", "other"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
    assert main(["app", str(runs[0]), str(make_run(tmp_path / "three", others))]) == 1
    assert "have other classes" in capsys.readouterr().err
    assert main(["app", str(tmp_path)]) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["app", str(runs[0]), "--port", str(taken.getsockname()[1])]) == 1
        assert "port" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "count"), [(390, 1), (1280, 2)])
def test_in_a_browser(runs, image, width, count):
    sync_api = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    with serving(runs[:count]) as url, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(url)
        page.locator("input[type=file]").first.set_input_files(str(image))
        expect(page.locator("table.legend td")).to_have_count(count * len(CLASSES), timeout=60_000)
        expect(page.locator("table.legend")).to_contain_text("a<b>")
        results = [page.locator(f"#result-{index} img") for index in range(count)]
        for result in results:
            expect(result).to_be_visible(timeout=60_000)
        for step in ("confidence", "classes", "disc"):  # two views, and a class that is no longer shown
            before = results[-1].get_attribute("src")
            page.get_by_label(step, exact=True).click()
            expect(results[-1]).not_to_have_attribute("src", before, timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not page.evaluate(f"() => {{ {NAMELESS} }}"), "buttons without a name, or names where none is heard"
        with page.expect_download() as download:
            page.locator("a[download='street.png']").first.click()
        assert download.value.suggested_filename == "street.png"
        assert not [each for each in requested if not each.startswith((url, "data:", "blob:"))], "loaded from elsewhere"
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(runs, image, scheme):
    """On a phone and a desktop, before and after an image, on every tab."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with serving(runs[:1]) as url, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (390, 1280):
            with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}) as context:
                page = context.new_page()
                page.set_default_timeout(60_000)
                page.goto(url)
                page.locator("input[type=file]").first.wait_for(state="attached")
                assert violations(page) == []
                page.locator("input[type=file]").first.set_input_files(str(image))
                page.locator("table.legend td").first.wait_for()
                for tab in page.get_by_role("tab").all():
                    tab.click()
                    page.wait_for_timeout(500)  # colors of a tab fade in
                    assert violations(page) == []
        browser.close()


def test_many_images(runs, image, tmp_path):
    pytest.importorskip("gradio")
    from rmiseg.app.page import Page

    page = Page([Predictor.from_run(runs[0], "cpu")], ["one"], 10**6)
    assert page.segment_many([]) is None
    with zipfile.ZipFile(page.segment_many([str(image), str(image)])) as archive:
        assert archive.namelist() == ["0000-street.png", "0001-street.png"]
    other = shutil.copy(image, tmp_path / "other.png")
    with zipfile.ZipFile(page.segment_many([str(image), str(other)])) as archive:
        assert archive.namelist() == ["street.png", "other.png"]


def test_labels_for_a_tool(image, monkeypatch):
    """As `rmiseg predict --write` writes them; they name the image as the visitor does, and no folder of the server."""
    pytest.importorskip("cv2")
    ids = np.zeros((120, 180), np.uint8)
    ids[20:60, 30:90] = 2
    seen = Seen(np.zeros((120, 180, 3), np.uint8), ids, np.ones((120, 180), np.float32))
    assert kinds() == ["mask", "coco", "labelme", "cvat", "label-studio", "kaggle-columns", "kaggle-rows"]
    content = json.loads(download([seen], [image], "labelme", CLASSES).read_text())
    assert content["imagePath"] == "street.png"
    assert {each["label"] for each in content["shapes"]} == {"ground", "disc"}
    together = download([seen, seen], [image, Path("other.jpg")], "coco", CLASSES)
    assert [each["file_name"] for each in json.loads(together.read_text())["images"]] == ["street.png", "other.jpg"]
    for name in kinds():
        assert str(image.parent) not in download([seen], [image], name, CLASSES).read_bytes().decode("latin1")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ModuleNotFoundError, match=r"\.\[labels\]"):
        download([seen], [image], "labelme", CLASSES)

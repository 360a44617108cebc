"""The programs in examples/clients run an exported model without this package."""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.exports.common import metadata
from rmiseg.exports.export import export_segmenter
from rmiseg.inference.checkpoint import Checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models import build_model

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
NODE_MODULES = CLIENTS / "node_modules"
HAS_COMPILER = shutil.which("g++") is not None
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROWS = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()).join(': '))"
CLASSES = ClassTable(("ground", 'grün, "x"', "blue"), (0, 1, 2), (255,), ((0, 0, 0), (0, 255, 0), (0, 9, 99)))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An ONNX file with the inputs, outputs and metadata of an export, whose class is that of the largest band."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = build_model("deeplabv3plus", num_classes=3, backbone="test_efficientnet", weights="none")
    options = ModelConfig(name="deeplabv3plus", backbone="test_efficientnet")
    segmenter = Segmenter.from_checkpoint(Checkpoint(network.state_dict(), options, DataConfig(), CLASSES, 7, {}))
    node = onnx.helper.make_node("Cast", ["image"], ["logits"], to=onnx.TensorProto.FLOAT)
    shape = ["batch", 3, "height", "width"]
    given = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, shape)
    result = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    graph = onnx.helper.make_graph([node], "identity", [given], [result])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(made, metadata(segmenter))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)).save(path)
    return path


def check(result: Path, image: Path, said: str) -> None:
    ids = np.asarray(Image.open(image)).argmax(axis=2)
    colors = np.asarray(CLASSES.palette, np.uint8)[ids]
    assert np.array_equal(np.asarray(Image.open(result).convert("RGB")), colors)
    for index, name in enumerate(CLASSES.names):
        assert f"{name}: {100 * (ids == index).mean():.2f} %" in said


def test_python(model, image, tmp_path, capsys):
    path = CLIENTS / "segment.py"
    imported = {each for node in ast.walk(ast.parse(path.read_text())) for each in names(node)}
    assert imported == {"json", "sys", "numpy", "onnxruntime", "PIL"}
    spec = importlib.util.spec_from_file_location("segment", path)
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    client.main(str(model), str(image), str(tmp_path / "result.png"))
    check(tmp_path / "result.png", image, capsys.readouterr().out)


def names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name.split(".")[0] for each in node.names]
    return [node.module.split(".")[0]] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "onnxruntime-node").is_dir(),
    reason="node is not installed, or `npm install` was not run in examples/clients",
)
def test_node(model, image, tmp_path):
    command = ["node", str(CLIENTS / "segment.mjs"), str(model), str(image), str(tmp_path / "result.png")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    check(tmp_path / "result.png", image, run.stdout)


@pytest.mark.skipif(
    CHROMIUM is None or not (NODE_MODULES / "onnxruntime-web").is_dir(),
    reason="there is no Chromium, or `npm install onnxruntime-web` was not run in examples/clients",
)
def test_browser(model, image, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    with serving(CLIENTS) as url, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(f"{url}/segment.html")
        page.set_input_files("#image", str(image))
        sync_api.expect(page.locator("#state")).to_have_text("Choose a model.")
        page.set_input_files("#model", str(model))
        sync_api.expect(page.locator("#state")).to_contain_text("50 x 37 pixels in", timeout=60_000)
        said = "\n".join(page.locator("#classes tr").evaluate_all(ROWS))
        png = page.evaluate("document.getElementById('mask').toDataURL()").partition(",")[2]
        (tmp_path / "result.png").write_bytes(base64.b64decode(png))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_input_files("#model", str(image))  # which is no model
        sync_api.expect(page.locator("#state")).to_contain_text("is no file that rmiseg export wrote")
        browser.close()
    check(tmp_path / "result.png", image, said)


def build(engine: str, folder: Path) -> Path:
    """A client in C++, by the commands that stand in its source, where `python` is this one."""
    source = f"segment_{engine}.cpp"
    for name in ("client.hpp", source):
        shutil.copy(CLIENTS / "cpp" / name, folder)
    lines = re.search(r"pip install.*?\n(.*?)^ *\./segment", (folder / source).read_text(), flags=re.S | re.M)[1]
    commands = lines.replace("$(python ", f"$({sys.executable} ")
    run = subprocess.run(["bash", "-ec", commands], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder / "segment"


def run_client(program: Path, model: Path, image: Path, result: Path) -> str:
    """What a client in C++ says; its pictures are PPM files."""
    picture = result.with_name("given.ppm")
    Image.open(image).save(picture)
    command = [str(program), str(model), str(picture), str(result)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    cut = result.with_name("cut.ppm")
    cut.write_bytes(picture.read_bytes()[:-9])
    refused = subprocess.run([*command[:2], str(cut), command[3]], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, f"error: {cut} is cut short\n")
    return run.stdout


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_COMPILER, reason="there is no g++")
def test_cpp_with_openvino(model, image, tmp_path):
    openvino = pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    converted = openvino.convert_model(model)
    for each in onnx.load(model).metadata_props:
        converted.set_rt_info(each.value, ["rmiseg", each.key])
    openvino.save_model(converted, tmp_path / "model.xml", compress_to_fp16=False)
    said = run_client(build("openvino", tmp_path), tmp_path / "model.xml", image, tmp_path / "result.ppm")
    check(tmp_path / "result.ppm", image, said)


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_COMPILER, reason="there is no g++")
def test_cpp_with_torch(image, tmp_path):
    """A U-Net of four sizes, whose poolings round up: images of any size (see `TRACED_SIZE`)."""
    torch.manual_seed(0)
    options = ModelConfig(name="unet", options={"levels": 4, "width": 2})
    network = build_model("unet", num_classes=3, weights="none", options=options.options)
    segmenter = Segmenter.from_checkpoint(Checkpoint(network.state_dict(), options, DataConfig(), CLASSES, 7, {}))
    assert export_segmenter(segmenter, "torch-aoti", tmp_path).difference < 1e-4
    library = torch._inductor.aoti_load_package(tmp_path / "model-aoti.pt2")
    for size in ((1, 3, 120, 81), (2, 3, 96, 97), (1, 3, 121, 85), (1, 3, 64, 64), (3, 3, 75, 160)):
        images = torch.randint(0, 256, size, dtype=torch.uint8)
        with torch.no_grad():
            torch.testing.assert_close(library(images), segmenter(images), rtol=0, atol=1e-4)
    said = run_client(build("torch", tmp_path), tmp_path / "model-aoti.pt2", image, tmp_path / "result.ppm")
    with torch.no_grad():
        ids = segmenter(torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None]).argmax(dim=1)[0].numpy()
    colors = np.asarray(CLASSES.palette, np.uint8)[ids]
    assert (np.asarray(Image.open(tmp_path / "result.ppm")) == colors).all(axis=2).mean() > 0.999
    assert [line.rpartition(":")[0] for line in said.splitlines()] == list(CLASSES.names)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of the files in a folder."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_clients_refuse_other_input(model, image, tmp_path):
    """A model of other bands than RGB would get a picture that it does not know."""
    onnx = pytest.importorskip("onnx")
    other = onnx.load(model)
    about = {each.key: each.value for each in other.metadata_props}
    onnx.helper.set_model_props(other, {**about, "input": "images of 4 bands, uint8"})
    onnx.save(other, tmp_path / "other.onnx")
    spec = importlib.util.spec_from_file_location("segment", CLIENTS / "segment.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    with pytest.raises(SystemExit, match="images of 4 bands"):
        client.main(str(tmp_path / "other.onnx"), str(image), str(tmp_path / "result.png"))
    assert not (tmp_path / "result.png").exists()
    assert json.loads(about["classes"]) == list(CLASSES.names)

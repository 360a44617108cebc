"""OpenVINO, ONNX with integers of 8 bits, AOTInductor, a server's folder: each is compared with PyTorch."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rmiseg.cli import main
from rmiseg.config import DataConfig, ModelConfig
from rmiseg.exports import executorch_file, onnx_int8, torch_aoti, triton_server
from rmiseg.exports.common import TRACED_SIZE
from rmiseg.exports.export import export_segmenter
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.segmenter import Segmenter
from support.checkpoints import save_untrained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on 8 images, which the network has not learned."""
    folder = tmp_path_factory.mktemp("run")
    data = folder / "data"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((96, 64)).save(
            data / "images" / f"{index}.png"
        )
        Image.fromarray((np.arange(96) > 48).astype(np.uint8)[None].repeat(64, axis=0)).save(
            data / "masks" / f"{index}.png"
        )
    (data / "dataset.yaml").write_text("classes: [ground, disc]\n")
    model, described = ModelConfig("unet", options={"levels": 2}), DataConfig(root=str(data), image_scale=0.5)
    best = folder / "checkpoints" / "best.pt"
    save_untrained(best, ("ground", "disc"), model, described, step=7, scores={"mean_iou": 0.5})
    return folder


def test_openvino_equals_pytorch(run, tmp_path):
    """Also where images are made smaller first, with antialiasing, which OpenVINO does not take from ONNX."""
    openvino = pytest.importorskip("openvino")
    segmenter = Segmenter.from_checkpoint(load_checkpoint(run))
    exported = export_segmenter(segmenter, "openvino", tmp_path)
    assert [path.name for path in exported.files] == ["model.xml", "model.bin"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.xml", "model.bin"}
    assert exported.difference < 1e-3
    model = openvino.Core().read_model(tmp_path / "model.xml")
    assert json.loads(model.get_rt_info(["rmiseg", "classes"]).astype(str)) == ["ground", "disc"]
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = torch.randint(0, 256, (2, 3, 61, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(compiled(images.numpy())[0], segmenter(images).numpy(), rtol=0, atol=1e-3)


@pytest.mark.nightly
def test_executorch_equals_pytorch(run, tmp_path):
    """Also images of other sizes than the traced one."""
    pytest.importorskip("executorch")
    checkpoint = load_checkpoint(run)
    with pytest.raises(ValueError, match=r"data\.image_scale 0\.5"):
        export_segmenter(Segmenter.from_checkpoint(checkpoint), "executorch", tmp_path)
    segmenter = Segmenter.from_checkpoint(replace(checkpoint, data=DataConfig()))
    exported = export_segmenter(segmenter, "executorch", tmp_path)
    assert exported.difference < 1e-4
    runtime = pytest.importorskip("executorch.runtime").Runtime.get()
    program = runtime.load_program(tmp_path / "model.pte")
    about = json.loads(bytes(program.load_method("metadata").execute([])[0].tolist()))
    assert (json.loads(about["classes"]), about["input"][:10]) == (["ground", "disc"], "RGB images")
    forward = program.load_method("forward")
    images = torch.randint(0, 256, (1, 3, 301, 97), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(forward.execute([images])[0], segmenter(images), rtol=0, atol=1e-4)
    side = executorch_file.LARGEST_SIDE
    with pytest.raises(RuntimeError, match="set_inputs"):
        forward.execute([torch.zeros(1, 3, side, side + 1, dtype=torch.uint8)])


def test_sides_are_odd_at_every_pooling_of_the_trace():
    """Else a pooling that rounds up is taken for one of even sizes, see `TRACED_SIZE`."""
    for side in TRACED_SIZE[1:]:
        for _ in range(6):
            assert side % 2 == 1
            side = (side + 1) // 2


def test_int8_is_measured_on_training_images(run, capsys, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(onnx_int8, "LEAST_AGREEMENT", 0.5)  # of an untrained network
    assert main(["export", str(run), "--format", "onnx-int8", "--images", "4"]) == 0
    assert "of the pixels of training images get another class" in " ".join(capsys.readouterr().out.split())
    path = run / "export" / "model-int8.onnx"
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("DequantizeLinear") > 10
    session = onnxruntime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["ground", "disc"]
    assert session.run(None, {"image": np.zeros((2, 3, 50, 70), np.uint8)})[0].shape == (2, 2, 50, 70)


def test_int8_refuses(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    segmenter = Segmenter.from_checkpoint(load_checkpoint(run))
    with pytest.raises(ValueError, match="two training images or more"):
        export_segmenter(segmenter, "onnx-int8", tmp_path)
    monkeypatch.setattr(onnx_int8, "LEAST_AGREEMENT", 1.1)
    arguments = ["export", str(run), "--format", "onnx-int8", "--images", "2", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "get another class (allowed" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert main([*arguments, "--root", str(tmp_path / "gone")]) == 1
    assert "gone" in capsys.readouterr().err


def test_triton_server_is_told_what_the_model_takes(run, tmp_path, capsys):
    """Names, types and sizes of config.pbtxt are those of the ONNX file beside it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", str(run), "--format", "triton-server", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "triton-server" / "segmenter"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.pbtxt", "labels.txt", "1/model.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["triton-server"]
    config = (folder / "config.pbtxt").read_text()
    assert f'\nname: "{folder.name}"\n' in config
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    types = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    for section, value in (("input", given), ("output", result)):
        sides = [side if isinstance(side, int) else -1 for side in value.shape]
        assert sides.pop(0) == -1  # the batch, which the server adds where max_batch_size is above 0
        body = re.search(rf"^{section} \[\n(.*?)\n\]", config, re.M | re.S)[1]
        assert f'name: "{value.name}", data_type: {types[value.type]}, dims: {sides}' in body
    assert int(re.search(r"^max_batch_size: (\d+)$", config, re.M)[1]) > 0
    assert (folder / "labels.txt").read_text() == "ground\ndisc\n"
    about = session.get_modelmeta().custom_metadata_map
    for name, text in re.findall(r'^parameters \{ key: (".*?") value \{ string_value: (".*") \} \}$', config, re.M):
        assert about.pop(json.loads(name)) == json.loads(text)
    assert not about


def test_triton_server_understands_the_configuration(run):
    """By the server's own definition of it."""
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    segmenter = Segmenter.from_checkpoint(load_checkpoint(run))
    parsed = text_format.Parse(triton_server.configuration(segmenter), model_config.ModelConfig())
    assert (parsed.input[0].dims, parsed.output[0].dims) == ([3, -1, -1], [2, -1, -1])
    assert (parsed.output[0].label_filename, parsed.version_policy.latest.num_versions) == ("labels.txt", 1)
    assert json.loads(parsed.parameters["classes"].string_value) == ["ground", "disc"]


def test_aoti_is_compared_and_needs_a_compiler(run, tmp_path, capsys, monkeypatch):
    """What is compiled here is tried by benchmarks/exports.py: it takes minutes."""
    segmenter = Segmenter.from_checkpoint(load_checkpoint(run))
    given = {}

    def compiled(program, *, package_path, inductor_configs):
        given.update(inductor_configs["aot_inductor.metadata"])
        Path(package_path).write_bytes(b"library")

    monkeypatch.setattr(torch_aoti, "traced", lambda segmenter: None)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compiled)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: segmenter)
    exported = export_segmenter(segmenter, "torch-aoti", tmp_path)
    assert (exported.difference, [path.name for path in tmp_path.iterdir()]) == (0.0, ["model-aoti.pt2"])
    assert json.loads(given["classes"]) == ["ground", "disc"]
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: lambda images: segmenter(images) + 1)
    with pytest.raises(ValueError, match="the compiled library differs from PyTorch by 1"):
        export_segmenter(segmenter, "torch-aoti", tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())

    def no_compiler():
        raise torch_aoti.InvalidCxxCompiler

    monkeypatch.setattr(torch_aoti, "get_cpp_compiler", no_compiler)
    assert main(["export", str(run), "--format", "torch-aoti", "--out", str(tmp_path / "third")]) == 1
    assert "needs a C++ compiler" in capsys.readouterr().err

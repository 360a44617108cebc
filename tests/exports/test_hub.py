"""The model card of a run, and sending it to a model hub, of which there is a double on this machine."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from rich.console import Console

from rmiseg.cli import main
from rmiseg.config import DataConfig, TilingConfig
from rmiseg.data import ClassTable
from rmiseg.evaluation.evaluate import Evaluation
from rmiseg.evaluation.results import evaluation_folder, make_report, save_evaluation
from rmiseg.exports import hub
from rmiseg.inference.checkpoint import digest, load_checkpoint
from support.checkpoints import save_untrained

pytestmark = pytest.mark.slow

CLASSES = ClassTable(("ground", "a|b", "<i>"), (0, 1, 2), (255,), ((0, 0, 0), (255, 0, 0), (0, 9, 99)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with a checkpoint, options and an evaluation in which the last class is nowhere."""
    folder = tmp_path_factory.mktemp("run")
    data = DataConfig(name="camvid", root="/home/somebody", image_scale=0.5)
    path = save_untrained(folder / "checkpoints" / "best.pt", CLASSES, data=data, step=7, scores={"mean_iou": 0.5})
    (folder / "config.yaml").write_text("loss: {name: rmi}\ndata: {crop_size: [176, 240]}\noptim: {lr: 0.05}\n")
    write_evaluation(path)
    return folder


def write_evaluation(path: Path) -> None:
    confusion = np.array([[90, 10, 0], [5, 15, 0], [0, 0, 0]])
    counts = np.zeros((4, 6, 3, 3), np.int64)
    counts[:] = np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)])
    names = tuple("abcd")
    evaluation = Evaluation(names, 4 * confusion, {"iou": counts}, {"total": 1.0, "model": 1.0})
    settings = {**asdict(TilingConfig()), "crf": None}
    about = {"checkpoint": str(path), "sha256": digest(path), "step": 7, "data": "camvid", "root": None, "split": "val"}
    report = make_report(evaluation, CLASSES.names, {**about, "settings": settings})
    save_evaluation(evaluation_folder(path, "val", settings), evaluation, report)


class Double(BaseHTTPRequestHandler):
    """What a hub answers to the calls that make a repository and a commit."""

    requests: list[tuple[str, str, str]]
    refuse = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.requests.append((self.path, self.headers["Authorization"], body))
        host = f"http://{self.headers['Host']}"
        answer: dict = {"error": "you may not"}
        if not self.refuse:
            if self.path == "/api/repos/create":
                answer = {"url": f"{host}/me/model"}
            elif self.path == "/api/validate-yaml":
                answer = {"errors": [], "warnings": []}
            elif self.path.endswith("/preupload/main"):
                given = json.loads(body)["files"]
                files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in given]
                answer = {"files": files}
            elif self.path.endswith("/commit/main"):
                answer = {"commitOid": "f" * 40, "commitUrl": f"{host}/me/model/commit/{'f' * 40}"}
        text = json.dumps(answer).encode()
        self.send_response(403 if self.refuse else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def double(monkeypatch):
    Double.requests, Double.refuse = [], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Double)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub, "HfApi", lambda **options: huggingface_hub.HfApi(address, token="hf_secret", **options))
    monkeypatch.setattr(hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield Double
    server.shutdown()
    server.server_close()


def test_push_sends_what_was_written(run, double, tmp_path, capsys):
    arguments = ["export", str(run), "--format", "safetensors", "--out", str(tmp_path), "--license", "cc-by-4.0"]
    assert main([*arguments, "--push", "me/model"]) == 0
    assert "Sent to http://127.0.0.1" in capsys.readouterr().out
    paths = [path for path, _, _ in double.requests]
    assert (paths[0], paths[-1]) == ("/api/repos/create", "/api/models/me/model/commit/main")
    assert all(token == "Bearer hf_secret" for _, token, _ in double.requests)
    created = json.loads(double.requests[0][2])
    assert created["name"] == "model"
    assert created.get("private") or created["visibility"] == "private"  # by the library's version
    lines = [json.loads(line) for line in double.requests[-1][2].splitlines()]
    sent = {
        each["value"]["path"]: base64.b64decode(each["value"]["content"]) for each in lines if each["key"] == "file"
    }
    assert sent == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(sent) == {"model.safetensors", "config.json", "README.md"}


def test_push_refuses(run, double, tmp_path, capsys, monkeypatch):
    def error(*further: str) -> str:
        assert main(["export", str(run), "--out", str(tmp_path / "out"), *further]) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "--format safetensors" in error("--push", "me/model")
    assert "Repo id must" in error("--format", "safetensors", "--push", "../x y")
    assert "cc-by-4.0" in error("--format", "safetensors", "--license", "do what you\nwant")
    assert "licence is for the model card" in error("--license", "mit")
    with monkeypatch.context() as context:
        context.setattr(hub, "get_token", lambda: None)
        assert "hf auth login" in error("--format", "safetensors", "--push", "me/model")
    assert not (tmp_path / "out").exists()
    assert not double.requests
    double.refuse = True
    said = error("--format", "safetensors", "--push", "me/model")
    assert "HTTP 403" in said
    assert "hf_secret" not in said


def test_card_says_what_is_known(run, capsys):
    facts = hub.card_facts(run, load_checkpoint(run), "cc-by-4.0", Console(quiet=True))
    assert facts.training == {"loss": "rmi", "crop (height, width)": "176, 240", "learning rate": "0.05"}
    assert main(["export", str(run), "--format", "safetensors", "--overwrite", "true", "--license", "cc-by-4.0"]) == 0
    card = (run / "export" / "README.md").read_text()
    header, body = card.split("---\n", 2)[1:]
    assert "license: cc-by-4.0\n" in header
    for part in (
        r"| 1 | a\|b | #ff0000 | 50.00 | 50.00 to 50.00 |",
        "| 2 | &lt;i&gt; | #000963 | - | - |",
        "On the 4 images of the split val, after 7 training steps",
        "| mean_iou over 2 of 3 classes | 67.86 | 67.86 to 67.86 |",
        "| learning rate | 0.05 |",
        r"The classes with the lowest IoU: a\|b (50.00 %).",
        "In none of the images that it was scored on: &lt;i&gt;.",
        "images resized by 0.5",
        "## Licence\n\ncc-by-4.0.\nThe terms of the data set camvid hold",
    ):
        assert part in body
    assert "/home/somebody" not in card


def test_card_without_an_evaluation(run, tmp_path, capsys):
    """Or with one of another checkpoint, whose scores are not these."""
    scores = run / "evaluation" / "val" / "scores.json"
    hidden = scores.rename(scores.with_suffix(".hidden"))
    try:
        assert main(["export", str(run), "--format", "safetensors", "--out", str(tmp_path)]) == 0
    finally:
        hidden.rename(scores)
    assert f"`rmiseg evaluate {run}` first" in " ".join(capsys.readouterr().out.split())
    card = (tmp_path / "README.md").read_text()
    assert "| mean_iou | 50.00 |" in card
    assert "Not stated." in card

import os
import pickle
from dataclasses import replace

import pytest
import torch

from rmiseg.config import DataConfig, ModelConfig
from rmiseg.data import ClassTable
from rmiseg.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rmiseg.inference.segmenter import Segmenter
from rmiseg.models import build_model

CLASSES = ClassTable(("a", "b"), (0, 1), (255,), ((0, 0, 0), (255, 0, 0)))
MODEL = ModelConfig("deeplabv3plus", "test_efficientnet", "none", 16)


def make(weights=None, step=0, **scores):
    return Checkpoint(weights or {"w": torch.ones(2)}, MODEL, DataConfig(root="x"), CLASSES, step, scores)


@pytest.fixture(scope="module")
def model():
    return build_model("deeplabv3plus", num_classes=2, backbone="test_efficientnet", weights="none").eval()


def test_round_trip_gives_the_same_model(tmp_path, model):
    path = tmp_path / "c.pt"
    save_checkpoint(path, make(model.state_dict(), step=7, mean_iou=0.5))
    loaded = load_checkpoint(path)
    assert (loaded.model, loaded.data, loaded.classes) == (MODEL, DataConfig(root="x"), CLASSES)
    assert (loaded.step, loaded.scores) == (7, {"mean_iou": 0.5})
    images = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        same_layout = model.to(memory_format=torch.channels_last)  # in which sums are rounded alike
        assert torch.equal(loaded.build_model(torch.device("cpu"))(images), same_layout(images))
    assert os.listdir(tmp_path) == ["c.pt"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, make(step=1))

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, make(step=2))
    monkeypatch.undo()
    assert load_checkpoint(path).step == 1
    assert os.listdir(tmp_path) == ["c.pt"]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["zip", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch, save):
    monkeypatch.chdir(tmp_path)
    save({"format": "rmiseg checkpoint 1", "weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt is not a checkpoint.* (\w+\.mkdir|something) beside.*not loaded"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "evil-was-here").exists()


def test_damaged_and_foreign_files(tmp_path, model):
    whole = tmp_path / "c.pt"
    save_checkpoint(whole, make(model.state_dict()))
    for name, content in (("cut", whole.read_bytes()[:-1000]), ("empty", b""), ("text", b"hello")):
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.pt"):
            load_checkpoint(path)
    torch.save(model.state_dict(), tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match=r"foreign\.pt is not a checkpoint of rmiseg.*backbone"):
        load_checkpoint(tmp_path / "foreign.pt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match="is it a run's folder"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match="its training has not got as far yet"):
        load_checkpoint(tmp_path)


def test_weights_of_another_model(tmp_path):
    other = build_model("pspnet", num_classes=2, backbone="test_efficientnet", weights="none")
    save_checkpoint(tmp_path / "c.pt", make(other.state_dict()))
    with pytest.raises(ValueError, match="not those of deeplabv3plus with test_efficientnet and 2 classes"):
        load_checkpoint(tmp_path / "c.pt").build_model(torch.device("cpu"))


@pytest.mark.parametrize("change", [{"model": {"future": 1}}, {"weights": [1]}, {"classes": 3}])
def test_content_of_another_version_is_refused(tmp_path, change):
    path = tmp_path / "c.pt"
    save_checkpoint(path, make())
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(ValueError, match=r"marked as a checkpoint of rmiseg, but its content"):
        load_checkpoint(path)


def test_mean_and_standard_deviation_of_the_data(model):
    data = DataConfig(image_mean=(116, 113, 104), image_std=(69.58, 68.68, 72.67))
    checkpoint = replace(make(model.state_dict()), data=data)
    segmenter = Segmenter.from_checkpoint(checkpoint)
    assert segmenter.center.flatten().tolist() == [116, 113, 104]
    assert segmenter.spread.flatten().tolist() == pytest.approx([69.58, 68.68, 72.67])
    assert segmenter.to_checkpoint().data.image_mean == (116, 113, 104)
    for wrong in ({"image_mean": (0.4, 0.4, 0.4)}, {"image_std": (0, 60, 60)}):
        with pytest.raises(ValueError, match="must be three numbers, of red, green and blue from 0 to 255"):
            replace(checkpoint, data=DataConfig(**wrong)).build_model(torch.device("cpu"))

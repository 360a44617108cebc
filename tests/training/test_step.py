"""A step whose outcome is read late, and steps that are skipped without asking the device."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from rmiseg import Callback
from rmiseg.config import LossConfig, OptimConfig
from rmiseg.runtime.distributed import full_state, load_full_state
from rmiseg.training import assembly
from rmiseg.training.criterion import Criterion
from rmiseg.training.loop import TrainingRun
from rmiseg.training.optim import build_optimizer
from rmiseg.training.run_folder import RunFolder
from rmiseg.training.step import StepInFlight, TrainStep
from rmiseg.training.trainer import Trainer
from support.faults import SmallModel, configuration, small_model

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture
def late(monkeypatch):
    """Outcomes are read late, as on a GPU."""
    monkeypatch.setattr(TrainingRun, "reads_late", property(lambda self: True, lambda self, value: None), raising=False)


def fit(config, *callbacks, console=None):
    return Trainer(config, callbacks=callbacks, console=console or Console(quiet=True)).fit()


def state_of(path):
    return torch.load(path / "checkpoints" / "last.pt", weights_only=True)["weights"]


def test_outcomes_are_read_a_step_later(data, tmp_path, monkeypatch, late):
    """But where the state is saved; nothing else changes."""
    events = []
    launch, outcome = TrainStep.launch, StepInFlight.outcome

    def launched(self, batches, step, *others):
        events.append(f"launch {step}")
        return launch(self, batches, step, *others)

    def read(self):
        events.append("read")
        return outcome(self)

    monkeypatch.setattr(TrainStep, "launch", launched)
    monkeypatch.setattr(StepInFlight, "outcome", read)
    options = {"epochs": 2, "accumulate": 1, "steps": 6, "checkpoint_every": 4, "ema": 0.5}
    fit(configuration(data, tmp_path / "late", **options))
    assert events == [
        *("launch 0", "launch 1", "read", "launch 2", "read", "read"),  # the epoch ends
        *("launch 3", "read", "launch 4", "launch 5", "read", "read"),  # after step 4 the state was saved
    ]
    monkeypatch.undo()
    monkeypatch.setattr(assembly, "build_model", small_model)
    fit(configuration(data, tmp_path / "at once", **options))
    weights, expected = state_of(tmp_path / "late"), state_of(tmp_path / "at once")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    curves = [(tmp_path / name / "curves.csv").read_text().splitlines() for name in ("late", "at once")]
    without_waits = [[line for line in each if "data_wait" not in line] for each in curves]
    assert without_waits[0] == without_waits[1]


def test_a_skipped_step_has_its_number_though_it_is_read_late(data, tmp_path, monkeypatch, late):
    spoil_from(monkeypatch, 2)
    console = Console(record=True, quiet=False, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    with pytest.raises(FloatingPointError, match=r"not finite in 2 steps in a row, up to step 4; .*step-00000003\.pt"):
        fit(configuration(data, tmp_path / "run", max_skipped=2, accumulate=1, checkpoint_every=2), console=console)
    text = console.export_text()
    assert "warning: step 3 skipped: loss nan, on the images" in text
    assert "warning: step 4 skipped: loss nan, on the images" in text
    assert "step 2 skipped" not in text


def spoil_from(monkeypatch, number):
    """Let the loss be NaN from step `number` on, the first being 0."""
    call = Criterion.__call__

    def spoiled(self, logits, auxiliary, target, counts, step, *others):
        return call(self, logits * math.nan if step >= number else logits, auxiliary, target, counts, step, *others)

    monkeypatch.setattr(Criterion, "__call__", spoiled)


def test_a_callback_sees_the_model_after_its_step(data, tmp_path):
    class Hears(Callback):
        def on_step_end(self, run, outcome):
            assert not run.reads_late

    fit(configuration(data, tmp_path / "run"), Hears())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_is_skipped_leaves_nothing(optimizer, monkeypatch):
    """Be it the first: weights, statistics, momentum, and the optimizer's count of steps are as if it had not been."""
    batches = [
        {
            "image": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8),
            "mask": torch.randint(0, 3, (2, 32, 32), dtype=torch.uint8),
            "name": ["a", "b"],
        }
        for _ in range(2)
    ]
    torch.manual_seed(0)
    model = SmallModel(3).to(memory_format=torch.channels_last)
    model.head[1] = nn.Identity()  # no dropout
    undisturbed = copy.deepcopy(model)
    skipping, plain = (step_of(each, optimizer) for each in (model, undisturbed))
    call = Criterion.__call__
    monkeypatch.setattr(Criterion, "__call__", lambda self, logits, *others: call(self, logits * math.inf, *others))
    first = skipping([batches[0]], 0)
    assert (first.skipped, first.suspects) == (True, ["a", "b"])
    assert all(torch.equal(mine, other) for mine, other in zip(floats(model), floats(undisturbed)))
    monkeypatch.setattr(Criterion, "__call__", call)
    for each in batches:
        assert skipping([each], 1).parts == plain([each], 1).parts
    assert all(torch.equal(mine, other) for mine, other in zip(floats(model), floats(undisturbed)))


def step_of(model, optimizer):
    config = OptimConfig(name=optimizer, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    step = TrainStep(model, model, Criterion(LossConfig(), 3, 10), build_optimizer(model, config), scaler, None, CPU)
    assert all(group["fused"] for group in step.optimizer.param_groups)
    model.train()
    return step


def floats(model):
    return [value for value in model.state_dict().values() if value.is_floating_point()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_state_of_another_memory_format_and_way_to_compute(optimizer):
    """A fused optimizer would take the numbers in the order in which they lie in memory."""
    torch.manual_seed(0)
    config = OptimConfig(name=optimizer, lr=0.1)
    model = SmallModel(3).to(memory_format=torch.channels_last)
    ours = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    ours.step()
    weights, state = full_state(model, ours)
    state = copy.deepcopy(state)
    for values in state["state"].values():
        for name, value in values.items():
            values[name] = value.contiguous()
    for group in state["param_groups"]:
        group["fused"] = None
    other = SmallModel(3).to(memory_format=torch.channels_last)
    optimizer_of_other = build_optimizer(other, config)
    load_full_state(other, optimizer_of_other, copy.deepcopy(weights), state)
    assert all(group["fused"] for group in optimizer_of_other.param_groups)
    for mine, its in zip(model.parameters(), other.parameters()):
        mine.grad = torch.randn_like(mine)
        its.grad = mine.grad.clone()
    ours.step()
    optimizer_of_other.step()
    assert all(torch.equal(mine, its) for mine, its in zip(model.parameters(), other.parameters()))


def test_parameters_that_no_fused_optimizer_takes():
    model = SmallModel(3)
    model.head[2].weight = nn.Parameter(torch.randn(64, 3, 1, 1).transpose(0, 1))  # neither of the two orders
    assert not any(group["fused"] for group in build_optimizer(model, OptimConfig()).param_groups)


def test_balanced_weights_are_kept(data, tmp_path, monkeypatch):
    """A run that goes on reads no mask for them."""

    class Ends(Callback):
        def on_step_end(self, run, outcome):
            if run.state.step == 2:
                raise KeyboardInterrupt

    config = configuration(data, tmp_path / "run")
    config = replace(config, loss=replace(config.loss, class_weights="balanced"))
    with pytest.raises(KeyboardInterrupt):
        fit(config, Ends())
    kept = RunFolder(config).class_weights(3)
    assert kept is not None
    assert len(set(kept)) > 1
    assert RunFolder(replace(config, resume="changed")).class_weights(3) is None
    assert RunFolder(config).class_weights(4) is None

    def read_all(*_):
        raise AssertionError("all masks are read")

    monkeypatch.setattr(assembly, "balanced_weights", read_all)
    assert fit(config).steps == 4
    with pytest.raises(AssertionError, match="all masks are read"):
        fit(replace(config, out=str(tmp_path / "new")))

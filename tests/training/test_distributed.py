"""Several processes compute what one would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from miniatures import write_shapes
from rmiseg.config import LossConfig, ModelConfig, OptimConfig, TrainConfig
from rmiseg.data import SegmentationDataset, eval_loader, eval_transform, load_split, train_loader, train_transform
from rmiseg.evaluation.evaluate import evaluate_model
from rmiseg.models.base import SegmentationModel
from rmiseg.models.layers import synchronize_norm
from rmiseg.runtime import distributed
from rmiseg.training.assembly import make_step
from rmiseg.training.criterion import Criterion
from rmiseg.training.optim import build_optimizer
from rmiseg.training.step import TrainStep
from rmiseg.training.trainer import Trainer
from support.launch import run

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LOSSES = ["rmi", "ce", "bce", "pyramid", "affinity"]


class Tiny(SegmentationModel):
    """Convolutions without batch norm, and an auxiliary head."""

    def __init__(self):
        super().__init__(3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        torch.manual_seed(1)
        self.backbone = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Conv2d(4, 3, 1)
        self.side = nn.Conv2d(4, 3, 1)

    def forward(self, images):
        features = self.backbone(images).tanh()
        return (self.head(features), self.side(features)) if self.training else self.head(features)


def large_batch(count: int = 6) -> dict:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (count, 48, 48), dtype=torch.uint8, generator=generator)
    masks[0, :40] = 255  # so that the parts differ in how many pixels count
    images = torch.randint(0, 256, (count, 3, 48, 48), dtype=torch.uint8, generator=generator)
    return {"image": images, "mask": masks, "name": [str(index) for index in range(count)]}


def part(batch: dict, number: int, parts: int) -> dict:
    size = len(batch["name"]) // parts
    return {name: value[number * size : (number + 1) * size] for name, value in batch.items()}


def step(loss: str, strategy: str, accumulate: int) -> tuple[dict, dict]:
    """The loss, and the weights after a step of which this process has its part."""
    model = Tiny()
    network = distributed.distribute(model, strategy, CPU)
    optimizer = build_optimizer(model, OptimConfig(lr=0.5, momentum=0.0, weight_decay=0.0))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    take_step = TrainStep(model, network, Criterion(LossConfig(name=loss), 3, 10), optimizer, scaler, None, CPU)
    rank, size = distributed.rank(), distributed.world_size()
    mine = [part(part(large_batch(), number, accumulate), rank, size) for number in range(accumulate)]
    outcome = take_step(mine, 2)
    return outcome.parts, distributed.full_weights(model)


def compare_steps(expected: dict) -> None:
    with distributed.processes("cpu"):
        for (loss, strategy, accumulate), (parts, weights) in expected.items():
            own_parts, own_weights = step(loss, strategy, accumulate)
            assert own_parts["loss"] == pytest.approx(parts["loss"], rel=1e-5)
            start = Tiny().state_dict()
            for name, tensor in weights.items():
                moved = (tensor - start[name]).norm()
                assert moved > 0
                assert (own_weights[name] - tensor).norm() <= 1e-4 * moved, (loss, strategy, name)


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_are_those_of_one_process(count):
    cases = [(loss, "ddp", 1) for loss in LOSSES] + [("rmi", "fsdp", 1)]
    cases += [("rmi", strategy, 2) for strategy in ("ddp", "fsdp") if count == 3]
    expected = {case: step(case[0], "ddp", case[2]) for case in cases}
    assert run(compare_steps, expected, processes=count) == [0] * count


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data"), count=7)


def score(root: Path, out: Path) -> None:
    with distributed.processes("cpu"):
        split = load_split("folder", root, "val")
        split = type(split)("all", (split.samples + load_split("folder", root, "train").samples), split.classes)
        loader = eval_loader(
            SegmentationDataset(split, eval_transform()),
            workers=0,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        found = evaluate_model(Tiny(), loader, 3)
        content = {"names": found.names, "confusion": found.confusion.tolist(), "counts": found.counts["iou"].tolist()}
        (out / f"{distributed.world_size()}.json").write_text(json.dumps(content))


def test_scores_are_those_of_one_process(data, tmp_path):
    score(data, tmp_path)
    for count in (2, 3):
        assert run(score, data, tmp_path, processes=count) == [0] * count
    scores = [json.loads((tmp_path / f"{count}.json").read_text()) for count in (1, 2, 3)]
    assert sum(map(sum, scores[0]["confusion"])) == 7 * 48 * 63  # each image once
    assert len(set(scores[0]["names"])) == 7
    assert scores[1] == scores[0]
    assert scores[2] == scores[0]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_each_batch(data, count):
    dataset = SegmentationDataset(load_split("folder", data, "train"), train_transform((24, 24)))
    batch_size = 2 * count if count == 2 else 3

    def batches(rank: int, world_size: int, first: int = 0) -> list:
        loader = train_loader(dataset, batch_size=batch_size, workers=0, seed=3, rank=rank, world_size=world_size)
        loader.set_epoch(2, first)
        return list(loader)

    whole, shares = batches(0, 1), [batches(rank, count) for rank in range(count)]
    assert len(whole) == len(shares[0])
    for batch, *parts in zip(whole, *shares):
        assert batch["name"] == [name for each in parts for name in each["name"]]
        assert torch.equal(batch["image"], torch.cat([each["image"] for each in parts]))
    assert [batch["name"] for batch in batches(0, 1, 1)] == [batch["name"] for batch in whole[1:]]
    with pytest.raises(ValueError, match="batch_size counts the images of all processes together"):
        batches(0, 2 * batch_size)


def statistics(expected: torch.Tensor) -> None:
    with distributed.processes("cpu"):
        norm = nn.BatchNorm2d(2)
        norm.running_mean.fill_(distributed.rank())
        distributed.average_buffers(norm)
        assert torch.equal(norm.running_mean, expected)
        value = distributed.on_main(lambda: distributed.rank() + 5)
        assert value == 5
        assert distributed.gather(distributed.rank()) == [0, 1, 2]


def test_norm_statistics_are_averaged():
    assert run(statistics, torch.ones(2), processes=3) == [0, 0, 0]


def fail_in_main() -> None:
    with distributed.processes("cpu"):
        distributed.on_main(lambda: Path("/nowhere/at/all").read_text())


def fail_alone() -> None:
    with distributed.processes("cpu"):
        if distributed.rank() == 1:
            os._exit(7)
        distributed.add_up(torch.ones(1))


def test_no_process_waits_for_one_that_failed():
    assert run(fail_in_main, processes=2, timeout=60) == [1, 1]
    assert run(fail_alone, processes=2, timeout=60) == [1, 7]


def test_what_cannot_be_had_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="synchronizes batch norm between GPUs only"):
        synchronize_norm(Tiny(), True, CPU)
    with pytest.raises(ValueError, match="fsdp divides a model between processes, and there is one"):
        distributed.distribute(Tiny(), "fsdp", CPU)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="srun started 4 processes that know nothing of each other"):
        Trainer(TrainConfig(device="cpu")).fit()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast(precision):
    model = Tiny()
    config = TrainConfig(model=ModelConfig(), optim=OptimConfig(lr=0.1, head_lr_factor=1.0))
    config.train.precision = precision
    take_step = make_step(config, model, Criterion(LossConfig(), 3, 10), CPU)
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [take_step([large_batch()], 2).parts["loss"] for _ in range(5)]
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert losses[-1] < losses[0]
    exact, _ = step("rmi", "ddp", 1)
    assert losses[0] == pytest.approx(exact["loss"], rel=2e-2)


@pytest.mark.nightly
def test_slurm_script(data, tmp_path):
    """The script as it is, with stand-ins for SLURM's commands: started, preempted, queued again, finished."""
    tools = tmp_path / "bin"
    tools.mkdir()
    commands = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "scontrol": '[ "$1" = show ] && echo localhost || echo "$@" >> "$LOG"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    for name, text in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{root: {data}, crop_size: [32, 32], batch_size: 4, workers: 0}}\n"
        "model: {backbone: test_efficientnet, weights: none}\noptim: {lr: 0.01}\n"
        "train: {steps: 40, val_every: 100}\ndevice: cpu\n"
    )
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "GPUS_PER_NODE": "2",
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).parents[2] / "scripts" / "slurm.sh"
    command = ["bash", str(script), str(recipe), str(tmp_path / "run")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
        give_up = time.monotonic() + 200
        while not list(tmp_path.glob("run/checkpoints/resume/*.pt")) and time.monotonic() < give_up:
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        assert "2 processes (ddp)" in job.communicate(timeout=100)[0]
    assert job.returncode == 0
    assert (tmp_path / "log").read_text() == "requeue 17\n"
    assert not (tmp_path / "run" / "result.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "Going on after step" in again.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 40
    assert (tmp_path / "log").read_text() == "requeue 17\n"

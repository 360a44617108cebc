"""Cost of a training before it begins: parameters, operations, memory without a GPU, and time of a few steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from rmiseg.config import TrainConfig
from rmiseg.data import LabeledImages, SegmentationDataset, eval_loader, eval_transform, train_loader
from rmiseg.evaluation.evaluate import evaluate_model
from rmiseg.planning.memory import CONTEXT, MemoryNeed
from rmiseg.planning.pace import Pace
from rmiseg.training.assembly import make_model, train_dataset
from rmiseg.training.average import ScoredModel
from rmiseg.training.criterion import Criterion
from rmiseg.training.measuring import timed_recipe, timed_step, with_equal_weights
from rmiseg.training.optim import build_optimizer
from rmiseg.training.step import TrainStep, grouped

WARM, TIMED, SCORED = 2, 3, 4
"""Steps before the clock starts, steps that are timed, and images whose evaluation is timed."""


@dataclass(frozen=True)
class StepCost:
    """Cost of an optimizer step.

    Attributes:
        batch: Images in a batch.
        parameters: Numbers that are trained.
        operations: Additions and multiplications of one batch, forward and backward; those of the loss are left out.
            None if the network looks at numbers as it goes, so that nothing can be foreseen.
        memory: Most bytes held at once on a GPU, with those of the CUDA context; None likewise.
    """

    batch: int
    parameters: int
    operations: int | None
    memory: int | None


def step_cost(
    config: TrainConfig, num_classes: int, batch: int | None = None, *, count_operations: bool = True
) -> StepCost:
    """Cost of a step on a GPU, which need not be there: no number is computed, and no memory is taken.

    Tensors of torch's FakeTensorMode have shapes and no content, and the memory tracker of torch.distributed adds up
    what is alive. What operations allocate inside of themselves, such as cuDNN's workspaces, is not in it.

    Args:
        config: The options, complete.
        num_classes: Number of classes C.
        batch: Images in a batch; by default as in `config`.
        count_operations: Count them, which takes a third longer.
    """
    # What does not change the memory of a step, and could not be had here.
    model = config.model if ":" in config.model.name else replace(config.model, weights="none")
    config = timed_recipe(replace(config, model=model, train=replace(config.train, compile=False)))
    config = with_equal_weights(config, num_classes)
    height, width = config.data.crop_size
    batch = batch or config.data.batch_size
    size = (batch, config.data.bands or 3, height, width)
    tracker, counter = MemTracker(), FlopCounterMode(display=False)
    device = torch.device("cpu")  # where fake tensors are said to be: those of a GPU need its driver to go backward
    # Numbers of its own, which fake ones replace: there may be code in a network that needs some while it is built.
    on_cpu = replace(config, train=replace(config.train, precision="fp32"))
    with torch.random.fork_rng():
        network = make_model(on_cpu, num_classes, torch.device("cpu"), Console(quiet=True)).train()
    networks = {network, ScoredModel(network, config.train).model}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for each in networks:
            _replace(each, device)
        criterion = Criterion(config.loss, num_classes, 10)
        optimizer = build_optimizer(network, config.optim)
        images = torch.empty(size, device=device, dtype=torch.float32)
        target = torch.empty((size[0], height, width), device=device, dtype=torch.uint8)
        _make_state(optimizer)
        tracker.track_external(*networks, optimizer, images, target)
        parameters = sum(each.numel() for each in network.parameters() if each.requires_grad)
        try:
            with tracker, counter if count_operations else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision != "fp32"):
                    output = network(images.to(memory_format=torch.channels_last))
                logits, auxiliary = output if isinstance(output, tuple) else (output, None)
                loss, _ = criterion(logits, auxiliary, target, criterion.counts(target), 0)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        except (DataDependentOutputException, DynamicOutputShapeException):
            return StepCost(batch, parameters, None, None)
    peak = sum(each["Total"] for each in tracker.get_tracker_snapshot("peak").values())
    return StepCost(batch, parameters, counter.get_total_flops(), int(peak) + CONTEXT)


def memory_need(config: TrainConfig, num_classes: int) -> MemoryNeed | None:
    """Memory of a step on a GPU by its batch, see `step_cost`; None if it cannot be foreseen."""
    return memory_through(*(step_cost(config, num_classes, batch, count_operations=False) for batch in (2, 4)))


def memory_through(first: StepCost, second: StepCost) -> MemoryNeed | None:
    """Memory of a step on a GPU by its batch, from the costs of two batches; None if it cannot be foreseen."""
    if first.memory is None or second.memory is None:
        return None
    return MemoryNeed.through((first.batch, first.memory), (second.batch, second.memory))


def measured_pace(
    config: TrainConfig, train: LabeledImages, val: LabeledImages, device: torch.device, console: Console
) -> Pace:
    """Time of a step and of an evaluation on this machine, images loaded as in the training.

    Args:
        config: The options, complete.
        train: The images to train on.
        val: The images to score on.
        device: Where to compute.
        console: Where to say what is going on.
    """
    console.print(f"Taking {TIMED} steps to see how long they are", markup=False)
    config = timed_recipe(config)
    classes = len(train.classes)
    with torch.random.fork_rng():  # the numbers of the training are as if nothing had been measured
        step = timed_step(config, classes, WARM + TIMED + 1, Console(quiet=True), device)
        seconds = _time_steps(config, step, train)
        images = SegmentationDataset(val, eval_transform(config.data.image_scale))
        loader = eval_loader(images, workers=0, on_error=config.data.on_error)
        few = list(islice(loader, SCORED))
        _synchronize(device)
        started = time.perf_counter()
        evaluate_model(step.model, few, classes)
        each = (time.perf_counter() - started) / max(len(few), 1)
    return Pace(seconds, each * len(val))


def _time_steps(config: TrainConfig, step: TrainStep, train: LabeledImages) -> float:
    loader = train_loader(
        train_dataset(train, config.data),
        batch_size=config.data.batch_size,
        workers=config.data.workers,
        seed=config.seed,
        repeat=config.data.repeat,
        on_error=config.data.on_error,
    )
    try:
        batches = chain.from_iterable(_epoch(loader, epoch) for epoch in count())
        times = []
        started = time.perf_counter()
        for number, group in enumerate(islice(grouped(batches, config.train.accumulate), WARM + TIMED)):
            step(group, number)
            _synchronize(step.device)
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
    finally:
        loader.close()
    return statistics.median(times[WARM:])  # one that other work slowed down says little


def _epoch(loader: Any, epoch: int) -> Iterator[Any]:
    loader.set_epoch(epoch)
    return iter(loader)


def _replace(network: nn.Module, device: torch.device) -> None:
    """Put tensors without content in place of all weights and buffers."""
    for module in network.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                module._parameters[name] = nn.Parameter(_like(tensor, device), tensor.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer, device)


def _like(tensor: Tensor, device: torch.device) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer have its state, as after a first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)

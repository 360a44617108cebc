"""Several processes as one: what torchrun starts, and plain single processes, behind the same few functions.

Everything is torch.distributed: over NCCL between GPUs, over gloo between CPUs. In a process that nobody else belongs
to, the functions do nothing.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from rmiseg.runtime.device import select_device

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""Time that a process waits in an exchange for others that do not come, before it fails."""
PATIENCE = timedelta(days=2)
"""Time that the others wait while the main process draws masks or downloads, or one has more to do."""


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the process that prints, and writes files."""
    return rank() == 0


@contextmanager
def processes(device_name: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; the device of this one.

    Args:
        device_name: As for `select_device`; "auto" and "cuda" become the GPU of this process's local rank.

    Raises:
        ValueError: There is no such device, or srun started several processes without torchrun.
        RuntimeError: This process was started to read images, and is importing the script that started it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise RuntimeError(
            "the script is imported again by a process that it started, to read images: put what it does behind "
            '`if __name__ == "__main__":`'
        )
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and not dist.is_initialized():
            raise ValueError(
                f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} processes that know nothing of each other; let it "
                "start one torchrun on each node: srun --ntasks-per-node 1 torchrun ... -m rmiseg ..., see "
                "scripts/slurm.sh"
            )
        yield select_device(device_name)
        return
    device = select_device(device_name)
    if device.type == "cuda":
        device = select_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"several processes can share the work on GPUs with CUDA and on CPUs, not on {device}")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def on_main(function: Callable[[], T]) -> T:
    """Call `function` in the main process, and return its result in all. An exception there ends all of them.

    For what must not happen several times at once: writing into the run's folder or a cache, reading a whole data set.
    """
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]
    with patience() as group:
        if is_main():
            try:
                outcome[0] = function()
            except BaseException as error:
                outcome[1] = repr(error)
                dist.broadcast_object_list(outcome, group=group)
                raise
        dist.broadcast_object_list(outcome, group=group)
    if outcome[1] is not None:
        raise SystemExit(1)  # without a word: the main process says what is wrong
    result: T = outcome[0]
    return result


@contextmanager
def patience() -> Iterator[Any]:
    """A group of all processes in which one may wait longer for others than an exchange may take elsewhere."""
    if world_size() == 1:
        yield None
        return
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    yield group
    dist.destroy_process_group(group)


def add_up(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all processes, with one exchange. Integers up to 2^53 stay exact."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors])):
        tensor.copy_(total.view_as(tensor))


def gather(item: T, group: Any = None) -> list[T]:
    """The items of all processes, by rank; plain values.

    Args:
        item: That of this process.
        group: That of `patience`, where processes may be done at very different times.
    """
    items: list[Any] = [item]
    if world_size() > 1:
        items = [None] * world_size()
        dist.all_gather_object(items, item, group=group)
    return items


def distribute(model: nn.Module, strategy: str, device: torch.device) -> nn.Module:
    """Wrap `model` for training, so that gradients are averaged over the processes.

    With "ddp" every process holds the whole model. With "fsdp" parameters, gradients and the optimizer's state are
    divided between them; `model` itself is changed, and no longer fit for use by one process alone.

    Raises:
        ValueError: "fsdp" with one process.
    """
    if strategy == "fsdp":
        if world_size() == 1:
            raise ValueError("train.strategy fsdp divides a model between processes, and there is one; use torchrun")
        model.to(memory_format=torch.contiguous_format)  # the only one that can be divided
        mesh = init_device_mesh(device.type, (world_size(),))
        for part in model.children():  # backbone and head are gathered one after the other
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)
        fully_shard(model, mesh=mesh)  # in place
        return model
    if world_size() == 1:
        return model
    # DDP copies no buffers between processes: either batch norm is synchronized, or `average_buffers` follows.
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters  # torch 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **options)


def gradients_stay(network: nn.Module, stay: bool) -> AbstractContextManager[None]:
    """During the backward pass of all but the last batch of a step: keep the gradients in this process for now."""
    inner = getattr(network, "_orig_mod", network)  # of a compiled one
    if isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(not stay)
    elif stay and isinstance(inner, DistributedDataParallel):
        context: AbstractContextManager[None] = inner.no_sync()
        return context
    return nullcontext()


def average_buffers(model: nn.Module) -> None:
    """Make batch norm's running statistics the mean over the processes, as they are the same for all afterwards.

    After every step, so that it does not matter when the model is evaluated or saved. Where batch norm is synchronized
    they are the same already.
    """
    synchronized = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if world_size() == 1 or synchronized or not buffers:
        return
    add_up(*buffers)
    torch._foreach_div_(buffers, world_size())


def full_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Whole weights and optimizer state, in every process, however they are divided; names as of the bare model."""
    options = StateDictOptions(full_state_dict=True)
    optimizer_state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=options)
    return full_weights(model), optimizer_state


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """Whole weights, in every process."""
    weights: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return weights


def load_full_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Tensor], optimizer_state: dict[str, Any]
) -> None:
    """Take back what `full_state` returned, also with another number of processes or another strategy."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, dict(weights), options=options)
    # The way to compute is this optimizer's, whatever that of the state was.
    fused = optimizer.defaults.get("fused")
    groups = [{**group, "fused": fused} if "fused" in group else group for group in optimizer_state["param_groups"]]
    set_optimizer_state_dict(model, optimizer, {**optimizer_state, "param_groups": groups}, options=options)
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            # One kernel for all goes through memory, and does not look where in it a number is.
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def shard(indices: Sequence[T]) -> Sequence[T]:
    """The part of this process: each item in exactly one process, whether or not their number divides."""
    return indices[rank() :: world_size()]

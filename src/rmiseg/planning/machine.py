"""The machine to plan for: this one, or a GPU that is named by its memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from rmiseg.planning.memory import CONTEXT
from rmiseg.runtime.cores import usable_cores
from rmiseg.runtime.device import has_fast_bf16
from rmiseg.runtime.distributed import world_size
from rmiseg.runtime.words import counted

GIGABYTE = 2**30
"""Bytes of a gigabyte, as memory is sold and nvidia-smi counts."""
RESERVED = 0.05
"""Share of a GPU's memory that is left for cuDNN's workspaces and gaps between blocks."""


@dataclass(frozen=True)
class Machine:
    """Facts of the machine that will train.

    Attributes:
        device: cpu, cuda, mps or another kind of accelerator.
        memory: Memory of the device in bytes that others leave free; 0 if it is not known, or that of the CPU.
        cores: CPU cores that each process may use.
        processes: Processes that train together.
        bf16: Whether its arithmetic in bfloat16 is faster than in float32.
    """

    device: str
    memory: int
    cores: int
    processes: int
    bf16: bool

    @property
    def has_gpu(self) -> bool:
        """True if it computes on something other than its CPU."""
        return self.device != "cpu"

    @property
    def usable(self) -> int:
        """Bytes of the device's memory that a training may fill; 0 if it is not known."""
        return int(self.memory * (1 - RESERVED))

    def __str__(self) -> str:
        memory = f" with {self.memory / GIGABYTE:.0f} GB free" if self.memory else ""
        cores = counted(self.cores, "core")
        return f"a GPU{memory}, {cores}" if self.has_gpu else f"a CPU of {cores}"


def this_machine(device: torch.device, gpu: str | None = None) -> Machine:
    """The machine that this process runs on, or the same with another GPU.

    Args:
        device: The device that it would train on.
        gpu: Memory of another GPU, such as "24 GB", in whose place the device stands.

    Raises:
        ValueError: The text does not say how much memory.
    """
    machine = Machine(device.type, 0, usable_cores(), world_size(), has_fast_bf16(device))
    if gpu is not None:
        return replace(machine, device="cuda", memory=parse_memory(gpu), bf16=True)
    if device.type == "cuda":
        return replace(machine, memory=_free_memory(device))
    return machine


def parse_memory(text: str) -> int:
    """Bytes of a size such as "24 GB", "24gb", "24 GiB", "24" or "8192 MB", in powers of 1024.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([GMT]i?B?)?\s*", text, re.IGNORECASE)
    unit = ((found[2] if found else None) or "GB").upper()
    size = float(found[1]) * 1024 ** {"M": 2, "G": 3, "T": 4}[unit[0]] if found else 0
    if not 10**8 <= size <= 10**13:
        raise ValueError(f'gpu: {text!r} is not the memory of a GPU, such as "24 GB"')
    return int(size)


def _free_memory(device: torch.device) -> int:
    """Bytes of a GPU that other processes, such as a desktop, do not hold."""
    free, total = torch.cuda.mem_get_info(device)
    return min(free + CONTEXT + torch.cuda.memory_reserved(device), total)

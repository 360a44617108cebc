"""A small network, and faults: the plugin of the commands that kills.py starts.

RMISEG_FAULT is "KIND NUMBER FOLDER COUNTER": at the change of that number to files below a folder, counted over all
processes in the size of a file, kill this process (kill), or let the disk be full (full) or not be writable (read-only)
from then on.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

from torch import Tensor, nn

from rmiseg.config.registry import register

FAULT, WORK = "RMISEG_FAULT", "RMISEG_SHOW_WORK"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
ERRORS = {"full": errno.ENOSPC, "read-only": errno.EROFS}


@register("model", "tiny")
class Tiny(nn.Module):
    """Two convolutions, batch norm and dropout: all that has a state or is random."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Conv2d(16, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        if WORK in os.environ:
            print("network used", file=sys.stderr)
        logits: Tensor = self.last(self.first(images))
        return logits


def watch(kind: str, number: int, folder: str, counter: str) -> None:
    """Let a fault happen at a change of a file."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            changes = bool((flags or 0) & WRITING) or (isinstance(mode, str) and not set(mode).isdisjoint("wax+"))
        else:
            path, changes = arguments[0] if arguments else None, event in CHANGES
        if not changes or not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        relative = event in ("os.remove", "os.rmdir") and not os.path.isabs(name)  # within a folder that is removed
        if name == counter or not (relative or os.path.abspath(name).startswith(folder)):
            return
        # Not open(), of which this would hear again.
        with os.fdopen(os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
            file.write(b".")
            count = file.tell()
        if kind == "kill" and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in ERRORS and count >= number and event != "os.remove":
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), name)

    sys.addaudithook(audit)


if FAULT in os.environ:
    of_what, at, below, counted = os.environ[FAULT].split()
    watch(of_what, int(at), below, counted)

"""Runs functions in processes of their own, which start at once and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

# A process that has everything imported, and nothing else done, is forked for each.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["rmiseg.training.trainer"])


def run(function: Callable[..., Any], *arguments: Any, processes: int = 1, timeout: float = 300) -> list[int | None]:
    """Call `function` in so many processes, connected as torchrun would; their exit statuses, None for a hang."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        environment = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": processes}
        environment |= {"RANK": rank, "LOCAL_RANK": rank}
        process = context.Process(target=_call, args=(function, arguments, environment if processes > 1 else {}))
        process.start()
        started.append(process)
    for process in started:
        process.join(timeout)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in started]


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, Any]) -> None:
    import torch

    # As in a process that a shell started: loader processes are forked, and end when this one is killed.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    os.environ |= {name: str(value) for name, value in environment.items()}
    function(*arguments)

"""Runs functions and commands in processes of their own, which start at once and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

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


class Forked:
    """In place of `subprocess.Popen`, for a command of rmiseg: a process that has everything imported.

    Args:
        arguments: What stands behind `rmiseg`.
        log: The file that it writes to; the terminal by default.
        environment: Further variables.
        group: Whether it begins a group of processes, which signals can be sent to.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] = {},
        group: bool = False,
    ) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if group:
                os.setsid()
            _command(arguments, log, environment)

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        deadline = time.monotonic() + (timeout or 0)
        while timeout is not None and self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._ended(os.WNOHANG if timeout is not None else 0)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _ended(self, option: int) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, option))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode


def popen(command: list[str], *, env: Mapping[str, str], stdout: IO[bytes] | None, stderr: int | None) -> Forked:
    """In place of `subprocess.Popen` in `rmiseg.experiment.trainings`."""
    return Forked(command[command.index("rmiseg") + 1 :], Path(stdout.name) if stdout else None, env)


def start_training(recipe: Path, slot: int, jobs: int, device: str) -> Forked:
    """In place of `rmiseg.experiment.trainings._start`."""
    from rmiseg.experiment import trainings

    log = recipe.with_name(trainings.LOG_FILE) if jobs > 1 else None
    return Forked(["train", "--recipe", str(recipe)], log, trainings.environment(slot, jobs, device))


def _command(arguments: Sequence[str], log: Path | None, environment: Mapping[str, str]) -> NoReturn:
    from rmiseg.cli import main

    status: object = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        multiprocessing.set_start_method("fork", force=True)  # the server of the process before is no child of this one
        os.environ |= environment
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else None
        for stream, name in ((1, "stdout"), (2, "stderr")):
            if target is not None:
                os.dup2(target, stream)
            setattr(sys, name, open(stream, "w", closefd=False))  # noqa: SIM115  # that of the process, not of pytest
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, Any]) -> None:
    import torch

    # As in a process that a shell started: loader processes are forked, and end when this one is killed.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    os.environ |= {name: str(value) for name, value in environment.items()}
    function(*arguments)

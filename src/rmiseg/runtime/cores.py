"""The processor's cores, and work that is spread over them by processes. Nothing heavy is imported."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

MOST_WORKERS = 16
"""Processes that read images, where nothing else is asked for: each needs memory, and this many feed any GPU."""
AHEAD = 4
"""Items that wait for a process at a time, for each one."""


def usable_cores() -> int:
    """Number of processor cores that this process may use: at least 1.

    Those that it is bound to, by a scheduler or taskset, and no more than a container's share of time allows; of
    several processes that torchrun started on this machine, each has its part.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        bound = min(bound, -(-quota // period))
    return max(1, bound // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def worker_count(asked: int | None, most: int) -> int:
    """Number of processes that read images.

    Args:
        asked: The number that was asked for; None for one for each core of this training process.
        most: Number of batches, more than which is of no use; only where nothing was asked for.

    Raises:
        ValueError: a negative number.
    """
    if asked is not None:
        if asked < 0:
            raise ValueError(f"workers must be 0 or more, not {asked}")
        return asked
    return max(1, min(usable_cores(), most, MOST_WORKERS))


def made_by(make: Callable[[S], T], items: Sequence[S], processes: int) -> Iterator[T]:
    """Results of a function for each item, in their order, made by so many processes; by this one if that is 0.

    Raises:
        ChildProcessError: A process has died.
    """
    if processes == 0:
        yield from map(make, items)
        return
    pool = ProcessPoolExecutor(processes, initializer=_begin, initargs=(make, items))
    waiting = deque[Future[Any]]()
    try:
        for index in range(len(items)):
            waiting.append(pool.submit(_make, index))
            if len(waiting) > AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that reads images has died: was it killed, or the memory used up? Fewer workers need less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_task: tuple[Callable[[Any], Any], Sequence[Any]]


def _begin(make: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _task
    _task = make, items
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one says what is to be said
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(index: int) -> Any:
    make, items = _task
    return make(items[index])

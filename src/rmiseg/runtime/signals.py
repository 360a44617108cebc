"""Requests of the operating system to a process: to end, or to be interrupted."""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

EX_TEMPFAIL = 75
"""Exit status of a run that was asked to end and can go on: "temporary failure, try again" in BSD's sysexits.h. It is
no status that Python, a shell or a signal gives (1, 2, 126 to 165), so that a scheduler can requeue on it alone."""


class Preempted(SystemExit):
    """The run was asked to end; it has saved where it stands."""

    def __init__(self) -> None:
        super().__init__(EX_TEMPFAIL)


class TerminationRequest:
    """Takes note of SIGTERM while it is entered, instead of ending the process at once."""

    def __init__(self) -> None:
        self.received = False
        self.heeded_at_once = False

    def __enter__(self) -> Self:
        self.in_main_thread = threading.current_thread() is threading.main_thread()  # no other may do this
        if self.in_main_thread:
            self.handler_before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        if self.in_main_thread:
            signal.signal(signal.SIGTERM, self.handler_before)

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        self.received = True
        if self.heeded_at_once:
            raise Preempted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Heed a request immediately."""
        self.heeded_at_once = True
        if self.received:
            raise Preempted
        try:
            yield
        finally:
            self.heeded_at_once = False


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ctrl-C has no effect in here, and none ever on a process that is started in here."""
    if threading.current_thread() is not threading.main_thread():  # handlers are the main thread's business
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Ctrl-C and SIGTERM take effect between steps; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from proxsae.training.distributed import Group


class Stop:
    """Whether a signal has asked for the end, and which one."""

    signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def share(self, group: Group) -> None:
        """Stop where a signal has asked another process of the training to stop."""
        if group.size > 1 and bool(group.any(torch.tensor(bool(self)))) and not self:
            self.signal_name = "a signal to another process"


@contextmanager
def signals_held_back() -> Iterator[Stop]:
    """Yield a flag that the first SIGINT or SIGTERM sets; the second raises KeyboardInterrupt.

    Handlers are set only in the main thread, where signals arrive, and only in place of Python's own, which the command
    line has for SIGTERM, too: a handler of the user stays.
    """
    stop = Stop()

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        if stop:
            raise KeyboardInterrupt
        stop.signal_name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        python = signal.default_int_handler
        for number, defaults in ((signal.SIGINT, (python,)), (signal.SIGTERM, (python, signal.SIG_DFL))):
            if signal.getsignal(number) in defaults:
                before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

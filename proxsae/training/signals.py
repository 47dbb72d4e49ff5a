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
    """Whether a signal has asked for the end; true once all processes of the training know.

    A signal may arrive at any time, also after the others have been told that there is none.

    Attributes
    ----------
    signal_name : str or None
        The first signal to this process.
    """

    signal_name: str | None = None
    _is_agreed = False

    def __bool__(self) -> bool:
        return self._is_agreed

    def agree(self, group: Group) -> None:
        """Stop, in all processes alike, where a signal has asked one of them to stop."""
        self._is_agreed = bool(group.any(torch.tensor(self.signal_name is not None)))


@contextmanager
def signals_held_back() -> Iterator[Stop]:
    """Yield what notes the first SIGINT or SIGTERM; the second raises KeyboardInterrupt.

    Handlers are set only in the main thread, where signals arrive, and only in place of Python's own, which the command
    line has for SIGTERM, too: a handler of the user stays.
    """
    stop = Stop()

    def handle(number: int, frame: Any) -> None:  # noqa: ARG001
        if stop.signal_name is not None:
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

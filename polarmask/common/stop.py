"""The signals that stop a run."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class StopSignal:
    """Records SIGTERM, SIGINT and SIGHUP within a ``with`` block instead of ending the process, so that a run can save.

    A second SIGINT ends the process at once, also where it waits for another one. SIGHUP stays ignored under nohup.
    Outside of the main thread, where Python sets no handlers, nothing is noted.

    Attributes
    ----------
    number : int or None
        The signal that came first.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status of a process that leaves because of the signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + (self.number or signal.SIGTERM)

    def check(self) -> None:
        """Raises SystemExit where a stop was requested."""
        if self.is_set:
            raise SystemExit(self.status)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)


def ignore_stop_signals(worker: int = 0) -> None:
    """Makes a worker process of the loader outlive signals to its process group: the main process ends it.

    A service manager and a terminal send signals to the whole group. A worker that ended would end the main process
    before it has saved.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)

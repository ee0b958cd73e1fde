"""The progress line of a training."""

import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Result = TypeVar("Result")


class ProgressLine:
    """Steps done, rate, the share of time spent waiting for data, losses and the time that is left.

    Parameters
    ----------
    steps : int
        In all.
    shown : bool
        Only one of several processes shows its line.
    """

    def __init__(self, steps: int, *, shown: bool) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]} {task.fields[losses]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.task = self.bars.add_task("training", total=steps, speed="", losses="")
        self.waited = 0.0
        self.images = 0
        self.began = time.perf_counter()

    def __enter__(self) -> "ProgressLine":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def waiting_for(self, data: Callable[[], Result]) -> Result:
        """Calls ``data`` and counts the time that it takes as waiting."""
        asked = time.perf_counter()
        try:
            return data()
        finally:
            self.waited += time.perf_counter() - asked

    def advance(self, step: int, images: int) -> None:
        """Shows that ``step`` steps are done, the last one with ``images`` images."""
        self.images += images
        seconds = time.perf_counter() - self.began
        speed = f"{self.images / seconds:.1f} images/s, {self.waited / seconds:.0%} waiting for data"
        self.bars.update(self.task, completed=step, speed=speed)

    def show(self, values: dict[str, float]) -> None:
        """Shows losses, by their names ``loss/…``."""
        self.bars.update(self.task, losses=" ".join(f"{name[5:]} {value:.3f}" for name, value in values.items()))

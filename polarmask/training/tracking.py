"""Writes a run's metrics and pictures into its folder and to the tracker that the user chose."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from PIL import Image

from ..inference import draw
from .run_folder import MetricsFile

logger = logging.getLogger("polarmask.train")


def check_tracker(tracker: str) -> None:
    """Raises a ValueError where there is no such tracker: Accelerate leaves out one that is not installed."""
    here = ["all", *(str(each) for each in get_available_trackers())]
    if tracker not in here:
        known = ", ".join(LoggerType.list())
        raise ValueError(
            f"train: expected a tracker that is installed here ({', '.join(here)}), got {tracker!r}; Accelerate knows "
            f"{known}"
        )


class Tracking:
    """Writes what a run measures and shows.

    A picture that cannot be drawn and a tracker that fails do not end the run; each is logged once.

    Parameters
    ----------
    accelerator : Accelerator
        With its trackers.
    out : Path
        The run's folder.
    """

    def __init__(self, accelerator: Accelerator, out: Path) -> None:
        self.accelerator, self.out = accelerator, out
        self.metrics = MetricsFile(out / "metrics.jsonl")
        self._failed: set[str] = set()

    def start(self, tracker: str, step: int) -> None:
        """Starts the trackers of a run that begins, or resumes after a step.

        Raises
        ------
        ValueError
            If the tracker cannot be used, as one that wants a login.
        """
        # TensorBoard's events lie in a folder of that name; elsewhere it is the project's.
        in_files = tracker == "tensorboard"
        options = {"tensorboard": {"purge_step": step + 1}} if in_files else {}
        try:
            self.accelerator.init_trackers("tensorboard" if in_files else "polarmask", init_kwargs=options)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"train: the tracker {tracker} cannot be started: {error}; choose --tracker") from error

    def log(self, values: dict[str, float], step: int) -> None:
        """Writes a line of metrics.jsonl, and the values to the tracker."""
        for tracker in self.accelerator.trackers:
            self._try(f"the tracker {tracker.name}", partial(tracker.log, values, step=step))
        if self.accelerator.is_main_process:
            self.metrics.append(step, values)

    def picture(self, name: str, make: Callable[[], Image.Image | None], step: int) -> None:
        """Draws a picture, on the main process, and writes it as NAME.png and to trackers that take pictures."""
        if self.accelerator.is_main_process:
            self._try(f"{name}.png", lambda: self._keep(name, make(), step))

    def learning_curve(self) -> None:
        """Draws learning_curve.png anew, on the main process."""
        if self.accelerator.is_main_process:
            path = self.out / "learning_curve.png"
            self._try(path.name, lambda: draw.learning_curve(self.metrics.path, path))

    def finish(self) -> None:
        """Ends the trackers."""
        for tracker in self.accelerator.trackers:
            self._try(f"the tracker {tracker.name}", tracker.finish)
        self.accelerator.trackers.clear()
        self.accelerator.end_training()

    def _keep(self, name: str, picture: Image.Image | None, step: int) -> None:
        if picture is None:
            return
        draw.save_picture(picture, self.out / f"{name}.png")
        for tracker in self.accelerator.trackers:
            shown: Any = picture
            if tracker.name == "tensorboard":
                shown = np.asarray(picture)[None]
            elif tracker.name in ("wandb", "swanlab"):
                shown = [picture]
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            if hasattr(tracker, "log_images"):
                log_images = partial(tracker.log_images, {name: shown}, step=step, **options)
                self._try(f"the tracker {tracker.name}", log_images)

    def _try(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            if what not in self._failed:
                self._failed.add(what)
                logger.warning("train: %s fails, the training goes on: %s: %s", what, type(error).__name__, error)

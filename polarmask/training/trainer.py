"""Trains a detector; writes weights, metrics and pictures."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

from accelerate.utils import gather_object

from ..common.files import write_whole
from ..common.runtime import FAILED, all_or_none, on_main
from ..common.stop import StopSignal
from ..config import Config, check_config
from ..data import DataError
from ..data.batches.loader import batches
from ..evaluation import evaluate
from ..inference import draw
from ..inference.detector import Detector
from .progress import ProgressLine
from .run import Run
from .run_folder import claimed, prepare_folder
from .step import take_step
from .step_report import Part, StepReport, image_names
from .tracking import Tracking

TERMINATED = 128 + signal.SIGTERM  # the exit status of a run that SIGTERM stopped


def train(config: Config) -> Detector:
    """Trains a detector.

    Writes ``FILES`` and the tracker's events into ``config.out``. Under torchrun every process calls it. A run that is
    resumed (``config.resume``) ends with the same weights as one that was never stopped.

    Raises
    ------
    FloatingPointError
        When a loss is not finite, with the names of the images; they are kept in ``nonfinite_RANK.pt``, and no update
        is made with them.
    FileExistsError
        If ``config.out`` holds a run that is neither resumed nor overwritten, or another training is writing there.
    ValueError
        If a number of the configuration is out of its range, there are no images, a checkpoint does not fit, or the
        machine has no such precision.
    DataError
        If the images or annotations cannot be trained on or evaluated on; before the first step, or when a file became
        unreadable since then.
    torch.OutOfMemoryError
        With what to change.
    SystemExit
        After SIGTERM (143) and SIGINT (130), when a checkpoint is written; in processes of torchrun that end because
        another one failed (2).
    """
    check_config(config)
    with claimed(Path(config.out)):
        return Trainer(Run(config)).train()


class Trainer:
    """The loop over steps and epochs, and what happens between them.

    Attributes
    ----------
    run : Run
    stop_requested : bool
        Whether a signal asked one of the processes to stop; the same in all of them.
    unread : StepReport or None
        The report of the last step, until its values are read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tracking = Tracking(run.accelerator, run.out)
        self.line = ProgressLine(run.steps, shown=run.accelerator.is_local_main_process)
        self.stop_signal = StopSignal()
        self.stop_requested = False
        self.unread: StepReport | None = None
        self.began = time.perf_counter()

    def train(self) -> Detector:
        """Trains to the end; saves after each epoch, and evaluates after that."""
        run, config = self.run, self.run.config
        on_main(lambda: prepare_folder(run.out, run.checkpoint, run.progress, self.tracking.metrics))
        all_or_none(lambda: self.tracking.start(config.tracker, run.progress.step))
        with self.stop_signal, self.line:
            self.evaluate_if_due()  # a resumed run may have been stopped during an evaluation
            while not self.is_finished():
                try:
                    for parts in self.rest_of_epoch():
                        if run.progress.step == 0:
                            self.show_first_batch(parts[0])
                        report = take_step(run, parts, self.stop_signal.is_set)
                        self.line.advance(run.progress.step, config.optim.batch_size)
                        self.read_report()  # of the step before, while the device works on this one
                        self.unread = report
                        if self.stop_requested or self.is_checkpoint_due():
                            self.save()
                        if self.stop_requested:
                            self.leave(self.stop_signal.status)
                except DataError:
                    if run.accelerator.num_processes == 1:  # several would have to save together
                        self.save()
                    raise
                self.save()
                self.evaluate_if_due()
        on_main(self.write_final_metrics)
        self.tracking.finish()
        return run.detector

    def rest_of_epoch(self) -> Iterator[list[Part]]:
        """The steps that are left of the epoch, each as the parts that gradients are accumulated over."""
        run = self.run
        run.model.train()
        self.began = time.perf_counter()
        run.sampler.epoch, run.sampler.skip = divmod(run.progress.step, run.sampler.steps)
        left = batches(run.loader)
        while parts := self.line.waiting_for(lambda: list(islice(left, run.config.optim.accumulate))):
            yield parts

    def show_first_batch(self, part: Part) -> None:
        """Draws the images and targets that the first step begins with."""
        images, targets, _ = part
        self.tracking.picture("first_batch", lambda: draw.first_batch(self.run.network, images, targets), 0)

    def read_report(self) -> None:
        """Reads and logs the values of the last step, if they are unread.

        Raises
        ------
        FloatingPointError
            If a loss or a gradient is not finite.
        """
        if self.unread is None:
            return
        report, self.unread = self.unread, None
        finite, stop, losses = report.read()
        if not finite:
            self.raise_nonfinite(report, losses)
        self.stop_requested |= stop
        if report.step % self.run.config.log_every == 0 or report.step == self.run.steps:
            self.line.show(losses)
            self.tracking.log({**losses, "lr": self.run.learning_rate(report.step - 1)}, report.step)

    def raise_nonfinite(self, report: StepReport, losses: dict[str, float]) -> None:
        """Keeps the images of the step, then raises a FloatingPointError that names them."""
        path = self.run.out / f"nonfinite_{self.run.accelerator.process_index}.pt"
        all_or_none(lambda: report.write_batch(path))
        names = gather_object(image_names(self.run.data, report.image_ids))
        paths = gather_object([str(path)])

        def fail() -> None:
            raise FloatingPointError(
                f"train: expected finite losses and gradients, got {losses} at step {report.step}, with the images "
                f"{', '.join(names)}; they are kept in {', '.join(paths)}"
            )

        all_or_none(fail)

    def is_finished(self) -> bool:
        """Returns true if all steps are done, or ``stop_after`` evaluations have not improved."""
        run = self.run
        return run.progress.step >= run.steps or 0 < run.config.stop_after <= run.progress.since_best

    def is_checkpoint_due(self) -> bool:
        """Returns true if a checkpoint is to be saved within the epoch."""
        every, step = self.run.config.checkpoint_every, self.run.progress.step
        return every > 0 and step % every == 0 and step % self.run.sampler.steps != 0

    def save(self) -> None:
        """Writes a checkpoint, then the weights: weights without a checkpoint are taken for those of another run."""
        run = self.run
        self.read_report()
        run.progress.seconds += time.perf_counter() - self.began
        run.save_checkpoint()
        on_main(lambda: run.detector.save(run.out / "last.safetensors"))
        self.began = time.perf_counter()

    def evaluate_if_due(self) -> None:
        """Evaluates at the end and every few epochs, keeps the best weights, and writes a checkpoint that says so."""
        run, progress, every = self.run, self.run.progress, self.run.config.evaluate_every
        epochs, rest = divmod(progress.step, run.sampler.steps)
        due = progress.step == run.steps or (epochs > 0 and rest == 0 and every > 0 and epochs % every == 0)
        if run.test is None or not due or progress.evaluated >= progress.step:
            return
        test, several = run.test, run.accelerator.num_processes > 1
        try:
            metrics = evaluate(run.detector, test, distributed=several, before_each=self.stop_signal.check).metrics
        except SystemExit as left:
            self.leave(left.code)
        progress.metrics, progress.evaluated = metrics, progress.step
        self.tracking.picture("predictions", lambda: draw.sample_predictions(run.detector, test), progress.step)
        self.tracking.log(metrics, progress.step)
        self.tracking.learning_curve()
        progress.since_best += 1
        if metrics["segm/AP"] > progress.best:
            progress.best, progress.since_best = metrics["segm/AP"], 0
            if every:
                on_main(lambda: run.detector.save(run.out / "best.safetensors"))
        run.save_checkpoint()
        self.began = time.perf_counter()

    def leave(self, status: int | str | None) -> NoReturn:
        """Ends the process after a signal, when a checkpoint is written."""
        if self.run.accelerator.is_main_process and status != FAILED:
            print(
                f"train: stopped by a signal after step {self.run.progress.step} of {self.run.steps}, all of which is "
                f"saved in {self.run.out}; go on with --resume auto",
                file=sys.stderr,
            )
        raise SystemExit(status)

    def write_final_metrics(self) -> None:
        """Writes metrics.json, and the weights once more.

        A finished run that is resumed may hold none of them, or those of an earlier checkpoint.
        """
        run = self.run
        run.detector.save(run.out / "last.safetensors")
        evaluated = {} if run.test is not None else {"evaluated": False}
        metrics = {**evaluated, **run.progress.metrics, "seconds/train": run.progress.seconds}
        write_whole(run.out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())

"""Trains a detector; writes weights, metrics and pictures."""

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor

from ..common.files import write_whole
from ..common.runtime import FAILED, all_or_none, check_precision, on_main
from ..common.stop import StopSignal
from ..config import Config, check_config, to_dict
from ..data import DataError, DataSet, build_data, check_categories, check_data, mark_checked
from ..data.batches.loader import batches, training_loader
from ..data.subset import Subset
from ..evaluation.coco import evaluate
from ..inference import draw
from ..inference.detector import Detector
from ..model import PolarMask, build_model
from ..model.backbone import load_pretrained
from ..model.loss import normalizers
from .checkpoint import (
    Checkpoint,
    Progress,
    check_data_unchanged,
    check_resumable,
    evaluates_otherwise,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from .optim import MovingAverage, build_optimizer, schedule, skip_unless
from .progress import ProgressLine
from .run_folder import claimed, prepare_folder
from .step_report import Part, StepReport, image_names
from .tracking import Tracking, check_tracker

__all__ = ["TERMINATED", "train"]

TERMINATED = 128 + signal.SIGTERM  # the exit status of a run that SIGTERM stopped

logger = logging.getLogger("polarmask.train")


def train(config: Config) -> Detector:
    """Trains a detector.

    Writes ``FILES`` and the tracker's events into ``config.out``. Under torchrun every process calls it. A run that was
    stopped goes on, with ``config.resume``, as if it had not been.

    Raises
    ------
    FloatingPointError
        When a loss is not finite, with the names of the images; they are kept in ``nonfinite_RANK.pt``, and no update
        is made with them.
    FileExistsError
        If ``config.out`` holds a run that is neither to be gone on with nor overwritten, or another training writes
        there at this moment.
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
        return _Run(config).train()


class _Run:
    """A training, ready to begin or to go on. What only one process can find wrong ends all of them."""

    network: PolarMask
    steps: int  # of all epochs

    def __init__(self, config: Config) -> None:
        self.config, self.out = config, Path(config.out)
        all_or_none(self._check_options)
        AcceleratorState._reset_state()  # it refuses another precision than that of an earlier run of this process
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # or it does not see the other processes of torchrun
            mixed_precision=config.precision,
            log_with=config.tracker,
            project_dir=self.out,
        )
        self.is_main = self.accelerator.is_main_process
        self.tracking = Tracking(self.accelerator, self.out)
        self.stop_signal = StopSignal()
        self.stop_requested = False  # of one of the processes, as far as all know it
        self.pending: StepReport | None = None  # a step whose losses were not looked at
        self.began = time.perf_counter()
        self.progress = Progress(step=0, evaluated=0, best=-1.0, since_best=0, seconds=0.0, metrics={})
        self.checkpoint = on_main(lambda: find_checkpoint(self.out, config.resume, config.overwrite))
        all_or_none(self._build)
        self.about_data: dict[str, Any] = on_main(self._check_data)
        for data in filter(None, (self.data, self.test)):
            mark_checked(data)  # in the other processes, too
        self.network.to(self.accelerator.device)
        self.average = None if config.optim.ema is None else MovingAverage(self.network, config.optim.ema)
        if config.optim.compile:
            self.network.backbone.compile()
            self.network.head.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.network, build_optimizer(self.network, config.optim))
        shown = self.network if self.average is None else cast(PolarMask, self.average.module)
        self.detector = Detector(shown, config, self.data.categories)
        if self.checkpoint is not None:
            all_or_none(self._restore)

    def train(self) -> Detector:
        """Trains to the end; saves after each epoch, and evaluates after that."""
        on_main(lambda: prepare_folder(self.out, self.checkpoint, self.progress, self.tracking.metrics))
        all_or_none(lambda: self.tracking.start(self.config.tracker, self.progress.step))
        self.line = ProgressLine(self.steps, shown=self.accelerator.is_local_main_process)
        with self.stop_signal, self.line:
            self.evaluate_if_due()  # where the run was stopped before or in an evaluation
            while not self.is_finished():
                try:
                    for parts in self.rest_of_epoch():
                        report = self.step(parts)
                        self.line.advance(self.progress.step, self.config.optim.batch_size)
                        self.read_pending()  # the step before, while the device works on this one
                        self.pending = report
                        if self.stop_requested or self.is_checkpoint_due():
                            self.save()
                        if self.stop_requested:
                            self.leave(self.stop_signal.status)
                except DataError:
                    if self.accelerator.num_processes == 1:  # others would not come to save
                        self.save()
                    raise
                self.save()
                self.evaluate_if_due()
        on_main(self._write_final_metrics)
        self.tracking.finish()
        return self.detector

    def rest_of_epoch(self) -> Iterator[list[Part]]:
        """The steps that are left of the epoch, as the parts that gradients are accumulated over."""
        self.model.train()
        self.began = time.perf_counter()
        self.sampler.epoch, self.sampler.skip = divmod(self.progress.step, self.sampler.steps)
        left = batches(self.loader)
        while parts := self.line.waiting_for(lambda: list(islice(left, self.config.optim.accumulate))):
            yield parts

    def step(self, parts: list[Part]) -> StepReport:
        """Updates the weights once. Nothing here waits for the device."""
        try:
            names, values = self.update(parts)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"train: out of memory with {len(parts[0][0])} images at once; raise optim.accumulate, set precision "
                f"to bf16, lower data.resize or optim.batch_size, or train in more processes ({error})"
            ) from error
        self.progress.step += 1
        return StepReport.send(self.progress.step, names, values, parts)

    def update(self, parts: list[Part]) -> tuple[list[str], Tensor]:
        """-> the losses' names; the values of a :class:`StepReport`, on the device."""
        device, network, config = self.accelerator.device, self.network, self.config
        images = [[image.to(device, non_blocking=True) for image in part[0]] for part in parts]
        given = [[_to(target, device) for target in part[1]] for part in parts]
        if self.progress.step == 0:
            self.tracking.picture("first_batch", lambda: draw.first_batch(network, images[0], given[0]), 0)
        targets = [
            network.encode(network.level_shapes(x), network.check(x, t)) for x, t in zip(images, given, strict=True)
        ]
        # Over all parts and processes. DDP averages the gradients of the processes: hence the mean.
        divide_by = self.accelerator.reduce(torch.stack([normalizers(part) for part in targets]).sum(0), "mean")
        rate = self.learning_rate(self.progress.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        for n, (x, part) in enumerate(zip(images, targets, strict=True), 1):
            with nullcontext() if n == len(parts) else self.accelerator.no_sync(self.model):
                losses = self.model(x, part, divide_by)
                self.accelerator.backward(sum(losses.values()))
            total = {name: loss.detach() + total.get(name, 0.0) for name, loss in losses.items()}
        norm = self.accelerator.clip_grad_norm_(network.parameters(), config.optim.clip)
        values = torch.stack(list(total.values()))
        finite = values.isfinite().all()
        if config.precision != "fp16":  # there gradients overflow now and then, and the scaler skips the step
            finite &= cast(Tensor, norm).isfinite()
            skip_unless(finite, self.optimizer)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(network)
        stop = values.new_full((1,), float(self.stop_signal.is_set))
        return list(total), self.accelerator.reduce(torch.cat([finite.to(values)[None], stop, values]), "mean")

    def learning_rate(self, step: int) -> float:
        return self.config.optim.lr * schedule(step, self.sampler.steps, self.config.optim)

    def read_pending(self) -> None:
        """Logs the step that has not been looked at, if there is one; stops where something was not finite."""
        if self.pending is None:
            return
        report, self.pending = self.pending, None
        finite, stop, losses = report.read()
        if not finite:
            self.raise_nonfinite(report, losses)
        self.stop_requested |= stop
        if report.step % self.config.log_every == 0 or report.step == self.steps:
            self.line.show(losses)
            self.tracking.log({**losses, "lr": self.learning_rate(report.step - 1)}, report.step)

    def raise_nonfinite(self, report: StepReport, losses: dict[str, float]) -> None:
        """Keeps the images of the step, then raises a FloatingPointError that names them."""
        path = self.out / f"nonfinite_{self.accelerator.process_index}.pt"
        all_or_none(lambda: report.write_batch(path))
        names = gather_object(image_names(self.data, report.image_ids))
        paths = gather_object([str(path)])

        def fail() -> None:
            raise FloatingPointError(
                f"train: expected finite losses and gradients, got {losses} at step {report.step}, with the images "
                f"{', '.join(names)}; they are kept in {', '.join(paths)}"
            )

        all_or_none(fail)

    def is_finished(self) -> bool:
        """Whether all steps are done, or stop_after evaluations have not improved."""
        return self.progress.step >= self.steps or 0 < self.config.stop_after <= self.progress.since_best

    def is_checkpoint_due(self) -> bool:
        """Whether to save within an epoch."""
        every, step = self.config.checkpoint_every, self.progress.step
        return every > 0 and step % every == 0 and step % self.sampler.steps != 0

    def save(self) -> None:
        """Writes a checkpoint and the weights: weights without a checkpoint are those of another run."""
        self.read_pending()
        self.progress.seconds += time.perf_counter() - self.began
        self.save_checkpoint()
        on_main(lambda: self.detector.save(self.out / "last.safetensors"))
        self.began = time.perf_counter()

    def save_checkpoint(self) -> None:
        def write() -> None:
            state = {name: part.state_dict() for name, part in self._stateful().items()}
            processes = self.accelerator.num_processes
            checkpoint = Checkpoint(self.progress, to_dict(self.config), self.about_data, processes, state)
            save_checkpoint(self.out, checkpoint, self.config.keep_checkpoints)

        on_main(write)

    def evaluate_if_due(self) -> None:
        """Measures at the end and every few epochs, keeps the best weights, and notes in a checkpoint that it did."""
        epochs, rest = divmod(self.progress.step, self.sampler.steps)
        every = self.config.evaluate_every
        due = self.progress.step == self.steps or (epochs > 0 and rest == 0 and every > 0 and epochs % every == 0)
        if self.test is None or not due or self.progress.evaluated >= self.progress.step:
            return
        test, several = self.test, self.accelerator.num_processes > 1
        try:
            metrics = evaluate(self.detector, test, distributed=several, before_each=self.stop_signal.check).metrics
        except SystemExit as left:
            self.leave(left.code)
        self.progress.metrics, self.progress.evaluated = metrics, self.progress.step
        self.tracking.picture("predictions", lambda: draw.sample_predictions(self.detector, test), self.progress.step)
        self.tracking.log(metrics, self.progress.step)
        self.tracking.learning_curve()
        self.progress.since_best += 1
        if metrics["segm/AP"] > self.progress.best:
            self.progress.best, self.progress.since_best = metrics["segm/AP"], 0
            if every:
                on_main(lambda: self.detector.save(self.out / "best.safetensors"))
        self.save_checkpoint()
        self.began = time.perf_counter()

    def leave(self, status: int | str | None) -> NoReturn:
        """Ends the process after a signal, when a checkpoint is written."""
        if self.is_main and status != FAILED:
            print(
                f"train: stopped by a signal after step {self.progress.step} of {self.steps}, all of which is saved in "
                f"{self.out}; go on with --resume auto",
                file=sys.stderr,
            )
        raise SystemExit(status)

    def _check_options(self) -> None:
        check_precision("train", self.config.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        check_tracker(self.config.tracker)

    def _build(self) -> None:
        """Opens the data and makes the network, on the CPU."""
        config = self.config
        self.data: DataSet = build_data(config.data, "train", config.seed)
        self.test: DataSet | None = build_data(config.data, "test", config.seed)
        if config.overfit:
            if config.data.test is not None:
                raise ValueError("train: overfit evaluates on the images that it trains on; leave out data.test")
            self.data = self.test = Subset(self.data, config.overfit)
        self.loader, self.sampler = training_loader(
            self.data, config, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.steps = self.sampler.steps * config.optim.epochs
        if self.steps == 0:
            raise ValueError(f"train: expected images and epochs, got {len(self.data)} and {config.optim.epochs}")
        torch.manual_seed(config.seed)
        self.network = build_model(config.model, len(self.data.categories))
        if self.checkpoint is None and config.model.weights != "none":
            load_pretrained(self.network.backbone, config.model.backbone, config.model.weights)
        elif config.model.weights == "none" and config.model.backbone != "small":
            self.accelerator.print("model.weights is none: GroupNorm everywhere, no stage frozen, trained from scratch")

    def _check_data(self) -> dict[str, Any]:
        """Looks at all data before the first step; -> what a checkpoint holds about them."""
        check_data(self.data, "train")
        if self.test is None:
            logger.warning(
                "train: nothing is evaluated, as there are no images for it; set data.test or data.val_fraction%s",
                "; stop_after has no effect" if self.config.stop_after else "",
            )
        elif self.test is not self.data:
            check_data(self.test, "test")
            check_categories(self.data, self.test)
        tests = "none" if self.test is None else len(self.test)
        print(f"training on {len(self.data)} images; images to evaluate on: {tests}", flush=True)
        categories = {str(number): name for number, name in self.data.categories.items()}
        test = None if self.test is None else _fingerprint(self.test)
        return {"categories": categories, "train": _fingerprint(self.data), "test": test}

    def _restore(self) -> None:
        path = cast(Path, self.checkpoint)
        found = load_checkpoint(path)
        check_resumable(path, found, self.config, self.sampler.steps)
        check_data_unchanged(path, found, self.about_data)
        try:
            for name, part in self._stateful().items():
                part.load_state_dict(found.state[name])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"train: expected the state of this network in {path}, got another: {error}") from error
        self.progress = found.progress
        notes = [f"goes on from {path}, after {self.progress.step} of {self.steps} steps"]
        if found.processes != self.accelerator.num_processes:
            notes.append(
                f"with {self.accelerator.num_processes} processes instead of {found.processes}: sums have another "
                "order, and losses other last digits"
            )
        if evaluates_otherwise(found, self.config, self.about_data):
            self.progress.best, self.progress.since_best = -1.0, 0
            notes.append("evaluated in another way than before: the search for the best weights begins anew")
        self.accelerator.print("; ".join(notes))

    def _write_final_metrics(self) -> None:
        # After a resume of a finished run there are none, or those of the last but one checkpoint.
        self.detector.save(self.out / "last.safetensors")
        evaluated = {} if self.test is not None else {"evaluated": False}
        metrics = {**evaluated, **self.progress.metrics, "seconds/train": self.progress.seconds}
        write_whole(self.out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())

    def _stateful(self) -> dict[str, Any]:
        parts = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _fingerprint(data: DataSet) -> dict[str, Any]:
    """That of a data set; a class of a user's own may have none."""
    return data.fingerprint() if hasattr(data, "fingerprint") else {"images": len(data)}


def _to(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device, non_blocking=True) for name, value in target.items()}

"""Trains a detector; writes weights, metrics and pictures."""

import io
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, gather_object
from PIL import Image
from torch import Tensor

from . import draw
from .checkpoint import FOLDER, Progress, find_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from .config import Config, parse_config
from .data import DataSet, build_data
from .data.loader import training_loader
from .data.subset import Subset
from .detector import Detector
from .evaluation import evaluate, show
from .files import remove_stale, write_whole
from .model import PolarMask, build_model
from .model.backbone import load_pretrained
from .model.loss import normalizers
from .optim import MovingAverage, build_optimizer, schedule, skip_unless
from .progress import ProgressLine
from .runtime import check_precision

FILES = {
    "predictions.png": "images that were evaluated on, what is there beside what was found",
    "first_batch.png": "the first augmented batch with its positive points and their targets, decoded",
    "learning_curve.png": "losses and AP over the steps",
    "metrics.json": "the final numbers",
    "metrics.jsonl": "losses every few steps, and each evaluation",
    "last.safetensors": "weights, configuration and categories at the end",
    "best.safetensors": "the same where segm/AP was best, when evaluation runs between epochs",
    FOLDER: "what --resume goes on from",
}
TERMINATED = 128 + signal.SIGTERM  # the exit status of a run that was told to leave

Part = tuple[list[Tensor], list[dict[str, Any]], list[int | str]]  # images, targets, ids


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
        If ``config.out`` holds checkpoints, unless they are to be gone on from or overwritten.
    ValueError
        If there are no images, a checkpoint does not fit, or the machine has no such precision.
    torch.OutOfMemoryError
        With what to change.
    SystemExit
        After SIGTERM, when a checkpoint is written.
    """
    return _Run(config).train()


@dataclass
class _Report:
    """What there is to say about a step: on its way from the device while the next step runs."""

    step: int
    names: list[str]
    values: Tensor  # (2 + names,): whether all is finite, whether a process was told to leave, losses
    arrived: torch.cuda.Event | None
    parts: list[Part]


class _Run:
    def __init__(self, config: Config) -> None:
        self.config, self.out = config, Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint = find_checkpoint(self.out, config.resume, config.overwrite)
        check_precision("train", config.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        check_tracker(config.tracker)
        AcceleratorState._reset_state()  # it refuses another precision than that of an earlier run of this process
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # or it does not see the other processes of torchrun
            mixed_precision=config.precision,
            log_with=config.tracker,
            project_dir=self.out,
        )
        found = gather_object([checkpoint and checkpoint.name])
        if len(set(found)) > 1:
            raise ValueError(
                f"train: expected all processes to find the same checkpoint, got {', '.join(map(str, found))}; "
                f"{self.out} must be a folder that all hosts share"
            )
        self.data: DataSet = build_data(config.data, "train", config.seed)
        test = build_data(config.data, "test", config.seed)
        if test is None:
            raise ValueError("train: expected images to evaluate on, found none; set data.test or data.val_fraction")
        self.test: DataSet = test
        if config.overfit:
            self.data = self.test = Subset(self.data, config.overfit)
        self.loader, self.sampler = training_loader(
            self.data, config, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.steps = self.sampler.steps * config.optim.epochs
        if self.steps == 0:
            raise ValueError(f"train: expected images and epochs, got {len(self.data)} and {config.optim.epochs}")
        torch.manual_seed(config.seed)
        self.network = build_model(config.model, len(self.data.categories))
        if config.model.weights != "none":
            load_pretrained(self.network.backbone, config.model.backbone, config.model.weights)
        elif config.model.backbone != "small":
            self.accelerator.print("model.weights is none: GroupNorm everywhere, no stage frozen, trained from scratch")
        self.network.to(self.accelerator.device)
        self.average = None if config.optim.ema is None else MovingAverage(self.network, config.optim.ema)
        if config.optim.compile:
            self.network.backbone.compile()
            self.network.head.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.network, build_optimizer(self.network, config.optim))
        shown = self.network if self.average is None else cast(PolarMask, self.average.module)
        self.detector = Detector(shown, config, self.data.categories)
        self.progress = Progress(step=0, best=-1.0, since_best=0, seconds=0.0, metrics={})
        self.told_to_leave = self.leaves = False
        if checkpoint is not None:
            self.restore(checkpoint)
        self.accelerator.wait_for_everyone()  # all have looked for checkpoints before the first is removed
        if self.accelerator.is_main_process:
            self.clean(resumed=checkpoint is not None)

    def clean(self, *, resumed: bool) -> None:
        """Removes what an earlier run left and this one does not go on from."""
        remove_stale(self.out)
        remove_stale(self.out / FOLDER)
        for path in [] if resumed else list_checkpoints(self.out):
            path.unlink()
        metrics = self.out / "metrics.jsonl"
        lines = metrics.read_text().splitlines(keepends=True) if resumed and metrics.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= self.progress.step]
        write_whole(metrics, "".join(kept).encode())

    def train(self) -> Detector:
        in_files = self.config.tracker == "tensorboard"  # in a folder of this name; else it is the project's
        options = {"tensorboard": {"purge_step": self.progress.step + 1}} if in_files else {}
        self.accelerator.init_trackers("tensorboard" if in_files else "polarmask", init_kwargs=options)
        first, skip = divmod(self.progress.step, self.sampler.steps)
        with self.listening(), ProgressLine(self.steps, shown=self.accelerator.is_local_main_process) as line:
            for epoch in range(first, self.config.optim.epochs):
                if 0 < self.config.stop_after <= self.progress.since_best:
                    break
                self.sampler.epoch, self.sampler.skip, skip = epoch, skip, 0
                self.train_epoch(line)
                every = self.config.evaluate_every
                if self.progress.step == self.steps or (every and (epoch + 1) % every == 0):
                    self.evaluate()
                self.save()
        if self.accelerator.is_main_process:
            metrics = {**self.progress.metrics, "seconds/train": self.progress.seconds}
            write_whole(self.out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
        self.accelerator.end_training()
        return self.detector

    def train_epoch(self, line: ProgressLine) -> None:
        """The steps that are left of an epoch."""
        self.model.train()
        began = time.perf_counter()
        report: _Report | None = None
        batches = iter(self.loader)
        while parts := line.waiting_for(lambda: list(islice(batches, self.config.optim.accumulate))):
            before, report = report, self.step(parts)
            line.advance(self.progress.step, self.config.optim.batch_size)
            if before is not None:
                self.read(before, line)
            every = self.config.checkpoint_every
            due = every > 0 and self.progress.step % every == 0 and self.progress.step % self.sampler.steps != 0
            if due or self.leaves:
                self.read(report, line)
                report = None
                self.progress.seconds += time.perf_counter() - began
                self.save()
                began = time.perf_counter()
            if self.leaves:
                raise SystemExit(TERMINATED)
        if report is not None:
            self.read(report, line)
        self.progress.seconds += time.perf_counter() - began

    def step(self, parts: list[Part]) -> _Report:
        """Updates the weights once. Nothing here waits for the device."""
        try:
            names, values = self.update(parts)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"train: out of memory with {len(parts[0][0])} images at once; raise optim.accumulate, set precision "
                f"to bf16, lower data.resize or optim.batch_size, or train in more processes ({error})"
            ) from error
        self.progress.step += 1
        arrived = None
        if values.is_cuda:
            values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return _Report(self.progress.step, names, values, arrived, parts)

    def update(self, parts: list[Part]) -> tuple[list[str], Tensor]:
        """-> the losses' names; the values of a :class:`_Report`, on the device."""
        device, network, config = self.accelerator.device, self.network, self.config
        images = [[image.to(device, non_blocking=True) for image in part[0]] for part in parts]
        given = [[_to(target, device) for target in part[1]] for part in parts]
        if self.progress.step == 0 and self.accelerator.is_main_process:
            self.keep_picture("first_batch", draw.first_batch(network, images[0], given[0]))
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
        leaves = values.new_full((1,), float(self.told_to_leave))
        return list(total), self.accelerator.reduce(torch.cat([finite.to(values)[None], leaves, values]), "mean")

    def learning_rate(self, step: int) -> float:
        return self.config.optim.lr * schedule(step, self.sampler.steps, self.config.optim)

    def read(self, report: _Report, line: ProgressLine) -> None:
        """Logs a step; stops where something was not finite."""
        if report.arrived is not None:
            report.arrived.synchronize()
        finite, leaves, *losses = report.values.tolist()
        values = {f"loss/{name}": loss for name, loss in zip(report.names, losses, strict=True)}
        if finite < 1:
            self.refuse(report, values)
        self.leaves |= leaves > 0
        if report.step % self.config.log_every == 0 or report.step == self.steps:
            line.show(values)
            self.log({**values, "lr": self.learning_rate(report.step - 1)}, report.step)

    def refuse(self, report: _Report, values: dict[str, float]) -> None:
        path = self.out / f"nonfinite_{self.accelerator.process_index}.pt"
        ids = [image_id for part in report.parts for image_id in part[2]]
        files = {
            image["id"]: image["file_name"] for image in self.data.ground_truth()["images"] if "file_name" in image
        }
        content = {
            "step": report.step,
            "image_ids": ids,
            "images": [image.cpu() for part in report.parts for image in part[0]],
            "targets": [_plain(target) for part in report.parts for target in part[1]],
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_whole(path, file.getvalue())
        raise FloatingPointError(
            f"train: expected finite losses and gradients, got {values} at step {report.step}, with the images "
            f"{', '.join(str(files.get(image_id, image_id)) for image_id in ids)}; they are kept in {path}"
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            with (self.out / "metrics.jsonl").open("a") as lines:
                print(json.dumps({"step": step, **values}), file=lines)

    def keep_picture(self, name: str, picture: Image.Image | None) -> None:
        """As a file, and with the trackers that take pictures."""
        if picture is None:
            return
        draw.save_picture(picture, self.out / f"{name}.png")
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({name: np.asarray(picture)[None]}, step=self.progress.step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                lists = tracker.name in ("wandb", "swanlab")
                tracker.log_images({name: [picture] if lists else picture}, step=self.progress.step)

    def evaluate(self) -> None:
        """Measures, keeps the best weights and draws what is found."""
        several = self.accelerator.num_processes > 1
        self.progress.metrics = evaluate(self.detector, self.test, distributed=several).metrics
        if self.accelerator.is_main_process:
            self.keep_picture("predictions", draw.sample_predictions(self.detector, self.test))
        self.log(self.progress.metrics, self.progress.step)
        if self.accelerator.is_main_process:
            draw.learning_curve(self.out / "metrics.jsonl", self.out / "learning_curve.png")
        self.progress.since_best += 1
        if self.progress.metrics["segm/AP"] > self.progress.best:
            self.progress.best, self.progress.since_best = self.progress.metrics["segm/AP"], 0
            if self.config.evaluate_every and self.accelerator.is_main_process:
                self.detector.save(self.out / "best.safetensors")

    def save(self) -> None:
        if self.accelerator.is_main_process:
            self.detector.save(self.out / "last.safetensors")
            state = {name: part.state_dict() for name, part in self.stateful().items()}
            save_checkpoint(self.out, self.progress, self.config, state, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def restore(self, path: Path) -> None:
        self.progress, state = load_checkpoint(path, self.config)
        for name, part in self.stateful().items():
            part.load_state_dict(state[name])
        self.accelerator.print(f"goes on from {path}, after {self.progress.step} of {self.steps} steps")

    def stateful(self) -> dict[str, Any]:
        parts = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Notes SIGTERM instead of dying of it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.told_to_leave = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def check_tracker(tracker: str) -> None:
    """Raises a ValueError where there is no such tracker: Accelerate leaves out one that is not installed."""
    here = ["all", *(str(each) for each in get_available_trackers())]
    if tracker not in here:
        known = ", ".join(LoggerType.list())
        raise ValueError(
            f"train: expected a tracker that is installed here ({', '.join(here)}), got {tracker!r}; Accelerate knows "
            f"{known}"
        )


def _to(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device, non_blocking=True) for name, value in target.items()}


def _plain(target: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors alone, which are read again without unpickling."""
    outlines = target["outlines"]
    others = {name: value for name, value in target.items() if name != "outlines"}
    return {**others, "segments": outlines.segments, "offsets": outlines.offsets}


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    config = parse_config(args, description=__doc__, prog="python -m polarmask.train")
    train(config)
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    show(metrics)
    for name, about in FILES.items():
        path = Path(config.out) / name
        if path.exists():
            print(f"{path}: {about}")

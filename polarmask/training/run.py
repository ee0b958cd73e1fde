"""What a training works with: data, network, optimizer and progress, built, checked, and restored from a checkpoint."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ..common.runtime import all_or_none, check_precision, on_main
from ..config import Config, to_dict
from ..data import DataSet, build_data, check_categories, check_data, mark_checked
from ..data.batches.loader import training_loader
from ..data.subset import Subset
from ..inference.detector import Detector
from ..model import PolarMask, build_model
from ..model.backbone import load_pretrained
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
from .optim import MovingAverage, build_optimizer, schedule
from .tracking import check_tracker

logger = logging.getLogger("polarmask.train")


class Run:
    """A training that is ready to begin or to go on. An error that only one process can find ends all of them.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    out : Path
        The run's folder.
    accelerator : Accelerator
    data, test : DataSet
        The images to train on, and those to evaluate on, if there are any.
    loader, sampler
        The batches of an epoch, and their order.
    steps : int
        Of all epochs.
    network : PolarMask
        The weights that are trained.
    model : nn.Module
        The network as Accelerate prepares it for several processes.
    average : MovingAverage or None
    optimizer : torch.optim.Optimizer
    detector : Detector
        Its weights are those that are evaluated and saved: the moving average's if there is one.
    checkpoint : Path or None
        The file that the run goes on from.
    about_data : dict
        Categories and fingerprints of the data, which checkpoints hold.
    progress : Progress
    """

    network: PolarMask
    steps: int

    def __init__(self, config: Config) -> None:
        self.config, self.out = config, Path(config.out)
        all_or_none(self._check_options)
        AcceleratorState._reset_state()  # it refuses another precision than that of an earlier run of this process
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),  # without it, Accelerate does not see torchrun's other processes
            mixed_precision=config.precision,
            log_with=config.tracker,
            project_dir=self.out,
        )
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

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.config.optim.lr * schedule(step, self.sampler.steps, self.config.optim)

    def save_checkpoint(self) -> None:
        """Writes a checkpoint of the present step. Every process calls this; the main one writes."""

        def write() -> None:
            state = {name: part.state_dict() for name, part in self._stateful().items()}
            processes = self.accelerator.num_processes
            checkpoint = Checkpoint(self.progress, to_dict(self.config), self.about_data, processes, state)
            save_checkpoint(self.out, checkpoint, self.config.keep_checkpoints)

        on_main(write)

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
            source = config.data.root if config.data.dataset == "files" else config.data.dataset
            raise ValueError(f"train: the training set is empty ({source}): there is nothing to train on")
        torch.manual_seed(config.seed)
        self.network = build_model(config.model, len(self.data.categories))
        if self.checkpoint is None and config.model.weights != "none":
            load_pretrained(self.network.backbone, config.model.backbone, config.model.weights)
        elif config.model.weights == "none" and config.model.backbone != "small":
            self.accelerator.print("model.weights is none: GroupNorm everywhere, no stage frozen, trained from scratch")

    def _check_data(self) -> dict[str, Any]:
        """Checks all data before the first step, and returns what a checkpoint holds about them."""
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

    def _stateful(self) -> dict[str, Any]:
        """What has a state that a checkpoint holds."""
        parts = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "scaler": self.accelerator.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _fingerprint(data: DataSet) -> dict[str, Any]:
    """The fingerprint of a data set; a user's own class need not have one."""
    return data.fingerprint() if hasattr(data, "fingerprint") else {"images": len(data)}

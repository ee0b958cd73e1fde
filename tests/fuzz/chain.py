"""A data set through audit, training, evaluation and prediction, in one process."""

import json
import logging
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

import polarmask
from polarmask.audit import audit
from polarmask.config import Config
from polarmask.data import SPLITS, DataError, build_data, open_data
from polarmask.evaluation import evaluate
from polarmask.inference import draw
from polarmask.inference.prediction import predict
from polarmask.model import PolarMask
from polarmask.training import run as training_run

from . import mutate_json, mutate_pixels, mutate_text  # noqa: F401, they register what they do
from .compared import differences, read_all
from .made import MAKERS, MadeSet
from .registry import JSON, MUTATIONS, YOLO, Mutation
from .slow import BAD, PLAIN, Reading, look, must_say_range, read_labels, read_voc
from .slow_json import read_json
from .slow_yolo import read_yolo

HANGS = 60  # seconds of computing: machines are shared
REFUSALS = (ValueError, TypeError, OSError)  # what the commands make one sentence of
REFUSED, TRAINED, TRAINED_ON_LESS, FAULT = "refused", "trained", "trained, the rest said", "fault"


class Hang(BaseException):
    """A set takes too long; no program takes this for an error of its own."""


@dataclass
class Outcome:
    """What became of a data set."""

    seed: int
    format: str
    mutations: list[str]
    options: dict[str, Any]
    outcome: str = ""
    message: str = ""
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        return json.dumps(asdict(self), default=str)


def tiny_config() -> Config:
    """A network that trains in a moment."""
    return polarmask.load_config(
        "nuclei",
        data__dataset="files",
        data__repeat=1,
        data__crop=64,
        model__channels=32,
        model__depth=1,
        optim__batch_size=2,
        optim__epochs=1,
        optim__warmup_steps=1,
        optim__ema=None,
    )


def make(
    seed: int, folder: Path, format: str | None = None, kinds: list[str] | None = None
) -> tuple[MadeSet, list[str]]:
    """The data set of a seed, spoilt, and what was done to it; of any format and kinds of mutations by default."""
    rng = np.random.default_rng(seed)
    name = list(MAKERS)[rng.integers(len(MAKERS))]
    made = MAKERS[format or name](folder, rng)
    if rng.integers(2):
        made.options["percentiles"] = None
    if rng.integers(3) == 0:
        made.options["invalid"] = "skip"
    count = 0 if rng.integers(40) == 0 else int(rng.integers(1, 4))
    fitting = [each for each in MUTATIONS if made.format in each.formats]
    of_kinds = sorted({each.kind for each in fitting})
    chosen: list[Mutation] = []
    for kind in kinds if kinds is not None else [of_kinds[k] for k in rng.integers(len(of_kinds), size=count)]:
        same = [each for each in fitting if each.kind == kind]
        chosen.append(same[int(rng.integers(len(same)))])
    done = []
    for each in sorted(chosen, key=lambda each: each.last):
        split = made.test if made.test and rng.integers(4) == 0 else made.train
        what = each.change(made, split, rng)
        if what:
            done.append(f"{each.kind}: {split}: {what}")
    return made, done


def read_slowly(made: MadeSet, part: str) -> Reading:
    """What is there to train on ("train") or to evaluate on ("test")."""
    read = read_json if made.format in JSON else read_yolo if made.format in YOLO else read_labels
    reading = read_voc(made, part) if made.format == "voc" else read(made, part)
    for seen in reading.images:
        note = must_say_range(seen, made.options.get("percentiles", ()))
        if note:
            reading.say.append(note)
    return reading


class Chain:
    """Runs data sets one after the other."""

    def __init__(self, scratch: Path, pictures: bool = False) -> None:
        self.scratch, self.pictures, self.config = scratch, pictures, tiny_config()
        self.steps = 0
        self.said: list[str] = []
        self.undo = ExitStack()

    def __enter__(self) -> "Chain":
        """Listens to what is logged, counts training steps, and leaves out pictures and checkpoints."""
        steps = register_module_forward_pre_hook(self._count)
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("polarmask").addHandler(handler)
        self.undo.callback(steps.remove)
        self.undo.callback(logging.getLogger("polarmask").removeHandler, handler)
        if not self.pictures:
            for name in ("first_batch", "sample_predictions", "learning_curve"):
                self.undo.enter_context(patch.object(draw, name, nothing))
            self.undo.enter_context(patch.object(training_run, "save_checkpoint", nothing))  # a fifth of the time
        return self

    def __exit__(self, *error: object) -> None:
        self.undo.close()

    def _count(self, module: torch.nn.Module, args: Any) -> None:
        self.steps += isinstance(module, PolarMask) and module.training

    def run(self, seed: int, format: str | None = None, kinds: list[str] | None = None) -> Outcome:
        """Makes the data set of a seed and runs it."""
        began = time.perf_counter()
        shutil.rmtree(self.scratch, ignore_errors=True)
        made, mutations = make(seed, self.scratch / "set", format, kinds)
        outcome = Outcome(seed, made.format, mutations, made.options)
        try:
            with limited(HANGS):
                self._run(made, outcome)
        except Hang as error:
            outcome.faults.append(str(error))
        if outcome.faults:
            outcome.outcome = FAULT
        outcome.seconds = round(time.perf_counter() - began, 2)
        return outcome

    def _run(self, made: MadeSet, outcome: Outcome) -> None:
        data = replace(self.config.data, root=str(made.root), **made.options)
        config = replace(self.config, data=data, out=str(self.scratch / "out"))
        readings = {part: read_slowly(made, part) for part in ("train", "test") if part == "train" or made.test}
        audits = {part: self._audited(config, part, outcome) for part in readings}
        self.steps, self.said = 0, []
        try:
            detector = polarmask.train(config)
        except REFUSALS as error:
            outcome.outcome, outcome.message = REFUSED, f"{type(error).__name__}: {error}"
            self._refused(error, made, readings, audits, outcome)
            return
        except Exception as error:
            outcome.faults.append(f"train: {place_of(error)}")
            return
        said = list(self.said)
        outcome.outcome = TRAINED
        outcome.message = "; ".join(said)[:500]
        if not self.steps:
            outcome.faults.append("trained without a step")
        unevaluated = any("nothing is evaluated" in line for line in said)
        for part, why in audits.items():
            if why and (part == "train" or not (unevaluated or "no instances" in why)):
                outcome.faults.append(f"audit says that training may not start, {part}: {why}; it did")
        self._compared(config, readings, said, outcome)
        self._evaluated(config, detector, readings, outcome)
        self._predicted(made, detector, outcome)

    def _audited(self, config: Config, part: str, outcome: Outcome) -> str:
        """Why training may not start with a split, or nothing."""
        split = getattr(config.data, part)
        try:
            data = open_data(config.data.root, [split] if split else SPLITS[part], config.data)
            return "; ".join(audit(data, config).reasons)
        except REFUSALS as error:
            if not isinstance(error, DataError):
                outcome.faults.append(f"audit: {place_of(error)}")
            return str(error) or "without a word"
        except Exception as error:
            outcome.faults.append(f"audit: {place_of(error)}")
            return place_of(error)

    def _refused(
        self, error: Exception, made: MadeSet, readings: dict[str, Reading], audits: dict[str, str], outcome: Outcome
    ) -> None:
        message = str(error)
        if self.steps:
            outcome.faults.append(f"an error after step {self.steps}: {place_of(error)}")
        named = str(made.folder) in message or any(f"data.{name}" in message for name in vars(self.config.data))
        if not named:
            outcome.faults.append(f"an error that names no file: {place_of(error)}")
        if made.options.keys() - {"percentiles", "invalid", "parts", "crowd"}:
            return  # they may be why
        if not any(audits.values()) and "categories of the training data" not in message:
            outcome.faults.append(f"audit says that training may start; it did not: {message}")
        if "test" in readings and readings["test"].categories != readings["train"].categories:
            return
        if all(reading.is_plain and any(seen.areas for seen in reading.images) for reading in readings.values()):
            outcome.faults.append(f"refused though all of it is plain: {message}")

    def _compared(self, config: Config, readings: dict[str, Reading], said: list[str], outcome: Outcome) -> None:
        reading = readings["train"]
        if reading.status == BAD:
            outcome.faults.append(f"trained though the set cannot be read plainly: {reading.why}")
        found = read_all(build_data(config.data, "train", config.seed))
        if not any(areas for samples in found.values() for areas, _ in samples):
            outcome.faults.append("trained on nothing")
        if config.data.val_fraction:  # both parts together are the whole
            found |= read_all(build_data(config.data, "test", config.seed))
        if reading.status == PLAIN:
            faults, lost = differences(reading, found, said)
            outcome.faults += faults
            outcome.outcome = TRAINED_ON_LESS if lost else TRAINED

    def _evaluated(self, config: Config, detector: Any, readings: dict[str, Reading], outcome: Outcome) -> None:
        part = "test" if "test" in readings else "train"
        try:
            data = build_data(config.data, part, config.seed)
            if data is None:
                return
            metrics = evaluate(detector, data).metrics
        except Exception as error:
            outcome.faults.append(f"evaluate: {place_of(error)}")
            return
        if not config.data.val_fraction and readings[part].status == PLAIN:
            images = readings[part].images
            least = sum(seen.annotations for seen in images if seen.status == PLAIN)
            most = sum(seen.annotations + seen.unclear + seen.bad for seen in images)
            if not least <= metrics["instances"] <= most:
                outcome.faults.append(f"evaluated on {metrics['instances']:.0f} instances, there are {least} to {most}")

    def _predicted(self, made: MadeSet, detector: Any, outcome: Outcome) -> None:
        folder, out = made.images[made.train], self.scratch / "found"
        expected = {path.name for path in made.pictures(made.train) if look(path, made.options).status == PLAIN}
        stems = [path.relative_to(folder).with_suffix("") for path in made.pictures(made.train)]
        try:
            predict(detector, [folder], out)
        except REFUSALS as error:
            if str(made.folder) not in str(error):
                outcome.faults.append(f"predict: an error that names no file: {place_of(error)}")
            if len(set(stems)) < len(stems):
                return  # results of two images would have one name
        except Exception as error:
            outcome.faults.append(f"predict: {place_of(error)}")
            return
        try:
            listed = {Path(name).name for name in json.loads((out / "images.json").read_text()).values()}
            json.loads((out / "results.json").read_text())
        except (OSError, ValueError) as error:
            if expected:
                outcome.faults.append(f"predict: {type(error).__name__}: {error}")
            return
        if expected - listed:
            outcome.faults.append(f"predict: nothing is written of {', '.join(sorted(expected - listed))}")


def nothing(*_: Any, **__: Any) -> None:
    """In place of what a run writes. A mock would keep all that it is called with, the networks of all runs."""


def place_of(error: BaseException) -> str:
    """An exception, and the line of polarmask that it comes from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/polarmask" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {where}: {error!s:.300}"


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises Hang in what computes longer, or takes twenty times as long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"takes more than {seconds} s: {''.join(traceback.format_stack(frame)[-2:])}")

    before = [(number, signal.signal(number, stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(20 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before:
            signal.signal(number, handler)

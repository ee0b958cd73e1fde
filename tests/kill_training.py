"""Kills a training at random moments, takes it up again each time, and compares it with one that nobody stopped.

    python tests/kill_training.py DATA --kills 50 --processes 1 --seed 0

DATA holds train and test, each with images and masks; the first few images of each are used. A training that reaches
its end is compared with the uninterrupted one: losses and metrics in metrics.jsonl and the weights must be the same,
bit for bit. Then another one begins, until there were enough kills. With two processes under torchrun, one of them or
all are killed. The program prints a line for each kill, and the counts that docs/robustness.md records.
"""

import argparse
import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from safetensors.torch import load_file

from polarmask.checkpoint import list_checkpoints
from polarmask.files import TEMPORARY
from polarmask.run_folder import LOCK

OPTIONS = {
    "config": "nuclei",
    "data.dataset": "files",
    "data.crop": "64",
    "data.repeat": "1",
    "data.workers": "1",
    "model.channels": "32",
    "model.depth": "1",
    "optim.batch_size": "4",
    "optim.epochs": "6",
    "optim.ema": "0.9",
    "evaluate_every": "2",
    "checkpoint_every": "2",
    "log_every": "1",
    "resume": "auto",
}
TRAINING_IMAGES, TEST_IMAGES = 16, 2
SHARE = 0.5  # of the uninterrupted training's seconds, within which each kill comes
PATIENCE = 300  # seconds that a training may take to begin


def copy_images(data: Path, to: Path) -> None:
    """Copies the first images of each split and their masks."""
    for split, count in (("train", TRAINING_IMAGES), ("test", TEST_IMAGES)):
        for path in sorted((data / split / "images").iterdir())[:count]:
            for kind in ("images", "masks"):
                (to / split / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(data / split / kind / path.name, to / split / kind)


class Training:
    """A training that runs as a program.

    Parameters
    ----------
    data, out : Path
    processes : int
        With several it runs under torchrun.
    """

    def __init__(self, data: Path, out: Path, processes: int) -> None:
        self.out, self.processes = out, processes
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        options = [f"--{name}={value}" for name, value in {**OPTIONS, "data.root": data, "out": out}.items()]
        command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "polarmask.train", *options]
        (out / LOCK).unlink(missing_ok=True)
        self.log = out.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def wait_for_begin(self) -> None:
        """Returns when the training has claimed its folder."""
        deadline = time.monotonic() + PATIENCE
        while not (self.out / LOCK).exists() and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected the training to begin within {PATIENCE} s; see {self.log}")
            time.sleep(0.01)

    def ends_within(self, seconds: float) -> bool:
        """Waits; raises a RuntimeError where the training ended with an error."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            raise RuntimeError(f"expected exit status 0, got {status}: {self.log.read_text()[-3000:]}")
        return True

    def kill(self, rng: np.random.Generator) -> str:
        """Kills the training, or one of its processes, whereupon the others end; -> which."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        ranks = [child for child in children if child.ppid() == self.process.pid] if self.processes > 1 else []
        if ranks and rng.random() < 0.5:
            rank = int(rng.integers(len(ranks)))
            ranks[rank].kill()
            self.process.wait()
            return "one of two"
        for process in [psutil.Process(self.process.pid), *children]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(children)
        return "all"


def difference(out: Path, other: Path) -> str:
    """What differs between two trainings; nothing where they are the same."""
    lines = [
        [
            {name: value for name, value in json.loads(line).items() if not name.startswith("seconds/")}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (out, other)
    ]
    if lines[0] != lines[1]:
        return "metrics.jsonl"
    for name in ("last.safetensors", "best.safetensors"):
        left, right = load_file(out / name), load_file(other / name)
        if left.keys() != right.keys() or not all(torch.equal(left[key], right[key]) for key in left):
            return name
    left_over = [path.name for path in out.rglob("*") if TEMPORARY.fullmatch(path.name) or path.name == LOCK]
    return ", ".join(left_over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rng = np.random.default_rng(given.seed)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        data, whole = Path(scratch) / "data", Path(scratch) / "whole"
        copy_images(given.data, data)
        training = Training(data, whole, given.processes)
        training.wait_for_begin()
        began = time.perf_counter()
        while not training.ends_within(60):
            pass
        seconds = time.perf_counter() - began
        print(f"the uninterrupted training takes {seconds:.1f} s", flush=True)
        while counts["kills"] < given.kills:
            counts["trainings"] += 1
            out = Path(scratch) / f"killed_{counts['trainings']}"
            while True:
                training = Training(data, out, given.processes)
                training.wait_for_begin()
                delay = rng.uniform(0, SHARE * seconds) if counts["kills"] < given.kills else 10 * seconds + PATIENCE
                if training.ends_within(delay):
                    break
                which = training.kill(rng)
                counts["kills"] += 1
                counts[f"kills of {which}"] += 1
                counts["kills while a file was written"] += any(TEMPORARY.fullmatch(p.name) for p in out.rglob(".*"))
                last = list_checkpoints(out)[-1:]
                counts["kills before the first checkpoint"] += not last
                print(
                    f"kill {counts['kills']}: {which}, after {delay:.1f} s, {last[0].stem if last else '-'}", flush=True
                )
            if found := difference(out, whole):
                sys.exit(f"{out} differs: {found}; {dict(counts)}")
            counts["trainings that ended like the uninterrupted one"] += 1
            shutil.rmtree(out)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()

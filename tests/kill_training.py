"""Kills a training at random moments, takes it up again each time, and compares it with one that nobody stopped.

    python tests/kill_training.py DATA --kills 50 --processes 1 --seed 0

DATA holds train and test, each with images and masks; the first few images of each are used. A training that reaches
its end is compared with the uninterrupted one: losses and metrics in metrics.jsonl and the weights must be the same,
bit for bit. Then another one begins, until there were enough kills. Several processes are started as torchrun does it,
and one of them or all are killed. The program prints a line for each kill, and the counts for docs/robustness.md.
"""

import argparse
import collections
import json
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from polarmask.cli import run
from polarmask.common.files import TEMPORARY
from polarmask.training.checkpoint import list_checkpoints
from polarmask.training.run_folder import LOCK

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
    "evaluate_every": "3",
    "checkpoint_every": "2",
    "log_every": "1",
    "resume": "auto",
}
TRAINING_IMAGES, TEST_IMAGES = 16, 2
SHARE = 0.35  # of the uninterrupted training's seconds, within which each kill comes
PATIENCE = 600  # seconds that a training may take to begin
GRACE = 3  # seconds at most that the other processes live on when one is killed
CONTEXT = multiprocessing.get_context("forkserver")


def copy_images(data: Path, to: Path) -> None:
    """Copies the first images of each split and their masks."""
    for split, count in (("train", TRAINING_IMAGES), ("test", TEST_IMAGES)):
        for path in sorted((data / split / "images").iterdir())[:count]:
            for kind in ("images", "masks"):
                (to / split / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(data / split / kind / path.name, to / split / kind)


def train_as_rank(options: list[str], log: Path, rank: int, processes: int, port: int) -> None:
    """The program ``python -m polarmask.train`` in a process that torchrun would start with these variables."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if processes > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ.update({"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)})
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as in the program
    run("train", options)


class Training:
    """A training in processes of its own, which fork from a server that has imported everything.

    Parameters
    ----------
    data, out : Path
    processes : int
        Of one training.
    """

    def __init__(self, data: Path, out: Path, processes: int) -> None:
        options = [f"--{name}={value}" for name, value in {**OPTIONS, "data.root": data, "out": out}.items()]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        (out / LOCK).unlink(missing_ok=True)
        self.out, self.log = out, out.with_suffix(".log")
        self.ranks = [
            CONTEXT.Process(target=train_as_rank, args=(options, self.log, rank, processes, port))
            for rank in range(processes)
        ]
        for rank in self.ranks:
            rank.start()

    def wait_for_begin(self) -> None:
        """Returns when the training has claimed its folder."""
        deadline = time.monotonic() + PATIENCE
        while not (self.out / LOCK).exists() and any(rank.is_alive() for rank in self.ranks):
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected the training to begin within {PATIENCE} s; see {self.log}")
            time.sleep(0.01)

    def ends_within(self, seconds: float) -> bool:
        """Waits; raises a RuntimeError where the training ended with an error."""
        deadline = time.monotonic() + seconds
        for rank in self.ranks:
            rank.join(max(deadline - time.monotonic(), 0))
        if any(rank.is_alive() for rank in self.ranks):
            return False
        if any(rank.exitcode for rank in self.ranks):
            statuses = ", ".join(str(rank.exitcode) for rank in self.ranks)
            raise RuntimeError(f"expected exit status 0, got {statuses}: {self.log.read_text()[-3000:]}")
        return True

    def kill(self, rng: np.random.Generator) -> str:
        """Kills all processes, or one of several and, after a while, those that wait for it; -> which."""
        which = "all"
        if len(self.ranks) > 1 and rng.random() < 0.5:
            which = "one of several"
            self.ranks[int(rng.integers(len(self.ranks)))].kill()
            time.sleep(rng.uniform(0, GRACE))
        for rank in self.ranks:
            rank.kill()
            rank.join()
        return which


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
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the server, which begins with the first training
    CONTEXT.set_forkserver_preload(["polarmask.training.trainer", "torch.utils.tensorboard"])
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

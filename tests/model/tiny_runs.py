"""Trainings of a few steps, and what they write."""

import json
import os
import signal
import subprocess
import sys

import torch

import polarmask

NETWORK = [
    *("--config", "shapes"),
    *("--model.channels", "32", "--model.depth", "1", "--model.score_threshold", "0.01"),
    *("--optim.batch_size", "10", "--optim.epochs", "2", "--optim.warmup_steps", "2", "--optim.ema", "0.5"),
    *("--log_every", "1"),
]
OPTIONS = [*NETWORK, "--data.count", "20", "--data.size", "64"]  # and two images to evaluate on


def lines(out):
    """metrics.jsonl without the times, which no two runs share."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in found]


def losses(out):
    """The lines of metrics.jsonl that hold losses."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "loss/mask" in line]


def weights(out):
    return polarmask.load(out / "last.safetensors").model.state_dict()


def assert_same(out, other):
    assert lines(out) == lines(other)
    for left, right in zip(weights(out).values(), weights(other).values(), strict=True):
        assert torch.equal(left, right)


def signal_at(monkeypatch, step, number=signal.SIGTERM):
    """Sends this process a signal when the losses of a step are logged."""
    from polarmask.training.tracking import Tracking

    log = Tracking.log

    def log_and_signal(self, values, at):
        log(self, values, at)
        if at == step and "lr" in values:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Tracking, "log", log_and_signal)


def start(*options, processes=1, program=("-m", "polarmask.train")):
    """A training as a program, in a process group of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), *program, *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

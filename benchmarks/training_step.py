"""Where the time of a training step goes: waiting for data, our ops, the rest. On the CPU; nothing is kept of the run.

    python benchmarks/training_step.py --config nuclei

takes the options of polarmask.train.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from polarmask.config import Config, parse_config
from polarmask.training.run import Run
from polarmask.training.step import take_step

WARM_UP, STEPS = 5, 15  # 35 steps in all: an epoch of nuclei has 40


def measure(config: Config, warm_up: int = WARM_UP, steps: int = STEPS) -> dict[str, float]:
    """Seconds of a step, and shares of it: waiting for data, and our ops, forward and backward.

    The profiler makes steps slower: the ops' share is one of steps of their own.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(replace(config, out=folder))
        run.model.train()
        batches = iter(run.loader)
        _take(run, batches, warm_up)
        waiting, seconds = _take(run, batches, steps)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            _, profiled = _take(run, batches, steps)
    ours = sum(event.cpu_time_total for event in profiler.events() if _is_ours(event) and not _is_inside(event)) / 1e6
    return {"seconds/step": seconds / steps, "waiting": waiting / seconds, "ops": ours / profiled}


def _take(run: Run, batches: Iterator[Any], steps: int) -> tuple[float, float]:
    """-> seconds of waiting for data, and in all."""
    waiting, began = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        parts = list(islice(batches, run.config.optim.accumulate))
        waiting += time.perf_counter() - asked
        take_step(run, parts)
    return waiting, time.perf_counter() - began


def _is_ours(event: Any) -> bool:
    return "polarmask" in event.name  # the ops, and the nodes of their backward passes


def _is_inside(event: Any) -> bool:
    """Whether another of ours counts its time already."""
    above = event.cpu_parent
    return above is not None and (_is_ours(above) or _is_inside(above))


def main() -> None:
    config = parse_config(sys.argv[1:], prog="benchmarks/training_step.py")
    found = measure(config)
    print(
        f"{found['seconds/step']:.3f} s a step with {torch.get_num_threads()} threads and {config.data.workers} data "
        f"workers; waiting for data {found['waiting']:.1%}, our ops {found['ops']:.1%}"
    )


if __name__ == "__main__":
    main()

"""How an entry is timed. ``BENCH_THREADS`` and ``BENCH_SECONDS`` shorten a run."""

import os
from timeit import timeit

import pytest
import race
import torch

from polarmask_ops import _C

THREADS = tuple(int(count) for count in os.environ.get("BENCH_THREADS", "1,2").split(","))
SECONDS = float(os.environ.get("BENCH_SECONDS", "0.5"))  # of one entry's rounds


def pytest_generate_tests(metafunc):
    if "entry" in metafunc.fixturenames:
        metafunc.parametrize("entry", list(race.entries(metafunc.module.RACES, THREADS)), ids=str)


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["torch"] = torch.__version__
    machine_info["isa"] = _C.isa()
    machine_info["bfloat16"] = race.bfloat16()


@pytest.fixture
def timed(benchmark):
    def run(entry: race.Entry) -> None:
        contest, case, runner, threads = entry
        race.set_threads(threads)
        inputs = race.inputs_of(case, case.size)
        result = race.check(contest, runner, inputs)
        work = race.work(contest, inputs, result) if runner.name == race.OURS else {}
        del result
        race.set_threads(threads)  # the check may have brought another runtime in
        seconds = []
        peak = race.peak_memory(lambda: seconds.append(timeit(lambda: runner.run(inputs), number=1)))
        once = seconds[0]
        benchmark.extra_info |= {
            "race": contest.name,
            "case": case.name,
            "runner": runner.name,
            "threads": threads,
            "size": case.size,
            "reason": case.reason,
            "unit": contest.unit,
            "aim": runner.aim,
            "limit": contest.limit,
            "floor_aim": contest.floor.aim if contest.floor else None,
            "growth": contest.growth.name if contest.growth else contest.unit,
            "peak_bytes": peak,
            **work,
        }
        benchmark.pedantic(
            runner.run,
            (inputs,),
            rounds=max(1 if once > 2 else 3, min(50, int(contest.patience * SECONDS / once))),
            iterations=max(1, min(100, int(0.002 / once))),
        )

    return run

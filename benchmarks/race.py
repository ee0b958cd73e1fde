"""Benchmarks as races: cases, the runners that are timed on them, and checks that their results agree."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch

OURS = "polarmask_ops"


@dataclass(frozen=True)
class Case:
    """A named workload."""

    name: str
    reason: str
    make: Callable[[int], Any]  # makes seeded inputs of a size
    size: int  # number of instances, rows, candidates, …
    tiny: int  # a size at which the slowest peer takes less than a second


class Floor(NamedTuple):
    """Work that no program can avoid. With the machine's copy bandwidth and peak arithmetic it gives the least time.

    Both count from (inputs, ours).
    """

    bytes: Callable[[Any, Any], int]
    operations: Callable[[Any, Any], int] = lambda inputs, ours: 0  # floating-point, an FMA is two
    aim: float | None = None  # the share of the measured time that the floor should reach


class Growth(NamedTuple):
    """The quantity in which time should grow linearly."""

    name: str
    amount: Callable[[Any, Any], float]  # of (inputs, ours)


@dataclass(frozen=True)
class Runner:
    """A program that is timed: a peer, or another way to use our own ops."""

    name: str
    run: Callable[[Any], Any]
    agree: Callable[[Any, Any, Any], None] | None = None  # (inputs, ours, theirs) raises; None: a bound, other work
    aim: float | None = None  # how many times faster we want to be
    sizes: tuple[int, float] = (0, float("inf"))  # of the cases to run, both ends included
    parallel: bool = True  # else its time with one thread is shown for two threads, too
    available: bool = True  # whether its package is installed


@dataclass(frozen=True)
class Race:
    name: str
    cases: tuple[Case, ...]
    ours: Callable[[Any], Any]
    others: tuple[Runner, ...] = ()
    unit: str = ""  # what a case's size counts
    given: Callable[[Any], Any] = lambda inputs: inputs  # the part of the inputs that our op reads
    floor: Floor | None = None  # by default reading what is given once and writing the result once
    growth: Growth | None = None  # by default linear in the unit
    limit: float | None = None  # seconds per unit that our op should stay below, one thread
    patience: float = 1  # how many times longer than usual an entry may take

    def runners(self, case: Case) -> Iterator[Runner]:
        yield Runner(OURS, self.ours)
        for other in self.others:
            if other.available and other.sizes[0] <= case.size <= other.sizes[1]:
                yield other


class Entry(NamedTuple):
    race: Race
    case: Case
    runner: Runner
    threads: int

    def __str__(self) -> str:
        return f"{self.race.name}-{self.case.name}-{self.runner.name}-{self.threads}".replace(" ", "_")


def entries(races: tuple[Race, ...], threads: tuple[int, ...]) -> Iterator[Entry]:
    for race in races:
        for case in race.cases:
            for runner in race.runners(case):
                for count in threads if runner.parallel else threads[:1]:
                    yield Entry(race, case, runner, count)


@lru_cache(maxsize=1)
def inputs_of(case: Case, size: int) -> Any:
    """Make the inputs of a case, cached for the runners of the case, which follow each other."""
    return case.make(size)


def check(race: Race, runner: Runner, inputs: Any) -> Any:
    """Run once, compare the result with that of our op, and return it."""
    result = runner.run(inputs)
    if runner.agree is not None:
        runner.agree(inputs, race.ours(inputs), result)
    return result


def work(race: Race, inputs: Any, ours: Any) -> dict[str, float]:
    """Return the bytes, operations and amount of a case."""
    read, written = size_of(race.given(inputs)), size_of(ours)
    return {
        "input_bytes": read,
        "output_bytes": written,
        "floor_bytes": race.floor.bytes(inputs, ours) if race.floor else read + written,
        "floor_operations": race.floor.operations(inputs, ours) if race.floor else 0,
        "amount": race.growth.amount(inputs, ours) if race.growth else None,
    }


def size_of(value: Any) -> int:
    """Count the bytes of the tensors, arrays and strings in a structure."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(size_of, value))
    return getattr(value, "nbytes", 0)


def bfloat16() -> str:
    """Name the CPU's instructions for bfloat16. Without them torch emulates it, slower than float32."""
    found = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX-512 BF16": torch.cpu._is_avx512_bf16_supported()}
    return ", ".join(name for name, here in found.items() if here)


def set_threads(count: int) -> None:
    """Set the threads of torch, OpenCV and every OpenMP runtime in the process; some wheels contain their own."""
    with suppress(ImportError):
        import numba

        numba.set_num_threads(
            min(count, numba.config.NUMBA_NUM_THREADS)
        )  # must come first, for numba starts all of OpenMP's threads
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for library in {line.split()[-1] for line in lines if "libgomp" in line}:
        ctypes.CDLL(library).omp_set_num_threads(count)


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Return the peak of memory during the call, less that before it. Linux only."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        call()
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)

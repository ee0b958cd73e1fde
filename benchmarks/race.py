"""What a benchmark is made of: cases, who runs them, and who must give the same result."""

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
    make: Callable[[int], Any]  # seeded inputs of a size
    size: int  # of what grows: instances, rows, candidates, …
    tiny: int  # a size at which the slowest peer takes no time


class Floor(NamedTuple):
    """What must be done, whatever the program: with copy bandwidth and peak arithmetic of the machine, the least time.

    Both count from (inputs, ours).
    """

    bytes: Callable[[Any, Any], int]
    operations: Callable[[Any, Any], int] = lambda inputs, ours: 0  # floating-point, an FMA is two
    aim: float | None = None  # share of the time that the floor shall have


class Growth(NamedTuple):
    """What the time should be linear in."""

    name: str
    amount: Callable[[Any, Any], float]  # of (inputs, ours)


@dataclass(frozen=True)
class Runner:
    """Someone who does the work; a peer, or another of our own ways."""

    name: str
    run: Callable[[Any], Any]
    agree: Callable[[Any, Any, Any], None] | None = None  # (inputs, ours, theirs) raises; None: a bound, other work
    aim: float | None = None  # how many times faster we want to be
    sizes: tuple[int, float] = (0, float("inf"))  # of the cases to run, both ends included
    parallel: bool = True  # otherwise its time with one thread stands for two
    available: bool = True  # whether its package is installed


@dataclass(frozen=True)
class Race:
    name: str
    cases: tuple[Case, ...]
    ours: Callable[[Any], Any]
    others: tuple[Runner, ...] = ()
    unit: str = ""  # what a case's size counts
    given: Callable[[Any], Any] = lambda inputs: inputs  # what of the inputs ours takes
    floor: Floor | None = None  # none: what is given is read once, and the result written once
    growth: Growth | None = None  # none: in the unit
    limit: float | None = None  # seconds of ours per unit that we want to stay below, one thread
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
    """Cached: all runners of a case follow each other, on the very same input."""
    return case.make(size)


def check(race: Race, runner: Runner, inputs: Any) -> Any:
    """Runs it once; what it gives must be what we give. The result."""
    result = runner.run(inputs)
    if runner.agree is not None:
        runner.agree(inputs, race.ours(inputs), result)
    return result


def work(race: Race, inputs: Any, ours: Any) -> dict[str, float]:
    """What a case asks for, in numbers."""
    read, written = size_of(race.given(inputs)), size_of(ours)
    return {
        "input_bytes": read,
        "output_bytes": written,
        "floor_bytes": race.floor.bytes(inputs, ours) if race.floor else read + written,
        "floor_operations": race.floor.operations(inputs, ours) if race.floor else 0,
        "amount": race.growth.amount(inputs, ours) if race.growth else None,
    }


def size_of(value: Any) -> int:
    """Bytes of the tensors, arrays and strings in a structure."""
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
    """The instructions that this CPU has for bfloat16; none: torch emulates it, slower than float32."""
    found = {"AMX": torch.cpu._is_amx_tile_supported(), "AVX-512 BF16": torch.cpu._is_avx512_bf16_supported()}
    return ", ".join(name for name, here in found.items() if here)


def set_threads(count: int) -> None:
    """Of torch, OpenCV, and every OpenMP runtime in the process: wheels bring their own."""
    with suppress(ImportError):
        import numba

        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # first: it starts with all of OpenMP's
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for library in {line.split()[-1] for line in lines if "libgomp" in line}:
        ctypes.CDLL(library).omp_set_num_threads(count)


def peak_memory(call: Callable[[], Any]) -> int | None:
    """Bytes held at most beyond what was there before. Linux only."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        call()
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)

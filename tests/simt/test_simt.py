"""The emulator itself: planted bugs are reported, legal patterns are not, in every schedule."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from simt_build import KINDS, build

# Under `make sanitize` the interpreter has a sanitizer of its own, which these programs must not get.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
SCHEDULES = ("forward", "backward", "7", "8")
# What each build sees beside the bugs that every build does.
SEES = {"plain": (), "race": ("race_",), "asan": ("memory_",)}
WORDS = {
    "bug_barrier_in_a_branch": ["waits in vain in __syncthreads at", "has left the kernel"],
    "bug_two_barriers": ["divergent barrier", "patterns.cu"],
    "bug_mask_too_wide": ["waits in vain", "__shfl_down_sync", "__syncwarp"],
    "bug_not_in_its_own_mask": ["not in its own mask", "__shfl_sync"],
    "race_uninitialised": ["uninitialised", "shared memory"],
    "race_left_by_the_last_block": ["uninitialised", "shared memory"],
    "race_too_many_barriers": ["more barriers or blocks than the race detector can count"],
    "race_blocks_on_global": ["race: 4 bytes of global memory", "patterns.cu"],
    "memory_past_shared": ["heap-buffer-overflow", "memory_past_shared"],
    "memory_past_global": ["heap-buffer-overflow", "memory_past_global"],
    "memory_past_local": ["out of bounds"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simt")
    build(folder, *(f"{kind}/patterns" for kind in KINDS))
    return folder


def run(folder, kind, *arguments):
    environment = {**ENVIRONMENT, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}
    done = subprocess.run(
        [folder / kind / "patterns", *arguments], capture_output=True, text=True, timeout=60, env=environment
    )
    return done.stdout + done.stderr


def line_of(name):
    """Line of the source on which a kernel begins."""
    lines = (Path(__file__).parent / "patterns.cu").read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if f" {name}(" in line)


@pytest.mark.parametrize("kind", KINDS)
def test_patterns(folder, kind):
    names = run(folder, kind).split()
    assert len(names) > 25
    assert set(WORDS) <= set(names)
    for name in names:
        reported = name.startswith(("bug_", *SEES[kind]))
        if not reported and not name.startswith("ok_"):
            continue
        for schedule in SCHEDULES:
            report = run(folder, kind, name, schedule)
            if reported:
                expected = WORDS.get(name, [r"simt: (race|uninitialised): .* memory: .* at patterns\.cu:\d+"])
                missing = [words for words in expected if not re.search(words, report)]
                assert missing == [], f"{name}, {schedule}: {report}"
            else:
                assert report == "right\n", f"{name}, {schedule}: {report}"


def test_a_report_names_the_line(folder):
    report = run(folder, "race", "race_no_barrier", "forward")
    write, read = line_of("race_no_barrier") + 2, line_of("race_no_barrier") + 3
    assert f"patterns.cu:{write}" in report or f"patterns.cu:{read}" in report

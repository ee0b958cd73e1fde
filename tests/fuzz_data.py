"""Spoils small data sets of every format, and takes each through audit, training, evaluation and prediction.

    python tests/fuzz_data.py --seeds 0 2000 --processes 2 --out fuzz.jsonl
    python tests/fuzz_data.py --seeds 17 18 --show

A set may be refused before the first step by an error that names a file, train on all instances that the slow reader of
``tests/fuzz/slow.py`` counts, or train on less where that was said. Anything else is a fault: the exit status is 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 100), metavar=("FROM", "TO"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--format", help="Of all sets; by default each seed has its own.")
    parser.add_argument("--kinds", nargs="*", help="Of the mutations; by default each seed has its own.")
    parser.add_argument("--pictures", action="store_true", help="Draw what a run draws, and keep checkpoints.")
    parser.add_argument("--show", action="store_true", help="Print every outcome, not only faults.")
    parser.add_argument("--keep", type=Path, help="A folder in which the last data set stays.")
    parser.add_argument("--out", type=Path, help="A file for the outcomes, a line of JSON each.")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return work(given)
    outcomes = run_processes(given)
    print_table(outcomes)
    return 1 if any(outcome["faults"] for outcome in outcomes) else 0


def work(given: argparse.Namespace) -> int:
    """Runs every PROCESSES-th seed; prints a line of JSON for each."""
    import torch
    from fuzz.chain import Chain

    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(prefix="polarmask-fuzz-") as folder,
        Chain(given.keep or Path(folder) / "run", given.pictures) as chain,
    ):
        for seed in range(given.seeds[0], given.seeds[1], given.processes):
            print("OUTCOME", chain.run(seed, given.format, given.kinds).line(), flush=True)
    return 0


def run_processes(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs all seeds; a process that dies or hangs is a fault of its seed, and another one goes on behind it."""
    from concurrent.futures import ThreadPoolExecutor

    first, last = given.seeds
    with ThreadPoolExecutor(given.processes) as pool:
        parts = pool.map(lambda n: run_process(given, first + n, last), range(given.processes))
        return sorted((outcome for part in parts for outcome in part), key=lambda outcome: outcome["seed"])


def run_process(given: argparse.Namespace, first: int, last: int) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = []
    seed = first
    while seed < last:
        options = [*(["--format", given.format] if given.format else []), *(["--pictures"] if given.pictures else [])]
        options += ["--kinds", *given.kinds] if given.kinds is not None else []
        options += ["--keep", str(given.keep)] if given.keep else []
        seeds = ["--seeds", str(seed), str(last), "--processes", str(given.processes)]
        command = [sys.executable, __file__, "--worker", *seeds, *options]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("OUTCOME "):
                    outcomes.append(keep(given, json.loads(line.removeprefix("OUTCOME "))))
                    seed += given.processes
            process.wait()
            errors.seek(0)
            words = errors.read()[-1500:]
        if process.returncode == 1:
            raise RuntimeError(f"the fuzzer itself is wrong, at seed {seed}: {words}")
        if seed < last:
            died = f"the process died with status {process.returncode}: {words}"
            lost = {"seed": seed, "format": "", "mutations": [], "faults": [died], "outcome": "fault", "seconds": 0}
            outcomes.append(keep(given, lost))
            seed += given.processes
    return outcomes


def keep(given: argparse.Namespace, outcome: dict[str, Any]) -> dict[str, Any]:
    """Writes an outcome down as soon as it is there."""
    if given.out:
        with given.out.open("a") as file:
            print(json.dumps(outcome), file=file)
    if given.show or outcome["faults"]:
        print_outcome(outcome)
    return outcome


def print_outcome(outcome: dict[str, Any]) -> None:
    print(f"seed {outcome['seed']}, {outcome['format']}: {outcome['outcome']} {outcome.get('options')}")
    for line in outcome["mutations"]:
        print(f"    {line}")
    if outcome.get("message"):
        print(f"  = {outcome['message']:.400}")
    for fault in outcome["faults"]:
        print(f"  ! {fault}")


def print_table(outcomes: list[dict[str, Any]]) -> None:
    """Sets by format and outcome."""
    counts = Counter((outcome["format"], outcome["outcome"]) for outcome in outcomes)
    names = sorted({name for _, name in counts})
    print("| format | sets | " + " | ".join(names) + " |\n| --- |" + " --- |" * (len(names) + 1))
    for format in [*sorted({format for format, _ in counts}), "all"]:
        row = [sum(n for key, n in counts.items() if format in (key[0], "all") and key[1] == name) for name in names]
        print(f"| {format} | {sum(row)} | " + " | ".join(map(str, row)) + " |")
    seconds = sorted(outcome.get("seconds", 0) for outcome in outcomes)
    print(f"{len(outcomes)} sets, {sum(seconds):.0f} s, the slowest {seconds[-1] if seconds else 0} s")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

"""Registers, shared memory and occupancy of every kernel on every chip, without a GPU: ``make cuda-report``.

Compiles the .cu files of csrc/sources.txt for each chip and writes benchmarks/results/cuda-report.md. Fails where a
kernel spills registers or uses local memory.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "benchmarks" / "results" / "cuda-report.md"
CHIPS = (75, 80, 86, 89, 90, 100, 120)
FLAGS = ["-std=c++20", "-O3", "-fmad=false", f"-I{ROOT / 'csrc'}"]  # as in setup.py

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<chip>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers[^\n]*?(?:, (?P<shared>\d+) bytes smem)?(?:, \d+ bytes cmem[^\n]*)?\n",
    re.DOTALL,
)
THREADS = re.compile(r"\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)")


class Use(NamedTuple):
    registers: int
    shared: int
    local: int  # bytes on the stack, spilled or not


def run(*command: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"cuda_report: {command[0]} failed\n{done.stdout}{done.stderr}")
    return done


def readable(names: list[str]) -> list[str]:
    """kernel<type> of mangled names."""
    lines = run("c++filt", text="\n".join(names)).stdout.splitlines()
    return [re.sub(r"^void |polarmask::|\(anonymous namespace\)::|_GLOBAL__N__\w+::|\(.*", "", line) for line in lines]


def compiled(source: Path, folder: Path) -> tuple[dict[str, dict[int, Use]], dict[str, int]]:
    """What each kernel of a file uses on each chip, and the threads of its blocks."""
    chips = [f"-gencode=arch=compute_{chip},code=sm_{chip}" for chip in CHIPS]
    log = run("nvcc", *FLAGS, *chips, "--threads=2", "-Xptxas=-v", "-c", source, "-o", folder / "kernels.o").stderr
    run("nvcc", *FLAGS, "-arch=compute_80", "-ptx", source, "-o", folder / "kernels.ptx")
    bounds = THREADS.findall((folder / "kernels.ptx").read_text())
    threads = dict(zip(readable([name for name, _ in bounds]), [int(count) for _, count in bounds], strict=True))
    uses: dict[str, dict[int, Use]] = {}
    entries = list(ENTRY.finditer(log))
    for title, entry in zip(readable([entry["name"] for entry in entries]), entries, strict=True):
        local = int(entry["stack"]) + int(entry["stores"]) + int(entry["loads"])
        use = Use(int(entry["registers"]), int(entry["shared"] or 0), local)
        uses.setdefault(title, {})[int(entry["chip"])] = use
    if missing := uses.keys() - threads:
        sys.exit(f"cuda_report: kernels without __launch_bounds__: {', '.join(sorted(missing))}")
    return uses, threads


def main() -> None:
    if not shutil.which("nvcc"):
        sys.exit("cuda_report: nvcc is not on PATH")
    listed = (ROOT / "csrc" / "sources.txt").read_text().splitlines()
    failures = []
    lines = [
        "# What the CUDA kernels use",
        "",
        "Registers a thread, and the share of a chip's warps that can be resident with them and with the static",
        "shared memory (dynamic shared memory is not counted). No kernel spills or uses local memory. Compiled, and",
        "executed under emulation; not yet timed on hardware. Made by `make cuda-report` with",
        f"{run('nvcc', '--version').stdout.splitlines()[-2].lower()}.",
        "",
        f"| kernel | threads | shared | {' | '.join(f'sm_{chip}' for chip in CHIPS)} |",
        "| --- " * (3 + len(CHIPS)) + "|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        top = re.search(r"TOP=(\S+)", run("nvcc", "--dryrun", "x.cu").stderr)
        assert top
        include = Path(top[1]) / "include"
        run("c++", "-std=c++20", f"-I{include}", ROOT / "benchmarks" / "occupancy.cpp", "-o", folder / "occupancy")
        for name in listed:
            if not name.endswith(".cu"):
                continue
            uses, threads = compiled(ROOT / "csrc" / name, folder)
            for title, use in sorted(uses.items()):
                failures += [f"{title} on sm_{chip}: {use[chip].local} bytes" for chip in CHIPS if use[chip].local]
                asked = "\n".join(f"{c} {use[c].registers} {use[c].shared} {threads[title]}" for c in CHIPS)
                shares = run(folder / "occupancy", text=asked).stdout.split()
                cells = [f"{use[c].registers} · {share} %" for c, share in zip(CHIPS, shares, strict=True)]
                shared = max(use[c].shared for c in CHIPS)
                lines.append(f"| `{title}` | {threads[title]} | {shared} B | {' | '.join(cells)} |")
    print("\n".join(lines))
    if failures:
        sys.exit("cuda_report: local memory is used, at worst by spills:\n" + "\n".join(failures))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

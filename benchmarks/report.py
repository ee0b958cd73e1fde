"""Tables and charts from pytest-benchmark's JSON; the summary in the README.

    python benchmarks/report.py .benchmarks/run.json benchmarks/results README.md

A time is that of the fastest round; a ratio is the other's time by ours. Only whole predictions, which take seconds and
differ from each other, are given as median and 95th percentile.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from race import OURS

Record = dict[str, Any]
COLORS = ("#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d6a9f")
SUMMARY = re.compile(r"(?<=<!-- written by make bench -->\n).*?(?=<!-- /written by make bench -->)", re.DOTALL)
LATENCY = "predict"  # races of this name
SAMPLES = "a training sample"  # the race of this name
YARDSTICKS = ("copy", "multiply", "convolution in bfloat16")  # races of the machine, where "ours" is torch


def main(source: Path, folder: Path, readme: Path) -> None:
    raw = json.loads(source.read_text())
    run = Run([record_of(each) for each in raw["benchmarks"]])
    info = raw["machine_info"]
    machine = {
        "cpu": info["cpu"]["brand_raw"],
        "cores": info["cpu"]["count"],
        "python": info["python_version"],
        "torch": info["torch"],
        "isa": info["isa"],
        "bfloat16": info["bfloat16"],
        "date": raw["datetime"][:10],
    }
    name = slug(f"{machine['cpu']} {machine['cores']} cores {machine['isa']}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", machine, run.records)
    (folder / f"{name}.md").write_text(page(machine, run, name))
    write_summary(readme, summary(machine, run, f"{folder}/{name}.md"))
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}
    ratio_chart(run, folder / f"{name}-ratio.svg")
    growth_chart(run, folder / f"{name}-growth.svg")
    memory_chart(run, folder / f"{name}-memory.svg")
    print(f"wrote {folder / name}.md and its summary in {readme}")


def record_of(measured: Record) -> Record:
    stats, about = measured["stats"], measured["extra_info"]
    p95 = float(np.percentile(stats["data"], 95))
    return {"seconds": stats["min"], "p50": stats["median"], "p95": p95, "rounds": stats["rounds"], **about}


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_json(path: Path, machine: Record, records: list[Record]) -> None:
    lines = ",\n".join(json.dumps(record) for record in records)
    path.write_text(f'{{"machine": {json.dumps(machine)},\n"records": [\n{lines}\n]}}\n')


def write_summary(readme: Path, text: str) -> None:
    """Between its marks in the README."""
    before = readme.read_text()
    if not SUMMARY.search(before):
        sys.exit(f"report.py: expected the marks of the summary in {readme}, found none")
    readme.write_text(SUMMARY.sub(lambda _: text, before))


class Run:
    """The records by race, case, runner and threads."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.by_key = {self.key(record): record for record in records}
        self.threads = sorted({record["threads"] for record in records})

    @staticmethod
    def key(record: Record) -> tuple[str, str, str, int]:
        return record["race"], record["case"], record["runner"], record["threads"]

    def with_threads(self, record: Record, threads: int) -> Record:
        """Of the same runner; one that knows no threads takes as long with two."""
        return self.by_key.get((record["race"], record["case"], record["runner"], threads), record)

    def ours(self, record: Record, threads: int) -> Record | None:
        return self.by_key.get((record["race"], record["case"], OURS, threads))

    def ratio(self, record: Record, threads: int) -> float | None:
        ours = self.ours(record, threads)
        return self.with_threads(record, threads)["seconds"] / ours["seconds"] if ours else None

    def rate(self, race: str, field: str, threads: int) -> float | None:
        """Of this machine: bytes or operations in a second."""
        for record in self.records:
            if (record["race"], record["threads"]) == (race, threads):
                return record[field] / record["seconds"]
        return None

    def bandwidth(self, threads: int) -> float | None:
        return self.rate("copy", "floor_bytes", threads)

    def arithmetic(self, threads: int) -> float | None:
        return self.rate("multiply", "floor_operations", threads)

    def share(self, record: Record, threads: int) -> float | None:
        """Of our time, that the floor makes: the bytes at the copy's speed or the operations at the product's."""
        ours, bandwidth, arithmetic = self.ours(record, threads), self.bandwidth(threads), self.arithmetic(threads)
        if not (ours and bandwidth and arithmetic):
            return None
        return max(ours["floor_bytes"] / bandwidth, ours["floor_operations"] / arithmetic) / ours["seconds"]

    def first(self) -> Iterable[Record]:
        """One record for every runner and case."""
        return (record for record in self.records if record["threads"] == self.threads[0])

    def first_ours(self) -> list[Record]:
        return [record for record in self.first() if record["runner"] == OURS]


def page(machine: Record, run: Run, name: str) -> str:
    threads = run.threads
    speeds = "; ".join(
        f"{count} thread{'s' * (count > 1)}: {run.bandwidth(count) / 1e9:.1f} GB/s, "
        f"{run.arithmetic(count) / 1e9:.0f} GFLOP/s"
        for count in threads
        if run.bandwidth(count) and run.arithmetic(count)
    )
    parts = [
        f"# {machine['cpu']}, {machine['cores']} cores",
        f"{machine['date']}, torch {machine['torch']}, Python {machine['python']}, instructions up to "
        f"{machine['isa']}, bfloat16 in hardware: {machine['bfloat16'] or 'no'}. Copy bandwidth (bytes in and out) "
        f"and peak arithmetic (a product of float32 matrices), measured in this run: "
        f"{speeds or 'not measured'}.",
        "Everyone ran in one process on the same input, and gave the same result before anything was timed; bounds do "
        "other work, our op by the released rule is compared with the released loader. Times are those of the fastest "
        "round; × is the other's time by ours. Floor: the share of our time that it would take to move what must be "
        "moved (by default what is given, once, and the result, once) at the copy's bandwidth, or to compute what must "
        "be computed at the product's speed, one thread. Peak: memory held beyond what was there before, the result "
        "included.",
        "## Aims",
        table(["workload", "against", "aim", *_columns(threads), "reached"], aims(run)),
        f"![Ratios]({name}-ratio.svg)",
        "## Whole predictions",
        "From an image to instances in COCO's result format: network, decoding, NMS, masks, RLE. Random weights, 1,000 "
        "candidates before NMS, 100 instances; with torch.compile what sees the same shapes at every call, its weights "
        "frozen; without the box branch, boxes are those of the polygons. Median and 95th percentile of the rounds "
        "(of a few: the slowest).",
        *([] if machine["bfloat16"] else [without_bfloat16(run)]),
        table(
            ["network", "runner", *_columns(threads, ", p50 s"), *_columns(threads, ", p95 s"), "rounds"], latency(run)
        ),
        "## Training samples",
        "Samples a second of one worker, image and instances moved and targets made; a bitmap pipeline beside it.",
        table(["sample", "runner", *_columns(threads, ", a second")], samples(run)),
        "## Growth",
        f"![Time by what it should be linear in]({name}-growth.svg)",
        "## Memory",
        table(["workload", "given, MB", "result, MB", "peak, MB"], memory(run)),
        f"![Peak memory beside input and output]({name}-memory.svg)",
        "## Everything",
        table(
            ["workload", "runner", *_columns(threads, ", ms"), *_columns(threads, ", ×"), "floor"],
            everything(run),
        ),
        "## The workloads",
        table(["workload", "why"], reasons(run)),
    ]
    return "\n\n".join(parts) + "\n"


def summary(machine: Record, run: Run, link: str) -> str:
    """The aims, a line for each peer."""
    lines: dict[tuple[str, str, float], list[tuple[str, str]]] = {}
    for record in run.first():
        ratio = run.ratio(record, run.threads[0])
        if record["aim"] and ratio:
            key = record["race"], record["runner"], record["aim"]
            lines.setdefault(key, []).append((record["case"], times(ratio)))
    rows = [
        [
            f"{race}: {'; '.join(case for case, _ in ratios)}",
            runner,
            "; ".join(each for _, each in ratios),
            f"≥ {aim:g}×",
        ]
        for (race, runner, aim), ratios in lines.items()
    ]
    return (
        f"How many times faster than its peers each op is with {_columns(run.threads)[0]}, on {machine['cpu']}, "
        f"{machine['isa']}, {machine['date']}, all in one run and with equal results; two threads, floors, growth and "
        f"memory are in [the whole report]({link}).\n\n{table(['workload', 'peer', 'faster', 'aim'], rows)}\n"
    )


def aims(run: Run) -> list[list[str]]:
    rows = []
    for record in run.first():
        workload = f"{record['race']}: {record['case']}"
        if record["aim"]:
            ratios = [run.ratio(record, count) for count in run.threads]
            goal = f"≥ {record['aim']:g}×"
            rows.append([workload, record["runner"], goal, *_each(ratios, times), _verdict(ratios, record["aim"])])
        if record["runner"] != OURS:
            continue
        if record["limit"]:
            units = [run.with_threads(record, count)["seconds"] / record["size"] for count in run.threads]
            goal = f"≤ {record['limit'] * 1e6:g} µs a {record['unit']}"
            reached = "yes" if units[0] <= record["limit"] else "no"
            rows.append([workload, "time", goal, *_each(units, lambda unit: f"{unit * 1e6:.3g} µs"), reached])
        if record["floor_aim"]:
            shares = [run.share(record, count) for count in run.threads]
            goal = f"≥ {record['floor_aim']:.0%} at 1 M rows"
            reached = _verdict(shares, record["floor_aim"]) if record["size"] >= 10**6 else ""
            rows.append([workload, "floor", goal, *_each(shares, _percent), reached])
    return rows


def everything(run: Run) -> list[list[str]]:
    rows = []
    for record in run.first():
        seconds = [run.by_key.get((*run.key(record)[:3], count), {}).get("seconds") for count in run.threads]
        is_ours = record["runner"] == OURS
        ratios = [None if is_ours else run.ratio(record, count) for count in run.threads]
        share = _each([run.share(record, run.threads[0])], _percent)[0] if is_ours else ""
        workload = f"{record['race']}: {record['case']}"
        runner = "torch" if is_ours and record["race"] in YARDSTICKS else record["runner"]
        rows.append([workload, runner, *_each(seconds, lambda s: f"{s * 1e3:.3g}"), *_each(ratios, times), share])
    return rows


def latency(run: Run) -> list[list[str]]:
    rows = []
    for record in run.first():
        if record["race"].startswith(LATENCY):
            each = [run.by_key.get((*run.key(record)[:3], count)) for count in run.threads]
            cells = [["–" if found is None else f"{found[p]:.2f}" for found in each] for p in ("p50", "p95")]
            rounds = ", ".join(str(found["rounds"]) for found in each if found)
            rows.append([f"{record['race']}: {record['case']}", record["runner"], *cells[0], *cells[1], rounds])
    return rows


def samples(run: Run) -> list[list[str]]:
    rows = []
    for record in run.first():
        if record["race"] == SAMPLES:
            rates = [1 / run.with_threads(record, count)["seconds"] for count in run.threads]
            rows.append([record["case"], record["runner"], *_each(rates, lambda rate: f"{rate:.3g}")])
    return rows


def without_bfloat16(run: Run) -> str:
    slower = [
        1 / ratio for r in run.first() if r["race"].startswith("convolution") and (ratio := run.ratio(r, r["threads"]))
    ]
    return (
        "This CPU has no instructions for bfloat16 (AVX-512 BF16 or AMX), so predictions in bfloat16 are not timed: a "
        f"convolution of the head takes {max(slower, default=0):.0f} times as long as in float32."
    )


def memory(run: Run) -> list[list[str]]:
    return [
        [f"{record['race']}: {record['case']}", *_each([record[field] for field in MEMORY], lambda b: f"{b / 1e6:.3g}")]
        for record in run.first_ours()
        if record["race"] not in YARDSTICKS
    ]


MEMORY = {"input_bytes": "given", "output_bytes": "result", "peak_bytes": "peak"}


def reasons(run: Run) -> list[list[str]]:
    return [[f"{record['race']}: {record['case']}", record["reason"]] for record in run.first_ours()]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.3g}×"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _each(values: Iterable[float | None], text: Callable[[float], str]) -> list[str]:
    return ["–" if value is None else text(value) for value in values]


def _verdict(values: list[float | None], aim: float) -> str:
    """With one thread, the first."""
    return "" if values[0] is None else "yes" if values[0] >= aim else "no"


def _columns(threads: list[int], suffix: str = "") -> list[str]:
    return [f"{count} thread{'s' * (count > 1)}{suffix}" for count in threads]


def ratio_chart(run: Run, path: Path) -> None:
    others = [
        record
        for record in reversed(list(run.first()))
        if record["runner"] != OURS and record["race"] not in YARDSTICKS and run.ratio(record, run.threads[0])
    ]
    ratios = [run.ratio(record, run.threads[0]) for record in others]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.2 * len(others)), layout="constrained")
    axes.barh(range(len(others)), ratios, color=COLORS[0])
    axes.set_yticks(range(len(others)), [f"{each['race']}: {each['case']} | {each['runner']}" for each in others])
    aims = [(each["aim"], row) for row, each in enumerate(others) if each["aim"]]
    if aims:
        axes.plot(*zip(*aims, strict=True), "|", color=COLORS[1], markersize=9, markeredgewidth=2, label="aim")
        axes.legend()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel=f"time by ours, {_columns(run.threads)[0]}", ylim=(-0.6, len(others) - 0.4))
    _save(figure, path)


def growth_chart(run: Run, path: Path) -> None:
    """One panel for every race with three cases of ours or more; one thread. Dashed: linear."""
    amounts = {(each["race"], each["case"]): each["amount"] or each["size"] for each in run.first_ours()}
    races: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in run.first():
        if (amount := amounts.get((record["race"], record["case"]))) is not None:
            points = races.setdefault(record["race"], {}).setdefault(record["runner"], [])
            points.append((amount, record["seconds"] * 1e3))
    races = {race: lines for race, lines in races.items() if len(lines.get(OURS, ())) > 2}
    if not races:
        return
    names = {record["race"]: record["growth"] for record in run.records}
    rows = (len(races) + 1) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(10, 3.2 * rows), layout="constrained", squeeze=False)
    for panel, (race, lines) in zip(panels.flat, races.items(), strict=False):
        for color, (runner, points) in zip(cycle(COLORS), lines.items(), strict=False):
            panel.plot(*zip(*sorted(points), strict=True), "o-", color=color, markersize=3, label=runner)
        first, last = min(lines[OURS]), max(lines[OURS])
        linear = last[1] * first[0] / last[0]
        panel.plot([first[0], last[0]], [linear, last[1]], "--", color="gray", linewidth=0.8, zorder=0)
        panel.set(xscale="log", yscale="log", title=race, xlabel=names[race], ylabel="ms")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    for panel in panels.flat[len(races) :]:
        panel.axis("off")
    _save(figure, path)


def memory_chart(run: Run, path: Path) -> None:
    """Peak of each of our ops as a bar, what is given and the result as marks on it."""
    records = [each for each in run.first_ours() if each["peak_bytes"] is not None and each["race"] not in YARDSTICKS]
    records.reverse()
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * len(records)), layout="constrained")
    rows = range(len(records))
    axes.barh(rows, [record["peak_bytes"] / 1e6 for record in records], color=COLORS[0], label="peak")
    for field, mark, color in (("input_bytes", "|", COLORS[1]), ("output_bytes", "x", COLORS[2])):
        axes.plot(
            [each[field] / 1e6 for each in records], rows, mark, color=color, markeredgewidth=2, label=MEMORY[field]
        )
    axes.set_yticks(rows, [f"{record['race']}: {record['case']}" for record in records])
    axes.set(xscale="log", xlabel="MB", ylim=(-0.6, len(records) - 0.4))
    axes.legend()
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

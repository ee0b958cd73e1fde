"""Tables and charts from pytest-benchmark's JSON.

    python benchmarks/report.py .benchmarks/run.json benchmarks/results

A time is that of the fastest round; a ratio is the other's time by ours.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from race import OURS

Record = dict[str, Any]
COLORS = ("#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d6a9f")
FIELDS = ("race", "case", "runner", "threads", "size", "unit", "aim", "limit", "floor_bytes", "floor_aim", "peak_bytes")


def main(source: Path, folder: Path) -> None:
    run = json.loads(source.read_text())
    records = [
        {"seconds": each["stats"]["min"], **{field: each["extra_info"][field] for field in FIELDS}}
        for each in run["benchmarks"]
    ]
    cpu = run["machine_info"]["cpu"]
    machine = {
        "cpu": cpu["brand_raw"],
        "cores": cpu["count"],
        "python": run["machine_info"]["python_version"],
        "torch": run["machine_info"]["torch"],
        "date": run["datetime"][:10],
    }
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cores']} cores".lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(record) for record in records)
    (folder / f"{name}.json").write_text(f'{{"machine": {json.dumps(machine)},\n"records": [\n{lines}\n]}}\n')
    (folder / f"{name}.md").write_text(page(machine, Run(records), name))
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}
    ratio_chart(Run(records), folder / f"{name}-ratio.svg")
    growth_chart(records, "seconds", "ms", 1e3, folder / f"{name}-growth.svg")
    growth_chart(records, "peak_bytes", "MB", 1e-6, folder / f"{name}-memory.svg")
    print(f"wrote {folder / name}.md")


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

    def bandwidth(self, threads: int) -> float | None:
        copy = self.by_key.get(("copy", "256 MiB", OURS, threads))
        return copy["floor_bytes"] / copy["seconds"] if copy else None

    def share(self, record: Record, threads: int) -> float | None:
        """Of the copy bandwidth, that the bytes which must move make of the time."""
        bandwidth, ours = self.bandwidth(threads), self.ours(record, threads)
        return record["floor_bytes"] / ours["seconds"] / bandwidth if bandwidth and ours else None

    def first(self) -> Iterable[Record]:
        """One record for every runner and case."""
        return (record for record in self.records if record["threads"] == self.threads[0])


def page(machine: Record, run: Run, name: str) -> str:
    threads = run.threads
    speeds = ", ".join(
        f"{run.bandwidth(count) / 1e9:.1f} GB/s with {count}" for count in threads if run.bandwidth(count)
    )
    parts = [
        f"# {machine['cpu']}, {machine['cores']} cores",
        f"{machine['date']}, torch {machine['torch']}, Python {machine['python']}, {_and(threads)} threads. "
        f"Copy bandwidth, read and written bytes together: {speeds or 'not measured'}.",
        "Everyone ran in one process on the same input, and gave the same result before anything was timed; bounds do "
        "other work, our op by the released rule is compared with the released loader. Times are those of the fastest "
        "round; × is the other's time by ours. Peak: memory held beyond what was there before, the result included.",
        "## Aims",
        table(["workload", "against", "aim", *_columns(threads), "reached"], aims(run)),
        f"![Ratios]({name}-ratio.svg)",
        "## Growth and memory",
        f"![Time by size]({name}-growth.svg)",
        f"![Peak memory by size]({name}-memory.svg)",
        "## Everything",
        table(
            ["workload", "runner", *_columns(threads, ", ms"), *_columns(threads, ", ×"), "peak, MB"],
            everything(run),
        ),
    ]
    return "\n\n".join(parts) + "\n"


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
            rows.append([workload, "copy bandwidth", goal, *_each(shares, lambda share: f"{share:.0%}"), reached])
    return rows


def everything(run: Run) -> list[list[str]]:
    rows = []
    for record in run.first():
        seconds = [run.by_key.get((*run.key(record)[:3], count), {}).get("seconds") for count in run.threads]
        ratios = [None if record["runner"] == OURS else run.ratio(record, count) for count in run.threads]
        peak = "" if record["peak_bytes"] is None else f"{record['peak_bytes'] / 1e6:.1f}"
        workload = f"{record['race']}: {record['case']}"
        rows.append(
            [workload, record["runner"], *_each(seconds, lambda s: f"{s * 1e3:.3g}"), *_each(ratios, times), peak]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.3g}×"


def _each(values: Iterable[float | None], text: Callable[[float], str]) -> list[str]:
    return ["–" if value is None else text(value) for value in values]


def _verdict(values: list[float | None], aim: float) -> str:
    """With one thread, the first."""
    return "" if values[0] is None else "yes" if values[0] >= aim else "no"


def _columns(threads: list[int], suffix: str = "") -> list[str]:
    return [f"{count} thread{'s' * (count > 1)}{suffix}" for count in threads]


def _and(threads: list[int]) -> str:
    return " and ".join(map(str, threads))


def ratio_chart(run: Run, path: Path) -> None:
    others = [record for record in run.first() if record["runner"] != OURS][::-1]
    ratios = [run.ratio(record, run.threads[0]) for record in others]
    figure, axes = plt.subplots(figsize=(9, 1 + 0.2 * len(others)), layout="constrained")
    axes.barh(range(len(others)), ratios, color=COLORS[0])
    axes.set_yticks(range(len(others)), [f"{each['race']}: {each['case']} | {each['runner']}" for each in others])
    aims = [(each["aim"], row) for row, each in enumerate(others) if each["aim"]]
    axes.plot(*zip(*aims, strict=True), "|", color=COLORS[1], markersize=9, markeredgewidth=2, label="aim")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel=f"time by ours, {run.threads[0]} thread", ylim=(-0.6, len(others) - 0.4))
    axes.legend()
    _save(figure, path)


def growth_chart(records: list[Record], field: str, unit: str, factor: float, path: Path) -> None:
    """One panel for every race that has several sizes; one thread."""
    races: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        if record["threads"] == 1 and record[field]:
            lines = races.setdefault(record["race"], {})
            lines.setdefault(record["runner"], {}).setdefault(record["size"], record[field] * factor)
    races = {race: lines for race, lines in races.items() if any(len(line) > 2 for line in lines.values())}
    if not races:
        return
    rows = (len(races) + 1) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(10, 3.2 * rows), layout="constrained", squeeze=False)
    for panel, (race, lines) in zip(panels.flat, races.items(), strict=False):
        for color, (runner, line) in zip(COLORS, lines.items(), strict=False):
            panel.plot(*zip(*sorted(line.items()), strict=True), "o-", color=color, markersize=3, label=runner)
        panel.set(xscale="log", yscale="log", title=race, ylabel=unit)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    for panel in panels.flat[len(races) :]:
        panel.axis("off")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Trains and evaluates the settings of the paper's ablations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

from ..common.files import write_whole
from ..config import Config
from ..config.ablations import GRIDS, Setting
from ..data import data_to_evaluate
from ..evaluation.coco import evaluate
from ..inference import draw
from ..inference.detector import load
from .trainer import train


@dataclass(frozen=True)
class Row:
    """What a setting reaches."""

    grid: str
    name: str
    metrics: list[dict[str, float]]  # of :func:`polarmask.evaluate`, for each seed
    published: float

    def values(self, name: str) -> list[float]:
        """A metric of masks for each seed, in percent."""
        return [100 * metrics[f"segm/{name}"] for metrics in self.metrics]


def ablate(config: Config, grids: Sequence[str] = tuple(GRIDS), seeds: int = 1) -> list[Row]:
    """Trains and evaluates the settings of some ``GRIDS``, whose changes apply to ``config``.

    Does so with ``seeds`` seeds, from ``config.seed`` on; generated images are others with another seed. Writes into
    ``config.out``: a folder for each training, ``ablation.md``, ``ablation.json`` and ``ablation.png``.

    Raises
    ------
    ValueError
        If a grid does not exist, or there is no seed.
    """
    if unknown := set(grids) - set(GRIDS):
        raise ValueError(f"ablate: expected grids out of {', '.join(GRIDS)}, got {', '.join(sorted(unknown))}")
    if seeds < 1:
        raise ValueError(f"ablate: expected seeds >= 1, got {seeds}")
    if config.data.dataset == "shapes" and config.data.resize is None:
        config = replace(config, data=replace(config.data, resize=(config.data.size, config.data.size)))
    out = Path(config.out)
    configs = [
        replace(config, seed=seed, out=str(out / f"seed-{seed}")) for seed in range(config.seed, config.seed + seeds)
    ]
    trained: set[Path] = set()
    rows = [
        Row(grid, setting.name, [_measure(each, setting, trained) for each in configs], setting.published)
        for grid in grids
        for setting in GRIDS[grid]
    ]
    write_whole(out / "ablation.md", table(rows).encode())
    write_whole(out / "ablation.json", (json.dumps([row.__dict__ for row in rows], indent=2) + "\n").encode())
    draw.ablation({grid: [(r.name, r.values("AP")) for r in rows if r.grid == grid] for grid in grids}, out)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, and the pairs whose order is not the paper's."""
    lines = ["| grid | setting | AP | AP50 | AP75 | published AP |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        ours = " | ".join(_with_spread(row.values(name)) for name in ("AP", "AP50", "AP75"))
        lines.append(f"| {row.grid} | {row.name} | {ours} | {row.published} |")
    turned, undecided = [], []
    for a, b in combinations(rows, 2):
        if a.grid == b.grid:
            above = [x > y for x, y in zip(a.values("AP"), b.values("AP"), strict=True)]
            if any(above) != all(above):
                undecided.append(f"{a.name} and {b.name}")
            elif all(above) != (a.published > b.published):
                turned.append(f"{a.name} {'above' if all(above) else 'below'} {b.name}")
    lines += ["", f"Not in the paper's order: {', '.join(turned) or 'none'}."]
    if len(rows[0].metrics) > 1:
        lines += ["", f"In another order with another seed: {', '.join(undecided) or 'none'}."]
    return "\n".join(lines) + "\n"


def _with_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _measure(config: Config, setting: Setting, trained: set[Path]) -> dict[str, float]:
    changes = {name: value for name, value in setting.model.items() if value != getattr(config.model, name)}
    out = Path(config.out) / ("-".join(f"{name}-{value}" for name, value in changes.items()) or "base")
    if out not in trained:
        train(replace(config, model=replace(config.model, **changes), out=str(out), evaluate_every=0))
        trained.add(out)
    if setting.scale == 1:
        metrics: dict[str, float] = json.loads((out / "metrics.json").read_text())
        return metrics
    if config.data.resize is None:
        raise ValueError("ablate: expected data.resize, which the scales are shares of, got none")
    detector = load(out / "last.safetensors")
    data = replace(config.data, test_scale=round(setting.scale * config.data.resize[1]))
    detector = replace(detector, config=replace(detector.config, data=data))
    return evaluate(detector, data_to_evaluate(data, config.seed)).metrics

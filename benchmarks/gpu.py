"""The ops on a GPU beside torch and torchvision on the same device, and beside their floors: ``make bench-gpu``.

    python benchmarks/gpu.py benchmarks/results

Writes JSON and Markdown named after the chip. Results are compared before anything is timed: ours with our CPU loops,
others with ours. Times are medians between two CUDA events around a call, and so hold what the host takes to launch;
those of fixed shape are timed as a CUDA graph too, where the host plays no part.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import bench_machine
import bench_polar_iou
import bench_top_scores
import numpy as np
import torch
from bench_polar_target import STRIDES, same_rays
from bench_polygon_nms import as_polygons, as_stars
from cases import CAST, ENCODE, LABELS, MASKS, NMS, RLE, STAR, Candidates, Scene
from gpu_here import obstacle
from peers import polar_target, polygon_nms, rasterize
from race import OURS, Case, Race, Runner, work
from report import YARDSTICKS, Record, slug, table, times, write_json

import polarmask_ops as ops

H100 = (3.35e12, 67e12)  # bytes and float32 operations a second, from its data sheet
ROUNDS = 50


def encode(scene: Scene) -> ops.PolarTargets:
    """From outlines; from bitmaps is a race of its own."""
    device = scene.masks.device
    outlines = _outlines(scene)
    offsets = torch.arange(2, device=device) * len(scene.boxes)  # without a copy from the host
    return ops.encode_ragged_targets(
        scene.level_shapes,
        STRIDES,
        boxes=scene.boxes,
        labels=scene.labels,
        outlines=outlines,
        image_offsets=offsets,
    )


def _outlines(scene: Scene) -> ops.Outlines:
    """Of a scene, made once."""
    if _outlines.of is not scene:
        _outlines.of, _outlines.made = scene, ops.outlines_from_masks(scene.masks)
    return _outlines.made


_outlines.of = _outlines.made = None


def padded_nms(inputs: Candidates) -> torch.Tensor:
    return ops.rays_nms(inputs.centers, inputs.rays, inputs.scores, polygon_nms.THRESHOLD, max_output=100)


LOSS = bench_polar_iou.RACES[0]
RACES = (
    bench_machine.RACES[0],
    bench_machine.RACES[1],
    Race(LOSS.name, LOSS.cases, LOSS.ours, LOSS.others, LOSS.unit, floor=LOSS.floor),
    bench_top_scores.RACES[0],
    Race(
        "outlines_from_masks",
        ENCODE,
        lambda scene: ops.outlines_from_masks(scene.masks),
        unit="instance",
        given=lambda scene: scene.masks,
    ),
    Race(
        "encode_targets",
        ENCODE,
        encode,
        unit="instance",
        given=lambda scene: (scene.boxes, scene.labels, _outlines(scene)),
    ),
    Race(
        "cast_rays, 36",
        CAST,
        lambda inputs: ops.cast_rays(*inputs),
        (Runner("vectorised torch", polar_target.exact_rays, same_rays),),
        unit="point",
    ),
    Race("star_distances, 32 rays", STAR, lambda labels: ops.star_distances(labels, 32), unit="row of pixels"),
    Race("rays_to_rle", RLE, lambda inputs: ops.rays_to_rle(*inputs), unit="instance"),
    Race(
        "rays_to_masks",
        MASKS,
        lambda inputs: ops.rays_to_masks(*inputs),
        (Runner("bound: writing the bytes", rasterize.write_bytes),),
        unit="instance",
    ),
    Race("rays_to_labels", LABELS, lambda inputs: ops.rays_to_labels(*inputs), unit="instance"),
    Race(
        "rays_nms, 100 kept",
        NMS,
        padded_nms,
        (Runner("bound: torchvision box NMS", polygon_nms.box_nms, sizes=(0, 20_000)),),
        unit="candidate",
        given=as_stars,
    ),
    Race(
        "polygon_nms",
        NMS,
        lambda inputs: ops.polygon_nms(inputs.polygons, inputs.scores, polygon_nms.THRESHOLD),
        unit="candidate",
        given=as_polygons,
    ),
)
FIXED_SHAPE = {LOSS.name, "encode_targets", "cast_rays, 36", "rays_to_masks", "rays_to_labels", "rays_nms, 100 kept"}


class Clock(NamedTuple):
    """How a device is timed: seconds of one call, and the same call without its host."""

    device: str
    seconds: Callable[[Callable[[], Any]], float]
    captured: Callable[[Callable[[], Any]], Callable[[], Any]]


def on_stream(call: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def as_graph(call: Callable[[], Any]) -> Callable[[], Any]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as torch.cuda.graph wants it: memory and libraries are there before the capture
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


CUDA = Clock("cuda", on_stream, as_graph)


def moved(value: Any, device: str) -> Any:
    """A structure with its tensors and arrays on a device; leaves stay leaves."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(device)
    if isinstance(value, torch.Tensor):
        return value.detach().to(device).requires_grad_(value.requires_grad)
    if is_dataclass(value):
        return type(value)(*(moved(getattr(value, field.name), device) for field in fields(value)))
    if isinstance(value, (tuple, list)):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def equal(ours: Any, by_cpu: Any) -> None:
    """Kernels and CPU loops: decisions bit for bit, floats to what the tests state."""
    if is_dataclass(ours):
        ours, by_cpu = ([getattr(each, field.name) for field in fields(each)] for each in (ours, by_cpu))
    torch.testing.assert_close(ours, by_cpu, rtol=1e-4, atol=1e-5)


def measure(race: Race, case: Case, size: int, clock: Clock, rounds: int = ROUNDS) -> Iterator[Record]:
    """A record for each runner; ours first."""
    here = moved(case.make(size), "cpu")
    there = moved(here, clock.device)
    ours = moved(race.ours(there), "cpu")
    if race not in bench_machine.RACES:
        equal(ours, moved(race.ours(here), "cpu"))
    about = {"race": race.name, "case": case.name, "size": size, **work(race, here, ours)}
    for runner in race.runners(case):
        if runner.agree is not None:
            runner.agree(here, ours, moved(runner.run(there), "cpu"))

        def call(runner: Runner = runner) -> Any:
            return runner.run(there)

        record = {**about, "runner": runner.name, "seconds": _median(call, clock, rounds)}
        if runner.name == OURS and race.name in FIXED_SHAPE:
            record["captured"] = _median(clock.captured(call), clock, rounds)
        yield record


def _median(call: Callable[[], Any], clock: Clock, rounds: int) -> float:
    for _ in range(3):
        call()
    return median(clock.seconds(call) for _ in range(rounds))


def page(machine: Record, records: list[Record]) -> str:
    """The table, with the floor of the H100 and of the chip's own copy and product."""
    best = {record["race"]: record for record in records if record["race"] in YARDSTICKS}
    speeds = [
        best[race][field] / best[race]["seconds"]
        for race, field in (("copy", "floor_bytes"), ("multiply", "floor_operations"))
    ]
    ours = {(record["race"], record["case"]): record["seconds"] for record in records if record["runner"] == OURS}
    rows = []
    for record in records:
        captured = record.get("captured")
        here, h100 = _floor(record, *speeds), _floor(record, *H100)
        is_ours = record["runner"] == OURS
        runner = "torch" if is_ours and record["race"] in YARDSTICKS else record["runner"]
        rows.append(
            [
                f"{record['race']}: {record['case']}",
                runner,
                _micros(record["seconds"]),
                _micros(captured) if captured else "",
                "" if is_ours else times(record["seconds"] / ours[record["race"], record["case"]]),
                _micros(h100) if is_ours else "",
                f"{here / (captured or record['seconds']):.0%}" if is_ours else "",
            ]
        )
    parts = [
        f"# {machine['gpu']}",
        f"{machine['date']}, torch {machine['torch']}, CUDA {machine['cuda']}, kernels for {machine['archs']}. "
        f"Copy bandwidth {speeds[0] / 1e9:.0f} GB/s (read and written bytes together), a product of float32 matrices "
        f"{speeds[1] / 1e12:.1f} TFLOP/s, measured in this run.",
        "Medians between two CUDA events around a call, the host's share included; `in a graph`: the same work "
        "replayed as a CUDA graph. × is the other's time by ours. Floor: to read what is given once and write the "
        "result once at an H100's 3.35 TB/s; reached: the share of our time (in a graph, where there is one) that this "
        "takes at the copy bandwidth of this chip.",
        table(["workload", "runner", "µs", "in a graph", "×", "floor on an H100", "reached"], rows),
    ]
    return "\n\n".join(parts) + "\n"


def _floor(record: Record, bandwidth: float, arithmetic: float) -> float:
    return max(record["floor_bytes"] / bandwidth, record["floor_operations"] / arithmetic)


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


def main(folder: Path) -> None:
    if reason := obstacle():
        sys.exit(f"bench-gpu: {reason}")
    info = ops._C.build_info()
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "archs": info["cuda_archs"],
        "date": datetime.date.today().isoformat(),
    }
    records = []
    for race in RACES:
        for case in race.cases:
            for record in measure(race, case, case.size, CUDA):
                print(
                    f"{record['race']}: {record['case']}, {record['runner']}: {_micros(record['seconds'])} µs",
                    flush=True,
                )
                records.append(record)
    folder.mkdir(parents=True, exist_ok=True)
    name = slug(machine["gpu"])
    write_json(folder / f"{name}.json", machine, records)
    (folder / f"{name}.md").write_text(page(machine, records))
    print(f"wrote {folder / name}.md")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Random calls of every public op; run by hand, under the sanitizers: ``make fuzz-ops``.

Shapes, strides, dtypes, devices, options and values are drawn, the wrong and hostile ones among them. A call may end in
a result that keeps what its docstring promises (dtype, shape, finite where that is promised), or in a ValueError,
TypeError or IndexError that names the op. Some of the ops below a call are then called again with one tensor exchanged
for another; these may end in any result, or in one of the three errors. Everything else is a fault.

Call n of a seed depends on the seed and n alone: ``--first n --calls 1`` repeats it. A process that dies leaves n in
the file that ``--progress`` names.
"""

import argparse
import collections
import faulthandler
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fuzz_arguments import FLOATS, Draw
from op_tester import Recorder, leaves
from torch import Tensor

import polarmask_ops as ops

ERRORS = (ValueError, TypeError, IndexError)


# ---- The calls: what each gives is (name, function, arguments, keyword arguments, what holds of the result) ----

Call = tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], Callable[..., bool]]


def unit(result: Tensor) -> bool:
    return result.is_meta or bool(((result >= 0) & (result <= 1)).all())


def anything(result: Any) -> bool:
    return all(not isinstance(leaf, Tensor) or leaf.dtype != torch.float16 for leaf in leaves(result))


def indices(count: int) -> Callable[[Tensor], bool]:
    def hold(keep: Tensor) -> bool:
        kept = keep[keep >= 0].tolist() if not keep.is_meta else []
        return keep.dtype == torch.int64 and len(set(kept)) == len(kept) and all(k < count for k in kept)

    return hold


def adds_up(rle: ops.RLE) -> bool:
    return rle.counts.is_meta or (bool((rle.areas() >= 0).all()) and len(rle.to_coco()) == len(rle))


def loss_of(*args: Any, **kwargs: Any) -> Tensor:
    loss = ops.polar_iou_loss(*args, **kwargs)
    if loss.requires_grad:
        loss.float().sum().backward()
    return loss


def polar(d: Draw) -> Call:
    shape = (*((d.size(3),) if d.maybe(0.2) else ()), d.size(), int(d.one(1, 5, 36, 36, 37)))
    pred, target = d.floats(*shape), d.floats(*shape)
    name = d.one("polar_iou", "polar_iou_loss", "polar_iou_loss", "polar_centerness")
    power = d.option(1, 2)
    if name == "polar_iou":
        return name, ops.polar_iou, (pred, target), {"power": power}, unit
    if name == "polar_centerness":
        return name, ops.polar_centerness, (pred[0] if pred.dim() == 3 and len(pred) else pred,), {}, unit
    if d.maybe(0.5) and pred.dtype in FLOATS:
        pred = pred.detach().requires_grad_()
    weight = d.one(None, d.floats(*shape[:-1], scale=1.0))
    kwargs = {"power": power, "log_pred": d.one(False, True), "reduction": d.option("mean", "sum", "none")}
    if d.maybe(0.2):
        kwargs["avg_factor"] = d.one(d.number(1.0, 0.0, 5.0), d.floats())
    return name, loss_of, (pred, target, weight), kwargs, anything


def targets(d: Draw) -> Call:
    count, rays = d.size(5), d.rays()
    kwargs = {"num_rays": rays, "method": d.option("last", "first", "binned")}
    kwargs["min_distance"] = d.number(1e-6, 0.0, 1.0)
    if d.maybe(0.4):
        points = d.size(6)
        args = (d.floats(points, 2), d.outlines(count), d.ints(points, high=max(count, 1)))
        return "cast_rays", ops.cast_rays, args, kwargs, lambda out: out.shape == (points, rays)
    images = d.size(3)
    for name, value in [("centers", d.floats(count, 2)), ("areas", d.floats(count)), ("ignore", d.masks(count))]:
        if d.maybe(0.5):
            kwargs[name] = value
    levels = d.option([(3, 4)], [(4, 4), (2, 2)], [(0, 2)], [])
    strides = [8, 16][: len(levels) if isinstance(levels, list) else 1]
    kwargs["regress_ranges"] = [(-1, 64), (d.number(16, 64), math.inf)][: len(strides)]
    kwargs["center_radius"] = d.number(1.5, math.inf, 0.5)
    boxes = torch.from_numpy(np.sort(d.rng.random((count, 2, 2)) * 40, 1).reshape(count, 4))
    kwargs |= {"boxes": d.finish(boxes, *FLOATS), "labels": d.ints(count), "outlines": d.outlines(count)}
    kwargs["image_offsets"] = d.offsets(count, images)
    return "encode_targets", ops.encode_ragged_targets, (levels, strides), kwargs, lambda out: unit(out.centerness)


def stars(d: Draw) -> Call:
    dtypes = (torch.uint8, torch.int32, torch.int64, torch.uint16, torch.int8)
    height, width, rays = d.size(40), d.size(40), d.rays()
    labels = d.rng.integers(0, int(d.one(1, 2, 4)) + 1, (height // 6 + 1, width // 6 + 1)).repeat(6, 0).repeat(6, 1)
    labels = d.finish(torch.from_numpy(labels[:height, :width].copy()), *dtypes)
    kwargs = {"num_rays": rays, "rule": d.option("stardist", "exact")}
    check = lambda out: out.is_meta or bool(((out > 0) == (labels != 0)).all() and out.isfinite().all())  # noqa: E731
    return "star_distances", ops.star_distances, (labels,), kwargs, check


def overlaps(d: Draw) -> Call:
    count, other, rays = d.size(6), d.size(6), d.rays()
    name = d.one("polygon_areas", "polygon_iou", "rays_iou")
    if name == "polygon_areas":
        return (
            name,
            ops.polygon_areas,
            (d.floats(count, d.size(8), 2),),
            {},
            lambda out: out.is_meta or (out >= 0).all(),
        )
    kwargs = {"metric": d.option("iou", "iomin"), "paired": d.one(False, True)}
    other = count if kwargs["paired"] and not d.maybe(d.error_rate) else other
    if name == "polygon_iou":
        return name, ops.polygon_iou, (d.floats(count, d.size(8), 2), d.floats(other, d.size(8), 2)), kwargs, unit
    args = (d.floats(count, 2), d.floats(count, rays), d.floats(other, 2), d.floats(other, d.rays()))
    return name, ops.rays_iou, args, kwargs, unit


def suppression(d: Draw) -> Call:
    count = d.size(12)
    name = d.one("polygon_nms", "batched_polygon_nms", "rays_nms", "batched_rays_nms")
    shapes = [d.floats(count, 2), d.floats(count, d.rays(), scale=12.0)] if "rays" in name else []
    args = [*(shapes or [d.floats(count, d.size(8), 2)]), d.floats(count, scale=1.0)]
    args += [d.ints(count)] if "batched" in name else []
    kwargs = {"metric": d.option("iou", "iomin"), "max_output": d.one(None, 0, 3, 50)}
    return name, getattr(ops, name), (*args, d.number(0.5, 0.0, 1.0)), kwargs, indices(count)


def drawings(d: Draw) -> Call:
    kind, made = d.one("rays", "polygons", "outlines"), d.one("masks", "rle", "labels")
    count, kwargs = d.size(5), {}
    if kind == "rays":
        rays = d.rays()
        args: tuple[Any, ...] = (d.floats(count, 2), d.floats(count, rays, scale=15.0))
        made = d.one(made, "polygons", "boxes")
        if made in ("polygons", "boxes"):
            return f"rays_to_{made}", getattr(ops, f"rays_to_{made}"), args, {}, anything
        if d.maybe(0.3):
            kwargs["scale"] = d.one(d.floats(2, scale=2.0), d.floats(count, 2, scale=2.0))
    else:
        args = (d.floats(count, d.size(8), 2),) if kind == "polygons" else (d.outlines(count),)
    if made == "rle" and kind != "outlines":
        kwargs["rule"] = d.option("center", "coco")
    if made == "labels" and d.maybe(0.5):
        kwargs["order"] = d.ints(d.size(4), high=max(count, 1))
    name = f"{kind}_to_{made}"
    return name, getattr(ops, name), (*args, d.image_size()), kwargs, adds_up if made == "rle" else anything


def sources(d: Draw) -> Call:
    keep = {"keep": d.option("largest", "all")}
    name = d.one("outlines_from_masks", "outlines_from_rle", "outlines_from_polygons")
    if name == "outlines_from_masks":
        count = d.size(4)
        boxes = d.one(None, d.floats(count, 4))
        kwargs = {"boxes": boxes, "boundary": d.option("edges", "pixels"), **keep}
        return name, ops.outlines_from_masks, (d.masks(count, d.size(20), d.size(40)),), kwargs, anything
    if name == "outlines_from_rle":
        return name, ops.outlines_from_rle, (d.rle(),), keep, anything
    ring = lambda: d.one(d.floats(d.size(8), 2), (d.rng.random(6) * 9).tolist(), [], [1, 2], 5, "ring", [[1, 2]] * 3)  # noqa: E731
    polygons = [[ring() for _ in range(d.size(2))] for _ in range(d.size(3))]
    return name, ops.outlines_from_polygons, (d.one(polygons, polygons, None, [5]),), keep, anything


def methods(d: Draw) -> Call:
    if d.maybe(0.5):
        name = d.one("areas", "centroids", "boxes", "clip", "scale", "hflip", "translate", "__getitem__", "cat")
        outlines, numbers = d.outlines(d.size(4)), (d.number(0.5, 2.0), d.number(-1.0, 3.0))
        args = {"clip": (d.image_size(),), "hflip": numbers[:1], "scale": numbers, "translate": numbers}
        args["__getitem__"] = (d.one(0, -1, slice(1, None), d.ints(3, high=1), d.masks(len(outlines.offsets) - 1)),)
        holds, owner = anything, outlines
    else:
        name = d.one("to_masks", "to_coco", "areas", "boxes", "__getitem__", "cat", "from_masks", "from_coco")
        owner = d.rle()
        args = {"__getitem__": (d.one(0, -1, slice(1, None), d.ints(3, high=1)),)}
        args["from_masks"] = (d.masks(d.size(4), d.size(40), d.size(40)),)
        counts = d.one([3, 3], b"33", "33", b"", [], [7], None, [3.0, 3.0], bytes(d.rng.integers(0, 256, 5).tolist()))
        args["from_coco"] = ([{"size": d.one([2, 3], [2, 3], None, [2, 2.5]), "counts": counts}, {}][: d.size(2)],)
        holds = anything if not name.startswith("from") else adds_up
    owner_name = type(owner).__name__
    if name == "cat":
        return owner_name, type(owner).cat, ([owner] * d.size(2),), {}, anything
    return owner_name, getattr(owner, name), args.get(name, ()), {}, holds


def best(d: Draw) -> Call:
    images, lengths = d.size(2), [d.size(20) for _ in range(d.size(3))]
    points = sum(lengths) + (d.maybe(d.error_rate) and 1)
    args = (d.floats(images, points, d.size(4)), d.floats(images, points), lengths, d.one(0, 1, 5, 100))
    return "top_scores", ops.top_scores, args, {}, lambda out: unit(out[0]) and (out[1].is_meta or (out[1] >= 0).all())


KINDS = (
    polar,
    polar,
    targets,
    targets,
    stars,
    overlaps,
    suppression,
    drawings,
    drawings,
    sources,
    methods,
    methods,
    best,
)


def outcome_of(name: str, function: Callable[..., Any], args: Any, kwargs: Any, holds: Callable[..., bool]) -> str:
    """The name of the outcome; a fault begins with "fault"."""
    try:
        result = function(*args, **kwargs)
    except ERRORS as error:
        return type(error).__name__ if name in str(error) else f"fault: unnamed {type(error).__name__}: {error}"
    except Exception as error:
        return "no meta" if "meta Tensors" in str(error) else f"fault: {error!r:.300}"
    return "result" if holds(result) else "fault: the result does not hold"


def exchange(d: Draw, op: Any, args: tuple[Any, ...]) -> str:
    """The op with one tensor exchanged for any other."""
    changed = list(args)
    tensors = [k for k, arg in enumerate(args) if isinstance(arg, Tensor)]
    k = d.one(*tensors)
    d.error_rate = 0.5
    shape = [min(side, 64) for side in args[k].shape] if d.maybe(0.7) else [d.size() for _ in range(d.rng.integers(5))]
    changed[k] = d.one(d.floats(*shape, dtypes=(args[k].dtype,)), d.ints(*shape, high=30), d.masks(*shape))
    return outcome_of("", op, changed, {}, lambda result: True)


def one_call(seed: int, n: int) -> list[tuple[str, str]]:
    """The outcomes of call n: that of the public function, and that of an op below it with another argument."""
    d = Draw(seed, n)
    name, function, args, kwargs, holds = d.one(*KINDS)(d)
    if not d.maybe(0.15):
        return [(name, outcome_of(name, function, args, kwargs, holds))]
    with Recorder() as recorder:
        outcomes = [(name, outcome_of(name, function, args, kwargs, holds))]
    if recorder.calls:
        op, given = recorder.calls[0]
        outcomes.append((str(op).removesuffix(".default"), exchange(d, op, given)))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--progress", default="/dev/null", help="a file that holds the number of the call under way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(ops._extension._C, "emulate"):
        ops._extension._C.emulate(False)  # the CPU loops, in the build of the emulator too
    warnings.simplefilter("ignore")
    faulthandler.enable()
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    progress = os.open(options.progress, os.O_CREAT | os.O_WRONLY)
    slowest, begun, faults = (0.0, 0), time.monotonic(), 0
    for n in range(options.first, options.first + options.calls):
        os.pwrite(progress, b"%-12d" % n, 0)
        before = time.monotonic()
        for name, outcome in one_call(options.seed, n):
            counts[name][outcome.split(":")[0]] += 1
            if outcome.startswith("fault"):
                faults += 1
                print(f"call {n}, {name}: {outcome}", flush=True)
        slowest = max(slowest, (time.monotonic() - before, n))
    columns = sorted({outcome for counter in counts.values() for outcome in counter})
    print(f"\nseed {options.seed}, calls {options.first} to {options.first + options.calls - 1}")
    print(f"{time.monotonic() - begun:.0f} s; the slowest call, {slowest[1]}, took {slowest[0]:.2f} s\n")
    print("| op | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    total: collections.Counter[str] = sum(counts.values(), collections.Counter())
    for name, counter in [*sorted(counts.items()), ("all", total)]:
        print(f"| {name} | " + " | ".join(f"{counter[column]:,}" for column in columns) + " |")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()

"""Targets of the detector from bitmaps, and rays alone."""

import torch
from cases import CAST, ENCODE, STRIDES, Origins, Scene
from peers import polar_target as peers
from race import Floor, Growth, Race, Runner, size_of
from torch import Tensor

from polarmask_ops import PolarTargets, cast_rays, encode_ragged_targets, outlines_from_masks


def ours(scene: Scene) -> PolarTargets:
    """From bitmaps and their boxes: the outline and the centre of mass are part of the work."""
    return _encode(scene, outlines_from_masks(scene.masks, boxes=scene.boxes))


def whole_bitmaps(scene: Scene) -> PolarTargets:
    return _encode(scene, outlines_from_masks(scene.masks))


def _encode(scene: Scene, outlines, **options) -> PolarTargets:
    return encode_ragged_targets(
        scene.level_shapes,
        STRIDES,
        boxes=scene.boxes,
        labels=scene.labels,
        outlines=outlines,
        image_offsets=torch.tensor([0, len(scene.boxes)]),
        **options,
    )


def released_rule(scene: Scene, centers: Tensor | None = None) -> PolarTargets:
    """The released rule from our op: pixel centres at integers, boxes that include their last pixel, bins."""
    outlines = outlines_from_masks(scene.masks, boxes=scene.boxes, boundary="pixels").translate(-0.5, -0.5)
    x0, y0, x1, y1 = scene.boxes.unbind(1)
    areas = (x1 - x0 + 1) * (y1 - y0 + 1)
    return _encode(scene, outlines, centers=centers, areas=areas, method="binned")


def same_targets(scene: Scene, ours: PolarTargets, theirs: peers.Targets) -> None:
    """By its own rule our op gives its numbers; the default rule, which is timed, nearly so."""
    result = released_rule(scene, theirs.centers)
    positive = (result.labels[0] >= 0).nonzero().flatten()
    assert torch.equal(positive, theirs.positive)
    assert torch.equal(result.instance[0, positive], theirs.instance)
    assert torch.equal(result.labels[0, positive], theirs.labels[positive])
    assert torch.equal(result.boxes[0, positive], theirs.boxes[positive])
    rays, others = result.rays[0, positive], theirs.rays[:, peers.RELEASED_ORDER]
    assert torch.isclose(rays, others, rtol=1e-6).double().mean() > 0.999  # float32 angles round over a degree
    both = positive[ours.instance[0, positive] == theirs.instance]
    assert len(both) > 0.8 * len(positive)  # whole centres are up to a pixel away
    rays, others = ours.rays[0, both], theirs.rays[torch.isin(positive, both)][:, peers.RELEASED_ORDER]
    assert (rays - others).abs().median() < 1


def equal_targets(scene: Scene, ours: PolarTargets, theirs: PolarTargets) -> None:
    assert all(map(torch.equal, ours, theirs))


def same_rays(inputs: Origins, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)  # float32 throughout


def boxes_pixels(scene: Scene, ours: PolarTargets) -> int:
    """The bitmaps' pixels in the instances' boxes are read once, the targets written."""
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2] + 1
    return int(sides.prod(1).sum()) + size_of(ours)


def positives(scene: Scene, ours: PolarTargets) -> int:
    return int((ours.instance >= 0).sum())


RACES = (
    Race(
        "encode_targets from bitmaps",
        ENCODE,
        ours,
        (
            Runner("our op by the released rule", released_rule),
            Runner("our op without boxes", whole_bitmaps, equal_targets),
            Runner("released loader", peers.released, same_targets, aim=500, sizes=(0, 100)),
            Runner("vectorised torch, cropped contours", peers.vectorised, same_targets),
            Runner("numba, cropped contours", peers.compiled, same_targets, aim=5, available=peers.HAS_NUMBA),
        ),
        unit="instance",
        floor=Floor(boxes_pixels),
        growth=Growth("positives", positives),
    ),
    Race(
        "cast_rays, 36",
        CAST,
        lambda inputs: cast_rays(*inputs),
        (Runner("vectorised torch", peers.exact_rays, same_rays),),
        unit="point",
        limit=0.3e-6,
    ),
)


def bench_polar_target(timed, entry):
    timed(entry)

import math

import numpy as np
import torch
from op_tester import Bad, OpTester
from reference import polar_target as reference

from polarmask_ops import FCOS_RANGES, Outlines, cast_rays, encode_targets

# The reference rounds its directions to 1e-14, and a grazing ray multiplies that by some hundred.
EXACT = {"rtol": 1e-12, "atol": 1e-10}
ROUNDED_ONCE = {"rtol": 1.2e-7, "atol": 1e-10}


def closed(points):
    """The segments of a closed polygon."""
    points = torch.as_tensor(points, dtype=torch.float64)
    return torch.cat([points, points.roll(-1, 0)], 1)


def outlines_of(polygons, dtype=torch.float64, device="cpu"):
    rings = [closed(polygon).reshape(-1, 4) for polygon in polygons]
    offsets = torch.tensor([0, *(len(ring) for ring in rings)]).cumsum(0)
    return Outlines(torch.cat([torch.zeros(0, 4, dtype=torch.float64), *rings]).to(device, dtype), offsets.to(device))


def star(vertices, radius=20.0, center=(0.0, 0.0)):
    """A star-shaped polygon, as concave as chance has it."""
    angle = 2 * math.pi * torch.arange(vertices, dtype=torch.float64) / vertices
    length = radius * (0.3 + 0.7 * torch.rand(vertices, dtype=torch.float64))
    return torch.stack([angle.cos() * length, angle.sin() * length], 1) + torch.as_tensor(center, dtype=torch.float64)


def on_pixel_edges(size=9):
    """The outline of random pixels: unit segments on integers, rays along them everywhere."""
    mask = np.pad(np.random.default_rng(size).random((size, size)) < 0.7, 1)
    pieces = [(j, i + 1, j + 1, i + 1) for i, j in np.argwhere(mask[1:] != mask[:-1])]
    pieces += [(j + 1, i, j + 1, i + 1) for i, j in np.argwhere(mask[:, 1:] != mask[:, :-1])]
    return torch.tensor(pieces, dtype=torch.float64)


class TestCastRays(OpTester):
    function = cast_rays
    reference = reference.cast_rays
    bad_inputs = (
        Bad({"origins": torch.rand(5, 3)}, ValueError, ("origins", "(P, 2)", "(5, 3)")),
        Bad({"origins": torch.ones(5, 2, dtype=torch.int64)}, TypeError, ("origins", "floating-point", "int64")),
        Bad({"outlines": torch.rand(5, 4)}, TypeError, ("outlines", "Outlines", "Tensor")),
        Bad(
            {"outlines": Outlines(torch.rand(5, 2), torch.tensor([0, 5]))},
            ValueError,
            ("outlines.segments", "(S, 4)", "(5, 2)"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0.0, 5.0]))},
            TypeError,
            ("outlines.offsets", "int64", "float32"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0, 9, 5]))},
            ValueError,
            ("outlines.offsets", "not to fall", "9, 5"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0, 4]))},
            ValueError,
            ("outlines.offsets", "from 0 to 5", "0 to 4"),
        ),
        Bad({"instance": torch.zeros(3, dtype=torch.int64)}, ValueError, ("instance", "(P,)", "(3,)")),
        Bad({"instance": torch.full((7,), 3)}, IndexError, ("instance", "from 0 to 2", "3 at index 0")),
        Bad({"instance": torch.full((7,), -1)}, IndexError, ("instance", "-1")),
        Bad({"num_rays": 2}, ValueError, ("num_rays", "from 3 to 1024", "2")),
        Bad({"num_rays": 1025}, ValueError, ("num_rays", "1025")),
        Bad({"method": "middle"}, ValueError, ("method", "'last', 'first'", "middle")),
        Bad({"min_distance": -1.0}, ValueError, ("min_distance", ">= 0", "-1")),
        Bad({"min_distance": math.nan}, ValueError, ("min_distance", ">= 0", "nan")),
    )

    def sample(self, dtype, device):
        outlines = outlines_of([star(31), star(12), on_pixel_edges()[:0, :2]], dtype, device)
        origins = (torch.rand(7, 2, dtype=torch.float64) * 30 - 15).to(device, dtype)
        return {
            "origins": origins,
            "outlines": outlines,
            "instance": torch.tensor([0, 1, 0, 1, 0, 2, 0], device=device),
        }

    def more_samples(self, dtype, device):
        sample = self.sample(dtype, device)
        pixels = on_pixel_edges()
        outlines = Outlines(pixels.to(device, dtype), torch.tensor([0, len(pixels)], device=device))
        lattice = {
            "origins": torch.cartesian_prod(torch.arange(0.0, 11), torch.tensor([0.0, 1.5, 4.0])).to(device, dtype),
            "outlines": outlines,
            "instance": torch.zeros(33, dtype=torch.int32, device=device),
            "num_rays": 8,
        }
        return [
            {**sample, "num_rays": 3},
            {**sample, "num_rays": 64, "min_distance": 5.0},
            {**sample, "method": "first"},
            lattice,
            {**lattice, "method": "first", "min_distance": 0.0},
        ]

    def empty(self, dtype, device):
        sample = self.sample(dtype, device)
        nothing = Outlines(sample["outlines"].segments[:0], torch.zeros(2, dtype=torch.int64, device=device))
        return [
            {**sample, "origins": sample["origins"][:0], "instance": sample["instance"][:0]},
            {**sample, "outlines": nothing, "instance": torch.zeros_like(sample["instance"])},
        ]

    def tolerance(self, dtype):
        return EXACT if dtype == torch.float64 else ROUNDED_ONCE


LEVELS = {
    "level_shapes": [(10, 12), (5, 6)],
    "strides": [8, 16],
    "regress_ranges": [(-1, 40), (40, math.inf)],
    "num_rays": 12,
}


def batch(dtype=torch.float64, device="cpu"):
    """Two images of instances of every kind, centres and boxes given by hand."""
    centers = torch.tensor([[30.0, 30], [34, 33], [60, 50], [48, 40], [20, 60], [50, 20], [70, 60]])
    polygons = [star(20, size, center) for size, center in zip([14, 20, 12, 60, 15, 25, 18], centers, strict=True)]
    polygons[4] = polygons[4][:0]
    boxes = torch.cat([centers - torch.tensor([14, 20, 12, 60, 15, 25, 18])[:, None], centers], 1)
    boxes[:, 2:] = 2 * centers - boxes[:, :2]
    return {
        "boxes": boxes.to(device, dtype),
        "labels": torch.tensor([3, 3, 0, -7, 5, 2**40, 1], device=device),
        "outlines": outlines_of(polygons, dtype, device),
        "image_offsets": torch.tensor([0, 4, 4, 7], device=device),
        "centers": centers.to(device, dtype),
        **LEVELS,
    }


class TestEncodeTargets(OpTester):
    function = encode_targets
    reference = reference.encode_targets
    bad_inputs = (
        Bad({"level_shapes": [(10, 12)]}, ValueError, ("level_shapes", "one length", "1, 2 and 2")),
        Bad({"strides": [8]}, ValueError, ("strides", "2, 1 and 2")),
        Bad({"regress_ranges": FCOS_RANGES}, ValueError, ("regress_ranges", "2, 2 and 5")),
        Bad({"regress_ranges": [(0, 1, 2), (3,)]}, ValueError, ("regress_ranges", "pairs", "(0, 1, 2)")),
        Bad({"level_shapes": [(-1, 2), (5, 6)]}, ValueError, ("level_shapes", "not negative", "(-1, 2)")),
        Bad({"strides": [8, 0]}, ValueError, ("strides", "above 0", "0")),
        Bad({"boxes": torch.rand(7, 5)}, ValueError, ("boxes", "(M, 4)", "(7, 5)")),
        Bad({"boxes": torch.ones(7, 4, dtype=torch.int64)}, TypeError, ("boxes", "floating-point", "int64")),
        Bad({"boxes": torch.rand(6, 4)}, ValueError, ("as many outlines as boxes, 6", "got 7")),
        Bad({"labels": torch.ones(7)}, TypeError, ("labels", "int64", "float32")),
        Bad({"labels": torch.ones(6, dtype=torch.int64)}, ValueError, ("labels", "(M,)", "(6,)")),
        Bad({"image_offsets": torch.tensor([0, 6])}, ValueError, ("image_offsets", "from 0 to 7", "0 to 6")),
        Bad({"image_offsets": torch.tensor([1, 7])}, ValueError, ("image_offsets", "from 0 to 7", "1 to 7")),
        Bad({"image_offsets": torch.tensor([0, 8, 7])}, ValueError, ("image_offsets", "not to fall", "8, 7")),
        Bad({"image_offsets": torch.zeros(0, dtype=torch.int64)}, ValueError, ("image_offsets", "(N + 1,)")),
        Bad({"centers": torch.rand(7, 3)}, ValueError, ("centers", "(M, 2)", "(7, 3)")),
        Bad({"areas": torch.rand(7, 1)}, ValueError, ("areas", "(M,)", "(7, 1)")),
        Bad({"ignore": torch.zeros(7)}, TypeError, ("ignore", "bool", "float32")),
        Bad({"ignore": torch.zeros(6, dtype=torch.bool)}, ValueError, ("ignore", "(M,)", "(6,)")),
        Bad({"center_radius": 0.0}, ValueError, ("center_radius", "> 0", "0")),
        Bad({"center_radius": math.nan}, ValueError, ("center_radius", "nan")),
        Bad({"num_rays": 2}, ValueError, ("num_rays", "2")),
        Bad({"method": "Last"}, ValueError, ("method", "Last")),
        Bad({"min_distance": -1.0}, ValueError, ("min_distance", "-1")),
    )

    def sample(self, dtype, device):
        return batch(dtype, device)

    def more_samples(self, dtype, device):
        sample = batch(dtype, device)
        areas = torch.tensor([5.0, 5, math.nan, 0, 1, -1, math.inf], device=device, dtype=dtype)
        ignore = torch.tensor([False, True, False, True, True, False, True], device=device)
        hostile = sample["boxes"].clone()
        hostile[0], hostile[1, 2], hostile[3] = math.nan, math.inf, hostile[3].flip(0)
        return [
            {**sample, "center_radius": math.inf, "min_distance": 3.0},
            {**sample, "center_radius": 0.6, "method": "first"},
            {**sample, "areas": areas, "center_radius": 2.5},
            {**sample, "ignore": ignore},
            {**sample, "boxes": hostile, "image_offsets": torch.tensor([0, 7], device=device), "ignore": ignore},
        ]

    def empty(self, dtype, device):
        sample = batch(dtype, device)
        none = {key: sample[key][:0] for key in ("boxes", "labels", "centers")}
        outlines = Outlines(sample["outlines"].segments[:0], torch.zeros(1, dtype=torch.int64, device=device))
        return [
            {**sample, **none, "outlines": outlines, "image_offsets": torch.zeros(n, dtype=torch.int64, device=device)}
            for n in (1, 3)
        ] + [
            {**sample, "level_shapes": [(0, 12), (0, 0)]},
            {**sample, "level_shapes": [], "strides": [], "regress_ranges": []},
        ]

    def tolerance(self, dtype):
        return ROUNDED_ONCE

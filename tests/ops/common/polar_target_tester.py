"""Shapes and batches that the tests of targets share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from op_tester import KERNELS, by_cpu_and_kernels

from polarmask_ops import Outlines, cast_rays

# The reference rounds its directions to 1e-14. Where a ray grazes a segment, the error grows about a hundredfold.
EXACT = {"rtol": 1e-12, "atol": 1e-10}
ROUNDED_ONCE = {"rtol": 1.2e-7, "atol": 1e-10}


def closed(points):
    """Return the segments of a closed polygon."""
    points = torch.as_tensor(points, dtype=torch.float64)
    return torch.cat([points, points.roll(-1, 0)], 1)


def outlines_of(polygons, dtype=torch.float64, device="cpu"):
    rings = [closed(polygon).reshape(-1, 4) for polygon in polygons]
    offsets = torch.tensor([0, *(len(ring) for ring in rings)]).cumsum(0)
    return Outlines(torch.cat([torch.zeros(0, 4, dtype=torch.float64), *rings]).to(device, dtype), offsets.to(device))


def star(vertices, radius=20.0, center=(0.0, 0.0)):
    """Return a random star-shaped polygon, usually concave."""
    angle = 2 * math.pi * torch.arange(vertices, dtype=torch.float64) / vertices
    length = radius * (0.3 + 0.7 * torch.rand(vertices, dtype=torch.float64))
    return torch.stack([angle.cos() * length, angle.sin() * length], 1) + torch.as_tensor(center, dtype=torch.float64)


def on_pixel_edges(size=9):
    """Return the outline of random pixels: unit segments on integers, with many rays along them."""
    mask = np.pad(np.random.default_rng(size).random((size, size)) < 0.7, 1)
    pieces = [(j, i + 1, j + 1, i + 1) for i, j in np.argwhere(mask[1:] != mask[:-1])]
    pieces += [(j + 1, i, j + 1, i + 1) for i, j in np.argwhere(mask[:, 1:] != mask[:, :-1])]
    return torch.tensor(pieces, dtype=torch.float64)


def cast(segments, origins, num_rays, **options):
    outlines = Outlines(segments, torch.tensor([0, len(segments)]))
    return cast_rays(origins, outlines, torch.zeros(len(origins), dtype=torch.int64), num_rays, **options)


coordinate = st.one_of(
    st.integers(-6, 6).map(float),
    st.floats(-50, 50),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 1e300, 1e-300, 5e-324]),
)
LEVELS = {
    "level_shapes": [(10, 12), (5, 6)],
    "strides": [8, 16],
    "regress_ranges": [(-1, 40), (40, math.inf)],
    "num_rays": 12,
}


def batch(dtype=torch.float64, device="cpu"):
    """Return three images, one of them empty, with boxes and centres that do not follow from the outlines."""
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


kernels = pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")


def same_bits(function, kwargs):
    by_cpu, by_kernels = by_cpu_and_kernels(function, kwargs)
    pairs = zip(by_cpu, by_kernels, strict=True) if isinstance(by_cpu, tuple) else [(by_cpu, by_kernels)]
    for want, got in pairs:
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        assert torch.equal(got.signbit(), want.signbit())

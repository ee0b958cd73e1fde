"""Shapes and comparisons that the tests of outlines share."""

import itertools
import math

import numpy as np
import torch
from hypothesis import strategies as st
from op_tester import OpTester, array, change_tensors
from torch import Tensor

from polarmask_ops import RLE, Outlines, outlines_from_polygons, outlines_from_rle

SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]
HOSTILE = st.sampled_from([0.0, 1.0, -1.0, 2.5, 7.0, 1e-30, 1e30, -1e30, math.inf, -math.inf, math.nan])


def random_polygons(count: int, seed: int = 0) -> list[list[list[float]]]:
    """Return instances of one to three star-shaped rings, clockwise or counter-clockwise."""
    random = np.random.default_rng(seed)
    polygons = []
    for _ in range(count):
        rings = []
        for _ in range(random.integers(1, 4)):
            angle = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 40)))[:: random.choice([-1, 1])]
            radius = random.uniform(2, 30, len(angle))
            points = random.uniform(-100, 1000, 2) + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
            rings.append(points.astype(np.float32).reshape(-1).tolist())
        polygons.append(rings)
    return polygons


def random_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return noise of densities from 0 to 1, in which all patterns of neighbours occur."""
    random = np.random.default_rng(seed)
    densities = random.choice([0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.95, 1.0], (count, 1, 1))
    return torch.from_numpy(random.random((count, height, width)) < densities)


def drawing(*rows: str) -> Tensor:
    return torch.tensor([[[pixel == "#" for pixel in row] for row in rows]])


def segment_sets(outlines: Outlines) -> list[list[tuple[float, ...]]]:
    """Return the sorted segments of each instance, for their order has no meaning."""
    segments, offsets = outlines.segments.tolist(), outlines.offsets.tolist()
    return [sorted(map(tuple, segments[begin:end])) for begin, end in itertools.pairwise(offsets)]


def assert_same(left: Outlines, right: Outlines) -> None:
    assert segment_sets(left) == segment_sets(right)


def outlines_of(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Outlines:
    """Return random outlines, one outline without area and one of points."""
    line = torch.tensor([[1.0, 1, 5, 4], [5, 4, 1, 1], [5, 4, 5, 6], [5, 6, 5, 4]])
    points = torch.tensor([[3.0, 4, 3, 4], [5, 9, 5, 9], [5, 9, 5, 9]])
    special = Outlines(torch.cat([line, points]), torch.tensor([0, 4, 7]))
    return Outlines.cat([outlines_from_polygons(random_polygons(20), keep="all"), special]).to(device, dtype)


def areas(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).areas()


def centroids(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).centroids()


def boxes(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).boxes()


class FromTester(OpTester):
    fixed_shape = False

    def compare(self, got, kwargs, dtype):
        want = Outlines(*map(torch.from_numpy, type(self).reference(**change_tensors(kwargs, array))))
        assert_same(got, want)


def from_rle(counts: Tensor, offsets: Tensor, size: tuple[int, int], keep: str = "largest") -> Outlines:
    return outlines_from_rle(RLE(counts, offsets, size), keep=keep)

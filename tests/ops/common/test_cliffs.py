"""Inputs on which an op was once far too slow. Results are compared; the timeout of the suite bounds the time."""

import math

import pytest
import torch
from outlines_tester import segment_sets

from polarmask_ops import (
    RLE,
    Outlines,
    encode_ragged_targets,
    outlines_from_rle,
    polygons_to_masks,
    polygons_to_rle,
)


def test_outlines_from_rle_of_runs_over_many_columns_takes_no_time_for_them():
    """Two counts over 2²⁸ columns, and an instance of two parts that lie far apart."""
    size = (4, 2**28)
    rle = RLE.from_coco(
        [{"size": size, "counts": [2, 2**30 - 2]}, {"size": size, "counts": [5, 2, 2**24 - 7, 4, 2**30 - 2**24 - 4]}]
    )
    for keep in ("largest", "all"):
        outlines = outlines_from_rle(rle, keep=keep).to(torch.float64)
        assert segment_sets(outlines[:1]) == [
            [(0, 2, 1, 2), (0, 4, 0, 2), (1, 0, 2**28, 0), (1, 2, 1, 0), (2**28, 0, 2**28, 4), (2**28, 4, 0, 4)]
        ]
        assert outlines.areas().tolist() == [2**30 - 2, 4 if keep == "largest" else 6]


@pytest.mark.parametrize("height", [1, 40, 700])
def test_polygons_to_rle_with_many_crossings_in_a_column_is_their_mask(height):
    generator = torch.Generator().manual_seed(height)
    noise = torch.rand(3, 301, 2, generator=generator) * torch.tensor([30.0, 1.2 * height]) - 1
    zigzag = torch.stack([torch.arange(301) % 2 * 27.0, torch.arange(301) * height / 301], 1)
    polygons = torch.cat([noise, noise.round(), zigzag[None]])
    assert polygons_to_rle(polygons, (height, 28)) == RLE.from_masks(polygons_to_masks(polygons, (height, 28)))


@pytest.mark.parametrize("order", ["rising", "falling", "equal"])
def test_encode_targets_of_areas_in_any_order_assigns_the_smallest(order):
    count = 50
    square = torch.tensor([[0.0, 0, 64, 0], [64, 0, 64, 64], [64, 64, 0, 64], [0, 64, 0, 0]])
    outlines = Outlines(square.repeat(count, 1), torch.arange(count + 1) * 4)
    areas = {"rising": torch.arange(1.0, count + 1), "equal": torch.ones(count)}
    areas["falling"] = areas["rising"].flip(0)
    targets = encode_ragged_targets(
        [(8, 8)], [8], boxes=torch.tensor([[0.0, 0, 64, 64]]).expand(count, 4), labels=torch.arange(count),
        outlines=outlines, image_offsets=torch.tensor([0, count]), regress_ranges=[(0, 1000)], center_radius=math.inf,
        areas=areas[order],
    )  # fmt: skip
    assert (targets.instance == (count - 1 if order == "falling" else 0)).all()

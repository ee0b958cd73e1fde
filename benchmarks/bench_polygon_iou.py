"""IoU of polygons, pair by pair."""

import numpy as np
from cases import OVERLAPS, Candidates
from peers import polygon_iou as peers
from race import Race, Runner
from torch import Tensor

from polarmask_ops import polygon_iou


def neighbours(inputs: Candidates) -> Tensor:
    """Compute the IoU of each polygon and the next one."""
    return polygon_iou(inputs.polygons, inputs.polygons.roll(-1, 0), paired=True)


def same_values(inputs: Candidates, ours: Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)  # ours snaps vertices to 2⁻²⁴ of the pair's extent


RACES = (
    Race(
        "polygon_iou, pairs",
        OVERLAPS,
        neighbours,
        (Runner("shapely", peers.neighbours, same_values, parallel=False),),
        unit="pair",
        given=lambda inputs: inputs.polygons,
    ),
)


def bench_polygon_iou(timed, entry):
    timed(entry)

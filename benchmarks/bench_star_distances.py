"""StarDist's distances of a label image."""

import numpy as np
import torch
from cases import STAR
from peers import star_distances as peers
from race import Race, Runner
from torch import Tensor

from polarmask_ops import star_distances


def same_distances(labels: np.ndarray, ours: Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.permute(1, 2, 0), theirs, rtol=1e-5, atol=1e-4)  # it adds up steps in float32


RACES = (
    Race(
        "star_distances, 32 rays",
        STAR,
        lambda labels: star_distances(torch.from_numpy(labels)),
        (
            Runner(
                "StarDist C++",
                peers.stardist_distances,
                same_distances,
                aim=5,
                available=peers.stardist() is not None,
            ),
        ),
        unit="row of pixels",
    ),
)


def bench_star_distances(timed, entry):
    timed(entry)

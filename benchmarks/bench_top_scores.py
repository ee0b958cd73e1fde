"""The best points of a head's output."""

import torch
from cases import HEAD, Head
from peers import top_scores as peers
from race import Race, Runner
from torch import Tensor

from polarmask_ops import top_scores


def best(inputs: Head) -> tuple[Tensor, Tensor]:
    return top_scores(*inputs, peers.K)


def same_points(inputs: Head, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Scores that differ by rounding may change places, and one of them may be left out."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-7)
    left_out = set(theirs[1][0].tolist()) - set(ours[1][0].tolist())
    assert len(left_out) <= len(inputs.lengths)


RACES = (
    Race(
        "top_scores, 1000 a level",
        HEAD,
        best,
        (
            Runner("torch ops", peers.by_torch, same_points, aim=20),
            Runner("torch ops, one sigmoid a point", peers.by_largest_logit, same_points),
        ),
        unit="pixel of width",
    ),
)


def bench_top_scores(timed, entry):
    timed(entry)

"""The Polar IoU loss, forward and backward."""

import torch
from cases import LOSS, Pairs
from peers import polar_iou as peers
from race import Floor, Race, Runner

from polarmask_ops import polar_iou_loss


def ours(inputs: Pairs) -> peers.Result:
    return peers.with_gradient(polar_iou_loss, inputs)


def same(inputs: Pairs, ours: peers.Result, theirs: peers.Result) -> None:
    """Gradients are not compared where two rays are equal: ours gives half to each side, theirs all to one."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=2e-5, atol=0)  # a sum of a million float32 in another order
    untied = inputs.pred != inputs.target
    scale = float(ours[1].abs().max())
    torch.testing.assert_close(ours[1][untied] / scale, theirs[1][untied] / scale, rtol=1e-4, atol=1e-5)


def traffic(inputs: Pairs, _: peers.Result) -> int:
    """Bytes that one fused pass would move: pred and target are read, the gradient is written."""
    return 3 * inputs.pred.nbytes


RACES = (
    Race(
        "polar_iou_loss",
        LOSS,
        ours,
        (
            Runner("released formula, eager", peers.released, same, aim=40),
            Runner("released formula, torch.compile", peers.compiled, same, sizes=(20_000, 1_000_000)),
            Runner("vectorised torch", peers.vectorised, same),
        ),
        unit="row",
        floor=Floor(traffic, aim=0.8),
    ),
)


def bench_polar_iou(timed, entry):
    timed(entry)

"""Copy bandwidth and peak arithmetic of the machine, against which the floors are computed."""

import torch
import torch.nn.functional as F
from cases import CONVOLUTION, COPY, MULTIPLY
from race import Floor, Race, Runner


def convolution(tensors: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return F.conv2d(*tensors, padding=1)


def in_bfloat16(tensors: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return convolution(tensors)


def close(_: object, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=1.5)  # σ 48, of inputs with 8 bits


RACES = (
    Race(
        "copy",
        COPY,
        lambda tensors: tensors[0].copy_(tensors[1]),
        unit="float32",
        floor=Floor(lambda tensors, _: 2 * tensors[0].nbytes),
    ),
    Race(
        "multiply",
        MULTIPLY,
        lambda matrices: matrices[0] @ matrices[1],
        unit="row",
        floor=Floor(lambda matrices, _: 3 * matrices[0].nbytes, lambda matrices, _: 2 * len(matrices[0]) ** 3),
    ),
    Race("convolution in bfloat16", CONVOLUTION, in_bfloat16, (Runner("in float32", convolution, close),), unit="row"),
)


def bench_machine(timed, entry):
    timed(entry)

"""What the machine can do: the yardstick of the shares of bandwidth."""

from cases import COPY
from race import Floor, Race

RACES = (
    Race(
        "copy",
        COPY,
        lambda tensors: tensors[0].copy_(tensors[1]),
        unit="float32",
        floor=Floor(lambda tensors: 2 * tensors[0].nbytes),
    ),
)


def bench_machine(timed, entry):
    timed(entry)

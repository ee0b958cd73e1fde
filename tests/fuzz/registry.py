"""What spoils a data set: functions by kind, each of which changes one split on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .made import MadeSet, Rng

Change = Callable[[MadeSet, str, Rng], str | None]  # set, split -> what was done; None: it does not apply

JSON = ("coco", "json", "json pair", "roboflow")
YOLO = ("yolo", "yolo lists")
LABELS = ("labels", "labels beside")
ALL = (*JSON, *YOLO, *LABELS, "voc")


@dataclass(frozen=True)
class Mutation:
    kind: str
    formats: tuple[str, ...]
    change: Change
    last: bool  # it changes bytes: what reads and writes the file again comes before it


MUTATIONS: list[Mutation] = []


def mutation(kind: str, formats: tuple[str, ...], last: bool = False) -> Callable[[Change], Change]:
    """Registers a function."""

    def register(change: Change) -> Change:
        MUTATIONS.append(Mutation(kind, formats, change, last))
        return change

    return register


def choose(rng: Rng, values: Any) -> Any:
    """One of them, as it is: NumPy's choice makes arrays of lists."""
    values = list(values)
    return values[int(rng.integers(len(values)))]


def strange(rng: Rng, value: Any) -> Any:
    """A value of another type, or of the same type and out of range."""
    others: list[Any] = [None, True, False, 0, -1, 1.5, "1", "text", "", [], [1], {}, {"a": 1}, [[[]]], float("nan")]
    others += [float("inf"), 2**70, 1e300, [value], str(value)]
    if isinstance(value, int):
        others += [float(value), value + 0.5] * 3
    return choose(rng, others)

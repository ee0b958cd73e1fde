"""Bitmaps to COCO's strings."""

from typing import Any

from cases import ENCODE, Scene
from peers import rle as peers
from race import Race, Runner

from polarmask_ops import RLE

Strings = list[dict[str, Any]]


def ours(scene: Scene) -> Strings:
    return RLE.from_masks(scene.masks).to_coco()


def same_strings(scene: Scene, ours: Strings, theirs: Strings) -> None:
    assert ours == theirs


RACES = (
    Race(
        "RLE.from_masks, COCO strings",
        ENCODE[:3],
        ours,
        (Runner("pycocotools encode", peers.encode, same_strings, parallel=False),),
        unit="instance",
        given=lambda scene: scene.masks,
    ),
)


def bench_rle(timed, entry):
    timed(entry)

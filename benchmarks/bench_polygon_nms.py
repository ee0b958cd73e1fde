"""NMS of polygons and of stars, at a density that does not change with the number."""

import numpy as np
from cases import NMS, Candidates
from peers import polygon_nms as peers
from peers.star_distances import stardist
from race import Race, Runner
from torch import Tensor

from polarmask_ops import polygon_nms, rays_nms


def polygons(inputs: Candidates, metric: str = "iou") -> Tensor:
    return polygon_nms(inputs.polygons, inputs.scores, peers.THRESHOLD, metric=metric)


def stars(inputs: Candidates, metric: str = "iou") -> Tensor:
    return rays_nms(inputs.centers, inputs.rays, inputs.scores, peers.THRESHOLD, metric=metric)


def agree(share: float):
    """How much of what either keeps both must keep: a pair at the threshold that rounding turns moves a chain after it.

    GEOS rounds to double; StarDist clips, and pycocotools draws, on whole pixels.
    """

    def compare(inputs: Candidates, ours: Tensor, theirs: np.ndarray) -> None:
        a, b = set(ours.tolist()), set(theirs.tolist())
        assert len(a ^ b) <= max(1, (1 - share) * len(a | b)), f"{len(a & b)} of {len(a | b)} are kept by both"

    return compare


SHAPELY = Runner("shapely, STRtree", peers.shapely_nms, agree(0.999), aim=100, sizes=(0, 5_000), parallel=False)
COCO = Runner("pycocotools mask IoU", peers.coco_nms, agree(0.92), aim=10, sizes=(0, 20_000), parallel=False)
BOXES = Runner("bound: torchvision box NMS", peers.box_nms, sizes=(0, 20_000), parallel=False)


def as_polygons(inputs: Candidates) -> tuple[Tensor, ...]:
    return inputs.polygons, inputs.scores


def as_stars(inputs: Candidates) -> tuple[Tensor, ...]:
    return inputs.centers, inputs.rays, inputs.scores


STARDIST = Runner(
    "StarDist C++", peers.stardist_nms, agree(0.92), aim=10, sizes=(0, 20_000), available=stardist() is not None
)

RACES = (
    Race("rays_nms", NMS, stars, (SHAPELY, COCO, BOXES), unit="candidate", given=as_stars),
    Race(
        "rays_nms, iomin",
        NMS[:4],
        lambda inputs: stars(inputs, "iomin"),
        (STARDIST,),
        unit="candidate",
        given=as_stars,
    ),
    Race("polygon_nms", NMS, polygons, (SHAPELY,), unit="candidate", given=as_polygons),
)


def bench_polygon_nms(timed, entry):
    timed(entry)

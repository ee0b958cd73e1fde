"""Detections matched with instances one to one, as StarDist does: precision, recall, F1, panoptic quality."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as coco_mask
from scipy.optimize import linear_sum_assignment

IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class Matching:
    """Counts at one IoU, over all images and categories."""

    iou: float
    tp: int = 0  # pairs
    fp: int = 0  # detections without an instance
    fn: int = 0  # instances without a detection
    overlap: float = 0.0  # sum of the pairs' IoU

    @property
    def precision(self) -> float:
        return self.tp / max(self.tp + self.fp, 1)

    @property
    def recall(self) -> float:
        return self.tp / max(self.tp + self.fn, 1)

    @property
    def f1(self) -> float:
        return 2 * self.tp / max(2 * self.tp + self.fp + self.fn, 1)

    @property
    def pq(self) -> float:
        """Panoptic quality: the pairs' mean IoU times F1."""
        return 2 * self.overlap / max(2 * self.tp + self.fp + self.fn, 1)


def match(
    truth: COCO, results: Sequence[dict[str, Any]], score_threshold: float, ious: Sequence[float] = IOUS
) -> list[Matching]:
    """Matches detections of at least ``score_threshold`` with the instances of their image and category.

    Of all ways to pair them one to one, the one with the most pairs of at least the IoU counts, and of these the one
    with the largest sum of IoU. Detections without a pair that lie in a crowd, by the same threshold, do not count.

    Parameters
    ----------
    truth : COCO
    results : sequence of dict
        COCO's result format, with masks.
    score_threshold : float
    ious : sequence of float

    Notes
    -----
    Source: ``stardist.matching``, which takes label images; where masks do not overlap the numbers are the same.
    """
    found = [Matching(iou) for iou in ious]
    detections: dict[tuple[int, int], list[Any]] = defaultdict(list)
    instances: dict[tuple[int, int], list[Any]] = defaultdict(list)
    crowds: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for result in results:
        if result["score"] >= score_threshold:
            detections[result["image_id"], result["category_id"]].append(result["segmentation"])
    for entry in truth.anns.values():
        group = crowds if entry.get("iscrowd", 0) else instances
        group[entry["image_id"], entry["category_id"]].append(truth.annToRLE(entry))
    for key in detections.keys() | instances.keys():
        overlaps = _iou(detections[key], instances[key], crowd=False)
        in_crowd = _iou(detections[key], crowds[key], crowd=True).max(1, initial=0)
        for each in found:
            rows, columns = _pairs(overlaps, each.iou)
            alone = np.delete(in_crowd, rows)
            each.tp += len(rows)
            each.fp += int((alone < each.iou).sum())
            each.fn += overlaps.shape[1] - len(rows)
            each.overlap += float(overlaps[rows, columns].sum())
    return found


def _pairs(overlaps: np.ndarray, iou: float) -> tuple[np.ndarray, np.ndarray]:
    enough = overlaps >= iou
    # The overlaps of all pairs together weigh less than one pair more.
    rows, columns = linear_sum_assignment(enough + overlaps / (2 * max(min(overlaps.shape), 1)), maximize=True)
    kept = enough[rows, columns]
    return rows[kept], columns[kept]


def _iou(detections: list[Any], others: list[Any], crowd: bool) -> np.ndarray:
    """(detections, others); with a crowd, the share of the detection that lies in it."""
    if not detections or not others:
        return np.zeros((len(detections), len(others)))
    return np.asarray(coco_mask.iou(detections, others, [int(crowd)] * len(others)))

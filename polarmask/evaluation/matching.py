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

    def add(self, overlaps: np.ndarray, in_crowd: np.ndarray) -> None:
        """Counts the (detections, instances) of an image and category, and the detections' shares in its crowds."""
        rows, columns = _pairs(overlaps, self.iou)
        self.tp += len(rows)
        self.fp += int((np.delete(in_crowd, rows) < self.iou).sum())
        self.fn += overlaps.shape[1] - len(rows)
        self.overlap += float(overlaps[rows, columns].sum())

    @property
    def precision(self) -> float:
        """The share of the detections that have a pair."""
        return self.tp / max(self.tp + self.fp, 1)

    @property
    def recall(self) -> float:
        """The share of the instances that have a pair."""
        return self.tp / max(self.tp + self.fn, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
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
    return match_by_score(truth, results, [score_threshold], ious)[0]


def match_by_score(
    truth: COCO, results: Sequence[dict[str, Any]], score_thresholds: Sequence[float], ious: Sequence[float] = IOUS
) -> list[list[Matching]]:
    """:func:`match` for each of several score thresholds; masks are compared once."""
    found = [[Matching(iou) for iou in ious] for _ in score_thresholds]
    detections: dict[tuple[int, int], list[Any]] = defaultdict(list)
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    instances: dict[tuple[int, int], list[Any]] = defaultdict(list)
    crowds: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for result in results:
        if result["score"] >= min(score_thresholds):
            key = result["image_id"], result["category_id"]
            detections[key].append(result["segmentation"])
            scores[key].append(result["score"])
    for entry in truth.anns.values():
        group = crowds if entry.get("iscrowd", 0) else instances
        group[entry["image_id"], entry["category_id"]].append(truth.annToRLE(entry))
    for key in detections.keys() | instances.keys():
        overlaps = _iou(detections[key], instances[key], crowd=False)
        in_crowd = _iou(detections[key], crowds[key], crowd=True).max(1, initial=0)
        for threshold, matchings in zip(score_thresholds, found, strict=True):
            counted = np.array(scores[key]) >= threshold
            for each in matchings:
                each.add(overlaps[counted], in_crowd[counted])
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

"""The score and NMS thresholds that are best on some images."""

from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

from faster_coco_eval import COCO

from ..data import DataSet
from ..data.sample import Sample
from ..inference.detector import Detector
from ..inference.results import coco_results
from .coco import numbered, on_each, renumbered, say_cuts
from .matching import match_by_score

SCORES = tuple(k / 20 for k in range(1, 20))  # thresholds to choose from
OVERLAPS = (0.3, 0.4, 0.5, 0.6)  # and of NMS


class Thresholds(NamedTuple):
    """What :func:`choose_thresholds` finds."""

    score: float  # lowest of a detection that counts
    nms: float  # overlap above which the lower score goes
    f1: float  # what they reach


def choose_thresholds(detector: Detector, data: DataSet, iou: float = 0.5, *, distributed: bool = False) -> Thresholds:
    """The thresholds with the best F1 of one-to-one matching at an IoU, see :func:`polarmask.evaluation.match`.

    ``data`` should be images that training has not seen. NMS thresholds are 0.3, 0.4, 0.5 and 0.6, scores 0.05, 0.10,
    …, 0.95. Of equals the lower NMS threshold, then the lower score. ``distributed``: see :func:`evaluate`. StarDist
    stores two such thresholds beside its weights, chosen by another measure.
    """
    everything = with_thresholds(detector, 0.0, 1.0)
    everything.model.postprocess = everything.model.postprocess._replace(max_detections=None)

    def with_each_overlap(sample: Sample) -> list[list[dict[str, Any]]]:
        results = []
        (found,) = everything.detect([sample.image])
        scale = found.pop("scale")
        for nms in OVERLAPS:
            postprocess = detector.model.postprocess._replace(nms_threshold=nms)
            boxes = found["boxes"] / scale.repeat(2)
            keep = postprocess.suppress(boxes, *(found[name] for name in ("centers", "rays", "scores", "labels")))
            kept = {name: value[keep[: postprocess.max_detections]] for name, value in found.items()}
            results.append(coco_results(kept, sample.size, sample.image_id, list(detector.categories)))
        return results

    with everything.counted() as cuts:
        images = on_each(with_each_overlap, data, detector.config.data.invalid, distributed)
    say_cuts(everything, cuts, distributed)
    content, numbers = numbered(data.ground_truth())
    truth = COCO(content)
    tried = []
    for n, nms in enumerate(OVERLAPS):
        results = renumbered([result for image in images for result in image[n]], numbers)
        for score, (matching,) in zip(SCORES, match_by_score(truth, results, SCORES, [iou]), strict=True):
            tried.append(Thresholds(score, nms, matching.f1))
    return max(tried, key=lambda thresholds: thresholds.f1)


def with_thresholds(detector: Detector, score: float, nms: float) -> Detector:
    """The detector with other thresholds, which are kept when it is saved."""
    config = replace(
        detector.config,
        model=replace(detector.config.model, nms_threshold=nms),
        eval=replace(detector.config.eval, score_threshold=score),
    )
    model = copy(detector.model)  # with the same weights
    model.postprocess = model.postprocess._replace(nms_threshold=nms)
    return replace(detector, model=model, config=config)

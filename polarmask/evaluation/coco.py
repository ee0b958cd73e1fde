"""Mask, box and boundary AP of a detector, and one-to-one matching."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from faster_coco_eval import COCO, COCOeval_faster

from ..common.runtime import all_or_none, processes
from ..config import Config, EvalConfig
from ..data import DataSet, readable
from ..data.sample import Sample
from ..inference.detector import Detector
from ..inference.results import coco_results
from ..model import Cuts
from .matching import Matching, match

KINDS = "segm", "bbox", "boundary"
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # all; below 32² pixels; to 96²; above


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` finds."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]  # COCO's result format
    precision: dict[str, np.ndarray]  # by kind: (10 IoU thresholds 0.5 to 0.95, 101 recalls, categories)
    matching: list[Matching]  # by IoU


def evaluate(
    detector: Detector,
    data: DataSet,
    *,
    distributed: bool = False,
    before_each: Callable[[], None] | None = None,
) -> Evaluation:
    """Runs a detector on every image and compares as COCO does, by :class:`polarmask.config.EvalConfig`.

    ``data`` is one of ``polarmask.data``: ``open_data(root, splits)``, ``Nuclei("test")``, ``Shapes(count)``. Images
    that cannot be read, where ``data.invalid`` is skip, have no detections: their instances count as missed. With
    ``distributed``, every process of torchrun must call this: each takes a share of the images, all get the same.
    ``before_each`` is called before each image; what it raises ends the evaluation, of all processes.

    The metrics, −1 where there is no instance of the kind:

    - ``segm/AP`` on masks, the mean over IoU 0.5 to 0.95; ``segm/AP50``, ``segm/AP75``; ``segm/APs``, ``APm``, ``APl``
      of instances below 32², to 96² and above, in pixels; ``segm/AR1``, ``AR10``, ``AR100`` with so many detections an
      image (``max_dets``; ``ARall`` with all detections); ``segm/ARs``, ``ARm``, ``ARl``; ``segm/AP/NAME`` of each
      category, where there are several;
    - the same for ``bbox``, without the categories, and for ``boundary``: there an overlap is the smaller of the masks'
      IoU and the IoU of the strips along their insides, ``boundary/dilation`` of the image's diagonal wide (Cheng et
      al., Boundary IoU);
    - ``precision/IOU``, ``recall/IOU``, ``F1/IOU``, ``PQ/IOU`` from 0.5 to 0.9, of detections of at least
      ``score_threshold``: see :func:`polarmask.evaluation.matching.match`;
    - ``instances`` (crowds left out) and ``seconds/image``.

    Raises
    ------
    ValueError
        If the data have a category that the detector does not know.
    """
    if unknown := set(data.categories.items()) - set(detector.categories.items()):
        raise ValueError(
            f"evaluate: expected data of the categories that the detector knows, {detector.categories}, got also "
            f"{dict(sorted(unknown))}"
        )
    with detector.counted() as cuts:
        results, seconds = _detect(detector, data, distributed, before_each)
    say_cuts(detector, cuts, distributed)
    config = with_max_dets(detector).eval
    _say_uncounted(detector, results, config)
    evaluation = compare(data, results, config)
    evaluation.metrics["seconds/image"] = seconds / max(len(data), 1)
    return evaluation


def with_max_dets(detector: Detector) -> Config:
    """The configuration of a detector, with ``eval.max_dets`` derived from its limit of detections if it is not set."""
    config, limit = detector.config, detector.max_detections
    if config.eval.max_dets is not None or limit is None:
        return config
    return replace(config, eval=replace(config.eval, max_dets=[*(n for n in (1, 10) if n < limit), limit]))


def _detect(
    detector: Detector, data: DataSet, distributed: bool, before_each: Callable[[], None] | None
) -> tuple[list[dict[str, Any]], float]:
    """-> results of all images in COCO's format, and the seconds that they took in all."""

    def detect(sample: Sample) -> tuple[list[dict[str, Any]], float]:
        if before_each is not None:
            before_each()
        began = time.perf_counter()
        (found,) = detector.detect([sample.image])
        results = coco_results(found, sample.size, sample.image_id, list(detector.categories))
        return results, time.perf_counter() - began

    every = on_each(detect, data, detector.config.data.invalid, distributed)
    return [result for results, _ in every for result in results], sum(seconds for _, seconds in every)


def say_cuts(detector: Detector, cuts: Cuts, distributed: bool) -> None:
    """Says once what the limits left out, in all processes together."""
    several = distributed and processes().num_processes > 1
    each: list[Cuts] = gather_object([cuts]) if several else [cuts]
    if not several or processes().is_main_process:
        total = Cuts(*(sum(getattr(part, field.name) for part in each) for field in fields(Cuts)))
        detector.say_cuts(total)


def _say_uncounted(detector: Detector, results: list[dict[str, Any]], config: EvalConfig) -> None:
    """Says once that ``eval.max_dets`` is lower than the number of detections."""
    per_image = Counter(result["image_id"] for result in results)
    most = max(config.max_dets or [sys.maxsize])
    beyond = [count - most for count in per_image.values() if count > most]
    if beyond and processes().is_main_process:
        detector.say(
            f"eval.max_dets leaves detections out of AP, {sum(beyond)} of {len(beyond)} images, for it ends with "
            f"{most}: --eval.max_dets null follows the model"
        )


def on_each(function: Callable[[Sample], Any], data: DataSet, invalid: str, distributed: bool) -> list[Any]:
    """What ``function`` makes of each sample that can be read; each process calls it on a share, all get all."""
    rank, world = (processes().process_index, processes().num_processes) if distributed else (0, 1)
    share = range(rank, len(data), world)

    def on_share() -> list[tuple[int, Any]]:
        return [(index, function(sample)) for index, sample in readable(data, invalid, share)]

    if world == 1:
        return [made for _, made in on_share()]
    every = sorted(gather_object(all_or_none(on_share)), key=lambda part: part[0])
    return [made for _, made in every]


def compare(data: DataSet, results: list[dict[str, Any]], config: EvalConfig) -> Evaluation:
    """Compares results in COCO's format with what is there; see :func:`evaluate`."""
    content, numbers = numbered(data.ground_truth())
    truth = COCO(content)
    compared = renumbered(results, numbers)
    metrics: dict[str, float] = {}
    precision = {}
    counts = _counts(results, config)
    for kind in KINDS:
        evaluation = _evaluate(truth, compared, kind, list(counts.values()), config.boundary)
        # precision: (IoU, recall, category, area, max_dets); recall: the same without the second
        found, recall = evaluation.eval["precision"], evaluation.eval["recall"]
        precision[kind] = found[..., 0, -1]
        metrics |= {f"{kind}/AP": _mean(found[..., 0, -1])}
        metrics |= {f"{kind}/AP50": _mean(found[0, ..., 0, -1]), f"{kind}/AP75": _mean(found[5, ..., 0, -1])}
        metrics |= {f"{kind}/AP{size}": _mean(found[..., area, -1]) for size, area in AREAS.items()}
        metrics |= {f"{kind}/AR{count}": _mean(recall[..., 0, n]) for n, count in enumerate(counts)}
        metrics |= {f"{kind}/AR{size}": _mean(recall[..., area, -1]) for size, area in AREAS.items() if size}
    metrics["boundary/dilation"] = config.boundary
    if len(data.categories) > 1:
        metrics |= {
            f"segm/AP/{data.categories[category]}": _mean(precision["segm"][..., n])
            for n, category in enumerate(sorted(data.categories))
        }
    matching = match(truth, compared, config.score_threshold)
    for name in ("precision", "recall", "F1", "PQ"):
        metrics |= {f"{name}/{each.iou}": getattr(each, name.lower()) for each in matching}
    metrics["instances"] = sum(not entry.get("iscrowd", 0) for entry in truth.anns.values())
    return Evaluation(metrics, results, precision, matching)


def numbered(truth: dict[str, Any]) -> tuple[dict[str, Any], dict[int | str, int]]:
    """A copy of a ground truth with integers for the images' ids, which may be text, and the integer of each id. COCO's
    evaluation programs know integers alone, and write into what they are given."""
    numbers = {image["id"]: n for n, image in enumerate(truth["images"], 1)}
    images = [{**image, "id": numbers[image["id"]]} for image in truth["images"]]
    annotations = [{**entry, "image_id": numbers[entry["image_id"]]} for entry in truth["annotations"]]
    return deepcopy({**truth, "images": images, "annotations": annotations}), numbers


def renumbered(results: list[dict[str, Any]], numbers: dict[int | str, int]) -> list[dict[str, Any]]:
    """Results with the integers of :func:`numbered` for the images' ids.

    Raises
    ------
    ValueError
        If a result is of an image that the ground truth does not hold.
    """
    if unknown := {result["image_id"] for result in results} - numbers.keys():
        raise ValueError(
            f"compare: expected results of the {len(numbers)} images of the data, got also results of "
            f"{', '.join(map(repr, list(unknown)[:5]))}"
        )
    return [{**result, "image_id": numbers[result["image_id"]]} for result in results]


def _counts(results: list[dict[str, Any]], config: EvalConfig) -> dict[str, int]:
    """Detections of an image that recall is measured with, by the names of the metrics."""
    if config.max_dets is not None:
        return {str(count): count for count in config.max_dets}
    most = max(Counter(result["image_id"] for result in results).values(), default=0)
    return {"1": 1, "10": 10, "all": max(most, 11)}


def _evaluate(
    truth: COCO, results: list[dict[str, Any]], kind: str, counts: list[int], boundary: float
) -> COCOeval_faster:
    # With both, a detection's size would be its box's, also when masks are compared.
    shape = "bbox" if kind == "bbox" else "segmentation"
    keys = ("image_id", "category_id", "score", shape)
    found = truth.loadRes([{key: deepcopy(result[key]) for key in keys} for result in results])  # it writes into them
    evaluation = COCOeval_faster(truth, found, kind, boundary_dilation_ratio=boundary)
    evaluation.params.maxDets = counts
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _mean(precision: np.ndarray) -> float:
    """COCO's mean: −1 stands for nothing to find."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0

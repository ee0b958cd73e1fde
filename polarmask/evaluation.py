"""Mask and box AP of a detector."""

import json
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor

from polarmask_ops import polygons_to_rle

from . import draw
from .config import DataConfig, Parser
from .data import DataSet, build_data
from .detector import Detector, load


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` finds."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]  # COCO's result format
    precision: dict[str, np.ndarray]  # of segm and bbox: (10 IoU thresholds 0.5 to 0.95, 101 recalls, categories)


def evaluate(detector: Detector, data: DataSet) -> Evaluation:
    """Runs a detector on every image and compares, as COCO does.

    The metrics are ``segm/AP``, ``segm/AP50``, ``segm/AP75``, the same for ``bbox``, ``segm/AP/NAME`` of each category
    where there are several (−1 for those without instances), ``instances`` (crowds left out) and ``seconds/image``.
    ``data`` is one of ``polarmask.data``: ``open_data(root, splits)``, ``Nuclei("test")``, ``Shapes(count)``.

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
    results: list[dict[str, Any]] = []
    seconds = 0.0
    for index in range(len(data)):
        sample = data[index]
        began = time.perf_counter()
        found = detector(sample.image)
        results += coco_results(found, sample.size, sample.image_id, list(detector.categories))
        seconds += time.perf_counter() - began
    truth = COCO(data.ground_truth(), use_deepcopy=True)  # the evaluation writes into it
    precision = {kind: _precision(truth, results, kind) for kind in ("segm", "bbox")}
    metrics: dict[str, float] = {}
    for kind, values in precision.items():
        metrics |= {f"{kind}/AP": _mean(values), f"{kind}/AP50": _mean(values[0]), f"{kind}/AP75": _mean(values[5])}
    if len(data.categories) > 1:
        metrics |= {
            f"segm/AP/{name}": _mean(precision["segm"][..., n]) for n, name in enumerate(data.categories.values())
        }
    metrics["instances"] = sum(not entry.get("iscrowd", 0) for entry in truth.anns.values())
    metrics["seconds/image"] = seconds / max(len(data), 1)
    return Evaluation(metrics, results, precision)


def coco_results(
    found: dict[str, Tensor], size: tuple[int, int], image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """The detections of an image of height and width ``size`` in COCO's result format."""
    masks = polygons_to_rle(found["polygons"], size).to_coco()
    rows = zip(masks, found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "score": score,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
        }
        for mask, (left, top, right, bottom), label, score in rows
    ]


def show(metrics: dict[str, float]) -> None:
    """Prints a line for each number."""
    for name, value in metrics.items():
        print(f"{name:>24}: {value:.4f}")


def _precision(truth: COCO, results: list[dict[str, Any]], kind: str) -> np.ndarray:
    evaluation = COCOeval_faster(truth, truth.loadRes(deepcopy(results)), kind)  # it writes into them
    evaluation.evaluate()
    evaluation.accumulate()
    every_area, most_detections = 0, -1
    return evaluation.eval["precision"][..., every_area, most_detections]


def _mean(precision: np.ndarray) -> float:
    """COCO's mean: −1 stands for nothing to find."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(description=__doc__, prog="python -m polarmask.evaluate")
    parser.add_argument("--weights", required=True, help="File that polarmask.train wrote.")
    parser.add_argument("--out", help="Folder for metrics.json, results.json (COCO) and precision_recall.png.")
    parser.add_class_arguments(DataConfig, "data")
    detector = load(parser.parse_args(args).weights)
    # what is not given is as it was in training
    parser.set_defaults({f"data.{name}": value for name, value in asdict(detector.config.data).items()})
    parsed = parser.instantiate(parser.parse_args(args))
    config = replace(detector.config, data=parsed.data)
    evaluation = evaluate(replace(detector, config=config), build_data(config.data, "test", config.seed))
    show(evaluation.metrics)
    if parsed.out is not None:
        out = Path(parsed.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "metrics.json").write_text(json.dumps(evaluation.metrics, indent=2) + "\n")
        (out / "results.json").write_text(json.dumps(evaluation.results))
        draw.precision_recall(evaluation.precision, out / "precision_recall.png")

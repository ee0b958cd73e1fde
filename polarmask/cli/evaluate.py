"""Mask, box and boundary AP of a detector, and one-to-one matching."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ..config import DataConfig, EvalConfig, Parser
from .metrics import show_metrics
from .options import add_limits, add_runtime, limited

TRAINING_ONLY = [  # options of the data that only training uses
    *(f"data.{name}" for name in ("parts", "min_area", "min_side", "keep_empty", "repeat", "train_heights", "crop")),
    *(f"data.{name}" for name in ("rotate", "scale", "flip", "jitter", "mosaic", "copy_paste", "photometric")),
    *(f"data.{name}" for name in ("group_by_aspect", "repeat_rare", "workers")),
]


def main(args: Sequence[str] | None = None) -> None:
    """Runs ``polarmask evaluate``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.
    """
    parser = build_parser()
    weights = parser.parse_args(args).weights
    from ..common.files import write_whole
    from ..common.runtime import device_of, mixed, on_main, processes
    from ..data import check_data, data_to_evaluate, mark_checked
    from ..evaluation import choose_thresholds, evaluate, with_thresholds
    from ..inference import draw
    from ..inference.detector import load

    kept = load(weights)
    for part in ("data", "eval"):  # options that are not given keep the values of the training
        values = asdict(getattr(kept.config, part))
        parser.set_defaults({f"{part}.{name}": value for name, value in values.items()})
    parsed = parser.instantiate(parser.parse_args(args))
    detector = limited(kept, parser, parsed)
    config = replace(detector.config, data=parsed.data, eval=parsed.eval)
    parser.check(config)
    asked = replace(detector, config=config)
    limit = config.model.max_detections
    if config.eval.max_dets is not None and limit is not None and "max_detections" not in parser.given:
        # Recall with more detections than the training's limit needs those detections.
        asked = asked.with_limits(max_detections=max(limit, *config.eval.max_dets))
    data = data_to_evaluate(config.data, config.seed)
    device = device_of(parsed.device)
    on_main(lambda: check_data(data, "test"))
    mark_checked(data)  # in the other processes, too
    asked.model.to(device)
    if parsed.out is not None:
        Path(parsed.out).mkdir(parents=True, exist_ok=True)  # fails now, not after the evaluation
    with mixed("evaluate", parsed.precision, device):
        if parsed.choose_thresholds:
            chosen = choose_thresholds(asked, data, distributed=True)
            asked = with_thresholds(asked, chosen.score, chosen.nms)
            if processes().is_main_process:
                with_thresholds(kept, chosen.score, chosen.nms).save(parsed.weights)
                print(f"kept in {parsed.weights}: score {chosen.score}, NMS {chosen.nms}, F1 {chosen.f1:.4f}")
        evaluation = evaluate(asked, data, distributed=True)
    if not processes().is_main_process:
        return
    show_metrics(evaluation.metrics)
    if parsed.out is not None:
        out = Path(parsed.out)
        write_whole(out / "metrics.json", (json.dumps(evaluation.metrics, indent=2) + "\n").encode())
        write_whole(out / "results.json", json.dumps(evaluation.results).encode())
        draw.precision_recall(evaluation.precision, out / "precision_recall.png")
        draw.matching(evaluation.matching, out / "matching.png")


def build_parser() -> Parser:
    """The options of ``polarmask evaluate``."""
    parser = Parser(description=__doc__, prog="polarmask evaluate")
    parser.add_argument("--weights", required=True, help="File that polarmask.train or polarmask.convert wrote.")
    parser.add_argument(
        "--out", help="Folder for metrics.json, results.json (COCO), precision_recall.png and matching.png."
    )
    parser.add_argument(
        "--choose_thresholds",
        type=bool,
        default=False,
        help="First choose score and NMS threshold by the best F1 on these data, and keep them in the weights' file.",
    )
    add_limits(parser)
    add_runtime(parser)
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(EvalConfig, "eval")
    parser.leave_out(TRAINING_ONLY)
    return parser

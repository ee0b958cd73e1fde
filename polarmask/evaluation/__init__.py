"""How detections are compared with what is annotated."""

from .coco import Evaluation, compare, evaluate
from .matching import Matching, match
from .thresholds import Thresholds, choose_thresholds, with_thresholds

__all__ = [
    "Evaluation",
    "Matching",
    "Thresholds",
    "choose_thresholds",
    "compare",
    "evaluate",
    "match",
    "with_thresholds",
]

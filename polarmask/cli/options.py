"""Options that several programs share."""

from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from ..config import Parser

if TYPE_CHECKING:
    from ..inference.detector import Detector


def add_runtime(parser: Parser) -> None:
    """Adds ``--device`` and ``--precision``."""
    parser.add_argument(
        "--device", type=str | None, help="Where the network runs, such as cuda:1. By default a GPU where there is one."
    )
    parser.add_argument(
        "--precision", type=Literal["no", "bf16", "fp16"], default="no", help="Mixed precision; no: float32."
    )


def add_limits(parser: Parser) -> None:
    """Adds ``--max_detections`` and ``--max_candidates``."""
    parser.add_argument(
        "--max_detections", type=int | None, help="Detections of an image; null: all. By default as with the weights."
    )
    parser.add_argument(
        "--max_candidates",
        type=int | None,
        help="How many of each level's points, the best by score, become candidates; null: all. By default as with the "
        "weights.",
    )


def limited(detector: "Detector", parser: Parser, parsed: Namespace) -> "Detector":
    """The detector with those limits that were given on the command line."""
    names = [name for name in ("max_detections", "max_candidates") if name in parser.given]
    return detector.with_limits(**{name: parsed[name] for name in names})

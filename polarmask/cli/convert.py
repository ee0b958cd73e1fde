"""Converts weights of the released PolarMask.

Example: ``polarmask convert released.pth ours.safetensors --config r50_caffe_1x``.

The released checkpoints are mmdetection's. Nothing is unpickled but tensors and plain containers.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ..config import Config, Parser, build_config, option_names


def main(args: Sequence[str] | None = None) -> None:
    """Runs ``polarmask convert``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.
    """
    parser = build_parser()
    parsed = parser.parse_args(args)
    config = build_config(parser, parsed)
    from ..model.released import convert

    categories = None
    if parsed.categories is not None:
        entries = json.loads(Path(parsed.categories).read_text())["categories"]
        categories = {entry["id"]: entry["name"] for entry in sorted(entries, key=lambda entry: entry["id"])}
    detector = convert(parsed.checkpoint, config, categories)
    detector.save(parsed.weights)
    print(f"{parsed.weights}: {sum(value.numel() for value in detector.model.parameters()):,} parameters")


def build_parser() -> Parser:
    """The options of ``polarmask convert``."""
    parser = Parser(description=__doc__, prog="polarmask convert")
    parser.add_argument("checkpoint", help="Released .pth.")
    parser.add_argument("weights", help="File to write, .safetensors.")
    parser.add_argument("--categories", help="COCO annotations with the classes' categories; by default COCO's 80.")
    parser.add_class_arguments(Config)
    parser.leave_out(name for name in option_names(Config()) if name.split(".")[0] not in ("model", "data", "eval"))
    return parser

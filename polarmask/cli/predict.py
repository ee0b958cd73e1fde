"""Instances of any images, drawn and written down."""

from collections.abc import Sequence
from dataclasses import replace

from ..config import Parser
from ..config.check import check_ranges
from .options import add_limits, add_runtime, limited


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``polarmask predict``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.

    Returns
    -------
    int
        0 if all images were predicted, 1 if some were, 2 if none was.
    """
    parser = build_parser()
    parsed = parser.parse_args(args)
    from ..common.runtime import device_of, mixed
    from ..inference.detector import load
    from ..inference.prediction import predict

    device = device_of(parsed.device)
    detector = limited(load(parsed.weights, device), parser, parsed)
    if parsed.channels is not None:
        config = replace(detector.config, data=replace(detector.config.data, channels=parsed.channels))
        check_ranges(config, ["data"])
        detector = replace(detector, config=config)
    with mixed("predict", parsed.precision, device):
        done = predict(
            detector,
            parsed.images,
            parsed.out,
            parsed.score,
            tile=parsed.tile,
            margin=parsed.margin,
            batch=parsed.batch,
            overwrite=parsed.overwrite,
        )
    count = done.images + len(done.failed)
    failed = f"; {len(done.failed)} failed and were left out" if done.failed else ""
    print(f"overlays, polygons, label images and COCO results: {parsed.out}")
    print(f"{done.images} of {count} images, {done.instances} instances{failed}")
    return 0 if not done.failed else 1 if done.images else 2


def build_parser() -> Parser:
    """The options of ``polarmask predict``."""
    parser = Parser(description=__doc__, prog="polarmask predict")
    parser.add_argument("--weights", required=True, help="File that polarmask.train or polarmask.convert wrote.")
    parser.add_argument("images", nargs="+", help="Image files, folders of them, or patterns.")
    parser.add_argument("--out", default="runs/predict", help="Folder for overlays, label images and COCO results.")
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Remove what an earlier run of other images left in the folder."
    )
    parser.add_argument(
        "--score",
        type=float | None,
        help="Lowest score in overlays, polygons and label images. By default the one that is kept with the weights.",
    )
    parser.add_argument(
        "--channels",
        type=list[int | str] | None,
        help="Up to three channels, or planes of a TIFF stack, that become red, green and blue, counted from 0 or by "
        "name. By default those of the training.",
    )
    add_limits(parser)
    parser.add_argument(
        "--tile",
        type=int | None,
        help="Images with longer sides, in pixels, are cut into tiles. By default 2048; none where images are resized.",
    )
    parser.add_argument("--margin", type=int, default=128, help="Pixels around a tile: half the largest object.")
    parser.add_argument("--batch", type=int, default=1, help="Images of one size that go through the network together.")
    add_runtime(parser)
    return parser

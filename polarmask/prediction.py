"""Instances of any images, drawn and written down."""

import json
from collections.abc import Sequence
from pathlib import Path

import tifffile
import torch

from polarmask_ops import polygons_to_labels

from . import draw
from .config import Parser
from .data.images import SUFFIXES, read_image
from .detector import Detector, load
from .evaluation import coco_results


def predict(detector: Detector, images: Sequence[str | Path], out: str | Path, score_threshold: float = 0.3) -> None:
    """Detects instances in image files and writes what was found.

    Writes into ``out``: ``overlays/NAME.png``; ``labels/NAME.tif``, int32, where pixels of detection n are n + 1 and
    better ones lie on top; ``results.json``, COCO's result format with all scores; ``images.json``, file names by image
    id. ``images`` are files, or folders of them. Overlays and label images hold detections with a score of at least
    ``score_threshold``.

    Raises
    ------
    ValueError
        If two images have the same name, up to the suffix.
    """
    paths, out = find_images(images), Path(out)
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError("predict: expected images of different names, got some twice: one would overwrite the other")
    results = []
    for folder in ("overlays", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for image_id, path in enumerate(paths, 1):
        image = read_image(path)
        size = (image.shape[1], image.shape[2])
        found = detector(image)
        results += coco_results(found, size, image_id, list(detector.categories))
        polygons = found["polygons"][found["scores"] >= score_threshold]
        labels = polygons_to_labels(polygons, size, order=torch.arange(len(polygons), device=polygons.device).flip(0))
        tifffile.imwrite(out / "labels" / f"{path.stem}.tif", labels.cpu().numpy())
        draw.detections(image, found, detector, score_threshold).save(out / "overlays" / f"{path.stem}.png")
    (out / "results.json").write_text(json.dumps(results))
    (out / "images.json").write_text(json.dumps({n: str(path) for n, path in enumerate(paths, 1)}, indent=2))


def find_images(names: Sequence[str | Path]) -> list[Path]:
    """The image files among names of files and folders, sorted within a folder."""
    paths: list[Path] = []
    for name in map(Path, names):
        found = sorted(path for path in name.iterdir() if path.suffix.lower() in SUFFIXES) if name.is_dir() else [name]
        if not found or not found[0].is_file():
            raise FileNotFoundError(
                f"predict: expected an image or a folder of images ({', '.join(sorted(SUFFIXES))}), got {name}"
            )
        paths += found
    return paths


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(description=__doc__, prog="python -m polarmask.predict")
    parser.add_argument("--weights", required=True, help="File that polarmask.train wrote.")
    parser.add_argument("images", nargs="+", help="Image files, or folders of them.")
    parser.add_argument("--out", default="runs/predict", help="Folder for overlays, label images and COCO results.")
    parser.add_argument("--score", type=float, default=0.3, help="Lowest score in overlays and label images.")
    parsed = parser.parse_args(args)
    predict(load(parsed.weights), parsed.images, parsed.out, parsed.score)
    print(f"overlays, label images and COCO results: {parsed.out}")

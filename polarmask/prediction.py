"""Instances of any images, drawn and written down."""

import glob
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor

from polarmask_ops import polygons_to_labels

from . import draw
from .config import Parser
from .data.images import SUFFIXES, TIFF, LargeTiff, read_image
from .detector import Detector, load
from .evaluation import coco_results
from .files import write_whole
from .runtime import add_runtime, device_of, mixed
from .tiles import detect_in_tiles, preview

LARGE = 2048  # pixels: images with a longer side are cut into tiles, and drawn smaller
TILE = 1024
ROWS = 256  # of a label image that are drawn at a time
CHUNK = 4096  # detections that become Python's lists and dicts at a time


def predict(
    detector: Detector,
    images: Sequence[str | Path],
    out: str | Path,
    score_threshold: float | None = None,
    *,
    tile: int | None = None,
    margin: int = 128,
    batch: int = 1,
) -> None:
    """Detects instances in image files and writes what was found.

    Writes into ``out``: ``overlays/NAME.png``; ``labels/NAME.tif``, int32 in compressed strips, where pixels of
    detection n are n + 1 and better ones lie on top; ``polygons/NAME.json``, the outlines with category and score;
    ``results.json``, COCO's result format with all scores; ``images.json``, file names by image id. All but the COCO
    results hold detections with a score of at least ``score_threshold``.

    Parameters
    ----------
    detector : Detector
    images : sequence of str or Path
        Files, folders of them, or patterns such as ``plate/*.tif``.
    out : str or Path
    score_threshold : float, optional
        By default that of the detector's configuration, ``eval.score_threshold``.
    tile, margin : int
        TIFFs larger than ``tile`` pixels a side go through the network in parts, see
        :func:`polarmask.tiles.detect_in_tiles`. By default those larger than 2048, unless the detector resizes images.
    batch : int
        Images of the same size, one after the other, that go through the network together.

    Raises
    ------
    FileNotFoundError
        If there is no such image.
    ValueError
        If two images have the same name, up to the suffix.
    """
    paths, out = find_images(images), Path(out)
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError("predict: expected images of different names, got some twice: one would overwrite the other")
    if score_threshold is None:
        score_threshold = detector.config.eval.score_threshold
    if tile is None and detector.config.data.resize is None:
        tile = LARGE
    for folder in ("overlays", "labels", "polygons"):
        (out / folder).mkdir(parents=True, exist_ok=True)

    def results() -> Iterator[dict[str, Any]]:
        for image_id, (path, image, found) in enumerate(_found(detector, paths, tile, margin, batch), 1):
            _write(detector, path.stem, image, found, out, score_threshold)
            for rows in _chunks(len(found["scores"])):
                part = {name: found[name][rows] for name in ("polygons", "boxes", "labels", "scores")}
                yield from coco_results(part, _size(image), image_id, list(detector.categories))

    write_whole(out / "results.json", _json(results()))
    (out / "images.json").write_text(json.dumps({n: str(path) for n, path in enumerate(paths, 1)}, indent=2))


def write_labels(path: Path, polygons: Tensor, size: tuple[int, int]) -> None:
    """Writes a label image, int32 TIFF, of which a strip at a time is drawn: where polygon n is on top, n + 1.

    Parameters
    ----------
    path : Path
    polygons : Tensor, shape (N, V, 2), float
        In pixels; the first one lies on top.
    size : (int, int)
        Height and width.
    """
    height, width = size
    polygons = polygons.cpu().double()  # so that moving them changes no coordinate
    low, high = polygons[..., 1].amin(1), polygons[..., 1].amax(1)

    def strips() -> Iterator[bytes]:
        for top in range(0, height, ROWS):
            rows = min(ROWS, height - top)
            which = torch.nonzero((low < top + rows) & (high > top))[:, 0]
            drawn = polygons_to_labels(
                polygons[which] - polygons.new_tensor([0, top]), (rows, width), order=torch.arange(len(which)).flip(0)
            )
            numbers = np.concatenate([[0], which.numpy() + 1]).astype("<i4")
            yield zlib.compress(numbers[drawn.numpy()], 1)

    tifffile.imwrite(
        path,
        strips(),
        shape=size,
        dtype="<i4",
        byteorder="<",
        compression="zlib",
        rowsperstrip=ROWS,
        photometric="minisblack",
    )


def find_images(names: Sequence[str | Path]) -> list[Path]:
    """The image files among names of files and folders and patterns, sorted within each."""
    paths: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            found = sorted(path for path in name.iterdir() if path.suffix.lower() in SUFFIXES)
        else:
            found = [name] if name.exists() else sorted(map(Path, glob.glob(str(name), recursive=True)))  # noqa: PTH207, patterns may be absolute
        if not found or not all(path.is_file() for path in found):
            raise FileNotFoundError(
                f"predict: expected an image or a folder of images ({', '.join(sorted(SUFFIXES))}), got {name}"
            )
        paths += found
    return paths


def _found(
    detector: Detector, paths: Sequence[Path], tile: int | None, margin: int, batch: int
) -> Iterator[tuple[Path, Tensor | LargeTiff, dict[str, Tensor]]]:
    """Each path with its image and detections."""
    channels = detector.config.data.channels
    waiting: list[tuple[Path, Tensor]] = []

    def together() -> Iterator[tuple[Path, Tensor, dict[str, Tensor]]]:
        results = detector.detect([image for _, image in waiting])
        yield from ((path, image, _on_cpu(found)) for (path, image), found in zip(waiting, results, strict=True))
        waiting.clear()

    for path in paths:
        if tile is not None and path.suffix.lower() in TIFF:
            large = LargeTiff(path, channels)
            if max(large.size) > tile:
                if waiting:
                    yield from together()
                yield path, large, _on_cpu(detect_in_tiles(detector, large, min(tile, TILE), margin))
                continue
        image = read_image(path, channels)
        if waiting and (len(waiting) == batch or waiting[0][1].shape != image.shape):
            yield from together()
        waiting.append((path, image))
    if waiting:
        yield from together()


def _on_cpu(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in found.items()}


def _write(
    detector: Detector,
    name: str,
    image: Tensor | LargeTiff,
    found: dict[str, Tensor],
    out: Path,
    score_threshold: float,
) -> None:
    """What belongs to one image."""
    size = _size(image)
    shown = found["scores"] >= score_threshold
    write_labels(out / "labels" / f"{name}.tif", found["polygons"][shown], size)
    write_whole(out / "polygons" / f"{name}.json", _json(_polygons(found, shown, detector)))
    small = image if isinstance(image, Tensor) else preview(image, LARGE)
    factor = small.shape[2] / size[1]
    drawn = {**found, "polygons": found["polygons"] * factor}
    draw.detections(small, drawn, detector, score_threshold).save(out / "overlays" / f"{name}.png")


def _size(image: Tensor | LargeTiff) -> tuple[int, int]:
    return image.size if isinstance(image, LargeTiff) else (image.shape[1], image.shape[2])


def _polygons(found: dict[str, Tensor], shown: Tensor, detector: Detector) -> Iterator[dict[str, Any]]:
    ids, names = list(detector.categories), list(detector.categories.values())
    columns = [found[name][shown] for name in ("labels", "scores", "polygons")]
    for rows in _chunks(len(columns[0])):
        for label, score, polygon in zip(*(column[rows].tolist() for column in columns), strict=True):
            yield {"category_id": ids[label], "category": names[label], "score": score, "polygon": polygon}


def _chunks(count: int) -> Iterator[slice]:
    return (slice(begin, begin + CHUNK) for begin in range(0, count, CHUNK))


def _json(entries: Iterable[Any]) -> Iterator[bytes]:
    """A list, entry by entry."""
    separator = b"["
    for entry in entries:
        yield separator + json.dumps(entry).encode()
        separator = b", "
    yield b"[]" if separator == b"[" else b"]"


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = Parser(description=__doc__, prog="python -m polarmask.predict")
    parser.add_argument("--weights", required=True, help="File that polarmask.train wrote.")
    parser.add_argument("images", nargs="+", help="Image files, folders of them, or patterns.")
    parser.add_argument("--out", default="runs/predict", help="Folder for overlays, label images and COCO results.")
    parser.add_argument(
        "--score",
        type=float | None,
        help="Lowest score in overlays, polygons and label images. By default the one that is kept with the weights.",
    )
    parser.add_argument(
        "--tile",
        type=int | None,
        help="TIFFs with longer sides, in pixels, are cut into tiles. By default 2048; none where images are resized.",
    )
    parser.add_argument("--margin", type=int, default=128, help="Pixels around a tile: half the largest object.")
    parser.add_argument("--batch", type=int, default=1, help="Images of one size that go through the network together.")
    add_runtime(parser)
    parsed = parser.parse_args(args)
    device = device_of(parsed.device)
    with mixed("predict", parsed.precision, device):
        predict(
            load(parsed.weights, device),
            parsed.images,
            parsed.out,
            parsed.score,
            tile=parsed.tile,
            margin=parsed.margin,
            batch=parsed.batch,
        )
    print(f"overlays, polygons, label images and COCO results: {parsed.out}")

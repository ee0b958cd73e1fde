"""Detects instances in image files, and writes and draws them."""

import glob
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from torch import Tensor

from polarmask_ops import polygons_to_labels

from ..common.files import remove_stale, write_whole, writing
from ..data.formats.files import list_images
from ..data.images import DARK, SUFFIXES, DataError, read_image
from ..data.images.pixels import Channels
from ..data.images.tiff import LargeTiff, is_tiff
from . import draw
from .detector import Detector
from .results import coco_results
from .tiles import Whole, Windowed, detect_in_tiles, preview

LARGE = 2048  # pixels: images with a longer side are cut into tiles, and drawn smaller
TILE = 1024
ROWS = 256  # rows of a label image that are drawn at a time
CHUNK = 4096  # detections that are converted to Python's lists and dicts at a time
OUTPUTS = {"overlays": ".png", "labels": ".tif", "polygons": ".json"}  # folders, and the suffix of the files in them
SHOWN = 3  # names in a warning

logger = logging.getLogger("polarmask.prediction")


class Input(NamedTuple):
    """An image to predict."""

    path: Path
    name: str  # of its outputs, with the image's sub-folders below the given folder


@dataclass
class Predicted:
    """What :func:`predict` did.

    Attributes
    ----------
    images : int
        Images whose outputs were written.
    instances : int
        Detections in them with at least the score threshold.
    failed : dict of Path to str
        The images that could not be predicted, and why.
    """

    images: int = 0
    instances: int = 0
    failed: dict[Path, str] = field(default_factory=dict)


def predict(
    detector: Detector,
    images: Sequence[str | Path] | str | Path,
    out: str | Path,
    score_threshold: float | None = None,
    *,
    tile: int | None = None,
    margin: int = 128,
    batch: int = 1,
    overwrite: bool = False,
) -> Predicted:
    """Detects instances in image files and writes what was found.

    Writes into ``out``: ``overlays/NAME.png``; ``labels/NAME.tif``, int32 in compressed strips, where pixels of
    detection n are n + 1 and better ones lie on top; ``polygons/NAME.json``, the outlines with category and score;
    ``results.json``, COCO's result format with all scores; ``images.json``, file names by image id. All but the COCO
    results hold detections with a score of at least ``score_threshold``. An image's own files are written as soon as it
    is done, each whole or not at all. An image that cannot be read is logged and left out.

    Parameters
    ----------
    detector : Detector
    images : path, or sequence of them
        Files, folders of them, or patterns such as ``plate/*.tif``. Folders are searched with their sub-folders, which
        NAME keeps. Where two images would have the same NAME, NAME begins with the folder that was given.
    out : str or Path
    score_threshold : float, optional
        By default that of the detector's configuration, ``eval.score_threshold``.
    tile, margin : int
        Images larger than ``tile`` pixels a side go through the network in parts, see
        :func:`polarmask.inference.tiles.detect_in_tiles`. By default those larger than 2048, unless the detector
        resizes images.
    batch : int
        Images of the same size, one after the other, that go through the network together.
    overwrite : bool
        Whether to remove the outputs of an earlier run in ``out`` that was about other images.

    Raises
    ------
    FileNotFoundError
        If there is no such image.
    FileExistsError
        If ``out`` holds outputs of other images, unless ``overwrite``.
    ValueError
        If two images have the same name, up to the suffix, or a number is out of its range.
    """
    _check_numbers(detector, score_threshold, tile, margin, batch)
    out = Path(out)
    inputs = find_inputs([images] if isinstance(images, str | Path) else images, out)
    if score_threshold is None:
        score_threshold = detector.config.eval.score_threshold
    if tile is None and detector.config.data.resize is None:
        tile = LARGE
    _clear(out, {each.name for each in inputs}, overwrite)
    done = Predicted()
    numbers = {each.path: number for number, each in enumerate(inputs, 1)}
    _write_paths(out, numbers)

    def results() -> Iterator[dict[str, Any]]:
        for each, image, found in _found(detector, inputs, tile, margin, batch, done.failed):
            done.instances += _write(detector, each.name, image, found, out, score_threshold)
            done.images += 1
            for rows in _chunks(len(found["scores"])):
                part = {name: found[name][rows] for name in ("polygons", "boxes", "labels", "scores")}
                yield from coco_results(part, _size(image), numbers[each.path], list(detector.categories))

    with detector.counted() as cuts:
        write_whole(out / "results.json", _json(results()))
    detector.say_cuts(cuts)
    _write_paths(out, {path: number for path, number in numbers.items() if path not in done.failed})
    for each in inputs:
        if each.path in done.failed:  # outputs of an earlier run
            for kind, suffix in OUTPUTS.items():
                (out / kind / f"{each.name}{suffix}").unlink(missing_ok=True)
    return done


def _write_paths(out: Path, numbers: dict[Path, int]) -> None:
    content = {number: str(path) for path, number in numbers.items()}
    write_whole(out / "images.json", json.dumps(content, indent=2).encode(errors="surrogateescape"))


def _check_numbers(
    detector: Detector, score_threshold: float | None, tile: int | None, margin: int, batch: int
) -> None:
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ValueError(f"predict: expected a score from 0 to 1, got {score_threshold}")
    if tile is not None and tile < 1:
        raise ValueError(f"predict: expected tile of at least 1, got {tile}")
    if tile is not None and detector.config.data.resize is not None:
        raise ValueError("predict: expected no tile: the detector resizes its images, and would resize tiles")
    if margin < 0 or batch < 1:
        raise ValueError(f"predict: expected margin of at least 0 and batch of at least 1, got {margin} and {batch}")


def _clear(out: Path, names: set[str], overwrite: bool) -> None:
    """Makes the folders; removes temporary files that a killed run left, and outputs of an earlier run.

    A folder in which predict wrote holds images.json: other files are not touched.
    """
    others = []
    for kind, suffix in OUTPUTS.items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for folder in [out / kind, *(path for path in (out / kind).rglob("*") if path.is_dir())]:
            remove_stale(folder)
        there = {path.relative_to(out / kind).as_posix(): path for path in sorted((out / kind).rglob(f"*{suffix}"))}
        if there and not (out / "images.json").exists():
            raise FileExistsError(
                f"predict: {out} holds {_some(list(there.values()))} that predict did not write: write elsewhere "
                "(--out)"
            )
        others += [path for name, path in there.items() if name.removesuffix(suffix) not in names]
    remove_stale(out)
    if others and not overwrite:
        raise FileExistsError(
            f"predict: {out} holds {_some(others)} of an earlier run of other images: write elsewhere (--out), or "
            "remove them (--overwrite true)"
        )
    for path in others:
        path.unlink()
    (out / "results.json").unlink(missing_ok=True)  # it would describe other images than the outputs


def write_labels(path: Path, polygons: Tensor, size: tuple[int, int]) -> None:
    """Writes a label image as int32 TIFF, strip by strip; pixels where polygon n is on top are n + 1.

    Parameters
    ----------
    path : Path
    polygons : Tensor, shape (N, V, 2), float
        In pixels; the first one lies on top.
    size : (int, int)
        Height and width.
    """
    height, width = size
    polygons = polygons.cpu().double()  # in double precision shifts change no coordinate
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

    with writing(path) as temporary:
        tifffile.imwrite(
            temporary,
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
    return [path for _, paths in _listed(names) for path in paths]


def find_inputs(names: Sequence[str | Path], out: Path) -> list[Input]:
    """:func:`find_images` with the names of their outputs; each file once, and none that ``predict`` wrote itself."""
    own = [(out / kind).absolute() for kind in OUTPUTS]
    found: dict[Path, tuple[Path, Path]] = {}  # by absolute path: the path, and the folder that was given
    for folder, paths in _listed(names):
        for path in paths:
            if not any(path.absolute().is_relative_to(each) for each in own):
                found.setdefault(path.absolute(), (path, folder))
    if not found:
        raise FileNotFoundError(f"predict: expected images, got {', '.join(map(str, names))}, where there are none")
    short = [path.relative_to(folder).with_suffix("").as_posix() for path, folder in found.values()]
    if len(set(short)) < len(short):
        short = [f"{folder.absolute().name}/{name}" for name, (_, folder) in zip(short, found.values(), strict=True)]
    inputs = [Input(path, name) for name, (path, _) in zip(short, found.values(), strict=True)]
    by_name: dict[str, Path] = {}
    for path, name in inputs:
        if (other := by_name.setdefault(name, path)) != path:
            raise ValueError(
                f"predict: expected images of different names, got {other} and {path}: one's outputs would overwrite "
                "the other's"
            )
    return inputs


def _listed(names: Sequence[str | Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders and image files in them, for each name of a file or a folder, and for each pattern."""
    left_out: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            listing = list_images(name)
            left_out += listing.left_out
            paths = {name: listing.images}
        else:
            files = [name] if name.exists() else sorted(map(Path, glob.glob(str(name), recursive=True)))  # noqa: PTH207, patterns may be absolute
            paths = {}
            for path in files:
                if path.is_file():
                    paths.setdefault(path.parent, []).append(path)
        if not name.exists() and not any(paths.values()):
            raise FileNotFoundError(f"predict: expected an image or a folder of images, got {name}: there is none")
        if not any(paths.values()):
            raise FileNotFoundError(
                f"predict: expected an image or a folder of images ({', '.join(sorted(SUFFIXES))}), got {name}"
            )
        yield from paths.items()
    if left_out:
        logger.warning("left out %s, which are of no format that is read here", _some(left_out))


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(map(str, paths[:SHOWN]))
    return f"{len(paths)} file{'s' * (len(paths) != 1)} ({names}{', …' * (len(paths) > SHOWN)})"


def _found(
    detector: Detector,
    inputs: Sequence[Input],
    tile: int | None,
    margin: int,
    batch: int,
    failed: dict[Path, str],
) -> Iterator[tuple[Input, Tensor | Windowed, dict[str, Tensor]]]:
    """Each image with its detections; what cannot be read or does not fit into memory is logged and put down."""
    waiting: list[tuple[Input, Tensor]] = []

    def fail(path: Path, error: Exception) -> None:
        failed[path] = str(error)
        logger.warning("%s", error if str(path) in str(error) else f"{path}: {error}")

    def together() -> Iterator[tuple[Input, Tensor, dict[str, Tensor]]]:
        images, waiting[:] = list(waiting), []
        try:
            results = detector.detect([image for _, image in images])
        except (MemoryError, RuntimeError) as error:
            for each, _ in images:
                fail(each.path, _of_memory(error))
        else:
            yield from ((each, image, _on_cpu(found)) for (each, image), found in zip(images, results, strict=True))

    for each in inputs:
        try:
            image = _opened(each.path, detector.config.data.channels, tile)
            if tile is not None and max(_size(image)) > tile:
                large = Whole(image) if isinstance(image, Tensor) else image
                found = _on_cpu(detect_in_tiles(detector, large, min(tile, TILE), margin))
            else:
                found = None
                _say_if_dark(detector, each.path, image)
        except (DataError, OSError) as error:
            fail(each.path, error)
            continue
        except (MemoryError, RuntimeError) as error:
            fail(each.path, _of_memory(error))
            continue
        if found is None:
            assert isinstance(image, Tensor)
            if waiting and (len(waiting) == batch or waiting[0][1].shape != image.shape):
                yield from together()
            waiting.append((each, image))
        else:
            if waiting:
                yield from together()
            yield each, large, found
    if waiting:
        yield from together()


def _opened(path: Path, channels: Channels | None, tile: int | None) -> Tensor | LargeTiff:
    """An image, or a TIFF that is larger than a tile, which is read in parts."""
    if tile is not None and is_tiff(path):
        large = LargeTiff(path, channels)
        if max(large.size) > tile:
            return large
    return read_image(path, channels)


def _say_if_dark(detector: Detector, path: Path, image: Tensor | Windowed) -> None:
    if isinstance(image, Tensor) and detector.config.data.percentiles is None and 0 < float(image.max()) <= DARK:
        detector.say(
            f"values use a small part of the range of their type, in {path} up to {float(image.max()):.2g} of it: the "
            "detector was trained without data.percentiles, so images must be as bright as those of its training"
        )


def _of_memory(error: Exception) -> Exception:
    """What to do where an image does not fit into memory; other errors are raised again."""
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "alloc" not in str(error):
        raise error
    return MemoryError(f"out of memory; lower --tile or --batch ({str(error).splitlines()[0] if str(error) else ''})")


def _on_cpu(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in found.items()}


def _write(
    detector: Detector,
    name: str,
    image: Tensor | Windowed,
    found: dict[str, Tensor],
    out: Path,
    score_threshold: float,
) -> int:
    """Writes what belongs to one image, and returns how many detections are shown."""
    size = _size(image)
    shown = found["scores"] >= score_threshold
    write_labels(out / "labels" / f"{name}.tif", found["polygons"][shown], size)
    write_whole(out / "polygons" / f"{name}.json", _json(_polygons(found, shown, detector)))
    small = preview(Whole(image) if isinstance(image, Tensor) else image, LARGE)
    factor = small.shape[2] / size[1]
    drawn = {**found, "polygons": found["polygons"] * factor}
    draw.save_picture(draw.detections(small, drawn, detector, score_threshold), out / "overlays" / f"{name}.png")
    return int(shown.sum())


def _size(image: Tensor | Windowed) -> tuple[int, int]:
    return (image.shape[1], image.shape[2]) if isinstance(image, Tensor) else image.size


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

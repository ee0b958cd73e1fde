"""The entries of COCO's JSON, normalised. Training, evaluation and audit see them in this form alone."""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from polarmask_ops import RLE

from ...config import DataConfig
from ..images import DataError
from ..instances import AnnotationError, Instances, Rings, checked_rings
from .files import logger

COCO_LIMIT = 1e6  # pixels: evaluation programs crash on larger coordinates


def integral(value: Any) -> int | None:
    """The integer that a value is, 1.0 included; None for text, booleans, fractions and all else."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() else None


def image_id(value: Any) -> int | str:
    """An image's id: an integer or text.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> image_id(1.0), image_id("1")
    (1, '1')
    """
    number = integral(value)
    if number is not None:
        return number
    if isinstance(value, str):
        return value
    raise ValueError(f"expected an image's id that is an integer or text, got {shown(value)}")


def image_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width as an image's entry states them; None where it states none.

    Raises
    ------
    ValueError
        If they are no positive integers.
    """
    given = entry.get("height"), entry.get("width")
    if None in given:
        return None
    height, width = map(integral, given)
    if height is None or width is None or min(height, width) < 1:
        raise ValueError(f"expected height and width that are positive integers, got {given[0]!r} and {given[1]!r}")
    return height, width


def categories(file: Path, found: list[Any], used: set[int | None]) -> dict[int, str]:
    """The categories' names by id, in the order of the ids.

    Parameters
    ----------
    file : Path
        Is named in errors.
    found : list
        The file's entries.
    used : set of int
        The ids of the categories that annotations have.

    Raises
    ------
    DataError
        If an entry has no integer id, or two have one id or one name.

    Notes
    -----
    Roboflow's exports begin with a category that no annotation has and that is the supercategory of all others. It is
    left out, and a warning says so.
    """
    entries = []
    for each in found:
        number = integral(each.get("id")) if isinstance(each, dict) else None
        name = each.get("name") if isinstance(each, dict) else None
        if number is None or not (name is None or isinstance(name, (str, int, float))):
            raise DataError(f"{file}: expected categories with an integer id and a name each, got {shown(each)}")
        entries.append((number, str(number) if name in (None, "") else str(name), each.get("supercategory")))
    if not entries:
        raise DataError(f"{file}: expected categories with an integer id each, got none")
    for number, name, above in entries:
        others = [each for each in entries if each[0] != number]
        is_root = above == "none" and number not in used and all(each[2] == name for each in others)
        if is_root and others:
            logger.warning("%s: category %d, %r, is the empty root of the others; left out", file, number, name)
            entries = others
            break
    names = {number: name for number, name, _ in sorted(entries, key=lambda entry: entry[0])}
    if len(names) < len(entries):
        got = reprlib.repr(sorted(number for number, _, _ in entries))
        raise DataError(f"{file}: expected categories of different ids, got {got}")
    if len(set(names.values())) < len(names):
        raise DataError(f"{file}: expected categories of different names, got {reprlib.repr(names)}")
    return names


def add_annotation(found: Instances, entry: dict[str, Any], labels: dict[int, int], config: DataConfig) -> None:
    """Appends an annotation to the instances of its image.

    Parameters
    ----------
    found : Instances
    entry : dict
    labels : dict of int to int
        By the category's id.
    config : DataConfig
        Its ``crowd`` and ``boxes``.

    Raises
    ------
    AnnotationError
        If it cannot be used.
    """
    label = _label(entry.get("category_id"), labels)
    crowd = _is_crowd(entry.get("iscrowd")) and config.crowd != "instance"
    id, box = entry.get("id", "without id"), _box(entry.get("bbox"))
    segmentation: Any = entry.get("segmentation")
    if _is_missing(segmentation):
        if box is None:
            got = f"{shown(segmentation)} and {shown(entry['bbox']) if entry.get('bbox') else 'no box'}"
            raise AnnotationError("no segmentation", f"expected a segmentation or a box with an area, got {got}")
        found.add_box(id, label, box, config.boxes, crowd)
        return
    shape = _shape(segmentation, found.size)
    n = len(found)
    found.add(id, label, shape, crowd)
    stated: dict[str, Any] = {}
    if box is not None:
        stated["bbox"] = box
    elif entry.get("bbox"):
        found.doubts.append((n, "box differs"))
    area = _number(entry.get("area"))
    if area is not None and area > 0:
        stated["area"] = entry["area"]
    elif entry.get("area"):
        found.doubts.append((n, "area unsound"))
    if isinstance(shape, RLE):
        stated["segmentation"] = {"size": list(shape.size), "counts": segmentation["counts"]}
    elif all(type(ring[0]) is not list for ring in segmentation) and max(map(_reach, shape)) < COCO_LIMIT:
        stated["segmentation"] = segmentation
    found.stated[n] = stated


def shown(value: Any) -> str:
    """A value as messages show it: no longer than a line."""
    text = reprlib.repr(value)
    return f"the text {text}" if isinstance(value, str) else text


def _label(category: Any, labels: dict[int, int]) -> int:
    number = integral(category)
    if number is None or number not in labels:
        raise AnnotationError(
            "unknown category", f"expected the number of a category of the file, got {shown(category)}"
        )
    return labels[number]


def _is_crowd(flag: Any) -> bool:
    if flag is None or isinstance(flag, bool):
        return bool(flag)
    number = integral(flag)
    if number not in (0, 1):
        raise AnnotationError("broken", f"expected iscrowd to be 0 or 1, got {shown(flag)}")
    return number == 1


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _box(given: Any) -> list[float] | None:
    """x, y, width and height, as given, where they are finite and the box has an area; else None."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    numbers = [_number(value) for value in given]
    if None in numbers or not (numbers[2] > 0 and numbers[3] > 0):  # type: ignore[operator]
        return None
    return given


def _reach(ring: np.ndarray) -> float:
    return max(float(ring.max()), -float(ring.min()))


def _is_missing(segmentation: Any) -> bool:
    """Returns true for a segmentation that holds nothing: null, an empty object, a list of empty polygons."""
    if isinstance(segmentation, list):
        return all(ring == [] for ring in segmentation)
    return segmentation is None or segmentation == {}


def _shape(segmentation: Any, size: tuple[int, int]) -> Rings | RLE:
    """Polygons, or a mask of that height and width."""
    if isinstance(segmentation, list):
        return _rings(segmentation)
    if not isinstance(segmentation, dict):
        raise AnnotationError("broken", f"expected polygons or a run-length encoded mask, got {shown(segmentation)}")
    stated, counts = segmentation.get("size"), segmentation.get("counts")
    sides = tuple(integral(side) for side in stated) if isinstance(stated, list) else None
    if sides is None or len(sides) != 2 or None in sides or not isinstance(counts, (str, list)):
        raise AnnotationError(
            "broken",
            f"expected a run-length encoded mask with size [height, width] and counts, got {shown(segmentation)}",
        )
    if sides != size:
        raise AnnotationError("wrong size", f"expected a mask of the image's size {size}, got {sides}")
    try:
        return RLE.from_coco([{"size": list(size), "counts": counts}])
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            "broken",
            f"expected a run-length encoded mask whose counts add up to {size[0]} · {size[1]}, got {shown(counts)}",
        ) from error


def _rings(segmentation: list[Any]) -> Rings:
    expected = "expected a list of polygons of at least three vertices (x1, y1, x2, y2, …)"
    if not all(isinstance(ring, list) for ring in segmentation):
        raise AnnotationError("broken", f"{expected}, got {shown(segmentation)}")
    if len(segmentation) > 2 and all(len(ring) == 2 for ring in segmentation):
        raise AnnotationError("broken", f"{expected}, got a list of points, {shown(segmentation)}")
    return checked_rings(segmentation)

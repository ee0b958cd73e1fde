"""What a careful reader finds in YOLO's segmentation format; see ``slow.py``."""

import codecs
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .made import MadeSet
from .slow import BAD, OTHER_SUFFIXES, SUFFIXES, UNCLEAR, Reading, Seen, areas_of_rings, is_visible, look, split_of

MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
A_LITTLE = 1.0  # shares: polygons that reach farther out of the image are no shares of it


def read_yolo(made: MadeSet, part: str) -> Reading:
    reading = Reading()
    try:
        raw = (made.folder / "data.yaml").read_bytes()
        content = yaml.safe_load(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return reading.spoil(UNCLEAR if raw[:2] in MARKS else BAD, "encoding of data.yaml")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        return reading.spoil(BAD, f"data.yaml: {type(error).__name__}")
    if not isinstance(content, dict):
        return reading.spoil(BAD, "data.yaml is no mapping")
    classes = _classes(content.get("names"), content.get("nc"), reading)
    if "nc" in content and content["nc"] != len(classes):
        reading.spoil(UNCLEAR, f"nc {content['nc']!r}")
    images = _images(made, content, split_of(made, part), reading)
    if reading.status == BAD:
        return reading
    used: set[Path] = set()
    for path in images:
        seen = look(path, made.options)
        reading.images.append(seen)
        label = _label_file(path)
        if label.with_suffix(".TXT").exists() and not label.exists():
            label = label.with_suffix(".TXT")
            seen.spoil(UNCLEAR, f"{label.name} in upper case")
        used.add(label)
        if label.is_dir():
            seen.spoil(BAD, f"{label.name} is a folder")
        elif label.exists():
            _read_lines(label, classes, seen, made.options)
        elif label.is_symlink():
            seen.spoil(UNCLEAR, "a broken link to labels")
    labels = made.notes.get(split_of(made, part))
    listed = made.format == "yolo lists"
    pictures = {path.stem for path in made.pictures(split_of(made, part))} if listed else set()  # listed or not
    for path in labels.rglob("*.txt") if labels else []:
        if path not in used and path.stem not in pictures and is_visible(path, labels) and path.stat().st_size:
            reading.say.append(f"{path.name} is of no image")
    return reading


def _classes(names: Any, count: Any, reading: Reading) -> set[int]:
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if named is None and type(count) is int and 0 < count < 1000:
        reading.spoil(UNCLEAR, "a number of classes without their names")
        return set(range(count))
    if not isinstance(named, dict) or not named:
        reading.spoil(BAD, "names")
        return set()
    if not all(type(number) is int and number >= 0 for number in named):
        reading.spoil(UNCLEAR if all(str(number).isdigit() for number in named) else BAD, "numbers of names")
    if not all(isinstance(name, str) and name.strip() for name in named.values()):
        reading.spoil(UNCLEAR, "names that are no text")
    if len({str(name) for name in named.values()}) < len(named):
        reading.spoil(UNCLEAR, "one name twice")
    return {int(number) for number in named if str(number).isdigit()}


def _images(made: MadeSet, content: dict[str, Any], split: str, reading: Reading) -> list[Path]:
    given = content.get(split)
    base = content.get("path", ".")
    if base is None or base == "":
        base = "."
    if not isinstance(base, str):
        reading.spoil(BAD, "path")
        return []
    images: list[Path] = []
    places = given if isinstance(given, list) else [given]
    if not places:
        reading.spoil(BAD, f"no {split}")
    for name in places:
        if not isinstance(name, str) or not name:
            reading.spoil(BAD, f"{split}: {given!r}")
            return []
        place = made.folder / base / name
        if not place.exists():
            guesses = [
                made.folder / guess for guess in (name, name.removeprefix("../"), name.strip().replace("\\", "/"))
            ]
            place = next((guess for guess in guesses if guess.exists()), place)
            reading.spoil(UNCLEAR if place.exists() else BAD, f"{split}: {name!r} with path {base!r}")
        if base not in (".", "./") or ".." in name or isinstance(given, list):
            reading.spoil(UNCLEAR, f"path {base!r}")
        if place.is_dir():
            files = [path for path in sorted(place.rglob("*")) if is_visible(path, place)]
            images += [path for path in files if path.suffix.lower() in SUFFIXES]
            if any(path.suffix.lower() in OTHER_SUFFIXES for path in files):
                reading.say.append("images of another format")
        elif place.is_file() and place.suffix == ".txt":
            images += _listed(place, made.folder / base, reading)
        else:
            reading.spoil(BAD, f"{place} is neither a folder nor a list")
    if not images:
        reading.spoil(BAD, f"no images in {split}")
    return images


def _listed(file: Path, base: Path, reading: Reading) -> list[Path]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        reading.spoil(BAD, f"encoding of {file.name}")
        return []
    found = []
    for line in map(str.strip, lines):
        if not line:
            continue
        if line.startswith("#"):
            reading.spoil(UNCLEAR, "a remark in a list")
            continue
        given = Path(line.replace("\\", "/"))
        places = [given] if given.is_absolute() else [file.parent / given, base / given]
        path = next((place for place in places if place.is_file()), places[0])
        if "\\" in line or ".." in given.parts or line[0] in "\"'":
            reading.spoil(UNCLEAR, f"listed as {line!r}")
        if path.suffix.lower() not in SUFFIXES:
            reading.images.append(Seen(path, BAD, f"listed as {line!r}"))
        else:
            found.append(path)
    return found


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_lines(label: Path, classes: set[int], seen: Seen, options: dict[str, Any]) -> None:
    content = label.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        seen.spoil(UNCLEAR if content[:2] in MARKS else BAD, f"encoding of {label.name}")
        seen.unclear += content.count(b"\n")
        return
    for line in text.splitlines():
        if not line.strip():
            continue
        if seen.status == BAD:
            seen.bad += 1
            continue
        _read_line(line.split(), classes, seen, options)


def _read_line(words: list[str], classes: set[int], seen: Seen, options: dict[str, Any]) -> None:
    try:
        number = float(words[0])
        coordinates = np.array([float(word) for word in words[1:]])
    except ValueError:
        seen.bad += 1
        return
    if not np.isfinite(number) or number != int(number) or int(number) not in classes:
        seen.bad += 1
        return
    if not np.isfinite(coordinates).all() or len(coordinates) % 2 or len(coordinates) < 4:
        seen.bad += 1
        return
    if len(coordinates) == 4:
        boxes = options.get("boxes", "error")
        if boxes != "rectangle":
            seen.bad += boxes == "error"
            seen.crowds += boxes == "ignore"
            return
        x, y, width, height = coordinates
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        coordinates = np.array([left, top, right, top, right, bottom, left, bottom])
    if coordinates.min() < -A_LITTLE or coordinates.max() > 1 + A_LITTLE:
        seen.bad += 1
        return
    areas = areas_of_rings([coordinates.reshape(-1, 2) * seen.size[::-1]], seen.size, "all")
    out = coordinates.min() < -0.001 or coordinates.max() > 1.001
    if out or not re.fullmatch(r"0|[1-9][0-9]*", words[0]):
        seen.unclear += 1
    else:
        seen.add(areas)

"""Where a YOLO data set keeps its files: what its data.yaml and its lists of images say, on whatever machine."""

import os
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from ..images import DataError
from .files import list_images, read_text

NAMES = ("data.yaml", "data.yml", "dataset.yaml")
OTHER = {"classes.txt", "notes.txt", "labels.txt"}  # what annotation tools write beside the labels


@dataclass
class Found:
    """The images of a split.

    Attributes
    ----------
    images : list of Path
        They may be missing where a list names them.
    folders : list of Path
        Those that were searched as a whole, not by a list.
    left_out : list of Path
        Of formats that are not read.
    moved : list of str
        Sentences on files that lie elsewhere than data.yaml states.
    """

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)


def yaml_file(root: Path) -> Path:
    """The YAML file that a root is or holds."""
    if root.is_file():
        return root
    return next((root / name for name in NAMES if (root / name).is_file()), root / NAMES[0])


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises DataError."""
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def class_names(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """The classes by number, rising; raises DataError where ``names`` are no such, or ``nc`` is another number."""
    names, count = content.get("names"), content.get("nc")
    if count is not None:
        try:
            count = int(count)
        except (TypeError, ValueError) as error:
            raise DataError(f"{file}: expected nc to be a number, got {reprlib.repr(count)}") from error
        if names is None and 0 < count < 10**6:
            names = [f"class_{n}" for n in range(count)]
    named = dict(enumerate(names)) if isinstance(names, list) else names
    numbered: dict[int, str] = {}
    for number, name in named.items() if isinstance(named, dict) else ():
        if isinstance(number, str) and number.strip().isdecimal():
            number = int(number)
        if type(number) is not int or number < 0 or number in numbered or not isinstance(name, str | int | float):
            numbered = {}
            break
        numbered[number] = str(name)
    if not numbered:
        # Its repr is not shown in full: YAML's aliases can make a small file arbitrarily long.
        raise DataError(f"{file}: expected names of classes, a list or by number, got {reprlib.repr(names)}")
    if count is not None and count != len(numbered):
        raise DataError(f"{file}: expected nc and names to agree, got nc {count} and {len(numbered)} names")
    return dict(sorted(numbered.items()))


def find_images(file: Path, content: dict[str, Any], split: str) -> Found:
    """The images of a split: those of a folder and all folders in it, those that a text file lists, or of several.

    ``path`` is what they are relative to. Where they are not there, they are looked for beside the YAML file, and in
    ``path`` as seen from the working directory.

    Raises
    ------
    DataError
        If there is no such folder or list, no image in it, or a list leads out of the data set.
    """
    path, given = content.get("path") or ".", content.get(split)
    if not isinstance(path, str | int):
        raise DataError(f"{file}: expected path to be a folder, got {reprlib.repr(path)}")
    entries = [entry for entry in (given if isinstance(given, list) else [given]) if isinstance(entry, str) and entry]
    if not entries or len(entries) < (len(given) if isinstance(given, list) else 1):
        raise DataError(f"{file}: expected {split} to be a folder or a list of folders, got {reprlib.repr(given)}")
    bases = [file.parent / each for each in _spellings(os.path.expanduser(str(path)))]  # noqa: PTH111, also of no user
    bases += [file.parent, *(Path.cwd() / each for each in _spellings(str(path)))]
    places: list[Path] = []
    for base in bases:
        found = [_place(base, entry) for entry in entries]
        places = [place for place in found if place is not None]
        if len(places) == len(entries):
            break
    else:
        tried = ", ".join(dict.fromkeys(os.path.normpath(base) for base in bases))
        raise DataError(
            f"{file}: expected {split} to be a folder or a .txt file, got {reprlib.repr(given)}, which is not there; "
            f"looked in {tried}"
        )
    result = Found()
    if base != bases[0]:
        result.moved.append(f"{file}: path {str(path)!r:.200} is not there, {os.path.normpath(base)} is taken")
    for place in places:
        if place.is_dir():
            listing = list_images(place)
            result.images += listing.images
            result.folders.append(place)
            result.left_out += listing.left_out
        else:
            _read_list(place, [place.parent, base, file.parent], result)
    if not result.images:
        raise DataError(f"{file}: expected images of {split} in {', '.join(map(str, places))}, found none")
    return result


def label_file(image: Path) -> Path:
    """The last folder called images becomes labels; without one the file lies beside the image."""
    parts = list(image.parts)
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == "images":
            parts[n] = "labels"
            break
    path = Path(*parts).with_suffix(".txt")
    upper = path.with_suffix(".TXT")
    return upper if upper.exists() and not path.exists() else path


def left_over_labels(found: Found) -> Iterator[Path]:
    """Files with labels, beside those of the images, in the folders that hold the labels of whole folders of images."""
    known = {label_file(image) for image in found.images}
    for folder in dict.fromkeys(found.folders):
        labels = label_file(folder / "image.png").parent
        if labels != folder:  # beside the images lie other texts too, such as classes.txt
            files = list_images(labels, {".txt"}).images if labels.is_dir() else []
            yield from (path for path in files if path not in known and path.name not in OTHER and path.stat().st_size)


def _place(base: Path, entry: str) -> Path | None:
    """The folder or list of images that an entry names, or None."""
    spellings = _spellings(entry)
    # An export writes ../train/images for a folder beside its data.yaml.
    spellings += [each.removeprefix("../") for each in spellings if each.startswith("../")]
    tails = _tails(entry) if _is_absolute(entry) else ()
    for path in (*(base / each for each in spellings), *(base / each for each in tails)):
        if path.is_dir() or (path.suffix.lower() == ".txt" and path.is_file()):
            return path
    return None


def _read_list(file: Path, roots: Sequence[Path], found: Found) -> None:
    """Adds the images that a text file names, a path a line: absolute, or relative to one of the roots."""
    folders = list(dict.fromkeys(Path(os.path.normpath(root)) for root in roots))
    for text in read_text(file).splitlines():
        line = text.strip().strip("\"'")
        if line and not line.startswith("#"):
            path = _listed(file, line, folders)
            if _is_absolute(line) and path != Path(line):
                found.moved.append(f"{file}: {line:.200} is not there, {path} is taken")
            found.images.append(path)


def _listed(file: Path, line: str, folders: Sequence[Path]) -> Path:
    """The file that a line names, or where it should be."""
    if _is_absolute(line):
        below = (folder / tail for tail in _tails(line) for folder in folders)
        return next((path for path in (Path(line), *below) if _is_file(path)), Path(line))
    paths = [Path(os.path.normpath(folder / each)) for each in _spellings(line) for folder in folders]
    paths = [path for path in paths if any(path.is_relative_to(folder) for folder in folders)]
    if not paths:
        raise DataError(f"{file}: expected the name of a file in this folder, got {line!r:.200}")
    return next((path for path in paths if _is_file(path)), paths[0])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name that is too long, for example
        raise DataError(f"{str(path)[:200]}…: expected an image file: {error.strerror}") from error


def _spellings(name: str) -> list[str]:
    """A name as it is, and with Windows' separators exchanged."""
    return list(dict.fromkeys([name, name.replace("\\", "/")]))


def _is_absolute(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _tails(name: str) -> Iterator[str]:
    """What an absolute path of another machine may be called below a folder of this one, longest first."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return ("/".join(parts[n:]) for n in range(1, len(parts)) if ".." not in parts)

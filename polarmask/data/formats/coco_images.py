"""Where the images lie that COCO's JSON names."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..images import DataError, inside

MOST_FILES = 500_000  # the limit of a search below a folder


def annotation_file(root: Path, split: str) -> Path:
    """Where a folder has the annotations of a split; the first name where it has none."""
    places = [f"annotations/instances_{split}.json", f"{split}/_annotations.coco.json"]
    if split != ".":
        places += [f"annotations/{split}.json", f"instances_{split}.json", f"{split}.json"]
    found = (root / place for place in places if (root / place).is_file())
    return next(found, root / places[0])


def image_folders(file: Path) -> list[Path]:
    """The folders where the images of an annotation file may lie, the likeliest first."""
    split = file.stem.removeprefix("instances_")
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    places = [root / split, root / "images" / split, root / "images", root, file.parent]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


class ImageFinder:
    """Finds files by the names that annotations have for them.

    A name is looked for, in this order,

    1. as it stands, in each of the folders; an absolute path must lie below one of them;
    2. with its percent signs decoded, in each of the folders;
    3. in the first folder, without the folders that it begins with, one after the other;
    4. by its last part, anywhere below the first folder.

    The last two are for names that cannot be mistaken: the file must be the only one, and no other name of the
    annotations may end in the same way.

    Parameters
    ----------
    folders : list of Path
    names : callable
        Gives all names of the annotations; called at most once.
    """

    def __init__(self, folders: list[Path], names: Callable[[], Iterable[Any]]) -> None:
        self.folders, self.names = folders, names

    def find(self, name: Any) -> Path:
        """The file of an image.

        Raises
        ------
        DataError
            If the name leads out of the folders, or nothing is found. The message names the places tried.
        """
        if isinstance(name, str) and Path(name).is_absolute():
            return self._below(name)
        tried = [inside(folder, name) for folder in self.folders]
        if unquote(name) != name:
            tried += [inside(folder, unquote(name)) for folder in self.folders]
        for path in tried:
            if path.exists() or path.is_symlink():
                return path
        parts = _posix(name).parts
        for n in range(1, len(parts)):
            tried.append(self.folders[0].joinpath(*parts[n:]))
            if tried[-1].is_file() and self._is_only(PurePosixPath(*parts[n:])):
                return tried[-1]
        places = self._files.get(_normal(parts[-1]), [])
        if len(places) == 1 and self._is_only(PurePosixPath(parts[-1])):
            return places[0]
        where = ", ".join(map(str, dict.fromkeys(tried)))
        several = f" ({len(places)} files of this name lie there)" if len(places) > 1 else ""
        raise DataError(
            f"{tried[0]}: expected an image file, found none; tried {where} and the name's last part below "
            f"{self.folders[0]}{several}; data.images sets the folder"
        )

    def _below(self, name: str) -> Path:
        for folder in self.folders:
            path, whole = Path(name), folder.absolute()
            for base in (whole, whole.resolve()):
                if path.is_relative_to(base) and ".." not in path.parts and "\0" not in name:
                    return path
        raise DataError(
            f"{self.folders[0]}: expected the name of a file in this folder, got {name!r:.200}, which lies elsewhere; "
            f"data.images sets the folder"
        )

    def _is_only(self, end: PurePosixPath) -> bool:
        """Returns true if at most one of the annotations' names ends like this."""
        alike = self._names.get(_normal(end.name), set())
        return sum(name.parts[-len(end.parts) :] == end.parts for name in alike) < 2

    @cached_property
    def _names(self) -> dict[str, set[PurePosixPath]]:
        """The annotations' names, grouped by their last part."""
        names: defaultdict[str, set[PurePosixPath]] = defaultdict(set)
        for name in self.names():
            if isinstance(name, str) and name:
                path = _posix(name)
                names[_normal(path.name)].add(path)
        return names

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """Files below the first folder by their last part; none where they are too many to search."""
        files: defaultdict[str, list[Path]] = defaultdict(list)
        count = 0
        for place, folders, found in os.walk(self.folders[0]):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            count += len(found)
            if count > MOST_FILES:
                return {}
            for name in found:
                files[_normal(name)].append(Path(place, name))
        return files


def _posix(name: str) -> PurePosixPath:
    return PurePosixPath(unquote(name.replace("\\", "/")))


def _normal(name: str) -> str:
    """One form for letters with accents, which systems write in different ways."""
    return unicodedata.normalize("NFC", name)

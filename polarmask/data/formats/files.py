"""The base class of data sets in files, and functions that list and read files."""

import codecs
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...config import DataConfig
from ..images import SUFFIXES, DataError, image_size, read_image
from ..images.pixels import PixelsError
from ..instances import Instances
from ..problems import ERRORS
from ..sample import Sample
from ..truth import annotation_entries, assembled, image_entry

logger = logging.getLogger("polarmask.data")

# Suffixes of files that often lie beside images: annotations, notes, archives, caches of other programs.
NO_PICTURES = {
    *(".txt", ".json", ".yaml", ".yml", ".xml", ".csv", ".tsv", ".md", ".rst", ".html", ".log", ".pdf", ".cache"),
    *(".py", ".ipynb", ".sh", ".zip", ".tar", ".gz", ".zst", ".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors"),
}
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}  # of Windows, macOS and network drives


class Files(ABC):
    """Images and annotations in files.

    A format says which images there are and what is annotated in each; it is found by its path with
    :func:`polarmask.data.open_data`.

    Parameters
    ----------
    config : DataConfig
        Its ``channels``, ``parts``, ``invalid`` and ``crowd``.
    """

    format: str
    categories: dict[int, str]  # names by the id that results are written with; labels count them from 0

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.checked = False  # whether check_data has said what is left out

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """The file of an image; raises DataError where its name leads out of the folder."""

    @abstractmethod
    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """The annotated instances of an image of that height and width; raises DataError if they cannot be read."""

    def image_id(self, index: int) -> int | str:
        """The image's id in results and in the ground truth."""
        return index + 1

    def name(self, index: int) -> str:
        """The image's name in messages and in the ground truth."""
        return self.path(index).name

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image, without its pixels."""
        return image_size(self.path(index))

    @property
    def where(self) -> Path:
        """The file or folder that messages about the whole data set name."""
        return self.path(0).parent if len(self) else Path(self.config.root)

    def sources(self, index: int) -> list[Path]:
        """The files that hold the annotations of this image alone; they may be missing."""
        return []

    def problems(self) -> Iterator[tuple[str, str]]:
        """Problems of the data set as a whole: for each its kind, and a sentence that names the place."""
        return iter(())

    def remarks(self, index: int, found: Instances) -> Iterator[tuple[str, str]]:
        """Doubts about the instances of an image that can be used all the same, in the form of :meth:`problems`."""
        return iter(())

    def __getitem__(self, index: int) -> Sample:
        """An image and its instances.

        Raises
        ------
        DataError
            If the image or an annotation of it cannot be read. With ``invalid="skip"`` annotations are left out and
            logged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__}: expected an index below {len(self)}, got {index}")
        path = self.path(index)
        image = self._read(path)
        found = self.instances(index, (image.shape[1], image.shape[2]))
        self._leave_out(index, found)
        outlines, owner = found.outlines(self.config.parts)
        crowd = torch.tensor(found.crowd, dtype=torch.bool)[owner]
        sample = Sample(
            image=image,
            outlines=outlines,
            labels=torch.tensor(found.labels, dtype=torch.int64)[owner],
            ignore=crowd,
            image_id=self.image_id(index),
        )
        if self.config.crowd == "background":
            ignored = torch.tensor([n in found.ignored for n in range(len(found))], dtype=torch.bool)[owner]
            return sample.select(~crowd | ignored)
        return sample

    def _read(self, path: Path) -> Tensor:
        try:
            return read_image(path, self.config.channels)
        except DataError as error:
            image_size(path)  # raises where check_data has found the same
            raise PixelsError(str(error)) from error

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """Images, annotations and categories as COCO's JSON holds them, instances with all of their parts; of all
        images or of some.

        Raises
        ------
        DataError
            If something cannot be read. With ``invalid="skip"`` it is left out.
        """
        for kind, where in self.problems():
            if kind in ERRORS and self.config.invalid == "raise":
                raise DataError(f"{ERRORS[kind]}: {where}")
        chosen = range(len(self)) if indices is None else indices
        return assembled(self._truth(chosen), self.categories)

    def _truth(self, indices: Sequence[int]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        for index in indices:
            try:
                size = self.size(index)
                found = self.instances(index, size)
                self._leave_out(index, found)
                image = image_entry(self.image_id(index), size, self.name(index))
            except DataError:
                if self.config.invalid == "raise":
                    raise
                continue
            yield image, annotation_entries(found, list(self.categories))

    def _leave_out(self, index: int, found: Instances) -> None:
        """Raises a DataError for the first annotation that cannot be used, or logs each, as ``data.invalid`` says."""
        for annotation, problem in found.problems:
            message = f"{self.path(index)}: annotation {annotation}: {problem}"
            if self.config.invalid == "raise":
                raise DataError(message)
            logger.log(logging.DEBUG if self.checked else logging.WARNING, "%s; left out", message)

    def fingerprint(self) -> dict[str, Any]:
        """Numbers and digests that change with the images' names, the annotations and the categories; wherever the
        files lie."""
        names, annotations = hashlib.sha256(), hashlib.sha256()
        for index in range(len(self)):
            names.update(self.name(index).encode(errors="surrogateescape") + b"\0")
            for path in self.sources(index):
                content = path.read_bytes() if path.is_file() else b""
                annotations.update(len(content).to_bytes(8, "big") + content)
        return {
            "format": self.format,
            "images": len(self),
            "categories": {str(number): name for number, name in self.categories.items()},
            "names": names.hexdigest(),
            "annotations": annotations.hexdigest(),
        }


class Listing(NamedTuple):
    """What :func:`list_images` finds."""

    images: list[Path]
    left_out: list[Path]  # files that seem to be pictures, of a format that is not read


def list_images(folder: Path, suffixes: Collection[str] = SUFFIXES, depth: int | None = None) -> Listing:
    """The image files of a folder and of all folders in it, in the order of their names.

    Hidden files and folders (``._a.png``, ``.git``) and those that systems write (``Thumbs.db``, ``__MACOSX``) are
    passed over. Links to folders are followed, each folder once.

    Parameters
    ----------
    folder : Path
    suffixes : collection of str
        In lower case. By default those of images.
    depth : int, optional
        How many folders deep it looks; by default in all of them.

    Returns
    -------
    Listing
        ``images``, whose suffix is one of ``suffixes`` in lower or upper case, and ``left_out``: other files, but not
        those that are known to be no pictures, such as ``.txt`` and ``.json``.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    found = Listing([], [])
    seen = {os.path.realpath(folder)}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: expected a folder that can be read: {error.strerror}") from error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = {os.path.realpath(Path(place, name)): name for name in sorted(folders, reverse=True) if _is_shown(name)}
        level = len(Path(place).relative_to(folder).parts)
        folders[:] = [real[path] for path in sorted(set(real) - seen)] if level != depth else []
        seen |= set(real)
        for path in (Path(place, name) for name in files if _is_shown(name)):
            suffix = path.suffix.lower()
            if suffix in suffixes:
                found.images.append(path)
            elif suffix not in NO_PICTURES:
                found.left_out.append(path)
    found.images.sort()
    found.left_out.sort()
    return found


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM_FILES


def not_read(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """The problems of files that :func:`list_images` leaves out."""
    return (("not read", f"{path}: a format that is not read ({', '.join(sorted(SUFFIXES))} are)") for path in paths)


def read_text(path: Path) -> str:
    """A text file in UTF-8, or UTF-16 where it begins with a byte order mark; raises DataError."""
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error!s:.200}") from error


def log_left_out(data: object, error: DataError, text: str) -> None:
    """Warns of what is left out of a data set, unless ``check_data`` has said so.

    Parameters
    ----------
    data : DataSet
    error : DataError
        Why it is left out.
    text : str
        A sentence with the name of the file.
    """
    said = getattr(data, "checked", False) and not isinstance(error, PixelsError)
    logger.log(logging.DEBUG if said else logging.WARNING, "%s", text)

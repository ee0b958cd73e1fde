"""Folders of images and label images, as StarDist and Cellpose have them."""

from pathlib import Path

from ..config import DataConfig
from .files import Files, list_images
from .images import DataError, read_labels
from .instances import Instances, labels_to_rle

FOLDERS = ("masks", "labels")
SUFFIX, IMAGE_SUFFIX = "_masks", "_img"


class LabelImages(Files):
    """Images, and for each one in which every instance has a value of its own; 0 is background.

    The values are what annotations are called, whatever their size and gaps.

    Parameters
    ----------
    root : str or Path
        Holds SPLIT, or is itself the folder.
    split : str, optional
        A folder with ``images/NAME.tif`` and ``masks/NAME.tif`` (or ``labels``; the suffixes may differ), or with
        ``NAME.tif`` or ``NAME_img.tif`` and ``NAME_masks.tif``.
    config : DataConfig, optional
    """

    format = "label images"
    categories = {1: "object"}  # noqa: RUF012

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.folder = Path(root) / (split or ".")
        self.pairs = _in_two_folders(self.folder) if (self.folder / "images").is_dir() else _side_by_side(self.folder)
        if not self.pairs:
            raise DataError(f"{self.folder}: expected images and label images, found none")

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> Path:
        return self.pairs[index][0]

    def sources(self, index: int) -> list[Path]:
        return [self.pairs[index][1]]

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        path = self.pairs[index][1]
        labels = read_labels(path)
        if labels.shape != size:
            raise DataError(f"{path}: expected labels of the image's size {size}, got {labels.shape}")
        values, rle = labels_to_rle(labels)
        return Instances.of_masks(values.tolist(), [0] * len(values), rle)


def has_label_images(root: Path, split: str) -> bool:
    folder = root / split
    if (folder / "images").is_dir():
        return any((folder / name).is_dir() for name in FOLDERS)
    return folder.is_dir() and any(path.stem.endswith(SUFFIX) for path in _files_in(folder))


def _in_two_folders(folder: Path) -> list[tuple[Path, Path]]:
    other = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder / FOLDERS[0])
    masks = {path.stem: path for path in _files_in(other)} if other.is_dir() else {}
    return [(path, masks.get(path.stem, other / path.name)) for path in _files_in(folder / "images")]


def _side_by_side(folder: Path) -> list[tuple[Path, Path]]:
    files = _files_in(folder) if folder.is_dir() else []
    images = {path.stem.removesuffix(IMAGE_SUFFIX): path for path in files if not path.stem.endswith(SUFFIX)}
    masks = {path.stem.removesuffix(SUFFIX): path for path in files if path.stem.endswith(SUFFIX)}
    return [(path, masks[name]) for name, path in images.items() if name in masks]


def _files_in(folder: Path) -> list[Path]:
    return [path for path in list_images(folder).images if path.parent == folder]

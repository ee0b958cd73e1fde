"""One real fluorescence image of nuclei, 512 × 512, from the StarDist package (BSD-3)."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
import torch

from polarmask_ops import outlines_from_masks

from .sample import Sample
from .truth import coco_truth

PACKAGE = "stardist==0.9.2"
SHA256 = {
    "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
}
SEAM = 256  # columns left of it are trained on, the others evaluated on


class Nuclei:
    """The left (``train``) or right (``test``) part of the image.

    Nuclei on the seam are cut and each part keeps its piece.
    The image is fetched once, with pip, from the package index that pip is set up for.
    """

    categories = {1: "nucleus"}  # noqa: RUF012

    def __init__(self, part: Literal["train", "test"]) -> None:
        self.part = part
        folder = fetch()
        columns = slice(0, SEAM) if part == "train" else slice(SEAM, None)
        image = tifffile.imread(folder / "img2d.tif")[:, columns].astype(np.float32) / 65535
        labels = tifffile.imread(folder / "mask2d.tif")[:, columns]
        masks = torch.from_numpy(np.stack([labels == n for n in np.unique(labels) if n]))
        self.sample = Sample(
            image=torch.from_numpy(image).expand(3, -1, -1),
            outlines=outlines_from_masks(masks, keep="all"),
            labels=torch.zeros(len(masks), dtype=torch.int64),
            ignore=torch.zeros(len(masks), dtype=torch.bool),
            image_id=1,
        )

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def image_id(self, index: int) -> int:
        """1: there is one image."""
        return 1

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """The image's ground truth in COCO's format, see :class:`polarmask.data.DataSet`."""
        count = 1 if indices is None else len(indices)
        return coco_truth([self.sample] * count, self.categories)

    def fingerprint(self) -> dict[str, Any]:
        """The half of the image that this is."""
        return {"format": "nuclei", "part": self.part}


def cache_folder() -> Path:
    """``POLARMASK_CACHE``, or ``polarmask`` in the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("POLARMASK_CACHE") or Path(user) / "polarmask")


def fetch() -> Path:
    """The folder with img2d.tif and mask2d.tif, downloaded when they are not there, checked either way."""
    folder = cache_folder() / "nuclei"
    if not all((folder / name).is_file() for name in SHA256):
        print(f"fetching {PACKAGE} for its nuclei image (BSD-3) into {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _download(Path(scratch))
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for name in SHA256:
                    part = Path(scratch) / name
                    part.write_bytes(archive.read(f"stardist/data/images/{name}"))
                    part.replace(folder / name)
    for name, want in SHA256.items():
        got = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if got != want:
            raise ValueError(
                f"nuclei: expected {folder / name} with sha256 {want}, got {got}; delete it to fetch it again"
            )
    return folder


def _download(folder: Path) -> None:
    # A wheel for any platform will do, nothing of it is run.
    platform = ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        *platform,
        "--dest",
        str(folder),
        PACKAGE,
    ]
    subprocess.run(command, check=True)

"""Samples, and functions that change their images and outlines together."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from polarmask_ops import Outlines


@dataclass(frozen=True)
class Sample:
    """An image and its instances."""

    image: Tensor  # (3, H, W) float32
    outlines: Outlines  # of M instances, in pixels
    labels: Tensor  # (M,) int64, from 0
    ignore: Tensor  # (M,) bool: neither object nor background
    image_id: int | str  # in the data set

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]

    def select(self, which: Tensor) -> "Sample":
        """The sample with some of its instances, chosen by indices or a bool tensor."""
        return replace(self, outlines=self.outlines[which], labels=self.labels[which], ignore=self.ignore[which])

    def target(self) -> dict[str, object]:
        """The target that the model takes in training. Boxes are the outlines' extents."""
        return {
            "boxes": self.outlines.boxes().float(),
            "labels": self.labels,
            "outlines": self.outlines,
            "ignore": self.ignore,
        }


def is_repeated(image: Tensor) -> bool:
    """Returns true if the channels of an image are one grey channel, expanded."""
    return image.shape[0] > 1 and image.stride(0) == 0


def each_channel(change: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """``change(image)``, which treats all channels alike: once, where the image is grey."""
    if is_repeated(image):
        return change(image[:1]).expand(image.shape[0], -1, -1)
    return change(image)


def limits(image: Tensor, percentiles: tuple[float, float]) -> Tensor:
    """The values of each channel (2, 3, 1, 1) at two percentiles."""
    if is_repeated(image):
        return limits(image[:1], percentiles).expand(-1, image.shape[0], -1, -1)
    return torch.from_numpy(np.percentile(image.numpy(), percentiles, axis=(1, 2)))[..., None, None]


def stretch(image: Tensor, between: Tensor) -> Tensor:
    """Takes :func:`limits` to 0 and 1; a flat channel becomes 0."""
    if is_repeated(image) and is_repeated(between[0]):
        return stretch(image[:1], between[:, :1]).expand(image.shape[0], -1, -1)
    low, high = between
    return ((image - low) / (high - low).clamp(min=1e-6)).float()


def normalize(image: Tensor, percentiles: tuple[float, float]) -> Tensor:
    """Stretches each channel so that its values at the percentiles become 0 and 1; a flat one becomes 0."""
    return stretch(image, limits(image, percentiles))


def fit(size: tuple[int, int], resize: tuple[int, int], keep_aspect: bool) -> tuple[int, int]:
    """Height and width after resizing to ``resize`` (width, height), which bounds them when the aspect is kept."""
    width, height = resize
    if not keep_aspect:
        return height, width
    factor = min(height / size[0], width / size[1])
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) at another height and width, bilinear with antialiasing."""
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The sample at another height and width."""
    outlines = sample.outlines.scale(size[1] / sample.size[1], size[0] / sample.size[0])
    return replace(sample, image=resize_image(sample.image, size), outlines=outlines)


def hflip(sample: Sample) -> Sample:
    """The sample with left and right exchanged."""
    image = each_channel(lambda x: x.flip(2), sample.image)
    return replace(sample, image=image, outlines=sample.outlines.hflip(sample.size[1]))


def warp(sample: Sample, matrix: np.ndarray, size: tuple[int, int]) -> Sample:
    """The sample after an affine map of its pixels' coordinates, in a window of another size.

    Parameters
    ----------
    sample : Sample
    matrix : array, shape (3, 3)
        From the sample's coordinates to the window's, in pixels; pixel (i, j) has its centre at (j + ½, i + ½).
    size : (int, int)
        Height and width of the window; what it shows beside the image is 0.
    """
    height, width = sample.size
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    back = torch.from_numpy(np.linalg.inv(matrix)).float()
    source = torch.stack([x, y, torch.ones_like(x)], -1) @ back[:2].T
    grid = source * torch.tensor([2 / width, 2 / height]) - 1
    image = each_channel(lambda x: F.grid_sample(x[None], grid[None], align_corners=False)[0], sample.image)
    return replace(sample, image=image, outlines=sample.outlines.affine(torch.from_numpy(matrix[:2])))


def window(sample: Sample, top: int, left: int, size: tuple[int, int]) -> Sample:
    """What a window of the image shows; what it shows beside the image is 0."""
    height, width = sample.size
    bottom, right = top + size[0], left + size[1]
    image = F.pad(
        sample.image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)],
        (max(-left, 0), max(min(right, right - width), 0), max(-top, 0), max(min(bottom, bottom - height), 0)),
    )
    outlines = sample.outlines.clip(sample.size).translate(-left, -top).clip(size)
    return replace(sample, image=image[:, : size[0], : size[1]], outlines=outlines)


def kept(outlines: Outlines, size: tuple[int, int], min_area: float, min_side: float) -> tuple[Outlines, Tensor]:
    """The outlines cut at an image's borders, without those of which too little is left, and which are left, bool."""
    outlines = outlines.clip(size)
    boxes = outlines.boxes()
    keep = (outlines.areas() >= min_area) & ((boxes[:, 2:] - boxes[:, :2]).amax(1) >= min_side)
    return outlines[keep], keep


def drop_small(sample: Sample, min_area: float, min_side: float = 0.0) -> Sample:
    """Cuts the outlines at the image's borders and drops instances with less than ``min_area`` left, or with both sides
    of their box below ``min_side``."""
    outlines, keep = kept(sample.outlines, sample.size, min_area, min_side)
    return replace(sample, outlines=outlines, labels=sample.labels[keep], ignore=sample.ignore[keep])

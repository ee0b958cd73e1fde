"""Image files."""

from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


def read_image(path: Path) -> Tensor:
    """An image file as (3, H, W), float32 from 0 to 1 by the range of its integers; grey is repeated."""
    if path.suffix.lower() in (".tif", ".tiff"):
        pixels = tifffile.imread(path)
    else:
        with Image.open(path) as image:
            pixels = np.asarray(image if image.mode in ("L", "I;16") else image.convert("RGB"))
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, 2)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(f"read_image: expected {path} of shape (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}")
    if np.issubdtype(pixels.dtype, np.integer):
        pixels = pixels / np.iinfo(pixels.dtype).max
    return torch.from_numpy(pixels[..., :3].astype(np.float32)).permute(2, 0, 1).contiguous()

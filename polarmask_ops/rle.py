"""Run-length encoded masks in COCO's layout, kept as tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RLE:
    """Masks of N instances in one image, column by column, starting with zeros."""

    counts: Tensor  # (T,) int32: lengths of the runs
    offsets: Tensor  # (N + 1,) int64: instance n owns counts[offsets[n]:offsets[n + 1]]
    size: tuple[int, int]  # H, W

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

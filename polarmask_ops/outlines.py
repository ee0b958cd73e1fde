"""Boundaries of instances as directed segments: what the targets are made from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outlines:
    """Boundaries of M instances."""

    segments: Tensor  # (S, 4) pixels: x0, y0, x1, y1
    offsets: Tensor  # (M + 1,) int64: instance m owns segments[offsets[m]:offsets[m + 1]]

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


torch.export.register_dataclass(Outlines, serialized_type_name="polarmask_ops.Outlines")

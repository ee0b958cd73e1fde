"""Random arguments for fuzz_ops.py: shapes, strides, dtypes, devices and values, wrong and hostile ones among them."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import polarmask_ops as ops

FLOATS = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
WRONG = (torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool, torch.int8, torch.uint8, torch.int64)
HOSTILE = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 1e-40, 5e-324, 0.0, -0.0, -1.0, 1e15, 2.0**31, 0.5)


class Draw:
    """Arguments of one call. About half of the calls have nothing wrong, so that most of the work is done."""

    def __init__(self, seed: int, n: int) -> None:
        self.rng = np.random.default_rng([seed, n])
        self.error_rate = self.one(0, 0, 0, 0.03, 0.15)
        self.meta_rate = self.one(0, 0, 0, 0, 0, 0, 0, 0.3)

    def one(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def maybe(self, rate: float) -> bool:
        return bool(rate) and self.rng.random() < rate

    def size(self, most: int = 9) -> int:
        return int(self.one(0, 1, 2, 3, most, 40)) if self.maybe(0.3) else int(self.rng.integers(1, most + 1))

    def layout(self, tensor: Tensor) -> Tensor:
        """The tensor, or one like it with other strides."""
        kind = self.one("as it is", "as it is", "gaps", "transposed", "expanded", "shifted")
        if tensor.dim() == 0 or kind == "as it is":
            return tensor
        if kind == "gaps":
            wide = tensor.new_zeros([2 * size for size in tensor.shape])
            return wide[tuple(slice(None, None, 2) for _ in tensor.shape)].copy_(tensor)
        if kind == "transposed":
            return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor
        if kind == "expanded" and tensor.shape[0]:
            return tensor[:1].expand(tensor.shape)
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)

    def finish(self, tensor: Tensor, *dtypes: torch.dtype) -> Tensor:
        """In one of the dtypes or a wrong one, on the CPU or not, in any layout, now and then of another shape."""
        tensor = tensor.to(self.one(*WRONG) if self.maybe(self.error_rate) else self.one(*dtypes))
        if self.maybe(self.error_rate):
            return tensor[..., None] if self.maybe(0.5) or not tensor.dim() else tensor.flatten()[: tensor.numel() // 2]
        if self.maybe(self.meta_rate):
            return tensor.to("meta")
        return tensor if tensor.itemsize == 1 and tensor.is_floating_point() else self.layout(tensor)

    def floats(self, *shape: int, scale: float = 40.0, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
        values = self.rng.random(shape) * scale
        kind = self.one("plain", "plain", "plain", "integers", "signed", "equal", "hostile")
        if kind == "integers":
            values = np.round(values)
        elif kind == "signed":
            values = values - scale / 2
        elif kind == "equal" and values.size:
            values = np.full_like(values, values.flat[0])
        elif kind == "hostile":
            where = self.rng.random(shape) < self.one(0.05, 0.5, 1.0)
            values = np.where(where, self.rng.choice(HOSTILE, shape), values)
        with np.errstate(over="ignore"):
            return self.finish(torch.from_numpy(np.asarray(values)), *dtypes)

    def ints(self, *shape: int, low: int = 0, high: int = 5) -> Tensor:
        if self.maybe(self.error_rate):
            low, high = self.one((-3, high + 3), (-(2**62), 2**62))
        values = self.rng.integers(low, max(high, low + 1), shape)
        return self.finish(torch.from_numpy(np.asarray(values)), torch.int64, torch.int64, torch.int32)

    def masks(self, *shape: int) -> Tensor:
        inside = self.rng.random([max(n, 0) for n in shape]) < self.one(0.0, 0.1, 0.5, 0.95, 1.0)
        masks = torch.from_numpy(np.asarray(inside, np.uint8))
        masks *= self.one(1, 1, 2, 128, 255)
        return self.finish(
            masks.view(torch.bool) if self.maybe(0.5) and masks.dim() else masks, masks.dtype, torch.bool
        )

    def offsets(self, total: int, count: int) -> Tensor:
        inner = np.sort(self.rng.integers(0, total + 1, max(count - 1, 0)))
        values = np.array([0, *inner, total][: count + 1] if count else [0])
        if self.maybe(self.error_rate) and len(values):
            values[self.rng.integers(len(values))] = self.one(-1, total + 7, 2**62, -(2**62))
        return self.finish(torch.from_numpy(values), torch.int64)

    def image_size(self) -> Any:
        if self.maybe(self.error_rate):
            return self.one((-1, 4), (2**16, 2**16), (4,), (3, 4, 5), (2.5, 3), None, "ab", (2**62, 2**62))
        return self.one((2**30, 0), (0, 7)) if self.maybe(0.03) else (self.size(30), self.size(30))

    def rays(self) -> int:
        return int(self.one(1, 2, 1025)) if self.maybe(self.error_rate) else int(self.one(3, 4, 8, 12, 36, 36, 64))

    def option(self, *choices: Any) -> Any:
        return self.one("other", None, 3, "") if self.maybe(self.error_rate) else self.one(*choices)

    def number(self, *choices: float) -> Any:
        return (
            self.one(math.nan, math.inf, -1.0, 1e30, -math.inf) if self.maybe(self.error_rate) else self.one(*choices)
        )

    def outlines(self, count: int) -> ops.Outlines:
        total = self.size(20) if count else 0
        return ops.Outlines(self.floats(total, 4), self.offsets(total, count))

    def rle(self) -> ops.RLE:
        height, width = self.size(12), self.size(12)
        rle = ops.RLE.from_masks(torch.from_numpy(self.rng.random((self.size(4), height, width)) < 0.4))
        counts = rle.counts.clone()
        if self.maybe(self.error_rate) and counts.numel():
            counts[self.rng.integers(counts.numel())] = int(self.one(-1, 0, 5, 2**31 - 1))
        size = self.image_size() if self.maybe(self.error_rate) else rle.size
        return ops.RLE(self.finish(counts, torch.int32), self.finish(rle.offsets, torch.int64), size)

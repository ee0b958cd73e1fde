"""Ragged tensors: rows of different lengths in one tensor, where row n is data[offsets[n]:offsets[n + 1]]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

Index: TypeAlias = "int | slice | Tensor"


def from_lengths(lengths: Tensor) -> Tensor:
    """Return the offsets (N + 1,) of rows of these lengths."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def cat(offsets: Sequence[Tensor]) -> Tensor:
    """Return the offsets of several ragged tensors that are concatenated."""
    return from_lengths(torch.cat([each.diff() for each in offsets]))


def select(name: str, data: Tensor, offsets: Tensor, index: Index) -> tuple[Tensor, Tensor]:
    """Select rows by an int, a slice, or a tensor of integers or bool; return their data and offsets."""
    count = offsets.shape[0] - 1
    if type(offsets) is Tensor and offsets.is_cpu and not torch.compiler.is_compiling():
        ends = offsets.tolist()
        if ends[0] != 0 or ends[-1] != data.shape[0] or any(a > b for a, b in pairwise(ends)):
            raise ValueError(f"{name}: expected offsets to rise from 0 to {data.shape[0]}, got {ends!r:.80}")
    if isinstance(index, int):
        if not -count <= index < count:
            raise IndexError(f"{name}: expected an index from {-count} to {count - 1}, got {index}")
        index = slice(index % count, index % count + 1)
    if offsets.is_meta or (isinstance(index, Tensor) and index.is_meta):
        raise ValueError(f"{name}: expected tensors with values, got meta tensors; the length depends on the values")
    try:
        rows = torch.arange(count, device=offsets.device)[index]
    except (IndexError, TypeError) as error:
        raise type(error)(f"{name}: expected an index into {count} instances, got {index!r}: {error}") from error
    if rows.dim() == 0:
        rows = rows[None]
    if rows.dim() != 1:
        raise IndexError(f"{name}: expected an index of at most one dimension, got {index!r}")
    lengths = offsets.diff()[rows]
    selected = from_lengths(lengths)
    shifts = torch.repeat_interleave(offsets[rows] - selected[:-1], lengths)
    return data[torch.arange(shifts.shape[0], device=offsets.device) + shifts], selected


def fake(like: Tensor, rows: int, dtype: torch.dtype, *item: int) -> tuple[Tensor, Tensor]:
    """Return data and offsets for the fake of an op: the length of the data depends on values, so it is symbolic."""
    length = torch.library.get_ctx().new_dynamic_size()
    return like.new_empty(length, *item, dtype=dtype), like.new_empty(rows + 1, dtype=torch.int64)

"""The best points of a head's output, as the first step from scores to detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap


def top_scores(logits: Tensor, centerness: Tensor, lengths: Sequence[int], k: int) -> tuple[Tensor, Tensor]:
    """The k best points of each level, by the score of their best class times their centerness.

    Parameters
    ----------
    logits : Tensor, shape (B, L, C), float
        Of C classes at L points. Any strides are read as they lie: a (B, C, L) map seen as ``map.transpose(1, 2)`` is
        not copied.
    centerness : Tensor, shape (B, L), float
        Logits.
    lengths : sequence of int
        How many points each level has, at most 32 levels; they follow each other to L.
    k : int
        How many to take of a level; all of it where it has fewer.

    Returns
    -------
    values : Tensor, shape (B, S), float32 (float64 for float64)
        ``max(sigmoid(logits)) * sigmoid(centerness)``, S = Σ min(k, length). Falling within a level; levels in their
        order.
    indices : Tensor, shape (B, S), int64
        Of the points, from 0 to L − 1. Equal scores, after rounding, go by the lower index. Not differentiable.

    Raises
    ------
    TypeError
        If ``logits`` or ``centerness`` is not a floating-point tensor.
    ValueError
        If a shape, ``lengths`` or ``k`` is not as above.

    Notes
    -----
    A NaN counts as −inf: as a class it is never the best, as centerness it makes the score 0. Half precision is
    computed in float32. The result is the same bit for bit on every device. On a GPU the call does not wait for it, and
    time grows with k².

    Examples
    --------
    >>> logits = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [3.0, 3.0], [-1.0, 0.0]]])
    >>> values, indices = top_scores(logits, torch.zeros(1, 4), [3, 1], 2)
    >>> values
    tensor([[0.4763, 0.4404, 0.2500]])
    >>> indices
    tensor([[2, 0, 3]])
    """
    logits, centerness = _arguments.any_floats("top_scores", logits=logits, centerness=centerness)
    sizes = _arguments.integers("top_scores", "lengths", lengths), *_arguments.integers("top_scores", "k", [k])
    values, indices = torch.ops.polarmask.top_scores(logits.detach(), centerness.detach(), *sizes)
    return values, indices


@_fakes.register("top_scores")
def _top_scores_fake(logits: Tensor, centerness: Tensor, lengths: list[int], k: int) -> tuple[Tensor, Tensor]:
    shape = (logits.shape[0], sum(min(k, length) for length in lengths))
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(shape, dtype=dtype), logits.new_empty(shape, dtype=torch.int64)


_vmap.register("top_scores", rows=(0, 1))

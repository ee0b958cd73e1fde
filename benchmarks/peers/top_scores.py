"""Other ways to choose the best points of a head's output."""

from __future__ import annotations

import torch
from cases import Head
from torch import Tensor

K = 1000  # of a level


def by_torch(inputs: Head) -> tuple[Tensor, Tensor]:
    scores = inputs.logits.sigmoid().amax(2) * inputs.centerness.sigmoid()
    return _best(scores, inputs.lengths)


def by_largest_logit(inputs: Head) -> tuple[Tensor, Tensor]:
    """With fewer sigmoids: the best class is that of the largest logit."""
    scores = inputs.logits.amax(2).sigmoid() * inputs.centerness.sigmoid()
    return _best(scores, inputs.lengths)


def _best(scores: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    best = [part.topk(min(K, part.shape[1])) for part in scores.split(lengths, 1)]
    firsts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
    indices = [level.indices + first for level, first in zip(best, firsts, strict=True)]
    return torch.cat([level.values for level in best], 1), torch.cat(indices, 1)

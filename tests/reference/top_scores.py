"""Scores in double, sorted point by point."""

import math

import numpy as np


def _sigmoid(logit: float) -> float:
    if math.isnan(logit):
        return 0.0
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def scores(logits: np.ndarray, centerness: np.ndarray) -> np.ndarray:
    """(B, L) of all points."""
    found = np.zeros(centerness.shape)
    for at in np.ndindex(centerness.shape):
        found[at] = max(_sigmoid(float(logit)) for logit in logits[at]) * _sigmoid(float(centerness[at]))
    return found


def top_scores(logits, centerness, lengths, k) -> tuple[np.ndarray, np.ndarray]:
    values, indices = [], []
    for row in scores(logits, centerness):
        best, first = [], 0
        for length in lengths:
            points = range(first, first + length)
            best += sorted(points, key=lambda point: (-row[point], point))[:k]
            first += length
        values.append(row[best])
        indices.append(best)
    shape = (len(logits), sum(min(k, length) for length in lengths))
    return np.array(values).reshape(shape), np.array(indices, dtype=np.int64).reshape(shape)

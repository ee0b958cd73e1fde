"""Polar IoU ray by ray in float64, from its definition."""

import math

import numpy as np

FLOOR = 1e-12


def _sums(pred: np.ndarray, target: np.ndarray, power: int) -> tuple[float, float]:
    larger = smaller = 0.0
    for p, t in zip(pred.astype(float), target.astype(float), strict=True):
        larger += max(p, t) ** power
        smaller += min(p, t) ** power
    return larger, smaller


def polar_iou(pred: np.ndarray, target: np.ndarray, power: int = 1) -> np.ndarray:
    values = []
    for p, t in zip(pred, target, strict=True):
        if not (np.isfinite(p).all() and np.isfinite(t).all()):
            values.append(0.0)
            continue
        larger, smaller = _sums(p.clip(min=0), t.clip(min=0), power)
        values.append(smaller / larger if larger > 0 else 0.0)
    return np.array(values)


def polar_iou_loss(pred, target, weight=None, power=1, log_pred=False, reduction="mean", avg_factor=None):
    weight = np.ones(len(pred)) if weight is None else weight.astype(float)
    rows = []
    for p, t, w in zip(pred, target, weight, strict=True):
        if w == 0:
            rows.append(0.0)
            continue
        p = np.exp(p.astype(float)) if log_pred else p
        if np.isnan(p).any() or np.isnan(t).any() or (p < 0).any() or (t < 0).any():
            rows.append(math.nan)
            continue
        larger, smaller = _sums(p, t, power)
        floored = max(smaller, FLOOR)
        rows.append(w * math.log((floored + larger - smaller) / floored))
    if reduction == "none":
        return np.array(rows)
    if reduction == "sum":
        return np.array(sum(rows))
    divisor = weight.sum() if avg_factor is None else float(avg_factor)
    return np.array(0.0 if divisor <= 0 else sum(rows) / divisor)


def polar_centerness(rays: np.ndarray) -> np.ndarray:
    values = []
    for row in rays.astype(float):
        shortest, longest = max(row.min(), 0), row.max()
        values.append(math.sqrt(shortest / longest) if np.isfinite(row).all() and longest > 0 else 0.0)
    return np.array(values)

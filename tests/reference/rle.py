"""Run lengths, pixel after pixel."""

import numpy as np


def rle_of(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Counts, offsets and size, pixel after pixel."""
    counts, offsets = [], [0]
    for mask in masks:
        value, length = False, 0
        for pixel in mask.T.ravel().tolist():
            if pixel != value:
                counts.append(length)
                value, length = pixel, 0
            length += 1
        counts.append(length)
        offsets.append(len(counts))
    return np.array(counts, np.int32), np.array(offsets), masks.shape[1:]

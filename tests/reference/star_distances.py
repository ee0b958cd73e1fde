"""Distances along rays in a label image, pixel by pixel."""

import itertools
import math

import numpy as np

from .polar_target import directions


def stardist_walk(labels, i, j, direction):
    """Unit steps to the nearest pixel (halves to the even one), as StarDist's own Python version."""
    largest = max(abs(direction))
    n = 0
    while True:
        n += 1
        at = tuple(
            int(np.rint(round(start + n * along, 9))) for start, along in zip((i, j), direction[::-1], strict=True)
        )
        if not all(0 <= k < size for k, size in zip(at, labels.shape, strict=True)) or labels[at] != labels[i, j]:
            return n - 1 + 0.5 / largest


def exact_walk(labels, i, j, direction):
    """All crossings with lines of the pixel grid, sorted; between two of them the ray is in the pixel of its middle."""
    lines = np.arange(max(labels.shape) + 1) + 0.5
    crossings = np.sort([line / abs(along) for along in direction if along for line in lines])
    for enters, leaves in itertools.pairwise(crossings):
        if leaves - enters < 1e-9:
            continue
        middle = (enters + leaves) / 2
        at = math.floor(i + 0.5 + middle * direction[1]), math.floor(j + 0.5 + middle * direction[0])
        if not all(0 <= k < size for k, size in zip(at, labels.shape, strict=True)) or labels[at] != labels[i, j]:
            return enters
    raise AssertionError("the lines end outside the image")


def star_distances(label_image, num_rays=32, *, rule="stardist"):
    distances = np.zeros((num_rays, *label_image.shape), np.float32)
    walk = stardist_walk if rule == "stardist" else exact_walk
    for k, direction in enumerate(directions(num_rays)):
        for i, j in np.argwhere(label_image):
            distances[k, i, j] = walk(label_image, i, j, direction)
    return distances

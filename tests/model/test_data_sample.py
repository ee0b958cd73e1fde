import math

import numpy as np
import pytest
import torch

from polarmask.config import DataConfig
from polarmask.data.augment import augment
from polarmask.data.sample import Sample, drop_small, fit, hflip, normalize, resize, resize_image, warp
from polarmask_ops import outlines_from_polygons, outlines_to_masks


def sample(zoom=1):
    """White shapes on black, 60 × 80, so that the image shows where the instances are."""
    polygons = [
        [[20, 10, 50, 12, 44, 30, 24, 34]],
        [[5, 40, 30, 40, 30, 55, 5, 55]],
        [[60, 20, 78, 20, 74, 55, 63, 55]],
    ]
    outlines = outlines_from_polygons(polygons).scale(zoom, zoom)
    height, width = 60 * zoom, 80 * zoom
    image = outlines_to_masks(outlines, (height, width)).any(0).float().expand(3, -1, -1)
    return Sample(image, outlines, torch.tensor([2, 0, 1]), torch.tensor([False, True, False]), image_id=3)


def agreement(changed):
    """IoU of the bright pixels with the outlines' masks."""
    bright = changed.image[0] > 0.5
    masks = outlines_to_masks(changed.outlines, changed.size).any(0)
    return float((bright & masks).sum() / (bright | masks).sum())


def centre(mask):
    return torch.nonzero(mask).double().mean(0)


def rotation(angle, zoom=1.0):
    matrix = np.eye(3)
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    matrix[:2] = [[cos, -sin, 20], [sin, cos, -10]]
    return matrix


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (hflip, 1.0),
        (lambda s: resize(s, (360, 480)), 0.97),  # border pixels may fall to either side
        (lambda s: resize(s, (270, 120)), 0.97),
        (lambda s: warp(s, np.diag([1.0, 1.0, 1.0]), (180, 240)), 1.0),
        (lambda s: warp(s, np.array([[1.0, 0, -7], [0, 1, 5], [0, 0, 1]]), (180, 240)), 1.0),
        (lambda s: warp(s, rotation(0.7), (180, 240)), 0.97),
        (lambda s: warp(s, rotation(-2.0, 1.2) @ np.diag([-1.0, 1, 1]), (300, 200)), 0.97),
    ],
)
def test_image_and_outlines_move_together(change, least):
    changed = change(sample(zoom=3))
    assert agreement(changed) >= least
    masks = outlines_to_masks(changed.outlines, changed.size).any(0)
    assert (centre(changed.image[0] > 0.5) - centre(masks)).abs().max() < 0.3  # half a pixel: another convention
    assert changed.labels.tolist() == [2, 0, 1]


def test_warp_shows_black_beside_the_image():
    shifted = warp(sample(), np.array([[1.0, 0, 30], [0, 1, 0], [0, 0, 1]]), (60, 80))
    assert (shifted.image[:, :, :30] == 0).all()


def test_small_instances_are_dropped():
    moved = warp(sample(), np.array([[1.0, 0, -29], [0, 1, 0], [0, 0, 1]]), (60, 80))
    kept = drop_small(moved, min_area=20)  # one column of the second is left, 15 pixels
    assert kept.labels.tolist() == [2, 1]
    assert kept.ignore.tolist() == [False, False]
    boxes = kept.target()["boxes"]
    assert (boxes[:, 0] >= 0).all()
    assert kept.outlines.areas().min() >= 20


def test_nothing_left():
    kept = drop_small(sample(), min_area=1e6)
    target = kept.target()
    assert [len(target[name]) for name in ("boxes", "labels", "outlines", "ignore")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("keep_aspect", "size", "want"),
    [(False, (480, 640), (768, 1280)), (True, (480, 640), (768, 1024)), (True, (400, 1000), (512, 1280))],
)
def test_fit(keep_aspect, size, want):
    assert fit(size, (1280, 768), keep_aspect) == want


def test_percentiles_become_0_and_1():
    image = torch.arange(101.0).reshape(1, 1, 101).expand(3, 1, 101) * 7 + 3
    stretched = normalize(image, (10, 90))
    torch.testing.assert_close(stretched[0, 0, [10, 90]], torch.tensor([0.0, 1.0]))
    assert normalize(torch.full((3, 4, 4), 5.0), (1, 99)).abs().max() == 0  # a flat image


def test_resized_image_is_antialiased():
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)
    assert resize_image(stripes, (16, 16)).std() < 0.05


def test_augmentation_is_a_function_of_the_generator():
    config = DataConfig(crop=48, rotate=True, scale=(0.8, 1.2), photometric=True)
    first, second, other = (augment(sample(), config, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.outlines.segments, second.outlines.segments)
    assert not torch.equal(first.image, other.image)
    assert first.size == (48, 48)


def test_augmented_image_and_outlines_agree():
    config = DataConfig(crop=64, rotate=True, scale=(0.8, 1.2))
    changed = [augment(sample(), config, np.random.default_rng(seed)) for seed in range(10)]
    assert np.mean([agreement(each) for each in changed]) > 0.93


def test_resize_and_flip():
    config = DataConfig(resize=(160, 120), flip=1.0)
    changed = augment(sample(), config, np.random.default_rng(0))
    assert changed.size == (120, 160)
    assert agreement(changed) > 0.95
    assert changed.outlines.boxes()[1, 2] == 150  # 160 - 2 * 5

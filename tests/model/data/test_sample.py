import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from polarmask.config import DataConfig
from polarmask.data.batches.augment import augment, copy_paste
from polarmask.data.sample import Sample, drop_small, fit, hflip, normalize, resize, resize_image, warp, window
from polarmask_ops import outlines_from_masks, outlines_from_polygons, outlines_to_masks


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


def test_a_grey_image_is_worked_on_once():
    """And becomes what three equal channels would."""
    config = DataConfig(crop=48, rotate=True, scale=(0.8, 1.2), photometric=True, percentiles=(1, 99.8), flip=1.0)
    grey = sample()
    rgb = replace(grey, image=grey.image.contiguous())
    got, want = (augment(each, config, np.random.default_rng(0)) for each in (grey, rgb))
    assert got.image.stride(0) == 0
    assert want.image.stride(0) > 0
    assert torch.equal(got.image, want.image)


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


def test_drop_small_small_instances_are_dropped():
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


def test_resize_image_smaller_is_antialiased():
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


def test_resize_and_flip_move_image_and_outlines_alike():
    config = DataConfig(resize=(160, 120), flip=1.0)
    changed = augment(sample(), config, np.random.default_rng(0))
    assert changed.size == (120, 160)
    assert agreement(changed) > 0.95
    assert changed.outlines.boxes()[1, 2] == 150  # 160 - 2 * 5


@pytest.mark.parametrize(("top", "left"), [(0, 0), (10, 20), (-15, -7), (50, 70), (-100, 5), (90, -90)])
@pytest.mark.parametrize("size", [(60, 80), (13, 130), (130, 20)])
def test_window(top, left, size):
    whole = sample()
    # Sides along those of pixels: a slanted one may round to the other side of a centre once it is cut.
    whole = replace(whole, outlines=outlines_from_masks(outlines_to_masks(whole.outlines, whole.size)))
    seen = window(whole, top, left, size)
    assert seen.size == size
    want = torch.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            if 0 <= i + top < 60 and 0 <= j + left < 80:
                want[i, j] = whole.image[0, i + top, j + left]
    assert torch.equal(seen.image[0], want)
    assert torch.equal(outlines_to_masks(seen.outlines, size).any(0), want > 0.5)


JOINS = {
    "jitter": {"resize": (100, 70), "jitter": (0.3, 2.0)},
    "mosaic": {"mosaic": 1.0},
    "copy_paste": {"copy_paste": 1.0},
    "all": {"resize": (100, 70), "jitter": (0.5, 1.5), "mosaic": 0.5, "copy_paste": 0.5},
}


@pytest.mark.parametrize("name", JOINS)
def test_joined_images_and_outlines_agree(name):
    config = DataConfig(**JOINS[name])
    for seed in range(8):
        changed = augment(sample(), config, np.random.default_rng(seed), lambda: hflip(sample()))
        assert changed.size == ((70, 100) if config.resize else (60, 80))
        assert len(changed.outlines) == len(changed.labels) == len(changed.ignore)
        masks = outlines_to_masks(changed.outlines, changed.size)
        assert masks.sum(0).max() <= 1  # what is hidden is nobody's
        # Borders are between black and white where images are resized.
        grown = max_pool2d(masks.any(0)[None].float(), 3, 1, 1)[0].bool()
        shrunk = ~max_pool2d((~masks.any(0))[None].float(), 3, 1, 1)[0].bool()
        assert not ((changed.image[0] > 0.9) & ~grown).any()
        assert not ((changed.image[0] < 0.1) & shrunk).any()
        again = augment(sample(), config, np.random.default_rng(seed), lambda: hflip(sample()))
        assert torch.equal(changed.image, again.image)
        assert torch.equal(changed.outlines.segments, again.outlines.segments)


def test_copy_paste_pasted_instances_hide_others():
    whole = sample()
    above = replace(whole, outlines=whole.outlines.translate(10, 4), labels=whole.labels + 10)
    above = replace(above, image=2 * outlines_to_masks(above.outlines, above.size).any(0).float().expand(3, -1, -1))
    joined = copy_paste(whole, above, np.random.default_rng(3))
    masks = outlines_to_masks(joined.outlines, joined.size)
    pasted = joined.labels >= 10
    assert pasted.any()
    assert not pasted[joined.ignore].any()
    assert (joined.image[0][masks[pasted].any(0)] == 2).all()
    assert (joined.image[0][masks[~pasted].any(0)] == 1).all()
    assert masks[~pasted].any(0).sum() < outlines_to_masks(whole.outlines, whole.size).any(0).sum()


def test_copy_paste_crowds_are_not_pasted():
    crowd = replace(sample(), ignore=torch.ones(3, dtype=torch.bool))
    assert copy_paste(sample(), crowd, np.random.default_rng(0)).labels.tolist() == [2, 0, 1]


def test_large_scale_jitter_sees_all_sizes():
    config = DataConfig(resize=(160, 120), jitter=(0.1, 2.0), flip=0)
    sides = [
        float((boxes[0, 2:] - boxes[0, :2]).max())
        for seed in range(40)
        if len(boxes := augment(sample(), config, np.random.default_rng(seed)).outlines.boxes())
    ]
    assert min(sides) < 20
    assert max(sides) > 80


def test_augment_mosaic_takes_other_images():
    with pytest.raises(ValueError, match="expected `another`"):
        augment(sample(), DataConfig(mosaic=1.0), np.random.default_rng(0))


@pytest.mark.parametrize(("min_side", "kept"), [(0, 3), (31, 1), (200, 0)])
def test_drop_small_thin_instances_are_dropped(min_side, kept):
    assert len(drop_small(sample(), 1, min_side).labels) == kept


def test_augment_train_heights_are_drawn_from_their_range():
    config = DataConfig(resize=(160, 120), train_heights=(90, 92), flip=0)
    sizes = {augment(sample(), config, np.random.default_rng(seed)).size for seed in range(20)}
    assert sizes == {(90, 160), (91, 160), (92, 160)}
    kept = augment(sample(), replace(config, keep_aspect=True), np.random.default_rng(0))
    assert kept.size[0] in (90, 91, 92)
    assert kept.size[1] / kept.size[0] == pytest.approx(80 / 60, rel=0.02)


def test_a_repeated_channel_is_normalised_once_and_alike():
    grey = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0))
    want = normalize(grey.repeat(3, 1, 1), (1, 99))
    torch.testing.assert_close(normalize(grey.expand(3, -1, -1), (1, 99)), want, rtol=0, atol=0)

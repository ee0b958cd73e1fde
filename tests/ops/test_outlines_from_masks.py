"""Outlines of instances given by bitmaps and by run lengths."""

import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import Bad
from outlines_tester import FromTester, assert_same, drawing, from_rle, random_masks
from reference import outlines as reference
from torch import Tensor

from polarmask_ops import RLE, Outlines, outlines_from_masks, outlines_from_rle

GOLDEN = Path(__file__).parent.parent / "golden"
NAN, INF = math.nan, math.inf
WINDOWS = [  # on masks of 16 x 70
    (3, 2, 9, 8),
    (3.5, 2.5, 3.5, 2.5),  # a point in a pixel
    (64, 4, 64, 4),  # and in the corner of four
    (63.999, 4.001, 64.001, 12),
    (-4, -4, 80, 90),
    (0, 0, 70, 16),
    (0, 0, 69, 15),
    (70, 16, 90, 20),
    (-9, -9, 0, 0),
    (70.001, 3, 80, 9),
    (-3, 2, -0.001, 8),
    (9, 8, 3, 2),  # backwards
    (-INF, 3, INF, 5),
    (1e30, 2, 1e38, 8),
    (1e-30, 1e-30, 1, 1),
    *([NAN if k == side else edge for k, edge in enumerate((3, 2, 9, 8))] for side in range(4)),
]


class TestFromMasks(FromTester):
    function = outlines_from_masks
    reference = reference.outlines_from_masks
    dtypes = (torch.bool, torch.uint8)
    bad_inputs = (
        Bad({"masks": torch.zeros(1, 2, 2)}, TypeError, ("masks", "bool or uint8", "float32")),
        Bad({"masks": [[[0, 1]]]}, TypeError, ("masks", "bool or uint8", "list")),
        Bad({"masks": torch.zeros(2, 2, dtype=torch.bool)}, ValueError, ("masks", "(M, H, W)", "(2, 2)")),
        Bad({"keep": "both"}, ValueError, ("keep", "'largest', 'all'", "'both'")),
        Bad({"boundary": "lines"}, ValueError, ("boundary", "'edges', 'pixels'", "'lines'")),
        Bad({"boxes": torch.zeros(4, 4, dtype=torch.int64)}, TypeError, ("boxes", "floating-point", "int64")),
        Bad({"boxes": torch.zeros(3, 4)}, ValueError, ("boxes", "(M, 4)", "(3, 4)")),
        Bad({"boxes": torch.zeros(4, 5)}, ValueError, ("boxes", "(M, 4)", "(4, 5)")),
        Bad({"boxes": torch.zeros(4)}, ValueError, ("boxes", "(M, 4)", "(4,)")),
    )

    def sample(self, dtype, device):
        masks = random_masks(4, 16, 70).to(device)
        return {"masks": masks.to(torch.uint8) * 130 if dtype == torch.uint8 else masks}

    def more_samples(self, dtype, device):
        masks = [
            self.sample(dtype, device)["masks"],
            drawing(".##..", ".##.#", "....#"),  # a square before a line
            drawing("##.##", "#...#", ".....", "#...#", "##.##"),  # four corners, alike
            drawing("..#", "#..", "#..", "..#"),  # lengths 1, 2, 1
            drawing("...##", "##...", "##.##"),  # the first in row-major order is not the first column by column
            drawing("#####", "#...#", "#.#.#", "#...#", "#####"),  # an island in a hole
            drawing("####", "#..#", "##.#"),  # a hole that opens below
            drawing(".#.", "#.#", ".#."),  # a hole behind corners
            drawing("###", "#.#", "#.#"),  # open at the border of the image
            drawing("####"),
            drawing("#", "#", ".", "#"),
        ]
        options = [{"keep": keep, "boundary": how} for keep in ("largest", "all") for how in ("edges", "pixels")]
        samples = [{"masks": mask.to(device, dtype), **option} for mask in masks for option in options]
        masks = self.sample(dtype, device)["masks"][-1:].expand(len(WINDOWS), -1, -1)
        boxes = torch.tensor(WINDOWS, dtype=torch.float64, device=device)
        return [*samples, *({"masks": masks, "boxes": boxes, **option} for option in options)]

    def empty(self, dtype, device):
        shapes = [(0, 3, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0), (2, 3, 4)]
        return [{"masks": torch.zeros(shape, dtype=dtype, device=device)} for shape in shapes]


def from_decoded_rle(counts, offsets, size, keep="largest"):
    masks = []
    for begin, end in itertools.pairwise(offsets):
        pixels = [k % 2 for k, count in enumerate(counts[begin:end]) for _ in range(count)]
        masks.append(np.reshape(pixels, size[::-1]).T)
    return reference.outlines_from_masks(masks, keep)


class TestFromRle(FromTester):
    function = from_rle
    reference = from_decoded_rle
    dtypes = (torch.int32,)
    bad_inputs = (
        Bad({"size": (16, 71)}, ValueError, ("outlines_from_rle", "instance 0", "16 * 71")),
        Bad({"counts": torch.tensor([-1, 1121]).int(), "offsets": torch.tensor([0, 2])}, ValueError, ("negative",)),
        Bad({"counts": torch.tensor([0, 1120]), "offsets": torch.tensor([0, 2])}, TypeError, ("counts", "int32")),
        Bad({"offsets": torch.tensor([0, 3])}, ValueError, ("offsets", "0 to 3")),
        Bad({"keep": "none"}, ValueError, ("keep", "'none'")),
    )

    def sample(self, dtype, device):
        rle = RLE.from_masks(random_masks(4, 16, 70)).to(device)
        return {"counts": rle.counts, "offsets": rle.offsets, "size": rle.size}

    def more_samples(self, dtype, device):
        counts = [[0, 6, 0, 6], [3, 0, 3, 0, 0, 6], [12], [0, 12], [1, 0, 0, 1, 0, 1, 9], [2, 3, 0, 0, 0, 5, 2]]
        special = RLE.from_coco([{"size": [3, 4], "counts": each} for each in counts]).to(device)
        samples = [self.sample(dtype, device)]
        samples.append({"counts": special.counts, "offsets": special.offsets, "size": special.size})
        return [{**sample, "keep": keep} for sample in samples for keep in ("largest", "all")]

    def empty(self, dtype, device):
        counts, offsets = torch.zeros(0, dtype=dtype, device=device), torch.zeros(1, dtype=torch.int64, device=device)
        return [{"counts": counts, "offsets": offsets, "size": size} for size in [(3, 4), (0, 0), (3, 0)]]


@pytest.mark.parametrize("keep", ["largest", "all"])
def test_outlines_from_rle_of_runs_over_columns_equal_from_masks(keep, device):
    """Runs that begin and end in the middle of columns, whole columns between, empty ones, holes in wide components."""
    random = np.random.default_rng(0)
    for height in (1, 2, 3, 5):
        cuts = [np.unique(random.integers(0, height * 40, random.integers(1, 12))) for _ in range(60)]
        counts = [np.diff([0, *cut, height * 40]).tolist() for cut in cuts]
        rle = RLE.from_coco([{"size": [height, 40], "counts": each} for each in counts]).to(device)
        assert_same(outlines_from_rle(rle, keep=keep), outlines_from_masks(rle.to_masks(), keep=keep))


@pytest.mark.parametrize("keep", ["largest", "all"])
def test_outlines_from_rle_equal_from_masks(keep, device):
    """Small random ones have every pattern of neighbours; wide ones cross the words of 64 pixels."""
    for height, width in [(5, 5), (3, 130), (130, 3), (1, 64), (9, 65)]:
        masks = random_masks(60, height, width, seed=height).to(device)
        outlines = outlines_from_masks(masks, keep=keep)
        assert_same(outlines, outlines_from_rle(RLE.from_masks(masks), keep=keep))
        if keep == "all":
            assert (outlines.areas() == masks.sum((1, 2))).all()
            assert (outlines.boxes() == RLE.from_masks(masks).boxes()).all()


@pytest.mark.parametrize("size", [(40, 200), (7, 300), (90, 64)])
def test_outlines_from_masks_with_boxes_around_the_pixels_are_equal(size, device):
    masks = random_masks(60, *size, seed=10).to(device)
    masks[:, : size[0] // 3] = masks[:, :, size[1] // 2 :] = False
    boxes = RLE.from_masks(masks).boxes()
    for keep in ("largest", "all"):
        want = outlines_from_masks(masks, keep=keep)
        for grown in (0.0, 1.0, 1000.0):
            around = boxes + grown * torch.tensor([-1, -1, 1, 1], device=device)
            got = outlines_from_masks(masks, boxes=around.double(), keep=keep)
            assert torch.equal(got.segments, want.segments)
            assert torch.equal(got.offsets, want.offsets)


def test_outlines_from_masks_largest_component_equals_scipy():
    for mask in random_masks(60, 15, 17, seed=4).numpy():
        labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
        filled = [scipy.ndimage.binary_fill_holes(labels == k + 1) for k in range(count)]
        want = max(filled, key=np.sum, default=mask)
        assert_same(outlines_from_masks(torch.from_numpy(mask[None])), outlines_from_masks(torch.tensor(want[None])))


def test_outlines_from_masks_border_pixels_equal_opencv():
    for mask in random_masks(60, 15, 17, seed=5).numpy():
        kept = np.zeros(mask.shape, np.uint8)
        for i, j in reference.kept_pixels(mask, "largest"):
            kept[i, j] = 1
        contours, _ = cv2.findContours(kept, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        want = {(x + 0.5, y + 0.5) for contour in contours for x, y in contour[:, 0].tolist()}
        got = outlines_from_masks(torch.from_numpy(mask[None]), boundary="pixels").segments
        assert (got[:, :2] == got[:, 2:]).all()
        assert len(got) == len(want)
        assert set(map(tuple, got[:, :2].tolist())) == want


@pytest.mark.parametrize("name", ["targets_640x512_special", "targets_1280x768_g8"])
def test_outlines_from_masks_equal_the_released_contours(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    height, width = golden["image_hw"]
    masks = np.unpackbits(golden["gt_masks_packed"], axis=1)[:, : height * width].reshape(-1, height, width)
    pixels = outlines_from_masks(torch.from_numpy(masks), boundary="pixels")
    centroids = outlines_from_masks(torch.from_numpy(masks)).centroids().numpy()
    ends = np.cumsum(golden["contour_len"])
    for m, contour in enumerate(np.split(golden["contour_xy"], ends[:-1])):
        got = pixels[m].segments[:, :2] - 0.5
        assert set(map(tuple, got.tolist())) == set(map(tuple, contour.tolist()))
        # Through the pixels' centres and truncated: half a pixel for each, and one for a shape that is thin.
        assert np.abs(centroids[m] - 0.5 - golden["centers_xy"][m]).max() < 2


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 6), st.integers(0, 6), st.randoms(use_true_random=False))
def test_outlines_from_masks_of_tiny_masks_equal_reference(height, width, random):
    masks = np.array([random.random() < 0.6 for _ in range(3 * height * width)], dtype=bool).reshape(3, height, width)
    for keep in ("largest", "all"):
        for boundary in ("edges", "pixels"):
            got = outlines_from_masks(torch.from_numpy(masks), keep=keep, boundary=boundary)
            want = reference.outlines_from_masks(masks, keep, boundary)
            assert_same(got, Outlines(*map(torch.from_numpy, want)))


def test_outlines_from_masks_exported_to_centroids_equal_eager():
    class Centroids(torch.nn.Module):
        def forward(self, masks: Tensor) -> Tensor:
            return outlines_from_masks(masks).translate(-2, -2).clip((9, 9)).centroids()

    masks = random_masks(5, 13, 14)
    program = torch.export.export(Centroids(), (masks,), dynamic_shapes=[{0: torch.export.Dim("count", min=2)}])
    other = random_masks(9, 13, 14, seed=8)
    torch.testing.assert_close(program.module()(other), Centroids()(other), rtol=0, atol=0, equal_nan=True)

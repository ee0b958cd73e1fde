import itertools
import math
import pickle
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import EMULATED, GEOMETRY, KERNELS, Bad, OpTester, array, by_cpu_and_kernels, change_tensors, leaves
from reference import outlines as reference
from torch import Tensor
from torch.utils._pytree import tree_map

from polarmask_ops import RLE, Outlines, outlines_from_masks, outlines_from_polygons, outlines_from_rle

GOLDEN = Path(__file__).parent / "golden"
SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]
HOSTILE = st.sampled_from([0.0, 1.0, -1.0, 2.5, 7.0, 1e-30, 1e30, -1e30, math.inf, -math.inf, math.nan])


def random_polygons(count: int, seed: int = 0) -> list[list[list[float]]]:
    """One to three stars each, turning either way."""
    random = np.random.default_rng(seed)
    polygons = []
    for _ in range(count):
        rings = []
        for _ in range(random.integers(1, 4)):
            angle = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 40)))[:: random.choice([-1, 1])]
            radius = random.uniform(2, 30, len(angle))
            points = random.uniform(-100, 1000, 2) + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
            rings.append(points.astype(np.float32).reshape(-1).tolist())
        polygons.append(rings)
    return polygons


def random_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise from sparse to full: all patterns of neighbours."""
    random = np.random.default_rng(seed)
    densities = random.choice([0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.95, 1.0], (count, 1, 1))
    return torch.from_numpy(random.random((count, height, width)) < densities)


def drawing(*rows: str) -> Tensor:
    return torch.tensor([[[pixel == "#" for pixel in row] for row in rows]])


def segment_sets(outlines: Outlines) -> list[list[tuple[float, ...]]]:
    """Per instance the segments, sorted: their order means nothing."""
    segments, offsets = outlines.segments.tolist(), outlines.offsets.tolist()
    return [sorted(map(tuple, segments[begin:end])) for begin, end in itertools.pairwise(offsets)]


def assert_same(left: Outlines, right: Outlines) -> None:
    assert segment_sets(left) == segment_sets(right)


def outlines_of(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Outlines:
    """Random ones, one without area, points only."""
    line = torch.tensor([[1.0, 1, 5, 4], [5, 4, 1, 1], [5, 4, 5, 6], [5, 6, 5, 4]])
    points = torch.tensor([[3.0, 4, 3, 4], [5, 9, 5, 9], [5, 9, 5, 9]])
    special = Outlines(torch.cat([line, points]), torch.tensor([0, 4, 7]))
    return Outlines.cat([outlines_from_polygons(random_polygons(20), keep="all"), special]).to(device, dtype)


def areas(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).areas()


def centroids(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).centroids()


def boxes(segments: Tensor, offsets: Tensor) -> Tensor:
    return Outlines(segments, offsets).boxes()


class OutlinesTester(OpTester):
    bad_inputs = (
        Bad({"segments": torch.ones(1, 4, dtype=torch.int32)}, TypeError, ("segments", "floating-point", "int32")),
        Bad({"segments": torch.ones(1, 3)}, ValueError, ("segments", "(S, 4)", "(1, 3)")),
        Bad({"segments": torch.ones(4)}, ValueError, ("segments", "(S, 4)", "(4,)")),
        Bad({"offsets": torch.ones(0, dtype=torch.int64)}, ValueError, ("offsets", "(M + 1,)", "(0,)")),
        Bad({"offsets": torch.ones(2)}, TypeError, ("offsets", "int64", "float32")),
        Bad({"offsets": torch.zeros(2, dtype=torch.int64, device="meta")}, ValueError, ("device", "meta", "cpu")),
    )

    def sample(self, dtype, device):
        outlines = outlines_of(dtype, device)
        return {"segments": outlines.segments, "offsets": outlines.offsets}

    def more_samples(self, dtype, device):
        outlines = outlines_of(dtype, device)
        first = outlines.offsets[:1]
        return [{"segments": outlines.segments, "offsets": torch.cat([first, first, outlines.offsets])}]

    def empty(self, dtype, device):
        segments = torch.zeros(0, 4, dtype=dtype, device=device)
        return [{"segments": segments, "offsets": torch.zeros(n, dtype=torch.int64, device=device)} for n in (1, 3)]


class TestAreas(OutlinesTester):
    function = areas
    reference = lambda segments, offsets: reference.areas_and_centroids(segments, offsets)[0]  # noqa: E731

    def tolerance(self, dtype):
        # Sums in double, rounded once to the dtype: 2⁻²⁴. Relative to the first vertex nothing is lost before.
        return {"rtol": 1e-12 if dtype == torch.float64 else 6e-8, "atol": 0}


class TestCentroids(OutlinesTester):
    function = centroids
    reference = lambda segments, offsets: reference.areas_and_centroids(segments, offsets)[1]  # noqa: E731

    def tolerance(self, dtype):
        return {"rtol": 1e-12 if dtype == torch.float64 else 6e-8, "atol": 0}


class TestBoxes(OutlinesTester):
    function = boxes
    reference = reference.boxes


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [0, 4], [1, 3], [0], [-1, 3]])
@pytest.mark.parametrize("method", [Outlines.areas, Outlines.centroids, Outlines.boxes])
def test_offsets_that_lie(method, offsets):
    with pytest.raises(ValueError, match=rf"{method.__qualname__}: expected outlines.offsets"):
        method(Outlines(torch.ones(3, 4), torch.tensor(offsets)))


class FromTester(OpTester):
    fixed_shape = False

    def compare(self, got, kwargs, dtype):
        want = Outlines(*map(torch.from_numpy, type(self).reference(**change_tensors(kwargs, array))))
        assert_same(got, want)


class TestFromPolygons(FromTester):
    function = outlines_from_polygons
    reference = reference.outlines_from_polygons
    dtypes = GEOMETRY
    converts = (torch.int8,)
    bad_inputs = (
        Bad({"polygons": [[[0, 1], [2, 3], [4, 0]]]}, ValueError, ("polygons[0][0]", "3 vertices", "got 1", "points")),
        Bad({"polygons": [[SQUARE], [[1, 2, 3, 4]]]}, ValueError, ("polygons[1][0]", "3 vertices", "got 2", "box")),
        Bad({"polygons": [[SQUARE, []]]}, ValueError, ("polygons[0][1]", "3 vertices", "got 0")),
        Bad({"polygons": [[torch.zeros(2, 2)]]}, ValueError, ("polygons[0][0]", "3 vertices", "got 2")),
        Bad({"keep": "smallest"}, ValueError, ("keep", "'largest', 'all'", "'smallest'")),
        Bad({"polygons": torch.zeros(1, 3, 2)}, TypeError, ("polygons", "list of lists of rings", "Tensor")),
        Bad({"polygons": [{"counts": b"", "size": [1, 1]}]}, TypeError, ("polygons[0]", "list of rings", "dict")),
        Bad({"polygons": [[SQUARE], np.zeros((4, 2))]}, TypeError, ("polygons[1]", "list of rings", "ndarray")),
        Bad({"polygons": [SQUARE]}, ValueError, ("polygons[0][0]", "(V, 2)", "shape ()")),
        Bad({"polygons": [[SQUARE, SQUARE[:-1]]]}, ValueError, ("polygons[0][1]", "even", "(7,)")),
        Bad({"polygons": [[np.zeros((2, 3))]]}, ValueError, ("polygons[0][0]", "(V, 2)", "(2, 3)")),
        Bad({"polygons": [[["a", "b"]]]}, TypeError, ("polygons[0][0]", "numbers", "'a'")),
        Bad({"polygons": [[[10**400, 0, 1, 1, 2, 2]]]}, TypeError, ("polygons[0][0]", "numbers")),
        Bad({"polygons": [[[[0, 1], [2]]]]}, TypeError, ("polygons[0][0]", "numbers", "[2]")),
        Bad({"polygons": [[torch.zeros(3, 2), torch.zeros(3, 2, device="meta")]]}, ValueError, ("device", "meta")),
    )

    def sample(self, dtype, device):
        rings = [[torch.tensor(ring, dtype=dtype, device=device) for ring in rings] for rings in random_polygons(12)]
        return {"polygons": [[ring.unflatten(0, (-1, 2)) for ring in row] for row in rings], "keep": "all"}

    def more_samples(self, dtype, device):
        polygons = self.sample(dtype, device)["polygons"]
        special = [
            [],
            [SQUARE, SQUARE[::-1]],  # equal areas
            [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0], [0, 0, 3, 0, math.nan, 3], [0, 0, 3, 0, math.inf, 3]],
            [[0, 0, 0, 3, 0, 3, 3, 3, 0, 0]],  # a vertex twice, closed by hand, against the clock
            [[0.1, 0.1, 0.3, 0.3, 0.7, 0.7], SQUARE],
        ]
        special = [[torch.tensor(ring, dtype=dtype, device=device) for ring in rings] for rings in special]
        return [{"polygons": value, "keep": keep} for value in (polygons, special) for keep in ("largest", "all")]

    def empty(self, dtype, device):
        return [
            {"polygons": []},
            {"polygons": [[]]},
            {"polygons": [[], []]},
        ]


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


def from_rle(counts: Tensor, offsets: Tensor, size: tuple[int, int], keep: str = "largest") -> Outlines:
    return outlines_from_rle(RLE(counts, offsets, size), keep=keep)


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
def test_from_rle_of_runs_over_several_columns_is_from_masks(keep, device):
    """Runs that begin and end in the middle of columns, whole columns between, empty ones, holes in wide components."""
    random = np.random.default_rng(0)
    for height in (1, 2, 3, 5):
        cuts = [np.unique(random.integers(0, height * 40, random.integers(1, 12))) for _ in range(60)]
        counts = [np.diff([0, *cut, height * 40]).tolist() for cut in cuts]
        rle = RLE.from_coco([{"size": [height, 40], "counts": each} for each in counts]).to(device)
        assert_same(outlines_from_rle(rle, keep=keep), outlines_from_masks(rle.to_masks(), keep=keep))


@pytest.mark.parametrize("keep", ["largest", "all"])
def test_masks_and_rle_are_one(keep, device):
    """Small random ones have every pattern of neighbours; wide ones cross the words of 64 pixels."""
    for height, width in [(5, 5), (3, 130), (130, 3), (1, 64), (9, 65)]:
        masks = random_masks(60, height, width, seed=height).to(device)
        outlines = outlines_from_masks(masks, keep=keep)
        assert_same(outlines, outlines_from_rle(RLE.from_masks(masks), keep=keep))
        if keep == "all":
            assert (outlines.areas() == masks.sum((1, 2))).all()
            assert (outlines.boxes() == RLE.from_masks(masks).boxes()).all()


@pytest.mark.parametrize("size", [(40, 200), (7, 300), (90, 64)])
def test_boxes_around_the_pixels_change_nothing(size, device):
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


def test_the_way_round_does_not_matter(device):
    masks = random_masks(40, 9, 11, seed=3).to(device)
    outlines = outlines_from_masks(masks, keep="all")
    assert_same(outlines_from_masks(masks.flip(2), keep="all"), outlines.hflip(11))
    assert_same(outlines_from_masks(masks.mT, keep="all"), outlines.affine([[0, 1, 0], [1, 0, 0]]))


def test_largest_component_is_that_of_scipy():
    for mask in random_masks(60, 15, 17, seed=4).numpy():
        labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
        filled = [scipy.ndimage.binary_fill_holes(labels == k + 1) for k in range(count)]
        want = max(filled, key=np.sum, default=mask)
        assert_same(outlines_from_masks(torch.from_numpy(mask[None])), outlines_from_masks(torch.tensor(want[None])))


def test_border_pixels_are_the_contour_of_opencv():
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
def test_contours_and_centres_of_the_released_code(name):
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
def test_tiny_masks(height, width, random):
    masks = np.array([random.random() < 0.6 for _ in range(3 * height * width)], dtype=bool).reshape(3, height, width)
    for keep in ("largest", "all"):
        for boundary in ("edges", "pixels"):
            got = outlines_from_masks(torch.from_numpy(masks), keep=keep, boundary=boundary)
            want = reference.outlines_from_masks(masks, keep, boundary)
            assert_same(got, Outlines(*map(torch.from_numpy, want)))


class TestClip:
    @pytest.mark.parametrize("dtype", GEOMETRY)
    def test_areas_and_centroids_are_those_of_geos(self, dtype, device):
        polygons = [[rings[0]] for rings in random_polygons(200, seed=2)]
        outlines = outlines_from_polygons(polygons).to(device, dtype).scale(0.2, 0.2)
        clipped = outlines.clip((100, 150))
        image = shapely.box(0, 0, 150, 100)
        areas, centroids = clipped.areas().tolist(), clipped.centroids().tolist()
        segments, offsets = outlines.segments.cpu(), outlines.offsets.tolist()
        for m, (begin, end) in enumerate(itertools.pairwise(offsets)):
            shape = shapely.Polygon(segments[begin:end, :2].tolist())  # sides are in order, or backwards
            if not shape.is_valid:
                continue  # a wide gap between two angles: it crosses itself
            want = shape.intersection(image)
            # Crossings are rounded to the dtype, at coordinates up to 150 and sides up to 12.
            tolerance = 1e-10 if dtype == torch.float64 else 3e-4
            assert areas[m] == pytest.approx(want.area, abs=tolerance)
            if want.area > 1:
                centroid = [want.centroid.x, want.centroid.y]
                assert centroids[m] == pytest.approx(centroid, abs=tolerance)

    def test_pixels_are_those_of_the_cropped_mask(self, device):
        masks = random_masks(40, 12, 14, seed=6).to(device)
        outlines = outlines_from_masks(masks, keep="all").translate(-3, -2)
        assert_same(outlines.clip((7, 6)), outlines_from_masks(masks[:, 2:9, 3:9].contiguous(), keep="all"))

    def test_inside_nothing_changes(self, device):
        outlines = outlines_from_masks(random_masks(20, 9, 11, seed=7).to(device), keep="all")
        assert_same(outlines.clip((9, 11)), outlines)

    def test_idempotent(self, device):
        once = outlines_from_polygons(random_polygons(50), keep="all").to(device).clip((300, 400))
        assert_same(once.clip((300, 400)), once)

    def test_outside_nothing_is_left(self, device):
        outlines = outlines_from_polygons([[SQUARE]]).to(device)
        for dx, dy in [(-10, 0), (10, 0), (0, -10), (0, 10), (-10, 10), (-4, 0), (0, 8)]:
            assert len(outlines.translate(dx, dy).clip((8, 8)).segments) == 0
        for size in [(0, 8), (8, 0), (0, 0)]:
            assert len(outlines.clip(size).segments) == 0

    def test_around_the_image_its_border_is_left(self, device):
        outlines = outlines_from_polygons([[[-9, -9, 20, -5, 30, 30, -7, 40]]]).to(device).clip((3, 5))
        assert segment_sets(outlines) == [[(0, 0, 5, 0), (0, 3, 0, 0), (5, 0, 5, 3), (5, 3, 0, 3)]]

    def test_two_prongs_leave_no_border_between_them(self, device):
        prongs = [-5, 0, 4, 0, 4, 1, -3, 1, -3, 3, 4, 3, 4, 4, -5, 4]
        clipped = outlines_from_polygons([[prongs]]).to(device).clip((8, 8))
        want = outlines_from_polygons([[[0, 0, 4, 0, 4, 1, 0, 1], [0, 3, 4, 3, 4, 4, 0, 4]]], keep="all")
        assert_same(clipped, want.to(device))

    def test_points_stay_or_go(self, device):
        x = torch.tensor([-0.5, 0.0, 0.5, 8.0, 8.5], device=device)
        points = torch.stack([x, x, x, x], 1)
        clipped = Outlines(points, torch.tensor([0, 5], device=device)).clip((8, 8))
        assert clipped.segments.tolist() == points[1:4].tolist()

    @settings(deadline=None)
    @given(st.lists(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=2, max_size=6), max_size=4))
    def test_hostile(self, rings):
        rows = [(*a, *b) for ring in rings for a, b in itertools.pairwise([*ring, ring[0]])]
        for dtype in GEOMETRY:
            outlines = Outlines(torch.tensor(rows, dtype=dtype).reshape(-1, 4), torch.tensor([0, len(rows)]))
            clipped = outlines.clip((5, 6)).segments
            finite = clipped[clipped.isfinite().all(1)]
            assert (finite >= 0).all()
            assert (finite <= torch.tensor([6, 5, 6, 5])).all()
            assert (len(finite) < len(clipped)) == (not outlines.segments.isfinite().all())

    def test_bad_input_and_opcheck(self, device):
        outlines = outlines_of(device=device)
        for size in [(3,), (-1, 4), (2**16, 2**16)]:
            with pytest.raises(ValueError, match=r"Outlines.clip: expected size"):
                outlines.clip(size)
        torch.library.opcheck(torch.ops.polarmask.outlines_clip, (outlines.segments, outlines.offsets, 90, 100))


def snake(height: int, width: int) -> Tensor:
    """One component, a pixel wide, there and back over all rows: the longest way for a union to go."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, ::2] = True
    mask[:, 1::4, -1] = True
    mask[:, 3::4, 0] = True
    return mask


@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
class TestKernels:
    """Beyond what OpTester compares: shapes too large for shared memory, many blocks, values that lie."""

    def agree(self, function, **kwargs) -> None:
        for want, got in zip(*map(leaves, by_cpu_and_kernels(function, kwargs)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)

    @pytest.mark.parametrize("keep", ["largest", "all"])
    @pytest.mark.parametrize("size", [(40, 224), (300, 9), (1, 7000)])
    def test_pixels(self, size, keep):
        dense = torch.rand(2, *size, generator=torch.Generator().manual_seed(0)) < 0.55
        masks = torch.cat([random_masks(1, *size), dense, snake(*size)])
        self.agree(outlines_from_masks, masks=masks, keep=keep)
        self.agree(outlines_from_masks, masks=masks, keep=keep, boundary="pixels")
        rle = RLE.from_masks(masks)
        self.agree(from_rle, counts=rle.counts, offsets=rle.offsets, size=rle.size, keep=keep)

    @pytest.mark.smoke
    def test_largest_in_a_bay(self):
        """Many gaps are joined before the bay in which the largest component lies turns out to open."""
        mask = torch.zeros(1, 20, 160, dtype=torch.bool)
        mask[0, 2, 100:140] = mask[0, 2:, 100] = mask[0, 2:, 139] = True
        mask[0, 6:14, 105:135] = True
        mask[0, -1, :100:2] = True
        self.agree(outlines_from_masks, masks=mask)
        rle = RLE.from_masks(mask.mT)
        self.agree(from_rle, counts=rle.counts, offsets=rle.offsets, size=rle.size)

    def test_masks_that_begin_anywhere(self):
        """Whole words are read only where they are aligned."""
        flat = random_masks(1, 1, 2 * 5 * 64 + 1).flatten()
        boxes = torch.tensor([[31.0, 1, 31.5, 3], [7, 2, 50, 4]])
        for first in (0, 1):
            masks = flat[first : first + 640].view(2, 5, 64)
            self.agree(outlines_from_masks, masks=masks, keep="all")
            self.agree(outlines_from_masks, masks=masks, boxes=boxes, keep="all")

    @pytest.mark.parametrize("keep", ["largest", "all"])
    def test_polygons(self, keep):
        polygons = [[torch.tensor(ring) for ring in rings] for rings in random_polygons(400, seed=9)]
        self.agree(outlines_from_polygons, polygons=[*polygons[:200], [], *polygons[200:]], keep=keep)

    @pytest.mark.parametrize("dtype", GEOMETRY)
    def test_clip(self, dtype):
        random = np.random.default_rng(3)
        rings = [random.uniform(-20, 60, (500, 2)), random.integers(-1, 12, (400, 2)), random.integers(0, 3, (3, 2))]
        polygons = [[torch.from_numpy(ring).to(dtype)] for ring in rings for _ in range(2)]
        outlines = Outlines.cat([outlines_from_polygons(polygons), outlines_of(dtype)])
        for size in [(10, 10), (40, 9), (0, 5), (2000, 2000)]:
            self.agree(lambda outlines, size=size: outlines.clip(size), outlines=outlines)

    def test_sums(self):
        outlines = outlines_from_polygons(random_polygons(300, seed=8), keep="all")
        for function in (areas, centroids, boxes):
            self.agree(function, segments=outlines.segments, offsets=outlines.offsets)

    @pytest.fixture
    def unchecked(self, monkeypatch) -> str:
        """The kernels' device, where nobody looks at values before they do."""
        monkeypatch.setenv("POLARMASK_CHECK", "0")
        return "cpu" if EMULATED else "cuda"

    @pytest.mark.parametrize("offsets", [[0, 7, 2, 9], [5, 0, 20, 3], [-4, 9, 10**15, -(2**63)], [3, 3, 3, 3]])
    def test_offsets_that_lie(self, offsets, unchecked):
        offsets = torch.tensor(offsets, device=unchecked)
        segments = 8 * torch.rand(9, 4, generator=torch.Generator().manual_seed(1)).to(unchecked) - 2
        outlines = Outlines(segments, offsets)
        assert outlines.areas().shape == (3,)
        assert outlines.boxes().shape == (3, 4)
        assert outlines.clip((4, 4)).offsets.shape == (4,)
        counts = torch.tensor([1, 2, 3, 0, 0, 4, 1, 1, 0], dtype=torch.int32, device=unchecked)
        many = torch.ones(3000, dtype=torch.int32, device=unchecked)
        for keep in ("largest", "all"):
            assert from_rle(counts, offsets, (3, 4), keep).offsets.shape == (4,)
            assert from_rle(many, offsets * 300, (30, 100), keep).offsets.shape == (4,)
        inside = offsets.clamp(0, 9)
        ring_offsets = torch.tensor([0, 4, 4, 9, 2, 7, 3, 8, 1, 9], device=unchecked)
        polygons = torch.ops.polarmask.outlines_from_polygons(segments[:, :2], ring_offsets, inside, False)
        assert polygons[1].shape == (4,)
        assert (polygons[1] <= len(polygons[0])).all()

    def test_counts_that_lie_have_no_outline(self, unchecked):
        good = [2, 5, 5]
        for bad in ([2, 5, 4], [2, 5, 6], [-2, 9, 5], [9, -2, 5], [2**31 - 1, 5], []):
            counts = torch.tensor([*good, *bad, *good], dtype=torch.int32, device=unchecked)
            offsets = torch.tensor([0, 3, 3 + len(bad), 6 + len(bad)], device=unchecked)
            outlines = from_rle(counts, offsets, (3, 4))
            assert outlines.areas().tolist() == [5, 0, 5]
            assert outlines.offsets.diff().tolist()[1] == 0


def test_rings_as_lists_arrays_and_tensors():
    flat = [0.1, 0.2, 4.5, 0.25, 3.0, 3.5]
    pairs = np.reshape(flat, (3, 2))
    want = outlines_from_polygons([[flat]])
    assert want.segments.dtype == torch.float32
    for ring in (pairs.tolist(), tuple(flat), pairs.astype(np.float32), torch.tensor(flat), pairs[::-1].astype("f4")):
        assert_same(outlines_from_polygons([[ring]]), want)
    fixed = np.array(flat, np.float32)
    fixed.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(outlines_from_polygons([[fixed]]), want)
    assert outlines_from_polygons([[pairs]]).segments.dtype == torch.float64
    assert outlines_from_polygons([[torch.tensor(SQUARE)]]).segments.dtype == torch.float32
    assert outlines_from_polygons([[torch.tensor(SQUARE).half(), pairs]]).segments.dtype == torch.float64
    assert not outlines_from_polygons([[torch.tensor(flat, requires_grad=True)]]).segments.requires_grad


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(HOSTILE, min_size=3, max_size=6).map(lambda x: x + x[::-1]), max_size=3), max_size=3))
def test_hostile_polygons(polygons):
    for keep in ("largest", "all"):
        outlines = outlines_from_polygons(polygons, keep=keep)
        assert len(outlines) == len(polygons)
        assert outlines.segments.isfinite().all()
        assert (outlines.areas() >= 0).all()


@settings(deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), max_size=8))
def test_hostile_segments(rows):
    segments = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    outlines = Outlines(segments, torch.tensor([0, len(rows)]))
    assert outlines.areas().isfinite().all() == segments.isfinite().all()
    lo, hi = outlines.boxes().split(2, 1)
    assert (lo <= hi).all()


def test_areas_and_centroids_are_those_of_geos(device):
    polygons = [[rings[0]] for rings in random_polygons(50, seed=1)]
    outlines = outlines_from_polygons(polygons).to(device, torch.float64)
    shapes = [shapely.Polygon(np.reshape(rings[0], (-1, 2))) for rings in polygons]
    np.testing.assert_allclose(outlines.areas().cpu(), [shape.area for shape in shapes], rtol=1e-11)
    np.testing.assert_allclose(outlines.centroids().cpu(), [shape.centroid.coords[0] for shape in shapes], rtol=1e-11)


def test_sums_ignore_the_order_of_segments(device):
    outlines = outlines_of(torch.float64, device)
    for m in range(len(outlines)):
        one = outlines[m]
        mixed = Outlines(one.segments[torch.randperm(len(one.segments))], one.offsets)
        torch.testing.assert_close(mixed.areas(), one.areas(), rtol=1e-12, atol=0)
        torch.testing.assert_close(mixed.centroids(), one.centroids(), rtol=1e-12, atol=0, equal_nan=True)


def test_far_from_the_origin_nothing_is_lost():
    ring = torch.tensor([0, 0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)
    far = outlines_from_polygons([[ring + 2.0**40]])
    assert far.areas().tolist() == [1]
    assert far.centroids().tolist() == [[2.0**40 + 0.5] * 2]


def test_points_in_a_line_have_no_area():
    # 0.1, 0.3 and 0.7 as float32 are not in a line with their triples: rounding leaves an area of 1e-9.
    there = [[0.1, 0.3, 0.4, 1.2], [0.4, 1.2, 0.7, 2.1], [0.7, 2.1, 0.1, 0.3]]
    outlines = Outlines(torch.tensor(there, dtype=torch.float64), torch.tensor([0, 3]))
    assert outlines.areas().tolist() == [0]
    torch.testing.assert_close(outlines.centroids(), torch.tensor([[0.4, 1.2]], dtype=torch.float64))


def test_indexing(device):
    outlines = outlines_of(device=device)
    sets = segment_sets(outlines)
    assert segment_sets(outlines[3]) == segment_sets(outlines[3 - len(outlines)]) == [sets[3]]
    assert segment_sets(outlines[torch.tensor(3, device=device)]) == segment_sets(outlines[np.int64(3)]) == [sets[3]]
    assert segment_sets(outlines[2:9:3]) == sets[2:9:3]
    assert segment_sets(outlines[torch.tensor([5, -1, 5], device=device)]) == [sets[5], sets[-1], sets[5]]
    assert segment_sets(outlines[torch.arange(len(outlines), device=device) % 2 == 0]) == sets[::2]
    assert segment_sets(outlines[torch.zeros(0, dtype=torch.int64, device=device)]) == []
    assert [one for outline in outlines for one in segment_sets(outline)] == sets
    with pytest.raises(IndexError):
        outlines[len(outlines)]
    with pytest.raises(IndexError, match=r"Outlines: expected an index of at most one dimension"):
        outlines[torch.zeros(1, 2, dtype=torch.int64, device=device)]


def test_cat(device):
    outlines = outlines_of(device=device)
    empty = outlines[:0]
    assert_same(Outlines.cat([outlines[:4], empty, outlines[4:]]), outlines)
    assert len(Outlines.cat([empty, empty])) == 0
    with pytest.raises(ValueError, match=r"Outlines.cat.*at least one"):
        Outlines.cat([])


def test_transforms_move_areas_and_centroids(device):
    outlines = outlines_of(torch.float64, device)
    x, y = outlines.centroids()[:-2].unbind(1)  # weights by length do not follow a scale
    area = outlines.areas()

    def check(moved: Outlines, factor: float, *centroid: Tensor) -> None:
        torch.testing.assert_close(moved.areas(), area * factor, rtol=1e-11, atol=1e-9)
        torch.testing.assert_close(moved.centroids()[:-2], torch.stack(centroid, 1), rtol=1e-11, atol=0, equal_nan=True)

    check(outlines.scale(2, 0.25), 0.5, x * 2, y * 0.25)
    check(outlines.scale(-2, 1), 2, -2 * x, y)
    check(outlines.hflip(640), 1, 640 - x, y)
    check(outlines.translate(-7, 11), 1, x - 7, y + 11)
    check(outlines.affine([[0, 1, 3], [1, 0, 5]]), 1, y + 3, x + 5)
    check(outlines.affine(torch.tensor([[2, 1, 3], [-1, 3, 5], [0, 0, 1.0]])), 7, 2 * x + y + 3, -x + 3 * y + 5)
    assert_same(outlines.hflip(64).hflip(64), outlines)
    for bad in ([[1, 0], [0, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 1]], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"Outlines.affine.*\(2, 3\)"):
            outlines.affine(bad)


def test_half_precision_moves_in_float32():
    outlines = outlines_from_polygons([[SQUARE]]).to(torch.float16)
    assert outlines.segments.dtype == torch.float16
    assert outlines.scale(1000.3, 1).segments.dtype == torch.float32
    assert outlines.areas().dtype == torch.float32


def test_to_keeps_the_offsets():
    moved = outlines_of().to(torch.float64)
    assert (moved.segments.dtype, moved.offsets.dtype) == (torch.float64, torch.int64)
    assert {outlines_of().to("meta").segments.device, outlines_of().to("meta").offsets.device} == {torch.device("meta")}


def test_is_a_pytree_and_can_be_pickled():
    outlines = outlines_of()
    assert_same(tree_map(lambda tensor: tensor.clone(), outlines), outlines)
    assert_same(pickle.loads(pickle.dumps(outlines)), outlines)
    assert tree_map(lambda tensor: tensor.sum(), outlines).offsets.dim() == 0


def test_torch_export():
    class Centroids(torch.nn.Module):
        def forward(self, outlines: Outlines) -> Tensor:
            return outlines.hflip(640).centroids()

    rows, count = torch.export.Dim("rows"), torch.export.Dim("count", min=3)
    outlines = outlines_of()
    shapes = {"outlines": [{0: rows}, {0: count}]}
    program = torch.export.export(Centroids(), (outlines,), dynamic_shapes=shapes)
    other = outlines[3:7]
    torch.testing.assert_close(program.module()(other), Centroids()(other), rtol=0, atol=0)


def test_export_from_masks_to_centroids():
    class Centroids(torch.nn.Module):
        def forward(self, masks: Tensor) -> Tensor:
            return outlines_from_masks(masks).translate(-2, -2).clip((9, 9)).centroids()

    masks = random_masks(5, 13, 14)
    program = torch.export.export(Centroids(), (masks,), dynamic_shapes=[{0: torch.export.Dim("count", min=2)}])
    other = random_masks(9, 13, 14, seed=8)
    torch.testing.assert_close(program.module()(other), Centroids()(other), rtol=0, atol=0, equal_nan=True)


def test_vmap():
    outlines = outlines_of()
    batch = torch.stack([outlines.segments, outlines.scale(2, 2).segments])
    got = torch.vmap(lambda segments: Outlines(segments, outlines.offsets).areas())(batch)
    torch.testing.assert_close(got, torch.stack([outlines.areas(), 4 * outlines.areas()]))


@pytest.mark.parametrize(
    ("function", "batch"),
    [
        (lambda ring: outlines_from_polygons([[ring]]), torch.rand(2, 4, 2)),
        (lambda masks: outlines_from_masks(masks), torch.ones(2, 3, 4, 4, dtype=torch.bool)),
        (lambda counts: from_rle(counts, torch.tensor([0, 2]), (2, 2)), torch.ones(2, 2, dtype=torch.int32)),
        (lambda segments: Outlines(segments, torch.tensor([0, 5])).clip((4, 4)), torch.rand(2, 5, 4)),
    ],
)
def test_vmap_is_refused_where_lengths_depend_on_the_data(function, batch):
    with pytest.raises(RuntimeError, match=r"outlines_\w+: vmap is not possible"):
        torch.vmap(lambda one: function(one).segments)(batch)


def test_gradients_stop():
    outlines = outlines_of()
    outlines.segments.requires_grad_()
    assert not outlines.areas().requires_grad
    assert outlines.scale(2, 2).segments.requires_grad

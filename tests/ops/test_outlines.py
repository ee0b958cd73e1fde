"""The methods of Outlines: measures, transforms, clipping, indexing, export."""

import itertools
import pickle

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import GEOMETRY, Bad, OpTester
from outlines_tester import (
    HOSTILE,
    SQUARE,
    areas,
    assert_same,
    boxes,
    centroids,
    from_rle,
    outlines_of,
    random_masks,
    random_polygons,
    segment_sets,
)
from reference import outlines as reference
from torch import Tensor
from torch.utils._pytree import tree_map

from polarmask_ops import Outlines, outlines_from_masks, outlines_from_polygons


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
def test_outlines_with_wrong_offsets_raise(method, offsets):
    with pytest.raises(ValueError, match=rf"{method.__qualname__}: expected outlines.offsets"):
        method(Outlines(torch.ones(3, 4), torch.tensor(offsets)))


def test_outlines_of_rings_either_way_round_are_equal(device):
    masks = random_masks(40, 9, 11, seed=3).to(device)
    outlines = outlines_from_masks(masks, keep="all")
    assert_same(outlines_from_masks(masks.flip(2), keep="all"), outlines.hflip(11))
    assert_same(outlines_from_masks(masks.mT, keep="all"), outlines.affine([[0, 1, 0], [1, 0, 0]]))


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


@settings(deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), max_size=8))
def test_outlines_of_hostile_segments_do_not_fail(rows):
    segments = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    outlines = Outlines(segments, torch.tensor([0, len(rows)]))
    assert outlines.areas().isfinite().all() == segments.isfinite().all()
    lo, hi = outlines.boxes().split(2, 1)
    assert (lo <= hi).all()


def test_outlines_areas_and_centroids_equal_geos(device):
    polygons = [[rings[0]] for rings in random_polygons(50, seed=1)]
    outlines = outlines_from_polygons(polygons).to(device, torch.float64)
    shapes = [shapely.Polygon(np.reshape(rings[0], (-1, 2))) for rings in polygons]
    np.testing.assert_allclose(outlines.areas().cpu(), [shape.area for shape in shapes], rtol=1e-11)
    np.testing.assert_allclose(outlines.centroids().cpu(), [shape.centroid.coords[0] for shape in shapes], rtol=1e-11)


def test_outlines_sums_of_segments_in_any_order_are_equal(device):
    outlines = outlines_of(torch.float64, device)
    for m in range(len(outlines)):
        one = outlines[m]
        mixed = Outlines(one.segments[torch.randperm(len(one.segments))], one.offsets)
        torch.testing.assert_close(mixed.areas(), one.areas(), rtol=1e-12, atol=0)
        torch.testing.assert_close(mixed.centroids(), one.centroids(), rtol=1e-12, atol=0, equal_nan=True)


def test_outlines_far_from_the_origin_keep_their_precision():
    ring = torch.tensor([0, 0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)
    far = outlines_from_polygons([[ring + 2.0**40]])
    assert far.areas().tolist() == [1]
    assert far.centroids().tolist() == [[2.0**40 + 0.5] * 2]


def test_outlines_of_points_in_a_line_have_no_area():
    # 0.1, 0.3 and 0.7 as float32 are not in a line with their triples: rounding leaves an area of 1e-9.
    there = [[0.1, 0.3, 0.4, 1.2], [0.4, 1.2, 0.7, 2.1], [0.7, 2.1, 0.1, 0.3]]
    outlines = Outlines(torch.tensor(there, dtype=torch.float64), torch.tensor([0, 3]))
    assert outlines.areas().tolist() == [0]
    torch.testing.assert_close(outlines.centroids(), torch.tensor([[0.4, 1.2]], dtype=torch.float64))


def test_outlines_indexed_select_instances(device):
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


def test_outlines_cat_keeps_all_instances(device):
    outlines = outlines_of(device=device)
    empty = outlines[:0]
    assert_same(Outlines.cat([outlines[:4], empty, outlines[4:]]), outlines)
    assert len(Outlines.cat([empty, empty])) == 0
    with pytest.raises(ValueError, match=r"Outlines.cat.*at least one"):
        Outlines.cat([])


def test_outlines_transformed_move_areas_and_centroids(device):
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


def test_outlines_of_half_precision_move_in_float32():
    outlines = outlines_from_polygons([[SQUARE]]).to(torch.float16)
    assert outlines.segments.dtype == torch.float16
    assert outlines.scale(1000.3, 1).segments.dtype == torch.float32
    assert outlines.areas().dtype == torch.float32


def test_outlines_to_dtype_keeps_the_offsets():
    moved = outlines_of().to(torch.float64)
    assert (moved.segments.dtype, moved.offsets.dtype) == (torch.float64, torch.int64)
    assert {outlines_of().to("meta").segments.device, outlines_of().to("meta").offsets.device} == {torch.device("meta")}


def test_outlines_as_pytree_and_pickled_are_equal():
    outlines = outlines_of()
    assert_same(tree_map(lambda tensor: tensor.clone(), outlines), outlines)
    assert_same(pickle.loads(pickle.dumps(outlines)), outlines)
    assert tree_map(lambda tensor: tensor.sum(), outlines).offsets.dim() == 0


def test_outlines_exported_equal_eager():
    class Centroids(torch.nn.Module):
        def forward(self, outlines: Outlines) -> Tensor:
            return outlines.hflip(640).centroids()

    rows, count = torch.export.Dim("rows"), torch.export.Dim("count", min=3)
    outlines = outlines_of()
    shapes = {"outlines": [{0: rows}, {0: count}]}
    program = torch.export.export(Centroids(), (outlines,), dynamic_shapes=shapes)
    other = outlines[3:7]
    torch.testing.assert_close(program.module()(other), Centroids()(other), rtol=0, atol=0)


def test_outlines_under_vmap_equal_loop():
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
def test_outlines_of_unknown_length_under_vmap_raise(function, batch):
    with pytest.raises(RuntimeError, match=r"outlines_\w+: vmap is not possible"):
        torch.vmap(lambda one: function(one).segments)(batch)


def test_outlines_measures_give_no_gradients():
    outlines = outlines_of()
    outlines.segments.requires_grad_()
    assert not outlines.areas().requires_grad
    assert outlines.scale(2, 2).segments.requires_grad

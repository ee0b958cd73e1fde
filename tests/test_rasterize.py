from pathlib import Path

import numpy as np
import pycocotools.mask as coco
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from op_tester import EMULATED, GEOMETRY, KERNELS, Bad, OpTester, by_cpu_and_kernels, leaves
from reference import rasterize as reference

from polarmask_ops import (
    _C,
    RLE,
    Outlines,
    outlines_from_masks,
    outlines_to_labels,
    outlines_to_masks,
    outlines_to_rle,
    polygons_to_labels,
    polygons_to_masks,
    polygons_to_rle,
    rays_to_boxes,
    rays_to_labels,
    rays_to_masks,
    rays_to_polygons,
    rays_to_rle,
)

SIZE = (19, 23)
HOSTILE = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e6, -1e6, 0.0, -0.0, 0.5, 1.5, 7.0]


def random_polygons(dtype, device, count=12, num_vertices=7):
    polygons = torch.rand(count, num_vertices, 2, device=device) * 30 - 5
    polygons[count // 2 :] = (polygons[count // 2 :] * 2).round() / 2  # vertices on pixel centres, corners and edges
    return polygons.to(dtype)


def random_rays(dtype, device, count=8, num_rays=12):
    centers, rays = torch.rand(count, 2, device=device) * 20, torch.rand(count, num_rays, device=device) * 9
    return {"centers": centers.to(dtype), "rays": rays.to(dtype)}


def random_outlines(dtype, device):
    """Two triangles in one instance, none in the next, one open piece in the last."""
    rings = torch.rand(3, 3, 2, device=device) * 24 - 2
    segments = torch.cat([rings, rings.roll(-1, 1)], 2).flatten(0, 1)[:8].to(dtype)
    return Outlines(segments, torch.tensor([0, 6, 6, 8], device=device))


BAD_SIZES = (
    Bad({"size": (-1, 4)}, ValueError, ("size", "(-1, 4)")),
    Bad({"size": (2**16, 2**15)}, ValueError, ("size", "2**31")),
    Bad({"size": (4, 4, 3)}, ValueError, ("size", "(H, W)")),
    Bad({"size": (4.0, 4)}, TypeError, ("size", "(H, W)", "(4.0, 4)")),
    Bad({"size": 4}, TypeError, ("size", "(H, W)", "got 4")),
)
BAD_POLYGONS = (
    Bad({"polygons": torch.ones(3, 4, 2, dtype=torch.int64)}, TypeError, ("polygons", "floating-point", "int64")),
    Bad({"polygons": [[0.0, 0.0]]}, TypeError, ("polygons", "tensor", "list")),
    Bad({"polygons": torch.rand(4, 2)}, ValueError, ("polygons", "(N, V, 2)", "(4, 2)")),
    Bad({"polygons": torch.rand(3, 4, 3)}, ValueError, ("polygons", "(N, V, 2)", "(3, 4, 3)")),
    *BAD_SIZES,
)
BAD_CENTERS = (
    Bad({"rays": torch.rand(8, 2)}, ValueError, ("num_rays", "from 3", "got 2")),
    Bad({"rays": torch.rand(8, 1025)}, ValueError, ("num_rays", "1024", "got 1025")),
    Bad({"rays": torch.rand(8)}, ValueError, ("rays", "(N, R)", "(8,)")),
    Bad({"centers": torch.rand(7, 2)}, ValueError, ("centers", "(N, 2)", "8", "(7, 2)")),
    Bad({"centers": torch.rand(8, 3)}, ValueError, ("centers", "(N, 2)", "(8, 3)")),
    Bad({"centers": torch.ones(8, 2, dtype=torch.int32)}, TypeError, ("centers", "floating-point", "int32")),
)
BAD_RAYS = (
    *BAD_CENTERS,
    *BAD_SIZES,
    Bad({"scale": torch.rand(3)}, ValueError, ("scale", "(2,) or (N, 2)", "(3,)")),
    Bad({"scale": torch.rand(7, 2)}, ValueError, ("scale", "(N, 2)", "(7, 2)")),
    Bad({"scale": 2.0}, TypeError, ("scale", "tensor", "float")),
)
BAD_OUTLINES = (
    *BAD_SIZES,
    Bad({"outlines": torch.rand(3, 4)}, TypeError, ("outlines", "Outlines", "Tensor")),
    Bad({"outlines": Outlines(torch.rand(3, 3), torch.tensor([0, 3]))}, ValueError, ("segments", "(S, 4)")),
    Bad({"outlines": Outlines(torch.rand(3, 4), torch.tensor([0, 4]))}, ValueError, ("offsets", "3", "4")),
    Bad({"outlines": Outlines(torch.rand(3, 4), torch.tensor([0, 3, 1, 3]))}, ValueError, ("offsets", "fall")),
)
BAD_RULE = (Bad({"rule": "edge"}, ValueError, ("rule", "'center'", "'coco'", "'edge'")),)
BAD_ORDER = (
    Bad({"order": torch.tensor([0, 100])}, IndexError, ("order", "100")),
    Bad({"order": torch.tensor([-1])}, IndexError, ("order", "-1")),
    Bad({"order": torch.tensor([[0]])}, ValueError, ("order", "(K,)")),
    Bad({"order": torch.tensor([0.0])}, TypeError, ("order", "int64", "float32")),
)


class TestRaysToPolygons(OpTester):
    function = staticmethod(rays_to_polygons)
    reference = staticmethod(reference.rays_to_polygons)
    differentiable = ("centers", "rays")
    bad_inputs = BAD_CENTERS

    def sample(self, dtype, device):
        return random_rays(dtype, device)

    def more_samples(self, dtype, device):
        lengths = torch.tensor([[-1.0, 0.0, 2.0]], device=device).to(dtype)
        return [
            *(random_rays(dtype, device, num_rays=r) for r in (3, 4, 37, 360)),
            {"centers": torch.zeros(1, 2, device=device, dtype=dtype), "rays": lengths},
        ]

    def empty(self, dtype, device):
        return [random_rays(dtype, device, count=0)]

    def tolerance(self, dtype):
        # One rounding at the end; before it, np.cos and the series differ by an ulp of double.
        return {"rtol": 1e-15 if dtype == torch.float64 else 2**-23, "atol": 1e-14}


class TestRaysToBoxes(TestRaysToPolygons):
    function = staticmethod(rays_to_boxes)
    reference = staticmethod(reference.rays_to_boxes)
    bad_inputs = ()  # those of rays_to_polygons, in its name


class TestPolygonsToMasks(OpTester):
    function = staticmethod(polygons_to_masks)
    reference = staticmethod(reference.polygons_to_masks)
    bad_inputs = BAD_POLYGONS

    def sample(self, dtype, device):
        return {"polygons": random_polygons(dtype, device), "size": SIZE}

    def more_samples(self, dtype, device):
        vertices = [random_polygons(dtype, device, num_vertices=v) for v in (1, 2, 3, 40)]
        sizes = [{"polygons": random_polygons(dtype, device), "size": size} for size in ((1, 23), (23, 1), (70, 3))]
        return [*({"polygons": polygons, "size": SIZE} for polygons in vertices), *sizes]

    def empty(self, dtype, device):
        polygons = random_polygons(dtype, device)
        return [
            {"polygons": polygons[:0], "size": SIZE},
            {"polygons": polygons[:, :0], "size": SIZE},
            *({"polygons": polygons, "size": size} for size in ((0, 5), (5, 0), (0, 0))),
        ]


class TestPolygonsToRle(TestPolygonsToMasks):
    function = staticmethod(polygons_to_rle)
    reference = staticmethod(reference.polygons_to_rle)
    fixed_shape = False
    bad_inputs = BAD_POLYGONS + BAD_RULE

    def more_samples(self, dtype, device):
        sample = {**self.sample(dtype, device), "rule": "coco"}
        return [*super().more_samples(dtype, device), sample]


class TestPolygonsToLabels(TestPolygonsToMasks):
    function = staticmethod(polygons_to_labels)
    reference = staticmethod(reference.polygons_to_labels)
    bad_inputs = BAD_POLYGONS + BAD_ORDER

    def more_samples(self, dtype, device):
        orders = [[], [3], [5, 0, 2], [1, 2, 1], list(range(12))[::-1]]
        tensors = [torch.tensor(order, dtype=torch.int64, device=device) for order in orders]
        ordered = [{**self.sample(dtype, device), "order": order} for order in [*tensors, tensors[2].int()]]
        return [*super().more_samples(dtype, device), *ordered]


class TestRaysToMasks(OpTester):
    function = staticmethod(rays_to_masks)
    reference = staticmethod(reference.rays_to_masks)
    dtypes = GEOMETRY
    bad_inputs = BAD_RAYS

    def sample(self, dtype, device):
        return {**random_rays(dtype, device), "size": SIZE}

    def more_samples(self, dtype, device):
        scales = [torch.rand(*shape, device=device).to(dtype) + 0.5 for shape in ((2,), (8, 2))]
        return [{**self.sample(dtype, device), "scale": scale} for scale in scales]

    def empty(self, dtype, device):
        return [
            {**random_rays(dtype, device, count=0), "size": SIZE},
            {**random_rays(dtype, device, count=0), "size": SIZE, "scale": torch.ones(2, device=device).to(dtype)},
            {**self.sample(dtype, device), "size": (0, 7)},
        ]


class TestRaysToRle(TestRaysToMasks):
    function = staticmethod(rays_to_rle)
    reference = staticmethod(reference.rays_to_rle)
    fixed_shape = False
    bad_inputs = BAD_RAYS + BAD_RULE


class TestRaysToLabels(TestRaysToMasks):
    function = staticmethod(rays_to_labels)
    reference = staticmethod(reference.rays_to_labels)
    bad_inputs = BAD_RAYS + BAD_ORDER


class TestOutlinesToMasks(OpTester):
    function = staticmethod(outlines_to_masks)
    reference = staticmethod(reference.outlines_to_masks)
    dtypes = GEOMETRY
    bad_inputs = BAD_OUTLINES

    def sample(self, dtype, device):
        return {"outlines": random_outlines(dtype, device), "size": SIZE}

    def empty(self, dtype, device):
        none = Outlines(torch.zeros(0, 4, device=device, dtype=dtype), torch.zeros(1, dtype=torch.int64, device=device))
        return [{"outlines": none, "size": SIZE}, {**self.sample(dtype, device), "size": (5, 0)}]


class TestOutlinesToRle(TestOutlinesToMasks):
    function = staticmethod(outlines_to_rle)
    reference = staticmethod(reference.outlines_to_rle)
    fixed_shape = False


class TestOutlinesToLabels(TestOutlinesToMasks):
    function = staticmethod(outlines_to_labels)
    reference = staticmethod(reference.outlines_to_labels)
    bad_inputs = BAD_OUTLINES + BAD_ORDER


# ---- Invariants ----


def same_everywhere(shapes, size, to_masks, to_rle, to_labels):
    masks, rle = to_masks(*shapes, size), to_rle(*shapes, size)
    assert torch.equal(rle.to_masks(), masks)
    assert RLE.from_masks(masks) == rle
    assert (to_labels(*shapes, size).cpu().numpy() == reference.labels_of(masks.cpu().numpy())).all()
    return masks


def coordinates(shape):
    usual = st.floats(-20, 40, width=32)
    return arrays(np.float32, shape, elements=st.one_of(usual, st.sampled_from(HOSTILE))).map(torch.from_numpy)


@settings(max_examples=30 if EMULATED else 150, deadline=None)
@given(st.data())
def test_hostile_polygons(device, data):
    polygons = data.draw(coordinates((2, data.draw(st.integers(0, 8)), 2)))
    polygons = polygons.to(device, data.draw(st.sampled_from(GEOMETRY)))
    size = data.draw(st.tuples(st.integers(0, 24), st.integers(0, 24)))
    masks = same_everywhere((polygons,), size, polygons_to_masks, polygons_to_rle, polygons_to_labels)
    assert (masks.cpu().numpy() == reference.polygons_to_masks(polygons.cpu().numpy(), size)).all()
    assert torch.equal(polygons_to_masks(polygons.flip(1), size), masks)
    rle = polygons_to_rle(polygons, size, rule="coco")
    assert rle == RLE.from_masks(rle.to_masks())
    empty = ~polygons.isfinite().all((1, 2)) | (polygons.shape[1] < 3)
    assert rle.areas()[empty].sum() + masks[empty].sum() == 0


@settings(max_examples=30 if EMULATED else 150, deadline=None)
@given(st.data())
def test_hostile_rays(device, data):
    num_rays = data.draw(st.sampled_from([3, 4, 5, 8, 36, 360]))
    rays = torch.where(torch.rand(2, num_rays) < 0.2, data.draw(coordinates((2, 1))), torch.rand(2, num_rays) * 20)
    centers, scale = data.draw(coordinates((2, 2))), data.draw(st.none() | coordinates((2,)) | coordinates((2, 2)))
    centers, rays, scale = (None if tensor is None else tensor.to(device) for tensor in (centers, rays, scale))
    size = data.draw(st.tuples(st.integers(0, 24), st.integers(0, 24)))
    polygons = rays_to_polygons(centers, rays)
    if scale is not None:
        polygons = polygons * (scale if scale.dim() == 1 else scale[:, None])
    masks = polygons_to_masks(polygons, size)
    assert torch.equal(rays_to_masks(centers, rays, size, scale=scale), masks)
    assert rays_to_rle(centers, rays, size, scale=scale) == RLE.from_masks(masks)
    assert rays_to_rle(centers, rays, size, scale=scale, rule="coco") == polygons_to_rle(polygons, size, rule="coco")
    assert torch.equal(rays_to_labels(centers, rays, size, scale=scale), polygons_to_labels(polygons, size))
    assert not masks[~(rays.isfinite().all(1) & centers.isfinite().all(1))].any()


@settings(max_examples=30 if EMULATED else 100, deadline=None)
@given(st.data())
def test_hostile_outlines(device, data):
    segments = data.draw(coordinates((data.draw(st.integers(0, 9)), 4)))
    cuts = data.draw(st.lists(st.integers(0, len(segments)), max_size=3))
    outlines = Outlines(segments, torch.tensor([0, *sorted(cuts), len(segments)]))
    size = data.draw(st.tuples(st.integers(0, 24), st.integers(0, 24)))
    masks = same_everywhere((outlines.to(device),), size, outlines_to_masks, outlines_to_rle, outlines_to_labels)
    assert (
        masks.cpu().numpy() == reference.outlines_to_masks(Outlines(segments.numpy(), outlines.offsets), size)
    ).all()


def test_extremes_of_float64():
    polygons = torch.tensor([1e308, -1e308, 1e-308, 0.0, 5.0], dtype=torch.float64)[torch.randint(5, (200, 6, 2))]
    same_everywhere((polygons,), (9, 9), polygons_to_masks, polygons_to_rle, polygons_to_labels)
    polygons_to_rle(polygons, (9, 9), rule="coco")


def test_outlines_of_polygons_are_the_polygons():
    polygons = random_polygons(torch.float32, "cpu")
    segments = torch.cat([polygons, polygons.roll(-1, 1)], 2).flatten(0, 1)
    outlines = Outlines(segments[torch.cat([torch.randperm(7) + 7 * n for n in range(12)])], torch.arange(13) * 7)
    assert torch.equal(outlines_to_masks(outlines, SIZE), polygons_to_masks(polygons, SIZE))


def test_outlines_of_masks_are_the_masks():
    masks = torch.rand(20, *SIZE) < torch.linspace(0, 1, 20)[:, None, None]
    outlines = outlines_from_masks(masks, keep="all")
    drawn = same_everywhere((outlines,), SIZE, outlines_to_masks, outlines_to_rle, outlines_to_labels)
    assert torch.equal(drawn, masks)


def test_shapes_that_share_edges_leave_neither_gap_nor_overlap():
    points = torch.rand(10, 10, 2) * 0.9 + torch.stack(torch.meshgrid(*[torch.arange(10.0)] * 2, indexing="xy"), 2)
    points[0, :, 1], points[-1, :, 1], points[:, 0, 0], points[:, -1, 0] = 0, 10, 0, 10
    quads = torch.stack([points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], 2).flatten(0, 1) * 8
    assert (polygons_to_masks(quads, (80, 80)).sum(0) == 1).all()


def test_shifting_by_pixels_shifts_the_mask():
    polygons = (random_polygons(torch.float32, "cpu") * 64).round() / 64  # exact sums
    masks = polygons_to_masks(polygons + 20, (64, 64))
    assert torch.equal(polygons_to_masks(polygons, (44, 44)), masks[:, 20:, 20:])


def test_many_crossings_in_one_column():
    y = torch.rand(20000) * 50
    x = torch.tensor([0.1, 2.9]).repeat(10000)
    zigzag = torch.stack([x, y], 1)[None]
    same_everywhere((zigzag,), (50, 3), polygons_to_masks, polygons_to_rle, polygons_to_labels)


def test_area_is_the_polygon_s():
    rays = torch.rand(50, 36, dtype=torch.float64) * 40 + 80
    centers = torch.rand(50, 2, dtype=torch.float64) * 20 + 150
    areas = rays_to_rle(centers, rays, (320, 320)).areas().numpy()
    shapes = shapely.polygons(rays_to_polygons(centers, rays).numpy())
    # Every cut row or column errs by up to a pixel, at random: some 2·height of them.
    np.testing.assert_allclose(areas, shapely.area(shapes), atol=3 * np.sqrt(4 * 240))


def test_labels_do_not_depend_on_the_threads():
    shapes = random_rays(torch.float32, "cpu", count=40)
    shapes["centers"] *= 10
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = rays_to_labels(**shapes, size=(200, 300)), rays_to_rle(**shapes, size=(200, 300))
        torch.set_num_threads(3)
        assert torch.equal(rays_to_labels(**shapes, size=(200, 300)), want[0])
        assert rays_to_rle(**shapes, size=(200, 300)) == want[1]
    finally:
        torch.set_num_threads(threads)


def test_time_does_not_depend_on_the_area():
    """An image of almost 2³¹ pixels, whose bitmap nobody could afford."""
    triangles = torch.tensor([[[5.0, 5.0], [9.0, 5.0], [9.0, 8.0]]]).expand(2 if EMULATED else 50, -1, -1)
    rle = polygons_to_rle(triangles, (2**16 - 1, 2**15))
    assert rle.areas().unique().tolist() == [6]


# ---- CPU against kernels ----

needs_kernels = pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")


def assert_same(function, **kwargs):
    for want, got in zip(*map(leaves, by_cpu_and_kernels(function, kwargs)), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


# Widths with 16-byte rows and without, several strips, more rows than fit into shared memory at once; the RLE of the
# last but one has more columns than one launch sums up.
@pytest.mark.smoke
@needs_kernels
@pytest.mark.parametrize("size", [(40, 64), (33, 48), (45, 100), (700, 220), (1400, 70)])
def test_kernels_on_random_shapes(size):
    generator = torch.Generator().manual_seed(size[0])
    extent = torch.tensor([size[1], size[0]])
    polygons = (torch.rand(20, 9, 2, generator=generator) * 1.4 - 0.2) * extent
    polygons[::2] = (polygons[::2] * 2).round() / 2  # vertices on pixel centres, corners and edges
    polygons[3, 2, 0], polygons[4, 1, 1] = float("nan"), float("inf")
    polygons[5, 0] = 1e30
    for n in (7, 8):
        polygons[n] = polygons[n, :1]  # no area
    order = torch.randperm(20, generator=generator)[:15]
    assert_same(polygons_to_masks, polygons=polygons, size=size)
    assert_same(polygons_to_labels, polygons=polygons, size=size)
    assert_same(polygons_to_labels, polygons=polygons, size=size, order=order)
    for rule in ("center", "coco"):
        assert_same(polygons_to_rle, polygons=polygons, size=size, rule=rule)


@needs_kernels
def test_kernels_on_many_rays():
    centers, rays = torch.rand(30, 2) * 90, torch.rand(30, 360) * 60 - 5
    scale = torch.rand(30, 2) + 0.5
    for function in (rays_to_masks, rays_to_rle, rays_to_labels):
        assert_same(function, centers=centers, rays=rays, size=(96, 80), scale=scale)


@pytest.mark.skipif(not EMULATED, reason="what a GPU is handed unchecked, the CPU refuses")
@pytest.mark.parametrize(
    "offsets", [[0, 3, 1, 9], [-5, 2, 9, 9], [0, 2**62, -(2**62), 9], [9, 9, 9, 0], [7, 0, 0, 100]]
)
def test_kernels_do_not_read_past_bad_offsets(monkeypatch, offsets):
    monkeypatch.setenv("POLARMASK_CHECK", "0")
    outlines = Outlines(torch.rand(9, 4) * 40, torch.tensor(offsets))
    masks = outlines_to_masks(outlines, (40, 40))
    assert outlines_to_rle(outlines, (40, 40)) == RLE.from_masks(masks)
    labels = outlines_to_labels(outlines, (40, 40), order=torch.tensor([-1, 2, 5, 0, 2**40, 1]))
    assert (labels.numpy() == reference.labels_of(masks.numpy(), np.array([2, 0, 1]))).all()
    monkeypatch.setenv("POLARMASK_CHECK", "1")
    with pytest.raises(ValueError, match="offsets"):
        outlines_to_masks(outlines, (40, 40))


# ---- Gradients and torch ----


def test_gradient_of_rays_at_and_below_zero():
    rays = torch.tensor([[-1.0, 0.0, 2.0, float("nan")]], requires_grad=True)
    rays_to_polygons(torch.zeros(1, 2), rays)[..., :2].sum().backward()
    assert rays.grad.tolist() == [[0.0, 1.0, -1.0, 0.0]]


def test_directions_are_those_of_the_header():
    for num_rays in (3, 36, 37, 1024):
        ones = torch.ones(1, num_rays, dtype=torch.float64)
        polygons = rays_to_polygons(torch.zeros(1, 2, dtype=torch.float64), ones)
        assert polygons[0].tolist() == [list(_C.ray_direction(k, num_rays)) for k in range(num_rays)]


def test_vmap():
    centers, rays, scale = torch.rand(3, 5, 2) * 20, torch.rand(3, 5, 8) * 9, torch.rand(3, 5, 2) + 0.5
    polygons = torch.vmap(rays_to_polygons)(centers, rays)
    assert torch.equal(polygons[1], rays_to_polygons(centers[1], rays[1]))
    masks = torch.vmap(lambda c, r, s: rays_to_masks(c, r, SIZE, scale=s))(centers, rays, scale)
    assert torch.equal(masks[2], rays_to_masks(centers[2], rays[2], SIZE, scale=scale[2]))
    assert torch.equal(
        torch.vmap(lambda p: polygons_to_masks(p, SIZE))(polygons)[1], polygons_to_masks(polygons[1], SIZE)
    )
    labels = torch.vmap(lambda p: polygons_to_labels(p, SIZE))(polygons)
    assert torch.equal(labels[0], polygons_to_labels(polygons[0], SIZE))
    with pytest.raises(RuntimeError, match="polygons_to_rle: vmap is not possible"):
        torch.vmap(lambda p: polygons_to_rle(p, SIZE).counts)(polygons)


@pytest.mark.parametrize("rule", ["center", "coco"])
def test_compile_of_unknown_length(rule):
    polygons = random_polygons(torch.float32, "cpu")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(lambda p: polygons_to_rle(p, SIZE, rule=rule), fullgraph=True, backend="aot_eager")
        assert compiled(polygons) == polygons_to_rle(polygons, SIZE, rule=rule)


def test_compile_for_images_of_any_size():
    def masks(polygons, image):
        size = image.shape[-2:]
        return polygons_to_masks(polygons, size), polygons_to_rle(polygons, size).to_masks()

    compiled = torch.compile(masks, fullgraph=True, backend="aot_eager")
    polygons = 30 * torch.rand(3, 5, 2)
    for size in ((20, 30), (31, 7)):
        image = torch.zeros(3, *size)
        for dim in (1, 2):
            torch._dynamo.mark_dynamic(image, dim)  # fails where the code fixes it
        assert all(torch.equal(*both) for both in zip(compiled(polygons, image), masks(polygons, image), strict=True))


def test_export_of_unknown_length(tmp_path):
    class Module(torch.nn.Module):
        def forward(self, polygons):
            return polygons_to_rle(polygons, SIZE)

    polygons = random_polygons(torch.float32, "cpu")
    torch.export.save(torch.export.export(Module(), (polygons,)), tmp_path / "module.pt2")
    assert torch.export.load(tmp_path / "module.pt2").module()(polygons) == polygons_to_rle(polygons, SIZE)


# ---- Peers ----


def coco_strings(polygons, size):
    return coco.frPyObjects(polygons.double().flatten(1).tolist(), *size)


@pytest.mark.parametrize("size", [(7, 9), (1, 40), (40, 1), (40, 30), (300, 400)])
@pytest.mark.parametrize("dtype", GEOMETRY)
def test_coco_rule_byte_for_byte(size, dtype):
    for extent in (2, 5, 60, 400):
        for num_vertices in (3, 4, 5, 11, 36):
            polygons = torch.rand(60, num_vertices, 2, dtype=dtype) * (2 * extent) - extent / 2
            polygons[::2] = (polygons[::2] * 10).round() / 10  # ties of fifths
            polygons[::3, 1] = polygons[::3, 0]  # a vertex twice
            polygons[::5, 2, 0] = polygons[::5, 1, 0]  # vertical, horizontal
            polygons[::7, 2, 1] = polygons[::7, 1, 1]
            polygons[::11, 0] = polygons[::11, 0].clamp(0, 1) * torch.tensor([size[1], size[0]])  # on the border
            assert polygons_to_rle(polygons, size, rule="coco").to_coco() == coco_strings(polygons, size)


def test_coco_rule_far_outside():
    polygons = (torch.rand(40, 5, 2, dtype=torch.float64) - 0.5) * 2e5
    polygons[::2, 0] /= 1e4
    polygons[0, 0], polygons[0, 1] = -1e6, 1e6
    assert polygons_to_rle(polygons, (50, 60), rule="coco").to_coco() == coco_strings(polygons, (50, 60))
    beyond = polygons * 1e4
    clipped = polygons_to_rle(beyond.clamp(-1e6, 1e6), (50, 60), rule="coco")
    assert polygons_to_rle(beyond, (50, 60), rule="coco") == clipped


def test_rules_nearly_agree():
    shapes = random_rays(torch.float64, "cpu", count=50, num_rays=36)
    shapes = {"centers": shapes["centers"] * 10 + 50, "rays": shapes["rays"] + 40}
    center, by_coco = (rays_to_rle(**shapes, size=(320, 320), rule=rule).to_masks() for rule in ("center", "coco"))
    iou = (center & by_coco).sum((1, 2)) / (center | by_coco).sum((1, 2))
    assert iou.mean() > 0.97  # they differ in how pixels cut by the outline fall


def test_released_implementation():
    golden = np.load(Path(__file__).parent / "golden" / "decode_raster.npz")
    height, width = golden["image_hw"]
    ours = (9 - np.arange(36)) % 36  # the released rays begin at +y and turn towards +x
    centers, rays = torch.from_numpy(golden["points_xy"]), torch.from_numpy(golden["rays"][:, ours])
    want = golden["polygons_unclamped"].transpose(0, 2, 1)[:, ours]
    np.testing.assert_allclose(rays_to_polygons(centers, rays), want, atol=1e-3)  # its angles are float32
    # The first 100 rows are ordinary shapes; the rest are spikes and dots, of which it draws little but the boundary.
    released = np.unpackbits(golden["bitmap_packed"][:100], axis=1)[:, : height * width].reshape(-1, height, width)
    polygons = golden["polygons_clamped"][:100].transpose(0, 2, 1)
    masks = polygons_to_masks(torch.from_numpy(polygons), (int(height), int(width))).numpy()
    iou = (masks & released).sum((1, 2)) / (masks | released).sum((1, 2))
    assert abs(iou.mean() - 0.969) < 0.002  # it truncates vertices to integers and includes the boundary

"""Rays, polygons and outlines as masks, RLE and label images, beside the reference; kernels, compile, vmap, export."""

import numpy as np
import pytest
import torch
from op_tester import EMULATED, GEOMETRY, KERNELS, OpTester, by_cpu_and_kernels, leaves
from rasterize_tester import (
    BAD_CENTERS,
    BAD_ORDER,
    BAD_OUTLINES,
    BAD_POLYGONS,
    BAD_RAYS,
    BAD_RULE,
    SIZE,
    random_outlines,
    random_polygons,
    random_rays,
)
from reference import rasterize as reference

from polarmask_ops import (
    _C,
    RLE,
    Outlines,
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


needs_kernels = pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")


def assert_same(function, **kwargs):
    for want, got in zip(*map(leaves, by_cpu_and_kernels(function, kwargs)), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


# Widths with 16-byte rows and without, several strips, more rows than fit into shared memory at once; the RLE of the
# last but one has more columns than one launch sums up.
@pytest.mark.smoke
@needs_kernels
@pytest.mark.parametrize("size", [(40, 64), (33, 48), (45, 100), (700, 220), (1400, 70)])
def test_rasterize_kernels_on_random_shapes_agree_with_cpu(size):
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
def test_rasterize_kernels_on_many_rays_agree_with_cpu():
    centers, rays = torch.rand(30, 2) * 90, torch.rand(30, 360) * 60 - 5
    scale = torch.rand(30, 2) + 0.5
    for function in (rays_to_masks, rays_to_rle, rays_to_labels):
        assert_same(function, centers=centers, rays=rays, size=(96, 80), scale=scale)


@pytest.mark.skipif(not EMULATED, reason="what a GPU is handed unchecked, the CPU refuses")
@pytest.mark.parametrize(
    "offsets", [[0, 3, 1, 9], [-5, 2, 9, 9], [0, 2**62, -(2**62), 9], [9, 9, 9, 0], [7, 0, 0, 100]]
)
def test_rasterize_kernels_with_bad_offsets_stay_in_bounds(monkeypatch, offsets):
    monkeypatch.setenv("POLARMASK_CHECK", "0")
    outlines = Outlines(torch.rand(9, 4) * 40, torch.tensor(offsets))
    masks = outlines_to_masks(outlines, (40, 40))
    assert outlines_to_rle(outlines, (40, 40)) == RLE.from_masks(masks)
    labels = outlines_to_labels(outlines, (40, 40), order=torch.tensor([-1, 2, 5, 0, 2**40, 1]))
    assert (labels.numpy() == reference.labels_of(masks.numpy(), np.array([2, 0, 1]))).all()
    monkeypatch.setenv("POLARMASK_CHECK", "1")
    with pytest.raises(ValueError, match="offsets"):
        outlines_to_masks(outlines, (40, 40))


def test_rays_to_polygons_of_rays_below_zero_give_no_gradient():
    rays = torch.tensor([[-1.0, 0.0, 2.0, float("nan")]], requires_grad=True)
    rays_to_polygons(torch.zeros(1, 2), rays)[..., :2].sum().backward()
    assert rays.grad.tolist() == [[0.0, 1.0, -1.0, 0.0]]


def test_rays_to_polygons_of_unit_rays_are_the_directions():
    for num_rays in (3, 36, 37, 1024):
        ones = torch.ones(1, num_rays, dtype=torch.float64)
        polygons = rays_to_polygons(torch.zeros(1, 2, dtype=torch.float64), ones)
        assert polygons[0].tolist() == [list(_C.ray_direction(k, num_rays)) for k in range(num_rays)]


def test_rasterize_under_vmap_equals_loop():
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
def test_polygons_to_rle_compiled_equals_eager(rule):
    polygons = random_polygons(torch.float32, "cpu")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(lambda p: polygons_to_rle(p, SIZE, rule=rule), fullgraph=True, backend="aot_eager")
        assert compiled(polygons) == polygons_to_rle(polygons, SIZE, rule=rule)


def test_rasterize_compiled_for_any_size_equals_eager():
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


def test_polygons_to_rle_exported_equals_eager(tmp_path):
    class Module(torch.nn.Module):
        def forward(self, polygons):
            return polygons_to_rle(polygons, SIZE)

    polygons = random_polygons(torch.float32, "cpu")
    torch.export.save(torch.export.export(Module(), (polygons,)), tmp_path / "module.pt2")
    assert torch.export.load(tmp_path / "module.pt2").module()(polygons) == polygons_to_rle(polygons, SIZE)

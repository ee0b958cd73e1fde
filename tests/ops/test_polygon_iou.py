"""Areas and IoU of polygons and stars: the two exact intersections of the NMS."""

import math

import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import EMULATED, GEOMETRY, KERNELS, Bad, OpTester, by_cpu_and_kernels
from reference import polygon_iou as reference
from shapes import decode, random_stars

import polarmask_ops
from polarmask_ops import polygon_areas, polygon_iou, rays_iou

BAD_METRIC = Bad({"metric": "giou"}, ValueError, ("metric", "'iou', 'iomin'", "'giou'"))
# IoU in float32 after sums in double.
ROUNDED = {torch.float32: {"rtol": 1e-7, "atol": 1e-9}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}
# Vertices snapped to 2^-24 of the joint extent: twice the perimeters times half a step, over the union.
SNAPPED = 1e-6


def stars(seed, count, num_rays, extent, dtype=torch.float64, device="cpu"):
    centers, rays = random_stars(torch.Generator().manual_seed(seed), count, num_rays, extent)
    return centers.to(device, dtype), rays.to(device, dtype)


class TestPolygonAreas(OpTester):
    function = staticmethod(polygon_areas)
    reference = staticmethod(reference.polygon_areas)
    dtypes = GEOMETRY
    bad_inputs = (
        Bad({"polygons": torch.rand(4, 6)}, ValueError, ("polygons", "(N, V, 2)", "(4, 6)")),
        Bad({"polygons": torch.zeros(4, 6, 2, dtype=torch.int64)}, TypeError, ("polygons", "floating-point", "int64")),
    )

    def sample(self, dtype, device):
        return {"polygons": decode(*stars(0, 10, 9, 1000, dtype, device)).to(dtype)}

    def more_samples(self, dtype, device):
        polygons = self.sample(dtype, device)["polygons"]
        hostile = polygons.clone()
        hostile[0, 2, 1], hostile[1, 0, 0], hostile[2] = math.nan, math.inf, 3.0
        return [{"polygons": polygons.flip(1)}, {"polygons": hostile}, {"polygons": polygons[:, :2]}]

    def empty(self, dtype, device):
        return [{"polygons": torch.zeros(shape, dtype=dtype, device=device)} for shape in ((0, 5, 2), (4, 0, 2))]

    def tolerance(self, dtype):
        return ROUNDED[dtype]


class TestPolygonIou(OpTester):
    function = staticmethod(polygon_iou)
    reference = staticmethod(reference.polygon_iou)
    dtypes = GEOMETRY
    bad_inputs = (
        BAD_METRIC,
        Bad({"a": torch.rand(4, 6)}, ValueError, ("a of shape", "(N, V, 2)", "(4, 6)")),
        Bad({"b": torch.rand(4, 6, 1)}, ValueError, ("b of shape", "(N, V, 2)", "(4, 6, 1)")),
        Bad({"paired": True}, ValueError, ("b of shape", "size 5", "(4, 11, 2)")),
        Bad({"b": 0.5}, TypeError, ("b", "tensor", "float")),
    )

    def sample(self, dtype, device):
        a, b = decode(*stars(1, 5, 7, 25, dtype, device)), decode(*stars(2, 4, 11, 25, dtype, device))
        return {"a": a.to(dtype), "b": b.flip(1).to(dtype)}

    def more_samples(self, dtype, device):
        a, b = self.sample(dtype, device).values()
        hostile = a.clone()
        hostile[0, 2, 1], hostile[1, 0, 0], hostile[2] = math.nan, math.inf, 3.0
        return [
            {"a": a, "b": b, "metric": "iomin"},
            {"a": a[:4], "b": b, "paired": True},
            {"a": hostile, "b": b},
            {"a": a[:, :2], "b": b},
        ]

    def empty(self, dtype, device):
        a, b = self.sample(dtype, device).values()
        return [{"a": a[:0], "b": b}, {"a": a, "b": b[:0]}, {"a": a[:0], "b": b[:0], "paired": True}]

    def tolerance(self, dtype):
        return {"rtol": 0.0, "atol": SNAPPED}


class TestRaysIou(OpTester):
    function = staticmethod(rays_iou)
    reference = staticmethod(reference.rays_iou)
    dtypes = GEOMETRY
    bad_inputs = (
        BAD_METRIC,
        Bad({"centers_a": torch.rand(5)}, ValueError, ("centers_a", "(N, 2)", "(5,)")),
        Bad({"rays_b": torch.rand(3, 11)}, ValueError, ("rays_b", "(N, R)", "(3, 11)")),
        Bad({"rays_a": torch.rand(5, 2)}, ValueError, ("num_rays", "from 3 to 1024", "2")),
        Bad({"paired": True}, ValueError, ("centers_b", "size 5", "(4, 2)")),
        Bad({"rays_a": torch.ones(5, 7, dtype=torch.int32)}, TypeError, ("rays_a", "floating-point", "int32")),
    )

    def sample(self, dtype, device):
        names = ("centers_a", "rays_a", "centers_b", "rays_b")
        values = (*stars(1, 5, 7, 25, dtype, device), *stars(2, 4, 11, 25, dtype, device))
        return dict(zip(names, values, strict=True))

    def more_samples(self, dtype, device):
        given = self.sample(dtype, device)
        hostile = given["rays_a"].clone()
        hostile[0, 2], hostile[1, 0], hostile[2], hostile[3, ::2], hostile[4, :3] = math.nan, math.inf, 0.0, -3.0, 0.0
        return [
            {**given, "metric": "iomin"},
            {**given, "centers_a": given["centers_a"][:4], "rays_a": given["rays_a"][:4], "paired": True},
            {**given, "rays_a": hostile},
            {**given, "rays_a": given["rays_a"][:, :3]},
        ]

    def empty(self, dtype, device):
        given = self.sample(dtype, device)
        no_a = {name: value[:0] if name.endswith("a") else value for name, value in given.items()}
        none = {name: value[:0] for name, value in given.items()}
        return [no_a, {**none, "paired": True}]

    def tolerance(self, dtype):
        return ROUNDED[dtype]


def geos_iou(a, b):
    a, b = shapely.polygons(a.numpy()), shapely.polygons(b.numpy())
    inter = shapely.area(shapely.intersection(a, b))
    return torch.from_numpy(inter / (shapely.area(a) + shapely.area(b) - inter))


@pytest.mark.parametrize("num_rays", [3, 4, 5, 36, 64, 360, 1024])
@pytest.mark.parametrize("other_rays", [3, 36, 37])
def test_rays_iou_of_random_stars_equals_geos(num_rays, other_rays):
    """Thousands of pairs, centres inside and outside the other shape, some zero rays."""
    count = 400 if num_rays <= 64 else 60
    (centers_a, rays_a), (centers_b, rays_b) = stars(3, count, num_rays, 30), stars(4, count, other_rays, 30)
    if num_rays > 5:
        rays_a[: count // 4, :2] = 0
    got = rays_iou(centers_a, rays_a, centers_b, rays_b, paired=True)
    want = geos_iou(decode(centers_a, rays_a), decode(centers_b, rays_b))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert (got[want == 0] == 0).all()
    swapped = rays_iou(centers_b, rays_b, centers_a, rays_a, paired=True)
    torch.testing.assert_close(got, swapped, rtol=1e-12, atol=1e-12)
    snapped = polygon_iou(decode(centers_a, rays_a), decode(centers_b, rays_b), paired=True)
    torch.testing.assert_close(snapped, want, rtol=0, atol=SNAPPED)


@pytest.mark.parametrize("num_rays", [3, 7, 36, 360])
def test_polygon_iou_of_one_with_itself_is_one(num_rays):
    centers, rays = stars(5, 200, num_rays, 1000)
    if num_rays > 3:
        rays[:20, 1] = 0
    assert (rays_iou(centers, rays, centers, rays, paired=True) == 1).all()
    polygons = decode(centers, rays)
    assert (polygon_iou(polygons, polygons, paired=True) == 1).all()
    assert (polygon_iou(polygons, polygons.flip(1), paired=True) == 1).all()
    assert (polygon_iou(polygons, polygons.roll(2, 1), paired=True) == 1).all()


def test_polygon_iou_of_sizes_far_apart_keeps_its_digits():
    """A shape of a pixel at the edge of one of 10,000: the intersection keeps its digits."""
    big, small = torch.full((1, 36), 1e4, dtype=torch.float64), torch.ones(1, 36, dtype=torch.float64)
    origin = torch.zeros(1, 2, dtype=torch.float64)
    for x in (0.0, 1.0, 5000.0, 9999.5, 1e4):
        center = torch.tensor([[x, 0.0]], dtype=torch.float64)
        want = geos_iou(decode(origin, big), decode(center, small))
        torch.testing.assert_close(rays_iou(origin, big, center, small)[0], want, rtol=1e-10, atol=0)
        torch.testing.assert_close(rays_iou(center, small, origin, big)[0], want, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "offset", [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (2.0, 0.0), (1.0, 1.0), (0.25, 0.25), (0.0, 0.0)]
)
def test_rays_iou_with_center_on_an_edge_or_vertex_is_exact(offset):
    """Squares of diagonal 2: centres on each other's vertices and edges, shared edges, touching corners."""
    rays = torch.ones(1, 4, dtype=torch.float64)
    center, moved = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([offset], dtype=torch.float64)
    u, v = (abs(offset[0] + offset[1]) / 2, abs(offset[0] - offset[1]) / 2)  # along the sides, which are √2 long
    inter = max(0.0, 1 - u) * max(0.0, 1 - v) * 2
    want = torch.tensor([[inter / (4 - inter)]], dtype=torch.float64)
    torch.testing.assert_close(rays_iou(center, rays, moved, rays), want, rtol=1e-14, atol=1e-15)
    polygons = decode(center, rays), decode(moved, rays)
    torch.testing.assert_close(polygon_iou(*polygons), want, rtol=0, atol=SNAPPED)


@settings(max_examples=40 if EMULATED else 150, deadline=None)
@given(st.data())
def test_polygon_iou_on_a_small_lattice_equals_reference(data):
    """Everything that can coincide does: vertices on edges and vertices, edges on edges, repeated vertices."""
    corner = st.tuples(st.integers(0, 3), st.integers(0, 3))
    rings = []
    for _ in range(2):
        ring = shapely.Polygon(data.draw(st.lists(corner, min_size=3, max_size=6)))
        if not ring.is_valid or ring.area == 0:
            return
        rings.append(ring)
    a, b = (torch.tensor([list(ring.exterior.coords)[:-1]], dtype=torch.float64) for ring in rings)
    inter = rings[0].intersection(rings[1]).area
    want = inter / (rings[0].area + rings[1].area - inter)
    assert polygon_iou(a, b).item() == pytest.approx(want, rel=0, abs=SNAPPED)


def test_polygon_iou_of_touching_polygons_is_zero():
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    for shift in ([1.0, 0.0], [1.0, 1.0], [0.0, -1.0], [1.0, 0.5]):
        assert polygon_iou(square, square + torch.tensor(shift)).item() == 0


def test_polygon_iou_of_concave_and_thin_polygons_equals_geos():
    """Combs cross each other's edges dozens of times; needles have hardly any area."""
    teeth = torch.arange(20, dtype=torch.float64)
    lower = torch.stack([teeth, torch.where(teeth % 2 == 0, 0.0, 9.0).double()], 1)
    comb = torch.cat([lower, torch.tensor([[19.0, 10.0], [0.0, 10.0]], dtype=torch.float64)])[None]
    turned = (comb.flip(2) * torch.tensor([1.9, 0.5], dtype=torch.float64)).contiguous()
    needle = torch.tensor([[[0.0, 0.0], [19.0, 9.0], [19.0, 9.01]]], dtype=torch.float64)
    for a, b in ((comb, turned), (turned, comb), (comb, needle), (needle, turned)):
        torch.testing.assert_close(polygon_iou(a, b)[0], geos_iou(a, b), rtol=0, atol=SNAPPED)


def test_polygon_iou_moved_and_scaled_exactly_is_equal():
    centers, rays = stars(6, 40, 36, 60)
    centers = (centers * 1024).round() / 1024
    polygons = (decode(centers, rays) * 1024).round() / 1024
    for shift, scale in ((512.0, 1.0), (0.0, 2.0**-300), (-4096.0, 2.0**300)):
        moved = (centers + shift) * scale
        assert torch.equal(rays_iou(moved, rays * scale, moved, rays * scale), rays_iou(centers, rays, centers, rays))
        moved = (polygons + shift) * scale
        assert torch.equal(polygon_iou(moved, moved), polygon_iou(polygons, polygons))


def test_rays_iou_of_stars_turned_by_a_ray_is_equal():
    centers, rays = stars(7, 60, 36, 40)
    quarter = torch.stack([-centers[:, 1], centers[:, 0]], 1)
    got = rays_iou(quarter, rays.roll(9, 1), quarter, rays.roll(9, 1))
    torch.testing.assert_close(got, rays_iou(centers, rays, centers, rays), rtol=1e-12, atol=1e-13)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e-30, 1e30, -1e30, math.nan, math.inf, -math.inf, 5e-324, 1e-160, 1e308]),
    st.floats(-4, 4),
)


@settings(max_examples=40 if EMULATED else 300, deadline=None)
@given(st.data())
def test_polygon_iou_of_hostile_values_is_in_0_to_1(data):
    """Self-crossing, repeated, huge, denormal or not numbers at all: an IoU is finite and in [0, 1]."""
    length = data.draw(st.integers(1, 7))
    values = data.draw(st.lists(NUMBERS, min_size=8 * length + 16, max_size=8 * length + 16))
    for dtype in GEOMETRY:
        table = torch.tensor(values, dtype=dtype)
        a, b = table[: 8 * length].view(2, 2, length, 2)
        results = [polygon_iou(a, b), polygon_iou(a, b, metric="iomin")]
        stars_a, stars_b = table[-16:].view(2, 1, 8)
        for metric in ("iou", "iomin"):
            results.append(rays_iou(stars_a[:, :2], stars_a[:, 2:], stars_b[:, :2], stars_b[:, 2:], metric=metric))
            results.append(rays_iou(stars_a[:, :2], stars_a[:, 2:5], stars_b[:, :2], stars_b[:, 2:], metric=metric))
        for iou in results:
            assert ((iou >= 0) & (iou <= 1)).all()


@pytest.mark.smoke
@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
class TestKernels:
    """The same bits as the CPU loops: more tiles than one, rings inside and outside shared memory, anything."""

    @staticmethod
    def check(function, **kwargs):
        by_cpu, by_kernels = by_cpu_and_kernels(function, kwargs)
        torch.testing.assert_close(by_kernels, by_cpu, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", GEOMETRY)
    @pytest.mark.parametrize(("num_a", "num_b"), [(9, 9), (36, 5), (3, 130)])
    def test_random(self, dtype, num_a, num_b):
        (centers_a, rays_a), (centers_b, rays_b) = stars(11, 70, num_a, 90, dtype), stars(12, 130, num_b, 90, dtype)
        given = {"centers_a": centers_a, "rays_a": rays_a, "centers_b": centers_b, "rays_b": rays_b}
        self.check(rays_iou, **given)
        a, b = decode(centers_a, rays_a).to(dtype), decode(centers_b, rays_b).to(dtype)
        self.check(polygon_iou, a=a, b=b, metric="iomin")
        self.check(polygon_areas, polygons=b)

    def test_row_by_row(self):
        (centers_a, rays_a), (centers_b, rays_b) = stars(13, 600, 7, 30), stars(14, 600, 5, 30)
        given = {"centers_a": centers_a, "rays_a": rays_a, "centers_b": centers_b, "rays_b": rays_b}
        self.check(rays_iou, **given, paired=True)
        self.check(polygon_iou, a=decode(centers_a, rays_a), b=decode(centers_b, rays_b), paired=True)

    @pytest.mark.parametrize("dtype", GEOMETRY)
    def test_hostile(self, dtype):
        """Self-crossing and repeated vertices are frequent among so few numbers."""
        numbers = torch.tensor(
            [0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 1e-30, 1e30, -1e30, 1e38, 5e-324, 1e-160, math.nan, math.inf],
            dtype=torch.float64,
        ).to(dtype)
        weights = torch.tensor([8.0] * 6 + [1.0] * 8)
        generator = torch.Generator().manual_seed(15)
        for length in (4, 9):
            shape = (2, 80, length, 2)
            table = numbers[torch.multinomial(weights, math.prod(shape), True, generator=generator)].view(shape)
            table[1, :20] = table[0, :20]
            self.check(polygon_iou, a=table[0], b=table[1])
            self.check(polygon_areas, polygons=table[0])
            a, b = table.flatten(2)
            given = {"centers_a": a[:, :2], "rays_a": a[:, 2:], "centers_b": b[:, :2], "rays_b": b[:, 2:]}
            self.check(rays_iou, **given)


def test_polygon_iou_of_huge_coordinates_is_finite():
    square = torch.tensor([[[0.0, 0.0], [1e30, 0.0], [1e30, 1e30], [0.0, 1e30]]])
    assert polygon_iou(square, square).item() == 1
    rays = torch.full((1, 36), 1e30)
    assert rays_iou(torch.zeros(1, 2), rays, torch.zeros(1, 2), rays).item() == 1
    half = rays_iou(torch.zeros(1, 2), rays, torch.zeros(1, 2), rays / 2).item()
    assert half == pytest.approx(0.25)


def test_polygon_iou_dtype_is_that_of_its_arguments():
    centers, rays = stars(8, 3, 36, 30, torch.float16)
    assert rays_iou(centers, rays, centers, rays).dtype == torch.float32
    assert rays_iou(centers, rays.double(), centers, rays).dtype == torch.float64


def test_polygon_iou_under_vmap_equals_loop():
    a, b = decode(*stars(9, 6, 8, 20)).view(2, 3, 8, 2), decode(*stars(10, 4, 8, 20))
    got = torch.vmap(lambda x: polygon_iou(x, b))(a)
    assert torch.equal(got, torch.stack([polygon_iou(x, b) for x in a]))
    assert torch.equal(torch.vmap(polygon_areas)(a), torch.stack([polygon_areas(x) for x in a]))


def test_public_names():
    assert {"polygon_areas", "polygon_iou", "rays_iou"} <= set(polarmask_ops.__all__)

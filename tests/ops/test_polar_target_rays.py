"""cast_rays: distances from points to outlines."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_tester import GEOMETRY, Bad, OpTester
from polar_target_tester import (
    EXACT,
    ROUNDED_ONCE,
    cast,
    closed,
    coordinate,
    kernels,
    on_pixel_edges,
    outlines_of,
    same_bits,
    star,
)
from reference import polar_target as reference

from polarmask_ops import _C, Outlines, cast_rays


class TestCastRays(OpTester):
    function = cast_rays
    reference = reference.cast_rays
    bad_inputs = (
        Bad({"origins": torch.rand(5, 3)}, ValueError, ("origins", "(P, 2)", "(5, 3)")),
        Bad({"origins": torch.ones(5, 2, dtype=torch.int64)}, TypeError, ("origins", "floating-point", "int64")),
        Bad({"outlines": torch.rand(5, 4)}, TypeError, ("outlines", "Outlines", "Tensor")),
        Bad(
            {"outlines": Outlines(torch.rand(5, 2), torch.tensor([0, 5]))},
            ValueError,
            ("outlines.segments", "(S, 4)", "(5, 2)"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0.0, 5.0]))},
            TypeError,
            ("outlines.offsets", "int64", "float32"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0, 9, 5]))},
            ValueError,
            ("outlines.offsets", "not to fall", "9, 5"),
        ),
        Bad(
            {"outlines": Outlines(torch.rand(5, 4), torch.tensor([0, 4]))},
            ValueError,
            ("outlines.offsets", "from 0 to 5", "0 to 4"),
        ),
        Bad({"instance": torch.zeros(3, dtype=torch.int64)}, ValueError, ("instance", "(P,)", "(3,)")),
        Bad({"instance": torch.full((7,), 3)}, IndexError, ("instance", "from 0 to 2", "3 at index 0")),
        Bad({"instance": torch.full((7,), -1)}, IndexError, ("instance", "-1")),
        Bad({"num_rays": 2}, ValueError, ("num_rays", "from 3 to 1024", "2")),
        Bad({"num_rays": 1025}, ValueError, ("num_rays", "1025")),
        Bad({"method": "binned", "num_rays": 72}, ValueError, ("num_rays", "at most 40", "72")),
        Bad({"method": "binned", "num_rays": 30}, ValueError, ("num_rays", "divisible by 4", "30")),
        Bad({"method": "binned", "num_rays": 16}, ValueError, ("num_rays", "divisor of 360", "16")),
        Bad({"method": "middle"}, ValueError, ("method", "'last', 'first', 'binned'", "middle")),
        Bad({"min_distance": -1.0}, ValueError, ("min_distance", ">= 0", "-1")),
        Bad({"min_distance": math.nan}, ValueError, ("min_distance", ">= 0", "nan")),
    )

    def sample(self, dtype, device):
        outlines = outlines_of([star(31), star(12), on_pixel_edges()[:0, :2]], dtype, device)
        origins = (torch.rand(7, 2, dtype=torch.float64) * 30 - 15).to(device, dtype)
        return {
            "origins": origins,
            "outlines": outlines,
            "instance": torch.tensor([0, 1, 0, 1, 0, 2, 0], device=device),
        }

    def more_samples(self, dtype, device):
        sample = self.sample(dtype, device)
        pixels = on_pixel_edges()
        outlines = Outlines(pixels.to(device, dtype), torch.tensor([0, len(pixels)], device=device))
        lattice = {
            "origins": torch.cartesian_prod(torch.arange(0.0, 11), torch.tensor([0.0, 1.5, 4.0])).to(device, dtype),
            "outlines": outlines,
            "instance": torch.zeros(33, dtype=torch.int32, device=device),
            "num_rays": 8,
        }
        return [
            {**sample, "num_rays": 3},
            {**sample, "num_rays": 64, "min_distance": 5.0},
            {**sample, "method": "first"},
            {**sample, "method": "binned", "num_rays": 36},
            lattice,
            {**lattice, "method": "first", "min_distance": 0.0},
            {**lattice, "method": "binned"},
        ]

    def empty(self, dtype, device):
        sample = self.sample(dtype, device)
        nothing = Outlines(sample["outlines"].segments[:0], torch.zeros(2, dtype=torch.int64, device=device))
        return [
            {**sample, "origins": sample["origins"][:0], "instance": sample["instance"][:0]},
            {**sample, "outlines": nothing, "instance": torch.zeros_like(sample["instance"])},
        ]

    def tolerance(self, dtype):
        return EXACT if dtype == torch.float64 else ROUNDED_ONCE


@given(
    st.lists(st.tuples(*[coordinate] * 4), max_size=12),
    st.tuples(coordinate, coordinate),
    st.sampled_from([3, 4, 7, 8, 36, 37, 360]),
    st.sampled_from(["last", "first", "binned"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_cast_rays_of_hostile_values_are_never_nan(segments, origin, num_rays, method, dtype):
    segments = torch.tensor(segments, dtype=torch.float64).reshape(-1, 4).to(dtype)
    origin = torch.tensor([origin], dtype=torch.float64).to(dtype)
    num_rays = 36 if method == "binned" else num_rays
    rays = cast(segments, origin, num_rays, method=method, min_distance=0.5)
    assert not rays.isnan().any()
    assert (rays >= (0 if method == "binned" else 0.5)).all()
    usable = segments.isfinite().all(1)
    torch.testing.assert_close(rays, cast(segments[usable], origin, num_rays, method=method, min_distance=0.5))
    if not origin.isfinite().all():
        assert (rays == 0.5).all()


@given(
    st.lists(st.tuples(*[st.integers(-4, 4)] * 4), min_size=1, max_size=6),
    st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
    st.sampled_from([3, 4, 8, 12, 36, 40]),
    st.sampled_from(["last", "first"]),
)
def test_cast_rays_on_a_lattice_equal_reference(segments, origin, num_rays, method):
    segments, origin = torch.tensor(segments, dtype=torch.float64), torch.tensor([origin], dtype=torch.float64)
    outlines = Outlines(segments.numpy(), np.array([0, len(segments)]))
    want = reference.cast_rays(origin.numpy(), outlines, [0], num_rays, method=method)
    np.testing.assert_allclose(cast(segments, origin, num_rays, method=method), want, **EXACT)


def scene(kind):
    """Return segments and origins in 64ths of a pixel: flips and quarter turns are then exact."""
    torch.manual_seed(0)
    segments = closed(star(40, 30)) if kind == "star" else on_pixel_edges()
    origins = torch.cat([torch.rand(20, 2, dtype=torch.float64) * 20 - 5, segments[:20, :2]])
    return ((values * 64).round() / 64 for values in (segments, origins))


@pytest.mark.parametrize("kind", ["star", "pixels"])
@pytest.mark.parametrize("method", ["last", "first"])
@pytest.mark.parametrize("dtype", GEOMETRY)
class TestSymmetry:
    """Results are equal bit for bit, also for origins on the outline."""

    num_rays = 36

    def check(self, kind, method, dtype, matrix, order):
        segments, origins = scene(kind)
        matrix = torch.tensor(matrix, dtype=torch.float64)
        moved = torch.cat([segments[:, 2:] @ matrix, segments[:, :2] @ matrix], 1)
        before = cast(segments.to(dtype), origins.to(dtype), self.num_rays, method=method)
        after = cast(moved.to(dtype), (origins @ matrix).to(dtype), self.num_rays, method=method)
        return after[:, [order(k) % self.num_rays for k in range(self.num_rays)]], before

    def test_flip_of_x(self, kind, method, dtype):
        assert torch.equal(*self.check(kind, method, dtype, [[-1.0, 0], [0, 1]], lambda k: 18 - k))

    def test_flip_of_y(self, kind, method, dtype):
        assert torch.equal(*self.check(kind, method, dtype, [[1.0, 0], [0, -1]], lambda k: -k))

    def test_transposition(self, kind, method, dtype):
        assert torch.equal(*self.check(kind, method, dtype, [[0.0, 1], [1, 0]], lambda k: 9 - k))

    def test_quarter_turn(self, kind, method, dtype):
        assert torch.equal(*self.check(kind, method, dtype, [[0.0, 1], [-1, 0]], lambda k: k + 9))

    def test_scaling_by_two(self, kind, method, dtype):
        after, before = self.check(kind, method, dtype, [[2.0, 0], [0, 2]], lambda k: k)
        assert torch.equal(after[before > 1e-6], 2 * before[before > 1e-6])
        assert torch.equal(after == after.min(), before == before.min())

    def test_order_and_direction_of_segments(self, kind, method, dtype):
        segments, origins = scene(kind)
        shuffled = segments[torch.randperm(len(segments))]
        shuffled[::2] = shuffled[::2][:, [2, 3, 0, 1]]
        want = cast(segments.to(dtype), origins.to(dtype), 100, method=method)
        assert torch.equal(cast(shuffled.to(dtype), origins.to(dtype), 100, method=method), want)


def test_cast_rays_of_shape_turned_by_a_ray_are_rolled():
    segments, origins = closed(star(30)), torch.rand(10, 2, dtype=torch.float64) * 4
    x, y = _C.ray_direction(1, 40)
    turn = torch.tensor([[x, y], [-y, x]], dtype=torch.float64)
    turned = cast(torch.cat([segments[:, :2] @ turn, segments[:, 2:] @ turn], 1), origins @ turn, 40)
    torch.testing.assert_close(turned.roll(-1, 1), cast(segments, origins, 40), rtol=1e-12, atol=1e-12)


def test_cast_rays_in_circle_gives_the_radius():
    angle = 2 * math.pi * torch.arange(5000, dtype=torch.float64) / 5000
    segments = closed(10 * torch.stack([angle.cos(), angle.sin()], 1))
    for method in ("last", "first"):
        rays = cast(segments, torch.zeros(1, 2, dtype=torch.float64), 72, method=method)
        assert ((rays > 10 * math.cos(math.pi / 5000) - 1e-9) & (rays < 10 + 1e-9)).all()


def test_cast_rays_in_convex_shape_span_its_area():
    points = torch.tensor([[0.0, 0], [30, 5], [40, 25], [15, 30], [-5, 12]])
    rays = cast(closed(points), points.mean(0, keepdim=True), 1024)[0]
    x, y = points.T.double()
    area = (x * y.roll(-1) - x.roll(-1) * y).sum() / 2
    assert abs(rays.square().sum() * math.sin(2 * math.pi / 1024) / 2 / area - 1) < 1e-4  # the rays cut the corners


def test_cast_rays_under_vmap_equals_loop():
    segments, origins = closed(star(20)), torch.rand(3, 5, 2, dtype=torch.float64)
    outlines = Outlines(segments, torch.tensor([0, 20]))
    instance = torch.zeros(5, dtype=torch.int64)
    got = torch.vmap(lambda origin: cast_rays(origin, outlines, instance))(origins)
    assert torch.equal(got, torch.stack([cast_rays(origin, outlines, instance) for origin in origins]))


@pytest.mark.parametrize("dtype", GEOMETRY)
@pytest.mark.parametrize("method", ["last", "first"])
def test_cast_rays_of_segments_in_any_order_are_equal(dtype, method, device):
    """Segments that follow each other have code paths of their own, for groups of 16 and chunks of 128 segments."""
    generator = torch.Generator().manual_seed(0)
    origins = 8 * torch.rand(20, 2, generator=generator, dtype=dtype) - 4
    origins[:4] = origins[:4].round()
    instance = torch.zeros(len(origins), dtype=torch.int64, device=device)
    for count in (1, 2, 15, 16, 17, 31, 127, 128, 129, 144, 300):
        vertices = (20 * torch.rand(count + 1, 2, generator=generator, dtype=dtype) - 10).round(decimals=1)
        path = torch.cat([vertices[:-1], vertices[1:]], 1)
        mixed = path[torch.randperm(count, generator=generator)]
        orders = [path, path.flip(0), path[:, [2, 3, 0, 1]], path[:, [2, 3, 0, 1]].flip(0), mixed]
        offsets = torch.tensor([0, count], device=device)
        got = [
            cast_rays(origins.to(device), Outlines(order.to(device), offsets), instance, method=method)
            for order in orders
        ]
        assert all(torch.equal(got[0], other) for other in got[1:]), count


@kernels
@pytest.mark.smoke
@pytest.mark.parametrize("method", ["last", "first", "binned"])
@pytest.mark.parametrize("dtype", GEOMETRY)
def test_cast_rays_kernels_agree_with_cpu(method, dtype):
    """Long outlines, segments everywhere, points on vertices, values without end."""
    torch.manual_seed(0)
    pixels = on_pixel_edges(24)
    wild = 20 * torch.randn(300, 4, dtype=torch.float64)
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 3e38, -3e38, 1e-40], dtype=torch.float64)
    wild[::7, 1] = special[torch.randint(7, (43,))]
    polygon = closed(star(200, 40))
    lengths = torch.tensor([len(pixels), len(wild), 0, len(polygon)])
    outlines = Outlines(torch.cat([pixels, wild, polygon]).to(dtype), torch.cat([lengths[:1] * 0, lengths.cumsum(0)]))
    origins = torch.cat([pixels[:30, :2], 20 * torch.randn(60, 2, dtype=torch.float64), special.expand(2, 7).T])
    for num_rays in (36,) if method == "binned" else (3, 36, 1000):
        kwargs = {"origins": origins.to(dtype), "outlines": outlines, "instance": torch.randint(4, (len(origins),))}
        same_bits(cast_rays, {**kwargs, "num_rays": num_rays, "method": method, "min_distance": 0.0})

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_tester import GEOMETRY, KERNELS, Bad, OpTester, by_cpu_and_kernels
from reference import polar_target as reference

from polarmask_ops import _C, FCOS_RANGES, Outlines, cast_rays, encode_targets

# The reference rounds its directions to 1e-14, and a grazing ray multiplies that by some hundred.
EXACT = {"rtol": 1e-12, "atol": 1e-10}
ROUNDED_ONCE = {"rtol": 1.2e-7, "atol": 1e-10}


def closed(points):
    """The segments of a closed polygon."""
    points = torch.as_tensor(points, dtype=torch.float64)
    return torch.cat([points, points.roll(-1, 0)], 1)


def outlines_of(polygons, dtype=torch.float64, device="cpu"):
    rings = [closed(polygon).reshape(-1, 4) for polygon in polygons]
    offsets = torch.tensor([0, *(len(ring) for ring in rings)]).cumsum(0)
    return Outlines(torch.cat([torch.zeros(0, 4, dtype=torch.float64), *rings]).to(device, dtype), offsets.to(device))


def star(vertices, radius=20.0, center=(0.0, 0.0)):
    """A star-shaped polygon, as concave as chance has it."""
    angle = 2 * math.pi * torch.arange(vertices, dtype=torch.float64) / vertices
    length = radius * (0.3 + 0.7 * torch.rand(vertices, dtype=torch.float64))
    return torch.stack([angle.cos() * length, angle.sin() * length], 1) + torch.as_tensor(center, dtype=torch.float64)


def on_pixel_edges(size=9):
    """The outline of random pixels: unit segments on integers, rays along them everywhere."""
    mask = np.pad(np.random.default_rng(size).random((size, size)) < 0.7, 1)
    pieces = [(j, i + 1, j + 1, i + 1) for i, j in np.argwhere(mask[1:] != mask[:-1])]
    pieces += [(j + 1, i, j + 1, i + 1) for i, j in np.argwhere(mask[:, 1:] != mask[:, :-1])]
    return torch.tensor(pieces, dtype=torch.float64)


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


def cast(segments, origins, num_rays, **options):
    outlines = Outlines(segments, torch.tensor([0, len(segments)]))
    return cast_rays(origins, outlines, torch.zeros(len(origins), dtype=torch.int64), num_rays, **options)


coordinate = st.one_of(
    st.integers(-6, 6).map(float),
    st.floats(-50, 50),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 1e300, 1e-300, 5e-324]),
)


@given(
    st.lists(st.tuples(*[coordinate] * 4), max_size=12),
    st.tuples(coordinate, coordinate),
    st.sampled_from([3, 4, 7, 8, 36, 37, 360]),
    st.sampled_from(["last", "first", "binned"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_hostile_values(segments, origin, num_rays, method, dtype):
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
def test_touching_and_running_along_on_a_lattice(segments, origin, num_rays, method):
    segments, origin = torch.tensor(segments, dtype=torch.float64), torch.tensor([origin], dtype=torch.float64)
    outlines = Outlines(segments.numpy(), np.array([0, len(segments)]))
    want = reference.cast_rays(origin.numpy(), outlines, [0], num_rays, method=method)
    np.testing.assert_allclose(cast(segments, origin, num_rays, method=method), want, **EXACT)


def scene(kind):
    """Segments and origins in 64ths of a pixel, which flips and turns by a quarter keep exactly."""
    torch.manual_seed(0)
    segments = closed(star(40, 30)) if kind == "star" else on_pixel_edges()
    origins = torch.cat([torch.rand(20, 2, dtype=torch.float64) * 20 - 5, segments[:20, :2]])
    return ((values * 64).round() / 64 for values in (segments, origins))


@pytest.mark.parametrize("kind", ["star", "pixels"])
@pytest.mark.parametrize("method", ["last", "first"])
@pytest.mark.parametrize("dtype", GEOMETRY)
class TestSymmetry:
    """Bit for bit, also for origins on the outline."""

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


def test_turn_by_a_whole_ray():
    segments, origins = closed(star(30)), torch.rand(10, 2, dtype=torch.float64) * 4
    x, y = _C.ray_direction(1, 40)
    turn = torch.tensor([[x, y], [-y, x]], dtype=torch.float64)
    turned = cast(torch.cat([segments[:, :2] @ turn, segments[:, 2:] @ turn], 1), origins @ turn, 40)
    torch.testing.assert_close(turned.roll(-1, 1), cast(segments, origins, 40), rtol=1e-12, atol=1e-12)


def test_circle():
    angle = 2 * math.pi * torch.arange(5000, dtype=torch.float64) / 5000
    segments = closed(10 * torch.stack([angle.cos(), angle.sin()], 1))
    for method in ("last", "first"):
        rays = cast(segments, torch.zeros(1, 2, dtype=torch.float64), 72, method=method)
        assert ((rays > 10 * math.cos(math.pi / 5000) - 1e-9) & (rays < 10 + 1e-9)).all()


def test_area_of_a_convex_shape():
    points = torch.tensor([[0.0, 0], [30, 5], [40, 25], [15, 30], [-5, 12]])
    rays = cast(closed(points), points.mean(0, keepdim=True), 1024)[0]
    x, y = points.T.double()
    area = (x * y.roll(-1) - x.roll(-1) * y).sum() / 2
    assert abs(rays.square().sum() * math.sin(2 * math.pi / 1024) / 2 / area - 1) < 1e-4  # cut corners


def test_threads_change_nothing():
    segments, origins = closed(star(50)), torch.rand(500, 2, dtype=torch.float64) * 10
    sample, threads, results = batch(), torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append((cast(segments, origins, 36), *encode_targets(**sample)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


def test_vmap():
    segments, origins = closed(star(20)), torch.rand(3, 5, 2, dtype=torch.float64)
    outlines = Outlines(segments, torch.tensor([0, 20]))
    instance = torch.zeros(5, dtype=torch.int64)
    got = torch.vmap(lambda origin: cast_rays(origin, outlines, instance))(origins)
    assert torch.equal(got, torch.stack([cast_rays(origin, outlines, instance) for origin in origins]))


LEVELS = {
    "level_shapes": [(10, 12), (5, 6)],
    "strides": [8, 16],
    "regress_ranges": [(-1, 40), (40, math.inf)],
    "num_rays": 12,
}


def batch(dtype=torch.float64, device="cpu"):
    """Two images of instances of every kind, centres and boxes given by hand."""
    centers = torch.tensor([[30.0, 30], [34, 33], [60, 50], [48, 40], [20, 60], [50, 20], [70, 60]])
    polygons = [star(20, size, center) for size, center in zip([14, 20, 12, 60, 15, 25, 18], centers, strict=True)]
    polygons[4] = polygons[4][:0]
    boxes = torch.cat([centers - torch.tensor([14, 20, 12, 60, 15, 25, 18])[:, None], centers], 1)
    boxes[:, 2:] = 2 * centers - boxes[:, :2]
    return {
        "boxes": boxes.to(device, dtype),
        "labels": torch.tensor([3, 3, 0, -7, 5, 2**40, 1], device=device),
        "outlines": outlines_of(polygons, dtype, device),
        "image_offsets": torch.tensor([0, 4, 4, 7], device=device),
        "centers": centers.to(device, dtype),
        **LEVELS,
    }


class TestEncodeTargets(OpTester):
    function = encode_targets
    reference = reference.encode_targets
    bad_inputs = (
        Bad({"level_shapes": [(10, 12)]}, ValueError, ("level_shapes", "one length", "1, 2 and 2")),
        Bad({"strides": [8]}, ValueError, ("strides", "2, 1 and 2")),
        Bad({"regress_ranges": FCOS_RANGES}, ValueError, ("regress_ranges", "2, 2 and 5")),
        Bad({"regress_ranges": [(0, 1, 2), (3,)]}, ValueError, ("regress_ranges", "pairs", "(0, 1, 2)")),
        Bad({"level_shapes": [(-1, 2), (5, 6)]}, ValueError, ("level_shapes", "not negative", "(-1, 2)")),
        Bad({"level_shapes": [(2**40, 2**40), (5, 6)]}, ValueError, ("level_shapes", "2**31", "1099511627776")),
        Bad({"strides": [8, 0]}, ValueError, ("strides", "above 0", "0")),
        Bad({"regress_ranges": [(0, 1), (2, 1)]}, ValueError, ("regress_ranges", "low to high", "(2, 1)")),
        Bad({"regress_ranges": [(0, 1), (math.nan, 1)]}, ValueError, ("regress_ranges", "(nan, 1)")),
        Bad({"boxes": torch.rand(7, 5)}, ValueError, ("boxes", "(M, 4)", "(7, 5)")),
        Bad({"boxes": torch.ones(7, 4, dtype=torch.int64)}, TypeError, ("boxes", "floating-point", "int64")),
        Bad({"boxes": torch.rand(6, 4)}, ValueError, ("as many outlines as boxes, 6", "got 7")),
        Bad({"labels": torch.ones(7)}, TypeError, ("labels", "int64", "float32")),
        Bad({"labels": torch.ones(6, dtype=torch.int64)}, ValueError, ("labels", "(M,)", "(6,)")),
        Bad({"image_offsets": torch.tensor([0, 6])}, ValueError, ("image_offsets", "from 0 to 7", "0 to 6")),
        Bad({"image_offsets": torch.tensor([1, 7])}, ValueError, ("image_offsets", "from 0 to 7", "1 to 7")),
        Bad({"image_offsets": torch.tensor([0, 8, 7])}, ValueError, ("image_offsets", "not to fall", "8, 7")),
        Bad({"image_offsets": torch.zeros(0, dtype=torch.int64)}, ValueError, ("image_offsets", "(N + 1,)")),
        Bad({"centers": torch.rand(7, 3)}, ValueError, ("centers", "(M, 2)", "(7, 3)")),
        Bad({"areas": torch.rand(7, 1)}, ValueError, ("areas", "(M,)", "(7, 1)")),
        Bad({"ignore": torch.zeros(7)}, TypeError, ("ignore", "bool", "float32")),
        Bad({"ignore": [True] * 7}, TypeError, ("ignore", "tensor", "list")),
        Bad({"ignore": torch.zeros(6, dtype=torch.bool)}, ValueError, ("ignore", "(M,)", "(6,)")),
        Bad({"center_radius": 0.0}, ValueError, ("center_radius", "> 0", "0")),
        Bad({"center_radius": math.nan}, ValueError, ("center_radius", "nan")),
        Bad({"num_rays": 2}, ValueError, ("num_rays", "2")),
        Bad({"method": "Last"}, ValueError, ("method", "Last")),
        Bad({"min_distance": -1.0}, ValueError, ("min_distance", "-1")),
    )

    def sample(self, dtype, device):
        return batch(dtype, device)

    def more_samples(self, dtype, device):
        sample = batch(dtype, device)
        areas = torch.tensor([5.0, 5, math.nan, 0, 1, -1, math.inf], device=device, dtype=dtype)
        ignore = torch.tensor([False, True, False, True, True, False, True], device=device)
        hostile = sample["boxes"].clone()
        hostile[0], hostile[1, 2], hostile[3] = math.nan, math.inf, hostile[3].flip(0)
        return [
            {**sample, "center_radius": math.inf, "min_distance": 3.0},
            {**sample, "center_radius": 0.6, "method": "first"},
            {**sample, "method": "binned"},
            {**sample, "areas": areas, "center_radius": 2.5},
            {**sample, "ignore": ignore},
            {**sample, "boxes": hostile, "image_offsets": torch.tensor([0, 7], device=device), "ignore": ignore},
        ]

    def empty(self, dtype, device):
        sample = batch(dtype, device)
        none = {key: sample[key][:0] for key in ("boxes", "labels", "centers")}
        outlines = Outlines(sample["outlines"].segments[:0], torch.zeros(1, dtype=torch.int64, device=device))
        return [
            {**sample, **none, "outlines": outlines, "image_offsets": torch.zeros(n, dtype=torch.int64, device=device)}
            for n in (1, 3)
        ] + [
            {**sample, "level_shapes": [(0, 12), (0, 0)]},
            {**sample, "level_shapes": [], "strides": [], "regress_ranges": []},
        ]

    def tolerance(self, dtype):
        return ROUNDED_ONCE


def points_of(sample):
    """Of one image, as the docstring has them."""
    return torch.cat(
        [
            (torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1) + 0.5) * stride
            for (height, width), stride in zip(sample["level_shapes"], sample["strides"], strict=True)
        ]
    )


@pytest.mark.parametrize("method", ["last", "first", "binned"])
def test_rays_are_those_of_cast_rays(method):
    sample = batch(torch.float32)
    targets = encode_targets(**sample, method=method)
    image, point = (targets.instance >= 0).nonzero().T
    want = cast_rays(
        points_of(sample)[point], sample["outlines"], targets.instance[image, point], sample["num_rays"], method=method
    )
    assert len(image) > 30
    assert torch.equal(targets.rays[image, point], want)


def test_empty_levels_cost_nothing():
    sample = batch()
    everywhere = torch.tensor([-1e30, -1e30, 1e30, 1e30]).expand(7, 4)
    targets = encode_targets(
        **{**sample, "boxes": everywhere, "level_shapes": [(2**40, 0), (0, 2**40)], "center_radius": math.inf},
        ignore=torch.arange(7) % 2 == 0,
    )
    assert targets.rays.shape == (3, 0, 12)


def test_gradients_stop():
    sample = batch()
    outlines = sample["outlines"]
    wanting = {name: sample[name].clone().requires_grad_() for name in ("boxes", "centers")}
    wanting["outlines"] = Outlines(outlines.segments.clone().requires_grad_(), outlines.offsets)
    targets = encode_targets(**{**sample, **wanting, "areas": torch.rand(7, requires_grad=True)})
    origins = torch.rand(1, 2, requires_grad=True)
    distances = cast_rays(origins, wanting["outlines"], torch.tensor([0]))
    assert not any(tensor.requires_grad for tensor in (*targets, distances))


@pytest.mark.parametrize("name", ["boxes", "centers", "segments", "areas"])
def test_the_op_itself_takes_float32_only(name):
    segments, offsets = torch.rand(3, 4), torch.tensor([0, 3])
    tensors = {"boxes": torch.rand(1, 4), "segments": segments, "centers": torch.rand(1, 2), "areas": torch.rand(1)}
    tensors[name] = tensors[name].half()
    labels = torch.tensor([1])
    with pytest.raises((RuntimeError, ValueError), match="expected"):
        torch.ops.polarmask.encode_targets(
            [1, 1], [1], [0, 1], tensors["boxes"], labels, tensors["segments"], offsets, torch.tensor([0, 1]),
            tensors["centers"], tensors["areas"], None, 4, 1.5, "last", 0.0,
        )  # fmt: skip


def test_rays_beyond_float32_have_no_centerness():
    far = torch.tensor([[-3e38, -3e38, 3e38, -3e38], [3e38, -3e38, -3e38, 3e38], [-3e38, 3e38, -3e38, -3e38]])
    targets = encode_targets(
        [(1, 1)],
        [1],
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        torch.tensor([3]),
        Outlines(far, torch.tensor([0, 3])),
        torch.tensor([0, 1]),
        num_rays=8,
        regress_ranges=[(0, 1)],
        centers=torch.tensor([[0.5, 0.5]]),
        min_distance=math.inf,
    )
    assert targets.rays.isinf().all()
    assert targets.centerness.tolist() == [[0.0]]


def test_images_do_not_see_each_other():
    sample = batch()
    together = encode_targets(**sample)
    outlines, offsets = sample["outlines"], sample["image_offsets"].tolist()
    for image, (begin, end) in enumerate(itertools.pairwise(offsets)):
        first, last = outlines.offsets[begin], outlines.offsets[end]
        own = Outlines(outlines.segments[first:last], outlines.offsets[begin : end + 1] - first)
        columns = {name: sample[name][begin:end] for name in ("boxes", "labels", "centers")}
        alone = encode_targets(
            **{**sample, **columns, "outlines": own, "image_offsets": torch.tensor([0, end - begin])}
        )
        want = torch.where(together.instance >= 0, together.instance - begin, together.instance)[image]
        assert torch.equal(alone.instance[0], want)
        for name in ("labels", "boxes", "rays", "centerness"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[image])


def test_centroids_are_the_default_centers():
    sample = batch()
    given = encode_targets(**{**sample, "centers": sample["outlines"].centroids()})
    default = encode_targets(**{**sample, "centers": None})
    assert all(torch.equal(one, other) for one, other in zip(given, default, strict=True))


@given(
    st.lists(st.tuples(*[coordinate] * 9, st.booleans()), max_size=5),
    st.sampled_from([0.5, 1.5, math.inf]),
    st.sampled_from([1, 3, 8]),
)
def test_hostile_instances(rows, center_radius, stride):
    rows = torch.tensor(rows, dtype=torch.float64).reshape(-1, 10)
    count = len(rows)
    triangles = torch.stack([rows[:, :2], rows[:, 2:4], rows[:, 4:6]], 1)
    segments = torch.cat([triangles, triangles.roll(-1, 1)], 2).reshape(-1, 4)
    targets = encode_targets(
        [(5, 4)],
        [stride],
        rows[:, [0, 1, 4, 5]],
        torch.arange(count),
        Outlines(segments, 3 * torch.arange(count + 1)),
        torch.tensor([0, count]),
        regress_ranges=[(-1, math.inf)],
        centers=rows[:, 6:8],
        areas=rows[:, 8],
        ignore=rows[:, 9] > 0,
        center_radius=center_radius,
        num_rays=8,
    )
    assert ((targets.instance >= -2) & (targets.instance < count)).all()
    assert torch.equal(targets.labels, targets.instance)
    positive = targets.instance >= 0
    assert (targets.boxes[positive] > 0).all()
    assert (targets.rays[positive] >= 1e-6 * (1 - 1e-6)).all()
    assert all(not tensor[~positive].any() for tensor in targets[2:])
    assert not any(tensor.isnan().any() for tensor in targets)


kernels = pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")


def same_bits(function, kwargs):
    by_cpu, by_kernels = by_cpu_and_kernels(function, kwargs)
    pairs = zip(by_cpu, by_kernels, strict=True) if isinstance(by_cpu, tuple) else [(by_cpu, by_kernels)]
    for want, got in pairs:
        torch.testing.assert_close(got, want, rtol=0, atol=0)
        assert torch.equal(got.signbit(), want.signbit())


@pytest.mark.parametrize("dtype", GEOMETRY)
@pytest.mark.parametrize("method", ["last", "first"])
def test_order_of_segments_does_not_matter(dtype, method, device):
    """A path forth or back has ways of its own; it is cut into groups of 16 segments and chunks of 128."""
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
def test_kernels_cast_the_same_rays(method, dtype):
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


@kernels
@pytest.mark.smoke
@pytest.mark.parametrize("method", ["last", "first", "binned"])
def test_kernels_encode_the_same_targets(method):
    """Instances on top of each other, of equal areas, ignored, hostile."""
    torch.manual_seed(0)
    count = 60
    centers, radius = 160 * torch.rand(count, 2), 4 + 40 * torch.rand(count)
    polygons = [star(25, float(r), c) for r, c in zip(radius, centers, strict=True)]
    polygons[5], polygons[6] = polygons[5][:0], polygons[6] * math.nan
    boxes = torch.cat([centers - radius[:, None], centers + radius[:, None]], 1)
    boxes[7], boxes[8], boxes[9, 2] = math.nan, boxes[8].flip(0), math.inf
    areas = torch.randint(5, (count,)).float() * torch.tensor([1.0, -0.0]).repeat(count // 2)
    kwargs = {
        "level_shapes": [(20, 20), (10, 10), (5, 5)],
        "strides": [8, 16, 32],
        "regress_ranges": [(-1, 32), (32, 64), (64, math.inf)],
        "boxes": boxes,
        "labels": torch.arange(count) * 2**33,
        "outlines": outlines_of(polygons, torch.float32),
        "image_offsets": torch.tensor([0, 0, 25, 60, 60]),
        "num_rays": 36,
        "centers": centers,
        "method": method,
    }
    ignore = torch.arange(count) % 6 == 5
    same_bits(encode_targets, kwargs)
    same_bits(encode_targets, {**kwargs, "areas": areas, "ignore": ignore, "center_radius": math.inf})


@kernels
@pytest.mark.smoke
def test_kernels_survive_values_that_nobody_checks(monkeypatch):
    monkeypatch.delenv("POLARMASK_CHECK", raising=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sample = batch(torch.float32, device)
    outlines = sample["outlines"]
    instance = torch.tensor([-1, 7, 2**62, -(2**62), 0], device=device)
    rays = cast_rays(torch.zeros(5, 2, device=device), outlines, instance, min_distance=2.0)
    assert (rays[:4] == 2).all()
    assert (rays[4] > 2).any()
    for offsets in ([5, 4, 3, 2, 1, 0, -1, -2], [2**62] * 8, [-(2**62), 2**62] * 4):
        nonsense = Outlines(outlines.segments, torch.tensor(offsets, device=device))
        rays = cast_rays(torch.zeros(7, 2, device=device), nonsense, torch.arange(7, device=device))
        assert rays.isfinite().all()
        targets = encode_targets(**{**sample, "outlines": nonsense}, ignore=torch.arange(7, device=device) % 2 == 0)
        assert ((targets.instance >= -2) & (targets.instance < 7)).all()
    for offsets in ([7, 4, 4, 0], [2**62, -(2**62), 2**62, 7], [3, 3, 3, 3]):
        targets = encode_targets(**{**sample, "image_offsets": torch.tensor(offsets, device=device)})
        assert ((targets.instance >= -1) & (targets.instance < 7)).all()

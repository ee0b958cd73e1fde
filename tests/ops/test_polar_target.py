"""encode_targets: which points are assigned to which instance, and their targets."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_tester import Bad, OpTester
from polar_target_tester import ROUNDED_ONCE, batch, cast, closed, coordinate, kernels, outlines_of, same_bits, star
from reference import polar_target as reference

from polarmask_ops import FCOS_RANGES, Outlines, cast_rays, encode_ragged_targets


def test_polar_target_on_any_number_of_threads_has_the_same_bits():
    segments, origins = closed(star(50)), torch.rand(500, 2, dtype=torch.float64) * 10
    sample, threads, results = batch(), torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append((cast(segments, origins, 36), *encode_ragged_targets(**sample)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


class TestEncodeTargets(OpTester):
    function, name = encode_ragged_targets, "encode_targets"
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
    """Return the points of one image, as the docstring defines them."""
    return torch.cat(
        [
            (torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1) + 0.5) * stride
            for (height, width), stride in zip(sample["level_shapes"], sample["strides"], strict=True)
        ]
    )


@pytest.mark.parametrize("method", ["last", "first", "binned"])
def test_encode_targets_rays_equal_cast_rays(method):
    sample = batch(torch.float32)
    targets = encode_ragged_targets(**sample, method=method)
    image, point = (targets.instance >= 0).nonzero().T
    want = cast_rays(
        points_of(sample)[point], sample["outlines"], targets.instance[image, point], sample["num_rays"], method=method
    )
    assert len(image) > 30
    assert torch.equal(targets.rays[image, point], want)


def test_encode_targets_of_empty_levels_has_no_points():
    sample = batch()
    everywhere = torch.tensor([-1e30, -1e30, 1e30, 1e30]).expand(7, 4)
    targets = encode_ragged_targets(
        **{**sample, "boxes": everywhere, "level_shapes": [(2**40, 0), (0, 2**40)], "center_radius": math.inf},
        ignore=torch.arange(7) % 2 == 0,
    )
    assert targets.rays.shape == (3, 0, 12)


def test_encode_targets_and_cast_rays_give_no_gradients():
    sample = batch()
    outlines = sample["outlines"]
    wanting = {name: sample[name].clone().requires_grad_() for name in ("boxes", "centers")}
    wanting["outlines"] = Outlines(outlines.segments.clone().requires_grad_(), outlines.offsets)
    targets = encode_ragged_targets(**{**sample, **wanting, "areas": torch.rand(7, requires_grad=True)})
    origins = torch.rand(1, 2, requires_grad=True)
    distances = cast_rays(origins, wanting["outlines"], torch.tensor([0]))
    assert not any(tensor.requires_grad for tensor in (*targets, distances))


@pytest.mark.parametrize("name", ["boxes", "centers", "segments", "areas"])
def test_encode_targets_op_of_other_dtypes_raises(name):
    segments, offsets = torch.rand(3, 4), torch.tensor([0, 3])
    tensors = {"boxes": torch.rand(1, 4), "segments": segments, "centers": torch.rand(1, 2), "areas": torch.rand(1)}
    tensors[name] = tensors[name].half()
    labels = torch.tensor([1])
    with pytest.raises((RuntimeError, ValueError), match="expected"):
        torch.ops.polarmask.encode_targets(
            [1, 1], [1], [0, 1], tensors["boxes"], labels, tensors["segments"], offsets, torch.tensor([0, 1]),
            tensors["centers"], tensors["areas"], None, 4, 1.5, "last", 0.0,
        )  # fmt: skip


def test_encode_targets_with_infinite_rays_has_centerness_0():
    far = torch.tensor([[-3e38, -3e38, 3e38, -3e38], [3e38, -3e38, -3e38, 3e38], [-3e38, 3e38, -3e38, -3e38]])
    targets = encode_ragged_targets(
        [(1, 1)],
        [1],
        boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]),
        labels=torch.tensor([3]),
        outlines=Outlines(far, torch.tensor([0, 3])),
        image_offsets=torch.tensor([0, 1]),
        num_rays=8,
        regress_ranges=[(0, 1)],
        centers=torch.tensor([[0.5, 0.5]]),
        min_distance=math.inf,
    )
    assert targets.rays.isinf().all()
    assert targets.centerness.tolist() == [[0.0]]


def test_encode_targets_of_images_apart_equals_batch():
    sample = batch()
    together = encode_ragged_targets(**sample)
    outlines, offsets = sample["outlines"], sample["image_offsets"].tolist()
    for image, (begin, end) in enumerate(itertools.pairwise(offsets)):
        first, last = outlines.offsets[begin], outlines.offsets[end]
        own = Outlines(outlines.segments[first:last], outlines.offsets[begin : end + 1] - first)
        columns = {name: sample[name][begin:end] for name in ("boxes", "labels", "centers")}
        alone = encode_ragged_targets(
            **{**sample, **columns, "outlines": own, "image_offsets": torch.tensor([0, end - begin])}
        )
        want = torch.where(together.instance >= 0, together.instance - begin, together.instance)[image]
        assert torch.equal(alone.instance[0], want)
        for name in ("labels", "boxes", "rays", "centerness"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[image])


def test_encode_targets_without_centers_uses_centroids():
    sample = batch()
    given = encode_ragged_targets(**{**sample, "centers": sample["outlines"].centroids()})
    default = encode_ragged_targets(**{**sample, "centers": None})
    assert all(torch.equal(one, other) for one, other in zip(given, default, strict=True))


@given(
    st.lists(st.tuples(*[coordinate] * 9, st.booleans()), max_size=5),
    st.sampled_from([0.5, 1.5, math.inf]),
    st.sampled_from([1, 3, 8]),
)
def test_encode_targets_of_hostile_instances_keeps_its_ranges(rows, center_radius, stride):
    rows = torch.tensor(rows, dtype=torch.float64).reshape(-1, 10)
    count = len(rows)
    triangles = torch.stack([rows[:, :2], rows[:, 2:4], rows[:, 4:6]], 1)
    segments = torch.cat([triangles, triangles.roll(-1, 1)], 2).reshape(-1, 4)
    targets = encode_ragged_targets(
        [(5, 4)],
        [stride],
        boxes=rows[:, [0, 1, 4, 5]],
        labels=torch.arange(count),
        outlines=Outlines(segments, 3 * torch.arange(count + 1)),
        image_offsets=torch.tensor([0, count]),
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


@kernels
@pytest.mark.smoke
@pytest.mark.parametrize("method", ["last", "first", "binned"])
def test_kernels_encode_the_same_targets(method):
    """Instances overlap, have equal areas, are ignored or hold hostile values."""
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
    same_bits(encode_ragged_targets, kwargs)
    same_bits(encode_ragged_targets, {**kwargs, "areas": areas, "ignore": ignore, "center_radius": math.inf})


@kernels
@pytest.mark.smoke
def test_polar_target_kernels_with_unchecked_values_stay_in_bounds(monkeypatch):
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
        targets = encode_ragged_targets(
            **{**sample, "outlines": nonsense}, ignore=torch.arange(7, device=device) % 2 == 0
        )
        assert ((targets.instance >= -2) & (targets.instance < 7)).all()
    for offsets in ([7, 4, 4, 0], [2**62, -(2**62), 2**62, 7], [3, 3, 3, 3]):
        targets = encode_ragged_targets(**{**sample, "image_offsets": torch.tensor(offsets, device=device)})
        assert ((targets.instance >= -1) & (targets.instance < 7)).all()

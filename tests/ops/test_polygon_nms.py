"""Greedy NMS of polygons and stars. Their IoU is tested in test_polygon_iou.py."""

import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import EMULATED, GEOMETRY, KERNELS, Bad, OpTester, by_cpu_and_kernels
from reference import polygon_nms as reference
from shapes import decode, random_stars
from torchvision.ops import batched_nms, nms

import polarmask_ops
from polarmask_ops import batched_polygon_nms, batched_rays_nms, polygon_iou, polygon_nms, rays_iou, rays_nms

BAD_RULES = (
    Bad({"iou_threshold": 1.5}, ValueError, ("iou_threshold", "from 0 to 1", "1.5")),
    Bad({"iou_threshold": math.nan}, ValueError, ("iou_threshold", "from 0 to 1", "nan")),
    Bad({"metric": "giou"}, ValueError, ("metric", "'iou', 'iomin'", "'giou'")),
    Bad({"max_output": -1}, ValueError, ("max_output", "at least 0", "-1")),
    Bad({"scores": torch.rand(3)}, ValueError, ("scores", "(N,)", "(3,)")),
    Bad({"scores": torch.rand(15, 1)}, ValueError, ("scores", "(N,)", "(15, 1)")),
    Bad({"scores": torch.arange(15)}, TypeError, ("scores", "floating-point", "int64")),
)
BAD_IDXS = (
    Bad({"idxs": torch.zeros(3, dtype=torch.int64)}, ValueError, ("idxs", "(N,)", "(3,)")),
    Bad({"idxs": torch.zeros(15)}, TypeError, ("idxs", "int32 or int64", "float32")),
)
BAD_POLYGONS = (
    Bad({"polygons": torch.rand(15, 8)}, ValueError, ("polygons", "(N, V, 2)", "(15, 8)")),
    Bad({"polygons": torch.rand(15, 8, 3)}, ValueError, ("polygons", "(N, V, 2)", "(15, 8, 3)")),
    Bad({"polygons": torch.zeros(15, 8, 2, dtype=torch.int64)}, TypeError, ("polygons", "floating-point", "int64")),
)
BAD_RAYS = (
    Bad({"centers": torch.rand(15, 3)}, ValueError, ("centers", "(N, 2)", "(15, 3)")),
    Bad({"rays": torch.rand(15, 2)}, ValueError, ("num_rays", "from 3 to 1024", "2")),
    Bad({"rays": torch.rand(14, 8)}, ValueError, ("rays", "(N, R)", "(14, 8)")),
    Bad({"rays": 3}, TypeError, ("rays", "tensor", "int")),
)


class NmsTester(OpTester):
    """Fifteen small stars of seven rays, crowded."""

    dtypes = GEOMETRY
    shapes = "rays"
    batched = False

    def arguments(self, dtype, device, count=15):
        generator = torch.Generator().manual_seed(1)
        centers, rays = random_stars(generator, count, 7, extent=26)
        centers, rays = centers.to(device, dtype), rays.to(device, dtype)
        given = {"centers": centers, "rays": rays}
        if self.shapes == "polygons":
            given = {"polygons": decode(centers, rays).to(dtype)}
        given["scores"] = torch.rand(count, generator=generator).to(device, dtype)
        if self.batched:
            given["idxs"] = torch.randint(2, (count,), generator=generator).to(device) * 10**12
        return given

    def sample(self, dtype, device):
        return {**self.arguments(dtype, device), "iou_threshold": 0.3, "max_output": 10}

    def more_samples(self, dtype, device):
        ties = {"scores": torch.tensor([0.5, 0.25, 0.5] * 5, dtype=dtype, device=device)}
        hostile = {"scores": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 0.0] * 3, dtype=dtype, device=device)}
        return [
            {**self.arguments(dtype, device), **changes}
            for changes in (
                {"iou_threshold": 0.3},
                {"iou_threshold": 0.4, "metric": "iomin"},
                {"iou_threshold": 0.3, "max_output": 3},
                {"iou_threshold": 0.3, **ties},
                {"iou_threshold": 0.3, **hostile},
                {"iou_threshold": 0.0},
                {"iou_threshold": 1.0},
            )
        ]

    def empty(self, dtype, device):
        given = {**self.arguments(dtype, device, count=0), "iou_threshold": 0.5}
        return [given, {**given, "max_output": 3}]


class TestPolygonNms(NmsTester):
    function = staticmethod(polygon_nms)
    reference = staticmethod(reference.polygon_nms)
    shapes = "polygons"
    bad_inputs = BAD_RULES + BAD_POLYGONS


class TestBatchedPolygonNms(NmsTester):
    function = staticmethod(batched_polygon_nms)
    reference = staticmethod(reference.batched_polygon_nms)
    shapes = "polygons"
    batched = True
    bad_inputs = BAD_RULES + BAD_POLYGONS + BAD_IDXS


class TestRaysNms(NmsTester):
    function = staticmethod(rays_nms)
    reference = staticmethod(reference.rays_nms)
    bad_inputs = BAD_RULES + BAD_RAYS


class TestBatchedRaysNms(NmsTester):
    function = staticmethod(batched_rays_nms)
    reference = staticmethod(reference.batched_rays_nms)
    batched = True
    bad_inputs = BAD_RULES + BAD_RAYS + BAD_IDXS


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def shapely_nms(polygons: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """The same greedy loop over GEOS; no pair may lie where rounding decides."""
    shapes = shapely.polygons(polygons.numpy())
    tree, areas = shapely.STRtree(shapes), shapely.area(shapes)
    dead = np.zeros(len(shapes), dtype=bool)
    kept = []
    for i in np.argsort(-scores.numpy(), kind="stable"):
        if dead[i]:
            continue
        kept.append(int(i))
        near = tree.query(shapes[i])
        inter = shapely.area(shapely.intersection(shapes[i], shapes[near]))
        iou = inter / (areas[i] + areas[near] - inter)
        assert (abs(iou - threshold) > 1e-6).all()
        dead[near[iou > threshold]] = True
    return kept


@pytest.mark.parametrize(("num_rays", "extent"), [(36, 200), (36, 2000), (5, 200), (128, 400)])
def test_polygon_nms_equals_greedy_loop_over_geos(generator, num_rays, extent):
    centers, rays = random_stars(generator, 400, num_rays, extent)
    scores = torch.rand(400, generator=generator)
    for threshold in (0.2, 0.5):
        want = shapely_nms(decode(centers, rays), scores, threshold)
        assert rays_nms(centers, rays, scores, threshold).tolist() == want
        assert polygon_nms(decode(centers, rays), scores, threshold).tolist() == want


def rectangles(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].view(-1, 4, 2)


def test_polygon_nms_of_rectangles_equals_torchvision(generator):
    corner = torch.rand(500, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + 2 + 20 * torch.rand(500, 2, generator=generator)], 1)
    scores = torch.rand(500, generator=generator)
    idxs = torch.randint(-3, 3, (500,), generator=generator)
    for threshold in (0.1, 0.5, 0.7):
        assert polygon_nms(rectangles(boxes), scores, threshold).tolist() == nms(boxes, scores, threshold).tolist()
        got = batched_polygon_nms(rectangles(boxes), scores, idxs, threshold)
        assert got.tolist() == batched_nms(boxes, scores, idxs, threshold).tolist()


def test_polygon_nms_of_many_scales_misses_no_neighbour(generator):
    """Tiny shapes among huge ones: the search for neighbours must miss none."""
    size = 2.0 ** torch.randint(-6, 12, (300, 1), generator=generator)
    corner = (torch.rand(300, 2, generator=generator) - 0.5) * torch.minimum(20 * size, torch.tensor(1000.0))
    boxes = torch.cat([corner, corner + size * (0.5 + torch.rand(300, 2, generator=generator))], 1)
    scores = torch.rand(300, generator=generator)
    assert polygon_nms(rectangles(boxes), scores, 0.2).tolist() == nms(boxes, scores, 0.2).tolist()


def test_polygon_nms_of_more_than_a_block_in_one_place_is_right(generator):
    count = 200 if EMULATED else 1000  # the kernels' tiles are 64 wide; every pair is open, and takes all eight lanes
    centers = torch.rand(count, 2, generator=generator) * 0.01
    rays, scores = torch.ones(count, 36), torch.rand(count, generator=generator)
    assert rays_nms(centers, rays, scores, 0.5).tolist() == [int(scores.argmax())]
    assert rays_nms(centers, rays, scores, 1.0).tolist() == scores.argsort(descending=True).tolist()


def test_polygon_nms_is_idempotent_and_permutation_equivariant(generator):
    centers, rays = random_stars(generator, 500, 36, 150)
    scores = torch.randperm(500, generator=generator).float()
    keep = rays_nms(centers, rays, scores, 0.4)
    assert 100 < len(keep) < 450
    assert rays_nms(centers[keep], rays[keep], scores[keep], 0.4).tolist() == list(range(len(keep)))
    order = torch.randperm(500, generator=generator)
    shuffled = rays_nms(centers[order], rays[order], scores[order], 0.4)
    assert order[shuffled].tolist() == keep.tolist()


def test_batched_polygon_nms_equals_each_class_alone(generator):
    centers, rays = random_stars(generator, 400, 36, 120)
    scores, idxs = torch.rand(400, generator=generator), torch.randint(5, (400,), generator=generator)
    keep = batched_rays_nms(centers, rays, scores, idxs, 0.3)
    alone = []
    for value in range(5):
        (own,) = torch.nonzero(idxs == value, as_tuple=True)
        alone.append(own[rays_nms(centers[own], rays[own], scores[own], 0.3)])
    union = torch.cat(alone)
    assert keep.tolist() == union[scores[union].argsort(descending=True)].tolist()
    polygons = decode(centers, rays)
    assert batched_polygon_nms(polygons, scores, idxs.int(), 0.3).tolist() == keep.tolist()


def test_polygon_nms_moved_and_scaled_exactly_is_equal(generator):
    centers, rays = random_stars(generator, 300, 36, 120)
    centers = (centers * 1024).round() / 1024
    scores = torch.rand(300, generator=generator)
    polygons = (decode(centers, rays) * 1024).round() / 1024
    for shift, scale in ((512.0, 1.0), (0.0, 2.0**-10), (-4096.0, 2.0**20)):
        for keep, moved in (
            (rays_nms(centers, rays, scores, 0.4), rays_nms((centers + shift) * scale, rays * scale, scores, 0.4)),
            (polygon_nms(polygons, scores, 0.4), polygon_nms((polygons + shift) * scale, scores, 0.4)),
        ):
            assert moved.tolist() == keep.tolist()


def test_polygon_nms_of_half_precision_scores_ties_in_their_dtype():
    scores = torch.tensor([0.5, 0.50001, 0.25])
    centers, rays = torch.zeros(3, 2), torch.ones(3, 36)
    assert rays_nms(centers, rays, scores, 0.5).tolist() == [1]
    assert rays_nms(centers, rays, scores.half(), 0.5).tolist() == [0]


def test_polygon_nms_at_exactly_the_threshold_keeps():
    halves = rectangles(torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 0.5, 1]]))
    scores = torch.tensor([3.0, 2.0, 1.0])
    assert polygon_nms(halves, scores, 0.5).tolist() == [0, 1, 2]
    assert polygon_nms(halves, scores, 0.5, metric="iomin").tolist() == [0]


@pytest.mark.parametrize("metric", ["iou", "iomin"])
def test_polygon_nms_near_the_threshold_is_exact(generator, metric):
    """What decides fast asks the exact sum where it is in doubt."""
    centers, rays = random_stars(generator, 40, 36, 30)
    centers, rays = centers.double(), rays.double()
    overlaps = rays_iou(centers[:20], rays[:20], centers[20:], rays[20:], metric=metric).diagonal()
    for n, overlap in enumerate(overlaps.tolist()):
        pair = torch.tensor([n, n + 20])
        for threshold in (
            overlap * (1 - 1e-12),
            min(overlap * (1 + 1e-12), 1.0),
        ):  # share and product round in their own way
            keep = rays_nms(centers[pair], rays[pair], torch.tensor([2.0, 1.0]), threshold, metric=metric)
            assert keep.tolist() == ([0] if overlap > threshold else [0, 1])


@pytest.mark.parametrize("metric", ["iou", "iomin"])
def test_polygon_nms_of_polygons_near_the_threshold_is_exact(generator, metric):
    """The same, with the grid of the pair between the fast answer and the exact one."""
    centers, rays = random_stars(generator, 40, 36, 30)
    polygons = decode(centers, rays).double()
    polygons[:10] = polygons[:10].flip(1)
    polygons[10:13, 20:] = polygons[10:13, :1]
    polygons[13:16] = polygons[33:36] * (1 + 1e-7)  # nearly equal
    polygons[16:20] = polygons[16:20, torch.randperm(36, generator=generator)]  # any ring
    overlaps = polygon_iou(polygons[:20], polygons[20:], metric=metric, paired=True)
    for n, overlap in enumerate(overlaps.tolist()):
        for by in (1e-12, 1e-9, 1e-7, 1e-5, 1e-3):
            for threshold in (overlap * (1 - by), min(overlap * (1 + by), 1.0)):
                pair = polygons[[n, n + 20]]
                keep = polygon_nms(pair, torch.tensor([2.0, 1.0]), threshold, metric=metric)
                assert keep.tolist() == ([0] if overlap > threshold else [0, 1])


@settings(max_examples=30 if EMULATED else 200, deadline=None)
@given(st.data())
def test_polygon_nms_of_any_rings_decides_by_the_exact_overlap(data):
    """Vertices on a small grid: stars and others, clockwise, self-crossing, with vertices and edges in common."""
    length = data.draw(st.integers(3, 7))
    numbers = st.lists(st.integers(0, 4), min_size=5 * length * 2, max_size=5 * length * 2)
    polygons = torch.tensor(data.draw(numbers), dtype=torch.float64).view(5, length, 2)
    polygons = polygons * data.draw(st.sampled_from([1.0, 1 / 3, 1e-5, 1e7])) + data.draw(st.sampled_from([0.0, 0.1]))
    threshold = data.draw(st.sampled_from([0.001, 0.3000001, 0.7654321]))  # no quotient of small integers
    overlaps = polygon_iou(polygons, polygons)
    want: list[int] = []
    for n in range(5):
        if all(overlaps[kept, n] <= threshold for kept in want):
            want.append(n)
    assert polygon_nms(polygons, torch.arange(5.0).flip(0), threshold).tolist() == want


@pytest.mark.parametrize("num_vertices", [3000, 9000])
def test_polygon_nms_of_many_vertices_is_right(num_vertices):
    angles = torch.arange(num_vertices) * (2 * math.pi / num_vertices)
    circle = 50 * torch.stack([angles.cos(), angles.sin()], 1)
    polygons = torch.stack([circle, circle + 1, circle + torch.tensor([60.0, 0])])
    ious = polygon_iou(polygons, polygons)
    scores = torch.tensor([0.9, 0.8, 0.7])
    for threshold, want in ((0.5, [0, 2]), (float(ious[0, 1]) + 1e-3, [0, 1, 2])):
        assert polygon_nms(polygons, scores, threshold).tolist() == want


def test_polygon_nms_with_max_output_pads_and_cuts(generator):
    centers, rays = random_stars(generator, 300, 36, 100)
    scores = torch.rand(300, generator=generator)
    keep = rays_nms(centers, rays, scores, 0.3).tolist()
    for length in (0, 1, len(keep) - 1, len(keep), len(keep) + 5):
        got = rays_nms(centers, rays, scores, 0.3, max_output=length).tolist()
        assert got == (keep + [-1] * length)[:length]


def test_polygon_nms_on_any_number_of_threads_is_equal(generator):
    centers, rays = random_stars(generator, 2000, 36, 300)
    scores = torch.rand(2000, generator=generator)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(rays_nms(centers, rays, scores, 0.4).tolist())
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_polygon_nms_of_shapes_not_finite_drops_them():
    centers, rays = torch.zeros(6, 2), torch.ones(6, 36)
    rays[0, 1], rays[1, 0], rays[4, 0], centers[2, 0] = math.nan, math.inf, -math.inf, math.nan
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.5, 1.0])
    assert rays_nms(centers, rays, scores, 0.5).tolist() == [3]
    assert rays_nms(centers, rays, scores, 0.5, max_output=3).tolist() == [3, -1, -1]
    polygons = decode(centers, rays)
    assert polygon_nms(polygons, scores, 0.0).tolist() == [3]
    assert polygon_nms(polygons[:, :2], scores, 0.0).tolist() == [3, 5]  # finite, and without area


NUMBERS = st.sampled_from([0.0, -1.0, 1.0, 2.0, 3.0, 1e-30, 1e30, -1e30, math.nan, math.inf, -math.inf, 0.5])


@settings(max_examples=30 if EMULATED else 100, deadline=None)
@given(st.data())
def test_polygon_nms_of_hostile_values_does_not_fail(data):
    count, length = data.draw(st.integers(0, 6)), data.draw(st.integers(3, 6))
    values = data.draw(st.lists(NUMBERS, min_size=count * (2 + length + 1), max_size=count * (2 + length + 1)))
    table = torch.tensor(values, dtype=torch.float64).view(count, 3 + length)
    centers, rays, scores = table[:, :2], table[:, 2:-1], table[:, -1]
    for keep in (
        rays_nms(centers, rays, scores, 0.5),
        polygon_nms(table[:, : 2 * (length // 2)].unflatten(1, (-1, 2)), scores, 0.5),
    ):
        kept = scores[keep]
        assert len(set(keep.tolist())) == len(keep)
        assert not kept.isnan().any()
        assert (kept[:-1] >= kept[1:]).all()


@pytest.mark.smoke
@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
class TestKernels:
    """Keep lists equal those of the CPU loops: more ranks than one step resolves, more tiles than one, anything."""

    @staticmethod
    def check(function, **kwargs):
        by_cpu, by_kernels = by_cpu_and_kernels(function, kwargs)
        assert by_kernels.tolist() == by_cpu.tolist()
        return by_cpu

    def test_several_steps(self, generator):
        count = 1100
        centers, rays = random_stars(generator, count, 5, 400)
        scores = torch.randint(900, (count,), generator=generator) / 900
        idxs = torch.randint(2, (count,), generator=generator)
        given = {"scores": scores, "iou_threshold": 0.3}
        kept = self.check(rays_nms, centers=centers, rays=rays, **given)
        assert 200 < len(kept) < 1000
        for max_output in (9, len(kept) - 1):  # reached before the last step, and in it
            self.check(rays_nms, centers=centers, rays=rays, **given, max_output=max_output)
        polygons = decode(centers, rays).float()
        self.check(batched_polygon_nms, polygons=polygons, idxs=idxs, **given, metric="iomin", max_output=count + 9)

    @pytest.mark.parametrize("num_vertices", [3, 64, 65])
    def test_many_vertices(self, generator, num_vertices):
        """Rings of up to 64 vertices lie in shared memory."""
        centers, rays = random_stars(generator, 40, num_vertices, 60)
        scores = torch.rand(40, generator=generator)
        self.check(polygon_nms, polygons=decode(centers, rays), scores=scores, iou_threshold=0.3)
        self.check(rays_nms, centers=centers, rays=rays, scores=scores, iou_threshold=0.3)

    def test_all_in_one_place(self, generator):
        """Every pair of every tile is open; equal shapes, equal scores."""
        centers, rays = torch.zeros(150, 2), torch.ones(150, 4)
        rays[::3] *= 1 + torch.rand(50, 1, generator=generator)
        for threshold in (0.5, 1.0):
            self.check(rays_nms, centers=centers, rays=rays, scores=torch.ones(150), iou_threshold=threshold)
        polygons = decode(centers, rays)
        self.check(polygon_nms, polygons=polygons, scores=torch.ones(150), iou_threshold=0.5)

    @pytest.mark.parametrize("dtype", GEOMETRY)
    def test_hostile(self, generator, dtype):
        numbers = torch.tensor(
            [0.0, -1.0, 1.0, 2.0, 3.0, 0.5, 1e-30, 1e30, -1e30, 1e38, 1e-160, math.nan, math.inf, -math.inf],
            dtype=torch.float64,
        ).to(dtype)
        weights = torch.tensor([8.0] * 6 + [1.0] * 8)
        for length in (3, 6):
            shape = (200, 2 + length)
            table = numbers[torch.multinomial(weights, math.prod(shape), True, generator=generator)].view(shape)
            scores = numbers[torch.randint(len(numbers), (200,), generator=generator)]
            table[100:140] = table[:40]  # duplicates
            given = {"scores": scores, "iou_threshold": 0.25}
            self.check(rays_nms, centers=table[:, :2], rays=table[:, 2:], **given)
            polygons = table[:, : (2 + length) // 2 * 2].unflatten(1, (-1, 2))
            self.check(polygon_nms, polygons=polygons, **given)
            self.check(polygon_nms, polygons=polygons, **given, metric="iomin", max_output=20)


def test_polygon_nms_under_vmap_needs_max_output(generator):
    centers, rays = random_stars(generator, 60, 12, 40)
    centers, rays, scores = centers.view(3, 20, 2), rays.view(3, 20, 12), torch.rand(3, 20, generator=generator)
    got = torch.vmap(lambda c, r, s: rays_nms(c, r, s, 0.3, max_output=20))(centers, rays, scores)
    want = [rays_nms(c, r, s, 0.3, max_output=20) for c, r, s in zip(centers, rays, scores, strict=True)]
    assert torch.equal(got, torch.stack(want))
    with pytest.raises(RuntimeError, match="rays_nms: vmap needs max_output"):
        torch.vmap(lambda c, r, s: rays_nms(c, r, s, 0.3))(centers, rays, scores)


def test_polygon_nms_compiled_without_max_output_equals_eager(generator):
    centers, rays = random_stars(generator, 50, 12, 40)
    scores = torch.rand(50, generator=generator)
    compiled = torch.compile(lambda *args: rays_nms(*args, 0.3) * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(centers, rays, scores), rays_nms(centers, rays, scores, 0.3) * 2)


def test_public_names():
    names = {"polygon_nms", "batched_polygon_nms", "rays_nms", "batched_rays_nms"}
    assert names <= set(polarmask_ops.__all__)

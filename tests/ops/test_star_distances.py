import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from op_tester import KERNELS, Bad, OpTester, by_cpu_and_kernels
from reference import star_distances as reference

from polarmask_ops import Outlines, cast_rays, star_distances

INTEGERS = (
    torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64
)  # fmt: skip


def blobs(height, width, count, radius, seed=0):
    """Ellipses that cover each other: concave objects, some in several parts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int64)
    for label in range(1, count + 1):
        cx, cy, r, angle = rng.random(4) * (width, height, radius, np.pi) + (0, 0, radius / 2, 0)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        aside = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        labels[(along / r) ** 2 + (aside / (0.6 * r)) ** 2 < 1] = label
    return torch.from_numpy(labels)


class TestStarDistances(OpTester):
    function = star_distances
    reference = reference.star_distances
    dtypes = INTEGERS
    bad_inputs = (
        Bad({"label_image": torch.ones(4)}, TypeError, ("label_image", "integer", "float32")),
        Bad({"label_image": torch.ones(4, 4, dtype=torch.bool)}, TypeError, ("label_image", "integer", "bool")),
        Bad({"label_image": [[1]]}, TypeError, ("label_image", "tensor", "list")),
        Bad({"label_image": torch.ones(4, dtype=torch.int32)}, ValueError, ("label_image", "(H, W)", "(4,)")),
        Bad({"num_rays": 2}, ValueError, ("num_rays", "2")),
        Bad({"rule": "nearest"}, ValueError, ("rule", "'stardist', 'exact'", "nearest")),
    )

    def sample(self, dtype, device):
        return {"label_image": blobs(11, 17, 6, 5).to(device, torch.int64 if dtype.is_floating_point else dtype)}

    def more_samples(self, dtype, device):
        labels = self.sample(dtype, device)["label_image"]
        return [
            {"label_image": labels, "num_rays": num_rays, "rule": rule}
            for rule in ("stardist", "exact")
            for num_rays in (3, 8, 12)
        ]

    def empty(self, dtype, device):
        return [
            {"label_image": torch.zeros(shape, dtype=dtype, device=device)} for shape in [(0, 5), (2**30, 0), (3, 2)]
        ]

    def tolerance(self, dtype):
        return {"rtol": 2e-7, "atol": 0}  # rounded to float32 once; the reference rounds directions to 1e-14


@pytest.mark.parametrize("value", [-1, 2**40, 2**40 + 2**32])
def test_star_distances_of_wide_labels_compares_all_bits(value, device):
    labels = torch.tensor([[value, value, value + 2**32]], device=device)
    assert star_distances(labels, 4)[0].tolist() == [[1.5, 0.5, 0.5]]


@pytest.mark.parametrize("rule", ["stardist", "exact"])
@pytest.mark.parametrize("num_rays", [8, 32, 100])
def test_star_distances_of_flipped_image_are_flipped(rule, num_rays, device):
    labels = blobs(30, 40, 12, 8).to(device)
    k = torch.arange(num_rays, device=device)

    def cast(image):
        return star_distances(image, num_rays, rule=rule)

    assert torch.equal(cast(labels.flip(1)).flip(2)[(num_rays // 2 - k) % num_rays], cast(labels))
    assert torch.equal(cast(labels.flip(0)).flip(1)[-k % num_rays], cast(labels))
    assert torch.equal(cast(labels.T).transpose(1, 2)[(num_rays // 4 - k) % num_rays], cast(labels))


def test_star_distances_by_rule_exact_equal_cast_rays(device):
    """cast_rays on the edges of the pixels gives the same, with 37 rays: none passes corners along a diagonal."""
    labels = blobs(20, 24, 1, 8, seed=3)
    mask = np.pad(labels.numpy(), 1)
    pieces = [(j - 1, i, j, i) for i, j in np.argwhere(mask[1:] != mask[:-1])]
    pieces += [(j, i - 1, j, i) for i, j in np.argwhere(mask[:, 1:] != mask[:, :-1])]
    outlines = Outlines(
        torch.tensor(pieces, dtype=torch.float32, device=device), torch.tensor([0, len(pieces)], device=device)
    )
    rows, columns = labels.nonzero().T
    origins = (torch.stack([columns, rows], 1) + 0.5).to(device)
    want = cast_rays(origins, outlines, torch.zeros(len(rows), dtype=torch.int64, device=device), 37, method="first")
    got = star_distances(labels.to(device), 37, rule="exact")[:, rows, columns].T
    torch.testing.assert_close(got, want, rtol=2e-7, atol=0)


def every_step(labels, num_rays, rule):
    """Return the distances of the reference, which takes every step."""
    return torch.from_numpy(reference.star_distances(labels.numpy(), num_rays, rule=rule)).float()


def large_objects(height, width, kind):
    """Return objects that are many cells wide: one, two side by side, with holes, with sides along the rays."""
    labels = torch.ones(height, width, dtype=torch.int32)
    if kind == "halves":
        labels[:, width // 2 :] = 2
    elif kind == "holes":
        labels[22::41, 20::37] = 0
    elif kind == "stripes":
        labels += (torch.arange(height)[:, None] + torch.arange(width)) // 30
    return labels


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["filled", "halves", "holes", "stripes"])
@pytest.mark.parametrize(("rule", "num_rays"), [("stardist", 12), ("exact", 9)])
def test_star_distances_of_wide_objects_equal_reference(rule, num_rays, kind, device):
    labels = large_objects(44, 53, kind)
    got = star_distances(labels.to(device), num_rays, rule=rule).cpu()
    torch.testing.assert_close(got, every_step(labels, num_rays, rule), rtol=2e-7, atol=0)


def test_star_distances_on_any_number_of_threads_are_equal():
    labels, threads = blobs(100, 50, 30, 9), torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(star_distances(labels))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.fixture(scope="module")
def stardist():
    """The compiled half of StarDist; its package as a whole needs TensorFlow."""
    package = importlib.util.find_spec("stardist")
    for folder in (package.submodule_search_locations or []) if package else []:
        for library in Path(folder, "lib").glob("stardist2d*.so"):
            spec = importlib.util.spec_from_file_location("stardist2d", library)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return pytest.skip("stardist is not installed")


@pytest.mark.parametrize(("num_rays", "differ"), [(32, 0), (64, 0), (100, 0), (3, 0.05), (12, 0.05)])
def test_star_distances_equal_stardist(num_rays, differ, stardist, device):
    """Rays at multiples of 30° run into halves, where float32 sums decide in StarDist; these may differ."""
    labels = blobs(200, 300, 60, 25)
    want = stardist.c_star_dist(labels.numpy().astype(np.uint16), np.int32(num_rays), np.int32(1), np.int32(1))
    got = star_distances(labels.to(device), num_rays).cpu().numpy().transpose(1, 2, 0)
    same = np.isclose(got, want, rtol=1e-5, atol=1e-4)  # StarDist adds up steps in float32
    assert 1 - same[labels > 0].mean() <= differ


@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
@pytest.mark.smoke
@pytest.mark.parametrize("rule", ["stardist", "exact"])
def test_star_distances_kernels_agree_with_cpu(rule):
    """Rays longer than the kernels' tables, and more work than the emulator has blocks."""
    sparse = (torch.arange(4200).view(2, 2100) % 50 == 0).int()
    cases = [(blobs(60, 70, 12, 20), 12), (sparse, 520)]
    cases += [(torch.ones(3, 700, dtype=torch.uint8), 4), (torch.ones(600, 2, dtype=torch.int64), 4)]
    for labels, num_rays in cases:
        kwargs = {"label_image": labels, "num_rays": num_rays, "rule": rule}
        by_cpu, by_kernels = by_cpu_and_kernels(star_distances, kwargs)
        assert torch.equal(by_cpu, by_kernels)

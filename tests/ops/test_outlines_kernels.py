"""The kernels of outlines beside the CPU loops, beyond what OpTester compares."""

import numpy as np
import pytest
import torch
from op_tester import EMULATED, GEOMETRY, KERNELS, by_cpu_and_kernels, leaves
from outlines_tester import areas, boxes, centroids, from_rle, outlines_of, random_masks, random_polygons
from torch import Tensor

from polarmask_ops import RLE, Outlines, outlines_from_masks, outlines_from_polygons


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

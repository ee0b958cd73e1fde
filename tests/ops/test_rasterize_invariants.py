"""What holds for every drawing, hostile values included, and the drawings of pycocotools, GEOS and the release."""

from pathlib import Path

import numpy as np
import pycocotools.mask as coco
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from op_tester import EMULATED, GEOMETRY
from rasterize_tester import SIZE, random_polygons, random_rays, same_everywhere
from reference import rasterize as reference

from polarmask_ops import (
    RLE,
    Outlines,
    outlines_from_masks,
    outlines_to_labels,
    outlines_to_masks,
    outlines_to_rle,
    polygons_to_labels,
    polygons_to_masks,
    polygons_to_rle,
    rays_to_labels,
    rays_to_masks,
    rays_to_polygons,
    rays_to_rle,
)

HOSTILE = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e6, -1e6, 0.0, -0.0, 0.5, 1.5, 7.0]


def coordinates(shape):
    usual = st.floats(-20, 40, width=32)
    return arrays(np.float32, shape, elements=st.one_of(usual, st.sampled_from(HOSTILE))).map(torch.from_numpy)


@settings(max_examples=30 if EMULATED else 150, deadline=None)
@given(st.data())
def test_rasterize_of_hostile_polygons_equals_reference(device, data):
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
def test_rasterize_of_hostile_rays_equals_their_polygons(device, data):
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
def test_rasterize_of_hostile_outlines_equals_reference(device, data):
    segments = data.draw(coordinates((data.draw(st.integers(0, 9)), 4)))
    cuts = data.draw(st.lists(st.integers(0, len(segments)), max_size=3))
    outlines = Outlines(segments, torch.tensor([0, *sorted(cuts), len(segments)]))
    size = data.draw(st.tuples(st.integers(0, 24), st.integers(0, 24)))
    masks = same_everywhere((outlines.to(device),), size, outlines_to_masks, outlines_to_rle, outlines_to_labels)
    assert (
        masks.cpu().numpy() == reference.outlines_to_masks(Outlines(segments.numpy(), outlines.offsets), size)
    ).all()


def test_rasterize_of_extreme_float64_is_consistent():
    polygons = torch.tensor([1e308, -1e308, 1e-308, 0.0, 5.0], dtype=torch.float64)[torch.randint(5, (200, 6, 2))]
    same_everywhere((polygons,), (9, 9), polygons_to_masks, polygons_to_rle, polygons_to_labels)
    polygons_to_rle(polygons, (9, 9), rule="coco")


def test_outlines_to_masks_of_polygons_equal_polygons_to_masks():
    polygons = random_polygons(torch.float32, "cpu")
    segments = torch.cat([polygons, polygons.roll(-1, 1)], 2).flatten(0, 1)
    outlines = Outlines(segments[torch.cat([torch.randperm(7) + 7 * n for n in range(12)])], torch.arange(13) * 7)
    assert torch.equal(outlines_to_masks(outlines, SIZE), polygons_to_masks(polygons, SIZE))


def test_outlines_to_masks_of_masks_are_the_masks():
    masks = torch.rand(20, *SIZE) < torch.linspace(0, 1, 20)[:, None, None]
    outlines = outlines_from_masks(masks, keep="all")
    drawn = same_everywhere((outlines,), SIZE, outlines_to_masks, outlines_to_rle, outlines_to_labels)
    assert torch.equal(drawn, masks)


def test_polygons_to_masks_of_shared_edges_has_neither_gap_nor_overlap():
    points = torch.rand(10, 10, 2) * 0.9 + torch.stack(torch.meshgrid(*[torch.arange(10.0)] * 2, indexing="xy"), 2)
    points[0, :, 1], points[-1, :, 1], points[:, 0, 0], points[:, -1, 0] = 0, 10, 0, 10
    quads = torch.stack([points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], 2).flatten(0, 1) * 8
    assert (polygons_to_masks(quads, (80, 80)).sum(0) == 1).all()


def test_polygons_to_masks_shifted_by_pixels_is_shifted():
    polygons = (random_polygons(torch.float32, "cpu") * 64).round() / 64  # exact sums
    masks = polygons_to_masks(polygons + 20, (64, 64))
    assert torch.equal(polygons_to_masks(polygons, (44, 44)), masks[:, 20:, 20:])


def test_rasterize_with_many_crossings_in_a_column_is_consistent():
    y = torch.rand(20000) * 50
    x = torch.tensor([0.1, 2.9]).repeat(10000)
    zigzag = torch.stack([x, y], 1)[None]
    same_everywhere((zigzag,), (50, 3), polygons_to_masks, polygons_to_rle, polygons_to_labels)


def test_rays_to_rle_area_is_that_of_the_polygon():
    rays = torch.rand(50, 36, dtype=torch.float64) * 40 + 80
    centers = torch.rand(50, 2, dtype=torch.float64) * 20 + 150
    areas = rays_to_rle(centers, rays, (320, 320)).areas().numpy()
    shapes = shapely.polygons(rays_to_polygons(centers, rays).numpy())
    # Every cut row or column errs by up to a pixel, at random: some 2·height of them.
    np.testing.assert_allclose(areas, shapely.area(shapes), atol=3 * np.sqrt(4 * 240))


def test_rasterize_on_any_number_of_threads_is_equal():
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


def test_polygons_to_rle_of_huge_image_needs_no_bitmap():
    """An image of almost 2³¹ pixels, whose bitmap nobody could afford."""
    triangles = torch.tensor([[[5.0, 5.0], [9.0, 5.0], [9.0, 8.0]]]).expand(2 if EMULATED else 50, -1, -1)
    rle = polygons_to_rle(triangles, (2**16 - 1, 2**15))
    assert rle.areas().unique().tolist() == [6]


def coco_strings(polygons, size):
    return coco.frPyObjects(polygons.double().flatten(1).tolist(), *size)


@pytest.mark.parametrize("size", [(7, 9), (1, 40), (40, 1), (40, 30), (300, 400)])
@pytest.mark.parametrize("dtype", GEOMETRY)
def test_polygons_to_rle_by_rule_coco_equals_pycocotools(size, dtype):
    for extent in (2, 5, 60, 400):
        for num_vertices in (3, 4, 5, 11, 36):
            polygons = torch.rand(60, num_vertices, 2, dtype=dtype) * (2 * extent) - extent / 2
            polygons[::2] = (polygons[::2] * 10).round() / 10  # ties of fifths
            polygons[::3, 1] = polygons[::3, 0]  # a vertex twice
            polygons[::5, 2, 0] = polygons[::5, 1, 0]  # vertical, horizontal
            polygons[::7, 2, 1] = polygons[::7, 1, 1]
            polygons[::11, 0] = polygons[::11, 0].clamp(0, 1) * torch.tensor([size[1], size[0]])  # on the border
            assert polygons_to_rle(polygons, size, rule="coco").to_coco() == coco_strings(polygons, size)


def test_polygons_to_rle_by_rule_coco_far_outside_equals_pycocotools():
    polygons = (torch.rand(40, 5, 2, dtype=torch.float64) - 0.5) * 2e5
    polygons[::2, 0] /= 1e4
    polygons[0, 0], polygons[0, 1] = -1e6, 1e6
    assert polygons_to_rle(polygons, (50, 60), rule="coco").to_coco() == coco_strings(polygons, (50, 60))
    beyond = polygons * 1e4
    clipped = polygons_to_rle(beyond.clamp(-1e6, 1e6), (50, 60), rule="coco")
    assert polygons_to_rle(beyond, (50, 60), rule="coco") == clipped


def test_rays_to_rle_by_both_rules_nearly_agree():
    shapes = random_rays(torch.float64, "cpu", count=50, num_rays=36)
    shapes = {"centers": shapes["centers"] * 10 + 50, "rays": shapes["rays"] + 40}
    center, by_coco = (rays_to_rle(**shapes, size=(320, 320), rule=rule).to_masks() for rule in ("center", "coco"))
    iou = (center & by_coco).sum((1, 2)) / (center | by_coco).sum((1, 2))
    assert iou.mean() > 0.97  # they differ in how pixels cut by the outline fall


def test_rasterize_of_released_shapes_is_close_to_the_release():
    golden = np.load(Path(__file__).parent.parent / "golden" / "decode_raster.npz")
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

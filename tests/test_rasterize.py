import numpy as np
import pycocotools.mask as coco
import pytest
import torch
from reference import rasterize as reference

from polarmask_ops import RLE, polygons_to_labels, polygons_to_masks, polygons_to_rle


@pytest.mark.parametrize("size", [(7, 9), (1, 13), (13, 1), (20, 20), (0, 4), (4, 0)])
@pytest.mark.parametrize("num_vertices", [0, 1, 2, 3, 4, 11])
def test_masks_rle_and_labels_are_the_reference(size, num_vertices):
    polygons = torch.rand(20, num_vertices, 2) * 22 - 3
    polygons[10:] = (polygons[10:] * 2).round() / 2  # on pixel centres and edges
    want = reference.polygons_to_masks(polygons.numpy(), size)
    masks = polygons_to_masks(polygons, size)
    assert (masks.numpy() == want).all()
    assert (polygons_to_labels(polygons, size).numpy() == reference.labels_of(want)).all()
    rle = polygons_to_rle(polygons, size)
    assert rle == RLE.from_masks(masks)
    assert torch.equal(rle.to_masks(), masks)
    if want.size:
        assert rle.to_coco() == [coco.encode(np.asfortranarray(mask)) for mask in want.astype(np.uint8)]

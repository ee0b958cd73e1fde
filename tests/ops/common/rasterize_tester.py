"""Shapes and bad arguments that the tests of drawing share."""

import torch
from op_tester import Bad
from reference import rasterize as reference

from polarmask_ops import (
    RLE,
    Outlines,
)

SIZE = (19, 23)


def random_polygons(dtype, device, count=12, num_vertices=7):
    polygons = torch.rand(count, num_vertices, 2, device=device) * 30 - 5
    polygons[count // 2 :] = (polygons[count // 2 :] * 2).round() / 2  # vertices on pixel centres, corners and edges
    return polygons.to(dtype)


def random_rays(dtype, device, count=8, num_rays=12):
    centers, rays = torch.rand(count, 2, device=device) * 20, torch.rand(count, num_rays, device=device) * 9
    return {"centers": centers.to(dtype), "rays": rays.to(dtype)}


def random_outlines(dtype, device):
    """Two triangles in one instance, none in the next, one open piece in the last."""
    rings = torch.rand(3, 3, 2, device=device) * 24 - 2
    segments = torch.cat([rings, rings.roll(-1, 1)], 2).flatten(0, 1)[:8].to(dtype)
    return Outlines(segments, torch.tensor([0, 6, 6, 8], device=device))


BAD_SIZES = (
    Bad({"size": (-1, 4)}, ValueError, ("size", "(-1, 4)")),
    Bad({"size": (2**16, 2**15)}, ValueError, ("size", "2**31")),
    Bad({"size": (4, 4, 3)}, ValueError, ("size", "(H, W)")),
    Bad({"size": (4.0, 4)}, TypeError, ("size", "(H, W)", "(4.0, 4)")),
    Bad({"size": 4}, TypeError, ("size", "(H, W)", "got 4")),
)
BAD_POLYGONS = (
    Bad({"polygons": torch.ones(3, 4, 2, dtype=torch.int64)}, TypeError, ("polygons", "floating-point", "int64")),
    Bad({"polygons": [[0.0, 0.0]]}, TypeError, ("polygons", "tensor", "list")),
    Bad({"polygons": torch.rand(4, 2)}, ValueError, ("polygons", "(N, V, 2)", "(4, 2)")),
    Bad({"polygons": torch.rand(3, 4, 3)}, ValueError, ("polygons", "(N, V, 2)", "(3, 4, 3)")),
    *BAD_SIZES,
)
BAD_CENTERS = (
    Bad({"rays": torch.rand(8, 2)}, ValueError, ("num_rays", "from 3", "got 2")),
    Bad({"rays": torch.rand(8, 1025)}, ValueError, ("num_rays", "1024", "got 1025")),
    Bad({"rays": torch.rand(8)}, ValueError, ("rays", "(N, R)", "(8,)")),
    Bad({"centers": torch.rand(7, 2)}, ValueError, ("centers", "(N, 2)", "8", "(7, 2)")),
    Bad({"centers": torch.rand(8, 3)}, ValueError, ("centers", "(N, 2)", "(8, 3)")),
    Bad({"centers": torch.ones(8, 2, dtype=torch.int32)}, TypeError, ("centers", "floating-point", "int32")),
)
BAD_RAYS = (
    *BAD_CENTERS,
    *BAD_SIZES,
    Bad({"scale": torch.rand(3)}, ValueError, ("scale", "(2,) or (N, 2)", "(3,)")),
    Bad({"scale": torch.rand(7, 2)}, ValueError, ("scale", "(N, 2)", "(7, 2)")),
    Bad({"scale": 2.0}, TypeError, ("scale", "tensor", "float")),
)
BAD_OUTLINES = (
    *BAD_SIZES,
    Bad({"outlines": torch.rand(3, 4)}, TypeError, ("outlines", "Outlines", "Tensor")),
    Bad({"outlines": Outlines(torch.rand(3, 3), torch.tensor([0, 3]))}, ValueError, ("segments", "(S, 4)")),
    Bad({"outlines": Outlines(torch.rand(3, 4), torch.tensor([0, 4]))}, ValueError, ("offsets", "3", "4")),
    Bad({"outlines": Outlines(torch.rand(3, 4), torch.tensor([0, 3, 1, 3]))}, ValueError, ("offsets", "fall")),
)
BAD_RULE = (Bad({"rule": "edge"}, ValueError, ("rule", "'center'", "'coco'", "'edge'")),)
BAD_ORDER = (
    Bad({"order": torch.tensor([0, 100])}, IndexError, ("order", "100")),
    Bad({"order": torch.tensor([-1])}, IndexError, ("order", "-1")),
    Bad({"order": torch.tensor([[0]])}, ValueError, ("order", "(K,)")),
    Bad({"order": torch.tensor([0.0])}, TypeError, ("order", "int64", "float32")),
)


def same_everywhere(shapes, size, to_masks, to_rle, to_labels):
    masks, rle = to_masks(*shapes, size), to_rle(*shapes, size)
    assert torch.equal(rle.to_masks(), masks)
    assert RLE.from_masks(masks) == rle
    assert (to_labels(*shapes, size).cpu().numpy() == reference.labels_of(masks.cpu().numpy())).all()
    return masks

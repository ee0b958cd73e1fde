"""The IoU that rays can reach of shapes, the points that are assigned to them, and crossings of their sides."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polarmask_ops import Outlines, outlines_to_masks, rays_to_masks

from ..config import Config
from ..data.instances import Rings

LARGEST = 1024  # pixels: larger instances are measured at this size
BLOCK = 1 << 22  # pixels of bitmaps at a time
PAIRS = 1 << 21  # sides of a polygon that are compared with each other


def ceilings(outlines: Outlines, centers: Tensor, rays: Tensor) -> np.ndarray:
    """IoU of shapes and of the polygons of rays from their centres, pixel by pixel, (M,)."""
    boxes = outlines.boxes()
    origins = boxes[:, :2].floor()
    sides = (boxes[:, 2:] - origins).amax(1).clamp(min=1)
    scale = (LARGEST / sides).clamp(max=1)
    # Bitmaps of one size at a time: 8, 16, 32, … pixels.
    steps = torch.log2(sides * scale).ceil().clamp(min=3).long()
    result = np.zeros(len(outlines))
    for step in steps.unique().tolist():
        side = 1 << step
        for rows in torch.nonzero(steps == step)[:, 0].split(max(BLOCK >> 2 * step, 1)):
            part = outlines[rows]
            of = torch.repeat_interleave(torch.arange(len(rows)), part.offsets.diff())
            segments = (part.segments - origins[rows][of].repeat(1, 2)) * scale[rows][of, None]
            shapes = outlines_to_masks(Outlines(segments, part.offsets), (side, side))
            middles = (centers[rows] - origins[rows]) * scale[rows, None]
            reached = rays_to_masks(middles, rays[rows] * scale[rows, None], (side, side))
            both = (shapes & reached).flatten(1).sum(1).double()
            either = (shapes | reached).flatten(1).sum(1).double()
            result[rows.numpy()] = (both / either.clamp(min=1)).numpy()
    return result


def contains(outlines: Outlines, points: Tensor) -> Tensor:
    """Returns, for each of M shapes, whether its point lies in it by the even-odd rule; (M,) bool."""
    of = torch.repeat_interleave(torch.arange(len(outlines)), outlines.offsets.diff())
    x0, y0, x1, y1 = outlines.segments.double().T
    x, y = points.double()[of].T
    crossing = (y0 > y) != (y1 > y)
    right = crossing & (x < x0 + (y - y0) * (x1 - x0) / torch.where(y1 == y0, 1, y1 - y0))
    return torch.zeros(len(outlines), dtype=torch.int64).index_add(0, of, right.long()) % 2 == 1


@dataclass
class Claims:
    """How instances and points are assigned to each other, before ties are resolved."""

    counts: np.ndarray  # (P,) for each point that is assigned to some instance, the number of such instances
    of_instance: np.ndarray  # (M,) for each instance, the number of points that are assigned to it


def claimed(boxes: Tensor, centers: Tensor, size: tuple[int, int], config: Config) -> Claims:
    """Assigns points of the feature maps by the rule of ``encode_targets``, before it chooses the smallest instance."""
    keys, owners = [], []
    first = 0
    radius = config.model.center_radius
    for stride, (low, high) in zip(config.model.strides, config.model.ranges, strict=True):
        shape = [-(-side // stride) for side in size]
        limits = torch.cat([centers - radius * stride, centers + radius * stride], 1)
        area = torch.cat([torch.maximum(limits[:, :2], boxes[:, :2]), torch.minimum(limits[:, 2:], boxes[:, 2:])], 1)
        begin = (area[:, :2] / stride - 0.5).floor().clamp(min=0)
        count = int(min(2 * radius + 2, max(shape))) + 1
        steps = torch.arange(count)
        columns, rows = (begin[:, k, None] + steps for k in (0, 1))  # (M, count)
        x, y = ((grid + 0.5) * stride for grid in (columns, rows))
        in_x = (x > area[:, :1]) & (x < area[:, 2:3]) & (columns < shape[1])
        in_y = (y > area[:, 1:2]) & (y < area[:, 3:]) & (rows < shape[0])
        far_x, far_y = (torch.maximum(p - boxes[:, k, None], boxes[:, k + 2, None] - p) for k, p in enumerate((x, y)))
        far = torch.maximum(far_x[:, None], far_y[:, :, None])  # (M, rows, columns)
        mine = in_x[:, None] & in_y[:, :, None] & (far >= low) & (far <= high)
        m, i, j = torch.nonzero(mine, as_tuple=True)
        keys.append(first + rows[m, i].long() * shape[1] + columns[m, j].long())
        owners.append(m)
        first += shape[0] * shape[1]
    _, counts = np.unique(torch.cat(keys).numpy(), return_counts=True)
    return Claims(counts, np.bincount(torch.cat(owners).numpy(), minlength=len(boxes)))


def crosses(rings: Rings) -> bool | None:
    """Returns true if two sides of a ring cross (not only touch), or None if it has too many sides to compare."""
    for ring in rings:
        start = ring.astype(np.float64)
        end = np.roll(start, -1, 0)
        order = np.argsort(np.minimum(start[:, 0], end[:, 0]), kind="stable")
        start, end = start[order], end[order]
        left, right = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
        last = np.searchsorted(left, right, side="right")
        counts = np.maximum(last - np.arange(1, len(start) + 1), 0)  # sides that begin before this one ends
        if counts.sum() > PAIRS:
            return None
        a = np.repeat(np.arange(len(start)), counts)
        b = np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts) + a + 1

        def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
            u, v = q - p, r - p
            return np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])

        apart = side(start[a], end[a], start[b]) * side(start[a], end[a], end[b])
        if ((apart < 0) & (side(start[b], end[b], start[a]) * side(start[b], end[b], end[a]) < 0)).any():
            return True
    return False

"""What the released implementation returns for seeded scenes: points, boxes, rays."""

from pathlib import Path

import numpy as np
import pytest
import torch

from polarmask_ops import Outlines, cast_rays, encode_ragged_targets

GOLDEN = Path(__file__).parent.parent / "golden"
OUR_ORDER = [(9 - k) % 36 for k in range(36)]  # the release counts from +y towards +x
ONE_ULP = {"rtol": 1.2e-7, "atol": 0}  # the release's square root is off by one in a sixth of the values


def load(name, device):
    data = np.load(GOLDEN / f"{name}.npz")
    pixels = torch.tensor(data["contour_xy"].astype(np.float32), device=device)
    offsets = torch.tensor(np.concatenate([[0], data["contour_len"].cumsum()]), device=device)
    return data, Outlines(torch.cat([pixels, pixels], 1), offsets)


def test_rays(device):
    data, outlines = load("rays_points", device)
    origins, instance = torch.tensor(data["points_xy"], device=device), torch.tensor(data["gt"], device=device)
    rays = cast_rays(origins, outlines, instance, method="binned")
    np.testing.assert_allclose(rays.cpu(), data["rays"][:, OUR_ORDER], **ONE_ULP)


@pytest.mark.parametrize("name", ["targets_1280x768_g8", "targets_640x512_special"])
def test_targets(name, device):
    data, outlines = load(name, device)
    boxes = torch.tensor(data["gt_boxes"], device=device)
    targets = encode_ragged_targets(
        data["featmap_sizes"].tolist(),
        [8, 16, 32, 64, 128],
        boxes=boxes,
        labels=torch.tensor(data["gt_labels"], device=device),
        outlines=outlines,
        image_offsets=torch.tensor([0, len(boxes)], device=device),
        centers=torch.tensor(data["centers_xy"], device=device).float(),
        areas=(boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1),
        method="binned",
    )
    instance, labels, distances, rays, centerness = (tensor[0].cpu().numpy() for tensor in targets)
    positive = np.flatnonzero(instance >= 0)
    np.testing.assert_array_equal(positive, data["pos_inds"])
    np.testing.assert_array_equal(instance[positive], data["pos_gt"])
    np.testing.assert_array_equal(np.maximum(labels, 0), data["labels"])
    np.testing.assert_array_equal(distances[positive], data["bbox_targets"][positive])
    np.testing.assert_allclose(rays[positive], data["pos_mask_targets"][:, OUR_ORDER], **ONE_ULP)
    np.testing.assert_allclose(centerness[positive], data["pos_centerness"], **ONE_ULP)

"""The ops in a head of one's own: one feature map, one class, 32 rays. It learns the two shapes of one image."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import polarmask_ops as ops

outlines = ops.outlines_from_polygons([[[10, 12, 50, 8, 56, 44, 30, 58]], [[80, 70, 120, 76, 110, 118, 76, 110]]])
image, ranges = {"outlines": outlines, "labels": torch.tensor([0, 0])}, [(0, float("inf"))]
targets = ops.encode_targets([(32, 32)], [4], [image], num_rays=32, regress_ranges=ranges)
positive = targets.positive[0]
features, head = torch.eye(1024).view(1, 1024, 32, 32), torch.nn.Conv2d(1024, 33, 1)
optimizer = torch.optim.Adam(head.parameters(), 0.1)
for _ in range(100):
    score, log_rays = head(features)[0].flatten(1).T.split([1, 32], 1)
    loss = ops.polar_iou_loss(log_rays[positive], targets.rays[0, positive], log_pred=True)
    loss = loss + binary_cross_entropy_with_logits(score[:, 0], positive.float())
    optimizer.zero_grad(), loss.backward(), optimizer.step()
likely = score[:, 0] > 0
centers, rays = (
    4.0 * torch.cartesian_prod(*[torch.arange(32) + 0.5] * 2).flip(1)[likely],
    log_rays[likely].exp().detach(),
)
keep = ops.rays_nms(centers, rays, score[likely, 0].detach(), iou_threshold=0.3)
masks = ops.rays_to_masks(centers[keep], rays[keep], (128, 128))
print("masks of", masks.sum((1, 2)).tolist(), "pixels, outlines of", outlines.areas().tolist())

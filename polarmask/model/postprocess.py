"""From the head's output to detections."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from polarmask_ops import batched_rays_nms, rays_to_boxes, top_scores

from .head import HeadOutput


class PostProcess(NamedTuple):
    """How detections are chosen."""

    score_threshold: float = 0.05  # on the class score, before centerness
    max_candidates: int = 1000  # points of a level that are looked at
    max_detections: int = 100  # of an image
    nms: Literal["box", "polygon"] = "box"
    nms_threshold: float = 0.5

    def __call__(self, output: HeadOutput, points: Tensor, sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Detections of each image, best first.

        Parameters
        ----------
        output : HeadOutput
            For B images with L points.
        points : Tensor, shape (L, 2)
            In pixels.
        sizes : list of (int, int)
            Height and width of each image, without padding.

        Returns
        -------
        list of dict
            ``boxes`` (N, 4), clipped to the image, ``labels`` (N,) int64, ``scores`` (N,), ``centers`` (N, 2) and
            ``rays`` (N, R), all in the network's pixels.
        """
        lengths = [height * width for height, width in output.level_shapes]
        _, indices = top_scores(output.logits, output.centerness, lengths, self.max_candidates)
        results = []
        for b, (best, size) in enumerate(zip(indices, sizes, strict=True)):
            scores, centerness = output.logits[b, best].sigmoid(), output.centerness[b, best].sigmoid()
            centers = points[best]
            rays = output.log_rays[b, best].exp()
            if output.log_boxes is None:
                boxes = rays_to_boxes(centers, rays)
            else:
                left_top, right_bottom = output.log_boxes[b, best].exp().split(2, 1)
                boxes = torch.cat([centers - left_top, centers + right_bottom], 1)
            boxes = clip_boxes_to_image(boxes, size)
            # The release leaves out the division, which changes no order but takes scores above 1.
            factors = (centerness + 0.5) / 1.5
            row, label, score = self.select(scores, factors, boxes, centers, rays)
            results.append(
                {
                    "boxes": boxes[row],
                    "labels": label,
                    "scores": score,
                    "centers": centers[row],
                    "rays": rays[row],
                }
            )
        return results

    def select(
        self, scores: Tensor, factors: Tensor, boxes: Tensor, centers: Tensor, rays: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Thresholds and suppresses N candidates with (N, classes) scores: row, class and score of those kept."""
        row, label = (scores > self.score_threshold).nonzero(as_tuple=True)
        score = scores[row, label] * factors[row]
        keep = self.suppress(boxes[row], centers[row], rays[row], score, label)
        return row[keep], label[keep], score[keep]

    def suppress(self, boxes: Tensor, centers: Tensor, rays: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Which of N detections are kept, best first."""
        if self.nms == "box":
            keep = batched_nms(boxes, scores, labels, self.nms_threshold)
        else:
            keep = batched_rays_nms(centers, rays, scores, labels, self.nms_threshold)
        return keep[: self.max_detections]

"""Detections from the head's output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from polarmask_ops import batched_rays_nms, rays_to_boxes, top_scores

from .head import HeadOutput


@dataclass
class Cuts:
    """What ``max_candidates`` and ``max_detections`` left out.

    Attributes
    ----------
    images : int
        Images of which something was left out.
    candidates : int
        Points above the score threshold that were not among the candidates.
    detections : int
        Detections after suppression.
    """

    images: int = 0
    candidates: int = 0
    detections: int = 0

    def add(self, candidates: int, detections: int) -> None:
        """Counts an image."""
        self.images += candidates > 0 or detections > 0
        self.candidates += candidates
        self.detections += detections

    def __str__(self) -> str:
        counts = {"detections": self.detections, "candidates": self.candidates}
        left_out = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"{left_out} of {self.images} image{'s' * (self.images != 1)} were left out"


class PostProcess(NamedTuple):
    """How detections are chosen."""

    score_threshold: float = 0.05  # on the class score, before centerness
    max_candidates: int | None = 1000  # the best points of a level; None: all above the score threshold
    max_detections: int | None = 100  # of an image; None: all
    nms: Literal["box", "polygon"] = "box"
    nms_threshold: float = 0.5

    def __call__(
        self, output: HeadOutput, points: Tensor, sizes: list[tuple[int, int]], cuts: Cuts | None = None
    ) -> list[dict[str, Tensor]]:
        """Detections of each image, best first.

        Parameters
        ----------
        output : HeadOutput
            For B images with L points.
        points : Tensor, shape (L, 2)
            In pixels.
        sizes : list of (int, int)
            Height and width of each image, without padding.
        cuts : Cuts, optional
            Counts what the limits leave out.

        Returns
        -------
        list of dict
            ``boxes`` (N, 4), clipped to the image, ``labels`` (N,) int64, ``scores`` (N,), ``centers`` (N, 2) and
            ``rays`` (N, R), all in the network's pixels.
        """
        results = []
        for b, (best, size) in enumerate(zip(self.candidates(output), sizes, strict=True)):
            scores, centerness = output.logits[b, best].sigmoid(), output.centerness[b, best].sigmoid()
            centers = points[best]
            rays = output.log_rays[b, best].exp()
            if output.log_boxes is None:
                boxes = rays_to_boxes(centers, rays)
            else:
                left_top, right_bottom = output.log_boxes[b, best].exp().split(2, 1)
                boxes = torch.cat([centers - left_top, centers + right_bottom], 1)
            boxes = clip_boxes_to_image(boxes, size)
            # The release does not divide by 1.5, which gives scores above 1 in the same order.
            factors = (centerness + 0.5) / 1.5
            row, label, score = self._kept(scores, factors, boxes, centers, rays)
            if cuts is not None:
                unseen = 0
                if self.max_candidates is not None:
                    unseen = int(self.above(output.logits[b]).sum() - self.above(output.logits[b, best]).sum())
                cuts.add(unseen, len(row) - len(row[: self.max_detections]))
            row, label, score = (values[: self.max_detections] for values in (row, label, score))
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

    def candidates(self, output: HeadOutput) -> Sequence[Tensor]:
        """Indices of each image's candidates: the best points of each level, or all above the score threshold."""
        if self.max_candidates is None:
            return [self.above(logits).nonzero()[:, 0] for logits in output.logits]
        lengths = [height * width for height, width in output.level_shapes]
        _, indices = top_scores(output.logits, output.centerness, lengths, self.max_candidates)
        return list(indices)

    def above(self, logits: Tensor) -> Tensor:
        """Returns which points of (points, classes) logits have a class above the score threshold, (points,) bool."""
        return logits.amax(1).sigmoid() > self.score_threshold

    def select(
        self, scores: Tensor, factors: Tensor, boxes: Tensor, centers: Tensor, rays: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Thresholds and suppresses N candidates with (N, classes) scores: row, class and score of those kept."""
        row, label, score = self._kept(scores, factors, boxes, centers, rays)
        return row[: self.max_detections], label[: self.max_detections], score[: self.max_detections]

    def _kept(
        self, scores: Tensor, factors: Tensor, boxes: Tensor, centers: Tensor, rays: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`select` without the limit."""
        row, label = (scores > self.score_threshold).nonzero(as_tuple=True)
        score = scores[row, label] * factors[row]
        keep = self.suppress(boxes[row], centers[row], rays[row], score, label)
        return row[keep], label[keep], score[keep]

    def suppress(self, boxes: Tensor, centers: Tensor, rays: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Indices of those of N detections that non-maximum suppression keeps, best first, without a limit."""
        if self.nms == "box":
            keep = batched_nms(boxes, scores, labels, self.nms_threshold)
        else:
            keep = batched_rays_nms(centers, rays, scores, labels, self.nms_threshold)
        return keep

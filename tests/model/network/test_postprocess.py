from pathlib import Path

import numpy as np
import pytest
import torch

from polarmask.model import HeadOutput, PostProcess

GOLDEN = Path(__file__).parents[2] / "golden"
RAYS = 16


def head_output(scores, centerness, rays, boxes=None):
    """Of one level with one row, from probabilities and pixels."""
    return HeadOutput(
        torch.tensor(scores)[None].logit(),
        torch.tensor(centerness)[None].logit(),
        None if boxes is None else torch.tensor(boxes)[None].log(),
        torch.tensor(rays)[None, :, None].expand(1, -1, RAYS).log(),
        [(1, len(scores))],
    )


def points(*xs):
    return torch.tensor([[x, 50.0] for x in xs])


def test_selects_what_the_release_selects():
    with np.load(GOLDEN / "nms_multiclass_a.npz") as file:
        data = {key: torch.from_numpy(file[key]) for key in file}
    choose = PostProcess(float(data["score_thr"]), nms_threshold=float(data["iou_thr"]))
    scores = data["scores"][:, 1:]  # without the background's
    centers = rays = torch.empty(len(scores), 0)  # boxes decide
    row, label, score = choose.select(scores, data["score_factors"], data["boxes"], centers, rays)
    assert label.tolist() == data["det_labels_torchvision"].tolist()
    torch.testing.assert_close(data["boxes"][row], data["det_boxes_torchvision"][:, :4])
    torch.testing.assert_close(score, data["det_boxes_torchvision"][:, 4])


def test_postprocess_scores_boxes_and_order_are_those_of_the_release():
    output = head_output([[0.9, 0.01], [0.1, 0.8], [0.02, 0.03]], [0.5, 0.9, 0.9], [10.0, 5.0, 5.0])
    (found,) = PostProcess()(output, points(20.0, 60.0, 90.0), [(100, 100)])
    assert found["labels"].tolist() == [1, 0, 0]
    torch.testing.assert_close(found["scores"], torch.tensor([0.8 * 1.4, 0.9 * 1.0, 0.1 * 1.4]) / 1.5)
    torch.testing.assert_close(found["boxes"][1], torch.tensor([10.0, 40, 30, 60]))
    torch.testing.assert_close(found["centers"][0], torch.tensor([60.0, 50]))
    assert found["rays"].shape == (3, RAYS)


def test_boxes_of_the_branch_are_clipped():
    output = head_output([[0.9]], [0.5], [10.0], boxes=[[30.0, 10, 10, 60]])
    (found,) = PostProcess()(output, points(20.0), [(100, 100)])
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.0, 40, 30, 100]]))


@pytest.mark.parametrize(("nms", "kept"), [("box", 1), ("polygon", 2)])
def test_postprocess_nms_measures_boxes_or_polygons(nms, kept):
    output = head_output([[0.9], [0.8]], [0.5, 0.5], [10.0, 10.0])
    # Two discs on a diagonal: the IoU of their boxes is 144 / 656 = 0.22, their own 0.19.
    choose = PostProcess(nms=nms, nms_threshold=0.205)
    (found,) = choose(output, torch.tensor([[50.0, 50.0], [58.0, 58.0]]), [(100, 100)])
    assert len(found["scores"]) == kept


def test_postprocess_limits_keep_the_best():
    output = head_output([[0.9 - 0.05 * n] for n in range(10)], [0.5] * 10, [1.0] * 10)
    where = points(*range(0, 100, 10))
    (found,) = PostProcess(max_candidates=4)(output, where, [(100, 100)])
    assert found["centers"][:, 0].tolist() == [0, 10, 20, 30]
    (found,) = PostProcess(max_detections=3)(output, where, [(100, 100)])
    assert found["centers"][:, 0].tolist() == [0, 10, 20]


@pytest.mark.parametrize("nms", ["box", "polygon"])
def test_postprocess_without_candidates_finds_nothing(nms):
    (found,) = PostProcess(nms=nms)(head_output([[0.01, 0.04]], [0.9], [3.0]), points(5.0), [(10, 10)])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "scores": (0,),
        "centers": (0, 2),
        "rays": (0, RAYS),
    }

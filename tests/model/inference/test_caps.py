"""Limits of candidates and detections: none are lost where there are none, and what is lost is said."""

import logging
from dataclasses import replace

import pytest
import torch
from pycocotools import mask as coco_mask

import polarmask
from polarmask.config import EvalConfig
from polarmask.evaluation import compare, evaluate
from polarmask.evaluation.coco import with_max_dets
from polarmask.inference.detector import Detector
from polarmask.inference.tiles import Whole, detect_in_tiles
from polarmask.model import Cuts, HeadOutput, PostProcess, build_model

SIDE = 8  # pixels between objects


def output(count, logit=2.0):
    """Of a head with one level and one class, with an object at each point of ``count`` in a row."""
    logits = torch.full((1, count, 1), logit)
    return HeadOutput(logits, torch.zeros(1, count), None, torch.zeros(1, count, 8), [(1, count)])


def row(count):
    return torch.stack([SIDE * torch.arange(count) + 4.0, torch.full((count,), 4.0)], 1)


@pytest.mark.parametrize("nms", ["box", "polygon"])
def test_postprocess_without_limits_keeps_all(nms):
    choose, cuts = PostProcess(max_candidates=None, max_detections=None, nms=nms), Cuts()
    (found,) = choose(output(5000), row(5000), [(8, 8 * 5000)], cuts)
    assert len(found["scores"]) == 5000
    assert cuts == Cuts()


@pytest.mark.parametrize(
    ("limits", "kept", "want"),
    [
        ({"max_candidates": 100, "max_detections": None}, 100, Cuts(1, candidates=1900)),
        ({"max_candidates": None, "max_detections": 70}, 70, Cuts(1, detections=1930)),
        ({"max_candidates": 100, "max_detections": 70}, 70, Cuts(1, candidates=1900, detections=30)),
        ({"max_candidates": 2000, "max_detections": 2000}, 2000, Cuts()),
    ],
)
def test_postprocess_counts_what_limits_leave_out(limits, kept, want):
    cuts = Cuts()
    (found,) = PostProcess(nms="polygon", **limits)(output(2000), row(2000), [(8, 16000)], cuts)
    assert len(found["scores"]) == kept
    assert cuts == want


def test_postprocess_points_below_the_score_threshold_are_not_left_out():
    cuts = Cuts()
    PostProcess(max_candidates=10)(output(2000, logit=-5.0), row(2000), [(8, 16000)], cuts)
    assert cuts == Cuts()


def test_postprocess_without_limit_finds_what_a_large_limit_finds():
    torch.manual_seed(0)
    some = HeadOutput(torch.randn(2, 400, 3), torch.randn(2, 400), None, torch.rand(2, 400, 8) + 1, [(20, 20)])
    points = torch.rand(400, 2) * 80
    results = [PostProcess(max_candidates=limit, nms="polygon")(some, points, [(80, 80)] * 2) for limit in (None, 400)]
    for ours, want in zip(*results, strict=True):
        torch.testing.assert_close(ours, want, rtol=0, atol=0)


class Row(torch.nn.Module):
    """Finds an object at each pixel above 0.2, through a real PostProcess."""

    def __init__(self, **limits):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(0))
        self.postprocess = PostProcess(nms="polygon", **limits)
        self.cuts = Cuts()

    def forward(self, images):
        results = []
        for image in images:
            i, j = torch.nonzero(image[0] > 0.2, as_tuple=True)
            found = self.postprocess(output(len(i)), torch.stack([j, i], 1) + 0.5, [image.shape[1:]], self.cuts)
            results += found
        return results


def grid(height, width):
    image = torch.zeros(3, height, width)
    image[:, SIDE // 2 :: SIDE, SIDE // 2 :: SIDE] = 0.9
    return image


def detector(**limits):
    return Detector(Row(**limits), polarmask.load_config("shapes"), {1: "spot"})


def test_detector_says_once_what_limits_leave_out_and_what_to_set(caplog):
    one = detector(max_candidates=None, max_detections=100)
    image = grid(96, 96)
    assert len(one(image)["scores"]) == 100
    one(image)
    (record,) = caplog.records
    for words in ("44 detections of 1 image were left out", "max_detections is 100", "--max_detections null"):
        assert words in record.message
    caplog.clear()
    assert len(one.with_limits(max_detections=None)(image)["scores"]) == 144
    assert not caplog.records


@pytest.mark.parametrize("limits", [{"max_dets": 5}, {"max_detections": 0}, {"max_candidates": "all"}])
def test_with_limits_other_values_are_refused(limits):
    with pytest.raises((TypeError, ValueError), match="with_limits: expected"):
        detector().with_limits(**limits)


def test_tiles_limits_count_for_the_whole_image(caplog):
    image = grid(160, 320)  # 800 objects
    unlimited = detector(max_candidates=None, max_detections=None)
    assert len(detect_in_tiles(unlimited, Whole(image), 64, 16)["scores"]) == 800
    assert not caplog.records
    limited = detector(max_candidates=20, max_detections=500)
    assert len(detect_in_tiles(limited, Whole(image), 64, 16)["scores"]) == 500
    (record,) = caplog.records
    assert "300 detections of 1 image" in record.message


def test_predict_says_at_its_end_what_all_images_together_lost(tmp_path, caplog):
    from PIL import Image

    for name in "ab":
        Image.fromarray((grid(96, 96).permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / f"{name}.png")
    done = polarmask.predict(detector(max_candidates=None, max_detections=100), tmp_path, tmp_path / "out")
    assert done.instances == 200
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "88 detections of 2 images were left out" in record.message


def truth(count, images=1):
    """Squares of 6 pixels, and the same as results of falling score."""
    per_row, annotations = 100, []
    height = -(-count // per_row) * SIDE
    for image in range(1, images + 1):
        for n in range(count):
            left, top = n % per_row * SIDE, n // per_row * SIDE
            box = [left, top, 6.0, 6.0]
            rle = coco_mask.frPyObjects([[left, top, left + 6, top, left + 6, top + 6, left, top + 6]], height, 800)[0]
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 36.0}
                | {"bbox": box, "segmentation": segmentation}
            )
    results = [{**entry, "score": 1 - n / 1e5} for n, entry in enumerate(annotations)]
    sizes = [{"id": image, "height": height, "width": 800} for image in range(1, images + 1)]
    return {"images": sizes, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}, results


class Truth:
    categories = {1: "a"}  # noqa: RUF012

    def __init__(self, content):
        self.content = content

    def __len__(self):
        return len(self.content["images"])

    def ground_truth(self):
        return self.content


@pytest.mark.parametrize("count", [7, 400, 1100])
def test_compare_all_of_many_perfect_detections_count(count):
    content, results = truth(count)
    metrics = compare(Truth(content), results, EvalConfig()).metrics
    for name in ("segm/AP", "segm/AP50", "bbox/AP", "segm/ARall", "segm/ARs", "F1/0.5"):
        assert metrics[name] == pytest.approx(1), name
    assert metrics["segm/AR10"] == pytest.approx(min(10 / count, 1))
    assert "segm/AR100" not in metrics


def test_compare_max_dets_that_are_set_hold():
    content, results = truth(400)
    metrics = compare(Truth(content), results, EvalConfig(max_dets=[1, 10, 100])).metrics
    assert metrics["segm/AR100"] == pytest.approx(0.25)
    assert "segm/ARall" not in metrics


@pytest.mark.parametrize(
    ("limit", "want"), [(None, None), (1000, [1, 10, 1000]), (100, [1, 10, 100]), (10, [1, 10]), (1, [1]), (5, [1, 5])]
)
def test_max_dets_follow_the_model(limit, want):
    assert with_max_dets(detector(max_detections=limit)).eval.max_dets == want


class Grid(Truth):
    """Images that show an object in each square."""

    categories = {1: "spot"}  # noqa: RUF012

    def __getitem__(self, index):
        return polarmask.data.Sample(image=grid(32, 800), outlines=None, labels=None, ignore=None, image_id=index + 1)


def test_evaluate_says_once_what_the_limit_left_out(caplog):
    content, _ = truth(400, images=2)
    data = Grid(content)
    limited = detector(max_candidates=None, max_detections=150)
    for _ in range(2):
        metrics = evaluate(limited, data).metrics
    assert {"segm/AR1", "segm/AR10", "segm/AR150"} <= set(metrics)
    (record,) = caplog.records
    assert "500 detections of 2 images were left out" in record.message


def test_evaluate_says_once_that_max_dets_leaves_detections_out(caplog):
    content, _ = truth(400, images=2)
    data = Grid(content)
    one = detector(max_candidates=None, max_detections=None)
    one = replace(one, config=replace(one.config, eval=EvalConfig(max_dets=[1, 10, 100])))
    for _ in range(2):
        evaluate(one, data)
    (record,) = caplog.records
    assert "600 of 2 images, for it ends with 100: --eval.max_dets null" in record.message


def test_recipes_cells_have_no_limits_and_released_ones_the_published():
    nuclei, released = (polarmask.load_config(name).model for name in ("nuclei", "r50_caffe_1x"))
    assert (nuclei.max_candidates, nuclei.max_detections) == (None, None)
    assert (released.max_candidates, released.max_detections) == (1000, 100)
    with torch.device("meta"):
        assert build_model(nuclei, 1).postprocess.max_detections is None


def test_more_objects_than_any_limit_are_found():
    side = 41 * SIDE
    image = grid(side, side)
    assert len(detector(max_candidates=None, max_detections=None)(image)["scores"]) == 41**2

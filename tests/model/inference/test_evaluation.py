import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import binary_erosion, shift

import polarmask
from polarmask.cli.evaluate import main
from polarmask.config import EvalConfig
from polarmask.data import Shapes
from polarmask.evaluation import choose_thresholds, compare, evaluate, with_thresholds
from polarmask.evaluation.matching import match
from polarmask.evaluation.thresholds import SCORES
from polarmask.model import PostProcess, build_model
from polarmask_ops import rays_nms, rays_to_boxes


class Truth:
    """A data set that is only its annotations."""

    def __init__(self, content):
        self.content = content
        self.categories = {entry["id"]: entry["name"] for entry in content["categories"]}

    def __len__(self):
        return len(self.content["images"])

    def ground_truth(self):
        return self.content


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def annotation(image, category, mask, **more):
    rle = encode(mask)
    area, bbox = float(coco_mask.area(rle)), coco_mask.toBbox(rle).tolist()
    return {"image_id": image, "category_id": category, "segmentation": rle, "area": area, "bbox": bbox, **more}


def scene(images=5, side=300, seed=0):
    """Discs of all of COCO's sizes, some crowds; detections near them, some twice, some of another class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 25)):
            (cy, cx), radius = rng.uniform(0, side, 2), rng.choice([6, 12, 30, 70]) * rng.uniform(0.8, 1.2)
            mask = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            category = int(rng.choice([3, 7, 8]))
            crowd = int(rng.random() < 0.1)
            annotations.append(annotation(image, category, mask, iscrowd=crowd, id=len(annotations) + 1))
            for _ in range(rng.integers(0, 3)):
                moved = shift(mask, rng.normal(0, radius / 8, 2), order=0)
                other = category if rng.random() < 0.8 else 7
                score = float(rng.integers(1, 20) / 20)  # many are equal
                results.append(annotation(image, other, moved, score=score))
    truth = {
        "images": [{"id": n, "height": side, "width": side} for n in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}, {"id": 8, "name": "c"}],
    }
    for result in results:
        del result["area"]
    return truth, results


def of_pycocotools(truth, results, kind, max_dets):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        shape = "bbox" if kind == "bbox" else "segmentation"
        found = [{key: result[key] for key in ("image_id", "category_id", "score", shape)} for result in results]
        peer = COCOeval(coco, coco.loadRes(found), kind)
        peer.params.maxDets = max_dets
        peer.evaluate()
        peer.accumulate()
    return peer.eval["precision"], peer.eval["recall"]


def mean(values):
    return values[values > -1].mean() if (values > -1).any() else -1


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("max_dets", [[1, 10, 100], [2, 5]])
def test_numbers_are_those_of_pycocotools(kind, max_dets):
    truth, results = scene()
    metrics = compare(Truth(truth), results, EvalConfig(max_dets=max_dets)).metrics
    precision, recall = of_pycocotools(truth, results, kind, max_dets)
    want = {
        "AP": precision[..., 0, -1],
        "AP50": precision[0, ..., 0, -1],
        "AP75": precision[5, ..., 0, -1],
        **{f"AP{size}": precision[..., n, -1] for n, size in enumerate("sml", 1)},
        **{f"AR{size}": recall[..., n, -1] for n, size in enumerate("sml", 1)},
        **{f"AR{count}": recall[..., 0, n] for n, count in enumerate(max_dets)},
    }
    if kind == "segm":
        want |= {f"AP/{name}": precision[:, :, n, 0, -1] for n, name in enumerate("abc")}
    got = {name.removeprefix(f"{kind}/"): value for name, value in metrics.items() if name.startswith(f"{kind}/")}
    assert set(got) == set(want)
    assert got == pytest.approx({name: mean(values) for name, values in want.items()}, abs=1e-6)
    assert 0.1 < got["AP"] < 0.9
    assert len({round(value, 6) for value in got.values()}) > 8


def test_boundary_ap():
    """Of one detection, AP counts the thresholds that its overlap reaches."""
    side = 120
    y, x = np.mgrid[:side, :side]
    there = (x - 50) ** 2 + (y - 60) ** 2 < 40**2
    found = (x - 53) ** 2 + (y - 58) ** 2 < 41**2

    def strip(mask, width):
        return mask & ~binary_erosion(mask, np.ones((3, 3)), width)

    def iou(a, b):
        return (a & b).sum() / (a | b).sum()

    truth = {
        "images": [{"id": 1, "height": side, "width": side}],
        "annotations": [annotation(1, 1, there, id=1, iscrowd=0)],
        "categories": [{"id": 1, "name": "a"}],
    }
    seen = set()
    for dilation in (0.01, 0.03, 0.1):
        width = max(round(dilation * side * 2**0.5), 1)
        overlap = min(iou(there, found), iou(strip(there, width), strip(found, width)))
        want = sum(overlap >= threshold for threshold in np.linspace(0.5, 0.95, 10)) / 10
        metrics = compare(Truth(truth), [annotation(1, 1, found, score=0.9)], EvalConfig(boundary=dilation)).metrics
        assert metrics["boundary/AP"] == pytest.approx(want)
        assert metrics["boundary/dilation"] == dilation
        seen.add(want)
    assert len(seen) > 1


def discs(*where, side=60, radius=8):
    y, x = np.mgrid[:side, :side]
    return [(x - cx) ** 2 + (y - cy) ** 2 < radius**2 for cx, cy in where]


def matched(there, found, *, crowds=(), ious=(0.5,), score_threshold=0.3):
    """``found``: (mask, score)."""
    annotations = [annotation(1, 1, mask, iscrowd=0) for mask in there]
    annotations += [annotation(1, 1, mask, iscrowd=1) for mask in crowds]
    truth = {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "annotations": [{**entry, "id": n} for n, entry in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "a"}],
    }
    from faster_coco_eval import COCO

    results = [annotation(1, 1, mask, score=score) for mask, score in found]
    return match(COCO(truth), results, score_threshold, ious)


def test_match_counted_by_hand_is_the_same():
    one, two, three = discs((10, 10), (30, 30), (50, 10))
    near, far = discs((31, 30), (10, 50))
    (found,) = matched([one, two, three], [(one, 0.9), (near, 0.4), (far, 0.5), (three, 0.2)])
    assert (found.tp, found.fp, found.fn) == (2, 1, 1)
    overlap = (two & near).sum() / (two | near).sum()
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.pq == pytest.approx((1 + overlap) / 3)


def test_an_instance_is_matched_once():
    (one,) = discs((20, 20))
    (found,) = matched([one], [(one, 0.9), (one, 0.8)])
    assert (found.tp, found.fp, found.fn) == (1, 1, 0)


def test_as_many_pairs_as_can_be():
    """The best pair would leave the others alone."""
    both = np.zeros((60, 60), bool)
    both[10:20, 0:40] = True
    left, right = both.copy(), both.copy()
    left[:, 28:] = right[:, :12] = False  # 0.7 of it each
    (found,) = matched([both, left], [(both, 0.9), (right, 0.8)], ious=(0.5,))
    assert (found.tp, found.fp, found.fn) == (2, 0, 0)


def test_detections_in_crowds_do_not_count():
    one, crowd = discs((10, 10), (40, 40))
    inside, outside = discs((40, 41), (10, 50))
    (found,) = matched([one], [(one, 0.9), (inside, 0.9), (outside, 0.9)], crowds=[crowd])
    assert (found.tp, found.fp, found.fn) == (1, 1, 0)


def test_match_of_label_images_is_stardists():
    matching = pytest.importorskip("stardist.matching").matching
    rng = np.random.default_rng(0)
    there, found = (np.zeros((120, 120), np.int32) for _ in range(2))
    y, x = np.mgrid[:120, :120]
    for n in range(1, 30):
        cx, cy, radius = *rng.uniform(0, 120, 2), rng.uniform(4, 12)
        there[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = n
        dx, dy = rng.normal(0, 1.5, 2)
        found[(x - cx - dx) ** 2 + (y - cy - dy) ** 2 < radius**2] = n
    split = lambda labels: [labels == n for n in np.unique(labels) if n]  # noqa: E731
    truth = {
        "images": [{"id": 1, "height": 120, "width": 120}],
        "annotations": [annotation(1, 1, mask, iscrowd=0, id=n) for n, mask in enumerate(split(there), 1)],
        "categories": [{"id": 1, "name": "a"}],
    }
    from faster_coco_eval import COCO

    for ours in match(COCO(truth), [annotation(1, 1, mask, score=1.0) for mask in split(found)], 0.5):
        peer = matching(there, found, thresh=ours.iou)
        assert (ours.tp, ours.fp, ours.fn) == (peer.tp, peer.fp, peer.fn)
        want = (peer.precision, peer.recall, peer.f1, peer.panoptic_quality)
        assert (ours.precision, ours.recall, ours.f1, ours.pq) == pytest.approx(want)


@pytest.mark.parametrize("empty", ["results", "annotations", "both", "images"])
def test_nothing_to_compare(empty):
    truth, results = scene(2)
    if empty != "annotations":
        results = []
    if empty != "results":
        truth["annotations"] = []
    if empty == "images":
        truth["images"] = []
    evaluation = compare(Truth(truth), results, EvalConfig())
    nothing = 0 if empty == "results" else -1
    assert {evaluation.metrics[f"{kind}/AP"] for kind in ("segm", "bbox", "boundary")} == {nothing}
    assert evaluation.metrics["F1/0.5"] == evaluation.metrics["PQ/0.9"] == 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    config = polarmask.load_config(
        "shapes", model__channels=32, model__depth=1, data__count=70, data__size=64, eval__score_threshold=0.1
    )
    detector = polarmask.Detector(build_model(config.model, 3).eval(), config, Shapes.categories)
    torch.nn.init.zeros_(detector.model.head.classes.bias)  # finds things, if only by chance
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    detector.save(path)
    return path


def without_times(metrics):
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def test_several_processes_count_every_image_once(weights, tmp_path):
    def command(processes):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        return [sys.executable, *launch, "-m", "polarmask.evaluate", "--weights", str(weights), "--out"]

    # One thread each: torch's convolutions round in another way with two.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, processes in (("one", 1), ("two", 2)):
        run = [*command(processes), str(tmp_path / name)]
        done = subprocess.run(run, capture_output=True, text=True, check=True, env=env)
        assert done.stdout.count("segm/AP:") == 1
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert without_times(two) == without_times(one)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]
    assert len({result["image_id"] for result in results[0]}) == 7  # of an odd number


def test_evaluate_max_dets_above_the_limit_raises_the_limit(weights, tmp_path):
    main(["--weights", str(weights), "--out", str(tmp_path), "--eval.max_dets", "[10,150]", "--data.count", "10"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"segm/AR10", "segm/AR150"} <= set(metrics)
    results = json.loads((tmp_path / "results.json").read_text())
    assert 100 < len(results) <= 150
    for name in ("precision_recall.png", "matching.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_evaluate_follows_the_configuration(weights):
    detector = polarmask.load(weights)
    metrics = evaluate(detector, Shapes(2, 64)).metrics
    assert metrics["boundary/dilation"] == 0.02
    assert metrics["seconds/image"] > 0


class FoundDiscs(torch.nn.Module):
    """Finds three discs of radius 8 of which two overlap by 0.36, one twice, by 0.44, and one that is not there."""

    def __init__(self):
        super().__init__()
        self.postprocess = PostProcess(nms="polygon")
        self.calls = []  # shared with copies
        self.nothing = torch.nn.Parameter(torch.zeros(0))

    def forward(self, images):
        self.calls.append(images)
        centers = torch.tensor([[20.0, 20], [20, 26], [40, 40], [45, 40], [10, 50]])
        scores = torch.tensor([0.8, 0.6, 0.7, 0.65, 0.3])
        rays = torch.full((5, 64), 8.0)
        keep = rays_nms(centers, rays, scores, self.postprocess.nms_threshold)
        found = {"centers": centers, "rays": rays, "scores": scores, "labels": torch.zeros(5, dtype=torch.int64)}
        return [{name: value[keep] for name, value in found.items()} | {"boxes": rays_to_boxes(centers, rays)[keep]}]


class ThreeDiscs:
    categories: ClassVar = {1: "disc"}
    sample = SimpleNamespace(image=torch.zeros(3, 60, 60), size=(60, 60), image_id=1)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.sample

    def ground_truth(self):
        y, x = np.mgrid[:60, :60] + 0.5
        discs = [(x - cx) ** 2 + (y - cy) ** 2 < 64 for cx, cy in ((20, 20), (20, 26), (40, 40))]
        return {
            "images": [{"id": 1, "height": 60, "width": 60}],
            "annotations": [annotation(1, 1, disc, iscrowd=0, id=n) for n, disc in enumerate(discs, 1)],
            "categories": [{"id": 1, "name": "disc"}],
        }


def test_choose_thresholds_finds_the_best_f1():
    detector = polarmask.Detector(FoundDiscs(), polarmask.load_config("shapes"), ThreeDiscs.categories)
    assert choose_thresholds(detector, ThreeDiscs()) == (0.35, 0.4, 1.0)
    assert len(detector.model.calls) == 1
    assert detector.model.postprocess.nms_threshold == 0.5  # as it was
    other = with_thresholds(detector, 0.35, 0.4)
    assert (other.config.eval.score_threshold, other.config.model.nms_threshold) == (0.35, 0.4)
    assert evaluate(other, ThreeDiscs()).metrics["F1/0.5"] == 1
    assert evaluate(detector, ThreeDiscs()).metrics["F1/0.5"] < 1


def test_chosen_thresholds_stay_with_the_weights(weights, tmp_path, capsys):
    path = shutil.copy(weights, tmp_path)
    main(["--weights", str(path), "--choose_thresholds", "true", "--data.count", "10"])
    before, after = polarmask.load(weights), polarmask.load(path)
    score, nms = after.config.eval.score_threshold, after.config.model.nms_threshold
    assert f"score {score}, NMS {nms}, F1" in capsys.readouterr().out
    assert score in SCORES
    assert after.model.postprocess.nms_threshold == nms
    assert with_thresholds(after, 0.1, 0.5).config == before.config  # all else
    assert all(torch.equal(value, after.model.state_dict()[name]) for name, value in before.model.state_dict().items())

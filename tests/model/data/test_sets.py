import copy
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import polarmask
from polarmask.data import Coco, Shapes, build_data
from polarmask.data.batches.loader import training_loader
from polarmask.data.nuclei import fetch
from polarmask.evaluation import evaluate
from polarmask.model import Cuts
from polarmask_ops import outlines_to_masks


def test_nuclei_are_cut_at_the_seam(nuclei):
    train, test = (part[0] for part in nuclei)
    assert (len(train.labels), len(test.labels)) == (73, 57)
    assert train.size == test.size == (512, 256)
    assert train.outlines.boxes()[:, 2].max() == 256
    assert test.outlines.boxes()[:, 0].min() == 0


def test_nuclei_outlines_are_the_masks(nuclei):
    truth = nuclei[1].ground_truth()
    masks = np.stack([coco_mask.decode(entry["segmentation"]) for entry in truth["annotations"]])
    assert masks.sum(0).max() == 1
    assert masks.sum() == int(nuclei[1][0].outlines.areas().sum())
    assert [entry["area"] for entry in truth["annotations"]] == masks.sum((1, 2)).tolist()


def test_nuclei_changed_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("POLARMASK_CACHE", str(tmp_path))
    (tmp_path / "nuclei").mkdir()
    for name in ("img2d.tif", "mask2d.tif"):
        (tmp_path / "nuclei" / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"img2d\.tif with sha256 f9ccc.*delete it"):
        fetch()


def test_shapes_follow_from_the_seed():
    first, again, other = Shapes(3, 96, seed=1), Shapes(3, 96, seed=1), Shapes(3, 96, seed=2)
    assert torch.equal(first[2].image, again[2].image)
    assert torch.equal(first[2].outlines.segments, again[2].outlines.segments)
    assert not torch.equal(first[2].image, other[2].image)
    assert not torch.equal(first[2].image, Shapes(3, 96, seed=1, part="test")[2].image)
    with pytest.raises(IndexError, match="below 3, got 3"):
        first[3]


def test_shapes_hold_all_kinds_and_do_not_overlap():
    shapes = Shapes(20, 128)
    kinds = set()
    concave = 0
    for sample in shapes:
        masks = outlines_to_masks(sample.outlines, sample.size)
        assert masks.sum(0).max() == 1
        assert len(masks) == len(sample.labels)
        kinds |= set(sample.labels.tolist())
        x, y = sample.outlines.centroids().long().unbind(1)
        concave += int((~masks[torch.arange(len(masks)), y.clamp(0, 127), x.clamp(0, 127)]).sum())
    assert kinds == {0, 1, 2}
    assert concave > 0  # centroids outside their shapes


def test_coco(coco_folder):
    data = Coco(coco_folder, "val")
    assert data.categories == {4: "dog", 9: "cat"}
    first, second, third = (data[n] for n in range(3))
    assert first.size == (40, 60)
    assert float(first.image[0, 0, 0]) == pytest.approx(40 / 255)
    assert first.labels.tolist() == [1, 1]
    assert first.ignore.tolist() == [True, False]
    assert first.outlines.areas().tolist() == [60, 300]  # a crowd is all of its parts, an object its largest
    assert second.labels.tolist() == [0]
    assert second.outlines.boxes().tolist() == [[10, 5, 12, 13]]
    assert third.image_id == 30
    assert len(third.outlines) == len(third.labels) == 0


class Oracle:
    """A detector that knows the annotations of a data set and changes them at will."""

    def __init__(self, data, change, patch):
        self.truth, self.categories, self.change = data.ground_truth(), data.categories, change
        self.config, self.max_detections = polarmask.Config(), 100
        patch.setattr("polarmask.evaluation.coco.coco_results", self.results)

    def detect(self, images):
        return [{} for _ in images]

    def counted(self):
        return nullcontext(Cuts())

    def say_cuts(self, cuts):
        assert not cuts.images

    def results(self, found, size, image_id, category_ids):
        keys = ("image_id", "category_id", "bbox", "segmentation")
        mine = [entry for entry in self.truth["annotations"] if entry["image_id"] == image_id]
        return [changed for entry in mine for changed in self.change({key: entry[key] for key in keys})]


def test_compare_perfect_detections_score_1(monkeypatch):
    data = Shapes(4, 96)
    metrics = evaluate(Oracle(data, lambda entry: [{**entry, "score": 0.9}], monkeypatch), data).metrics
    assert metrics["segm/AP"] == metrics["bbox/AP"] == metrics["segm/AP/star"] == 1
    assert metrics["instances"] == len(data.ground_truth()["annotations"])


def test_numbers_are_those_of_pycocotools(monkeypatch):
    rng = np.random.default_rng(0)

    def shifted_twice(entry):
        found = []
        for _ in range(2):
            shift = rng.integers(0, 5, 2)
            mask = np.roll(coco_mask.decode(entry["segmentation"]), shift, (0, 1))
            box = [entry["bbox"][0] + float(shift[1]), entry["bbox"][1] + float(shift[0]), *entry["bbox"][2:]]
            rle = coco_mask.encode(np.asfortranarray(mask))
            found.append({**entry, "segmentation": rle, "bbox": box, "score": float(rng.random())})
        return found

    data = Shapes(8, 96)
    evaluation = evaluate(Oracle(data, shifted_twice, monkeypatch), data)
    truth = COCO()
    truth.dataset = data.ground_truth()
    truth.createIndex()
    for kind in ("segm", "bbox"):
        peer = COCOeval(truth, truth.loadRes(copy.deepcopy(evaluation.results)), kind)
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
        ours = [evaluation.metrics[f"{kind}/{name}"] for name in ("AP", "AP50", "AP75")]
        assert 0.1 < ours[0] < 0.9
        assert ours == pytest.approx(peer.stats[:3], abs=1e-12)


def loaded(workers=0, seed=0, epoch=0):
    changes = {"data__count": 6, "data__size": 64, "data__repeat": 2, "data__photometric": True, "optim__batch_size": 4}
    config = polarmask.load_config("shapes", **changes, data__workers=workers, seed=seed)
    loader, sampler = training_loader(build_data(config.data, "train", 0), config)
    sampler.epoch = epoch
    return list(loader)


def test_batches_follow_from_seed_and_epoch():
    want = loaded()
    assert [len(images) for images, *_ in want] == [4, 4, 4]
    for images, other in zip(want, loaded(workers=1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images[0], other[0], strict=True))
    for changed in (loaded(epoch=1), loaded(seed=1)):
        assert not any(
            torch.equal(a, b) for (x, *_), (y, *_) in zip(want, changed, strict=True) for a, b in zip(x, y, strict=True)
        )


def test_repeats_differ():
    images = [image for batch, *_ in loaded() for image in batch]
    assert all(not torch.equal(a, b) for n, a in enumerate(images) for b in images[:n])


def test_rare_categories_and_aspects_ask_for_no_pixel(coco_folder):
    options = {"data__root": coco_folder, "data__train": "val", "data__repeat_rare": 0.9, "data__group_by_aspect": True}
    config = polarmask.load_config("shapes", data__dataset="files", optim__batch_size=1, **options)
    _, sampler = training_loader(build_data(config.data, "train", 0), config)
    # Two categories, each in one of three images; the third image is empty.
    assert np.diff(sampler.bounds, prepend=0) == pytest.approx([2.7**0.5, 2.7**0.5, 1])
    assert sampler.groups.tolist() == [1, 0, 1]  # 60 × 40, 30 × 30, 50 × 20


def test_an_image_that_is_left_out_moves_no_other_ones_repeats_and_group(coco_folder):
    file = coco_folder / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["images"][1]["height"] = -1
    file.write_text(json.dumps(content))
    options = {"data__root": coco_folder, "data__train": "val", "data__repeat_rare": 1, "data__group_by_aspect": True}
    config = polarmask.load_config("shapes", data__dataset="files", data__invalid="skip", **options)
    _, sampler = training_loader(build_data(config.data, "train", 0), config)
    assert np.diff(sampler.bounds, prepend=0) == pytest.approx([2**0.5, 1, 1])
    assert sampler.groups.tolist() == [1, 0, 1]

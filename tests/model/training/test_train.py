import json
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import losses

import polarmask
from polarmask.cli.evaluate import main as evaluate_main
from polarmask.cli.predict import main as predict_main
from polarmask.cli.train import main as train_main
from polarmask.data.batches.augment import random_crop
from polarmask.data.sample import drop_small
from polarmask.data.truth import coco_truth
from polarmask.evaluation import Evaluation, evaluate
from polarmask.inference import draw
from polarmask.model import build_model
from polarmask.training.run_folder import FILES
from polarmask_ops import outlines_from_polygons


def test_train_writes_the_files_that_it_names(run):
    _, out = run
    assert {path.name for path in out.iterdir()} - {"tensorboard"} == set(FILES)
    (events,) = (out / "tensorboard").rglob("events*")
    shown = EventAccumulator(str(events)).Reload()
    assert set(shown.Tags()["images"]) == {"first_batch", "predictions"}
    (picture,) = shown.Images("first_batch")
    with Image.open(out / "first_batch.png") as image:
        assert (picture.width, picture.height) == image.size
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"segm/AP", "segm/AP50", "bbox/AP", "segm/AP/star", "instances", "seconds/train", "seconds/image"} <= set(
        metrics
    )
    assert [line["step"] for line in losses(out)] == [1, 2, 3, 4]
    for name in ("predictions", "first_batch", "learning_curve"):
        with Image.open(out / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 5


def test_the_first_batch_shows_targets_and_positive_points():
    model = build_model(polarmask.load_config("nuclei").model, 1)
    outlines = outlines_from_polygons([[[10, 12, 50, 12, 50, 40, 10, 40]]])
    target = {"boxes": outlines.boxes(), "labels": torch.tensor([0]), "outlines": outlines}
    image = torch.zeros(3, 64, 64)
    picture = np.asarray(draw.first_batch(model, [image], model.check([image], [target])))
    assert picture.shape == (128, 128, 3)  # small ones are drawn twice as large
    white, coloured = (picture == 255).all(-1), picture.any(-1)
    i, j = np.nonzero(coloured)
    assert (j.min(), i.min(), j.max(), i.max()) == pytest.approx((20, 24, 100, 80), abs=2)
    positive = model.encode([(16, 16)], model.check([image], [target])).labels.view(16, 16) >= 0
    assert white[4::8, 4::8].tolist() == positive.tolist()  # points lie at 2, 6, 10, …
    assert 9 <= positive.sum() <= 16


# What the packages' functions take, as Accelerate calls them.
TRACKERS = {
    "wandb": """
import numpy as np
def init(project):
    assert project == "polarmask"
    return Run()
def Image(picture):
    return np.asarray(picture).shape
class Run:
    def log(self, values, step):
        for name, value in values.items():
            track(name, value[0] if isinstance(value, list) else value)
    def finish(self):
        pass
""",
    "clearml": """
import numpy as np
class Task:
    current_task = classmethod(lambda cls: None)
    init = classmethod(lambda cls, project_name, task_name: cls())
    get_logger = close = lambda self: self
    def report_scalar(self, title, series, value, iteration):
        track(title, value)
    def report_image(self, title, series, iteration, image):
        track(title, np.asarray(image).shape)
""",
    "aim": """
import numpy as np
class Run:
    def __init__(self, repo):
        pass
    def track(self, value, name, step):
        track(name, value)
    def close(self):
        pass
def Image(picture, caption):
    return np.asarray(picture).shape
""",
}


@pytest.mark.parametrize("name", TRACKERS)
def test_numbers_and_pictures_reach_other_trackers(run, tmp_path, monkeypatch, name):
    tracked = {}
    module = types.ModuleType(name)
    module.track = tracked.__setitem__
    exec(TRACKERS[name], module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType(name)])
    train_main([*run[0], "--out", str(tmp_path), "--tracker", name, "--optim.epochs", "1"])
    assert {"loss/mask", "lr", "segm/AP"} <= set(tracked)
    for picture in ("first_batch", "predictions"):
        with Image.open(tmp_path / f"{picture}.png") as image:
            assert tracked[picture] == (image.height, image.width, 3)


def test_trackers_that_are_not_there_are_named(run, tmp_path):
    with pytest.raises(ValueError, match=r"installed here \(.*tensorboard.*\), got 'paper'; Accelerate knows .*wandb"):
        train_main([*run[0], "--out", str(tmp_path), "--tracker", "paper"])


def test_out_of_memory_says_what_to_lower(run, tmp_path, monkeypatch):
    def backward(self, loss):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(Accelerator, "backward", backward)
    with pytest.raises(torch.OutOfMemoryError, match=r"with 4 images at once; raise optim\.accumulate.*20 GiB"):
        train_main([*run[0], "--out", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_it_learns_the_same(run, tmp_path):
    train_main([*run[0], "--out", str(tmp_path), "--optim.compile", "true"])
    for compiled, eager in zip(losses(tmp_path), losses(run[1]), strict=True):
        assert compiled == pytest.approx(eager, rel=1e-3)  # sums in another order, and four updates with them


def test_train_with_the_same_seed_gives_the_same_losses(run, tmp_path):
    args, out = run
    train_main([*args, "--out", str(tmp_path / "again")])
    assert losses(tmp_path / "again") == losses(out)
    train_main([*args, "--out", str(tmp_path / "other"), "--seed", "1", "--optim.epochs", "1"])
    assert losses(tmp_path / "other")[0] != losses(out)[0]


def test_train_program_prints_metrics_and_files(run, tmp_path):
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "polarmask.train", *run[0], "--optim.epochs", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=True)
    assert "segm/AP50" in done.stdout
    assert f"{tmp_path}/predictions.png: " in done.stdout
    assert losses(tmp_path)[0] == losses(run[1])[0]


HAS_BF16 = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


@pytest.mark.skipif(not HAS_BF16, reason="no arithmetic in bfloat16")
def test_train_in_bfloat16_has_nearly_the_same_loss(run, tmp_path):
    train_main([*run[0], "--optim.epochs", "1", "--out", str(tmp_path), "--precision", "bf16"])
    (first, *_), (exact, *_) = losses(tmp_path), losses(run[1])
    assert first["loss/mask"] == pytest.approx(exact["loss/mask"], rel=0.05)
    assert first != exact


@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU's precisions")
@pytest.mark.parametrize("precision", ["fp16"] if HAS_BF16 else ["fp16", "bf16"])
def test_precisions_that_are_not_there_are_refused(run, tmp_path, precision):
    with pytest.raises(ValueError, match=f"no arithmetic in {precision}"):
        train_main([*run[0], "--out", str(tmp_path), "--precision", precision])


def test_train_on_a_coco_folder_evaluates(run, coco_folder, tmp_path):
    options = ["--data.dataset", "files", "--data.root", str(coco_folder), "--data.train", "val", "--data.test", "val"]
    train_main([*run[0], *options, "--data.resize", "[64,32]", "--out", str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["instances"] == 2  # and a crowd
    assert {"segm/AP/cat", "segm/AP/dog"} <= set(metrics)
    assert polarmask.load(tmp_path / "out" / "last.safetensors").categories == {4: "dog", 9: "cat"}


def test_evaluate_repeats_the_final_numbers(run, tmp_path):
    _, out = run
    evaluate_main(["--weights", str(out / "last.safetensors"), "--out", str(tmp_path)])
    again, final = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, out))
    for name in ("segm/AP", "bbox/AP", "instances"):
        assert again[name] == final[name]
    assert (tmp_path / "precision_recall.png").stat().st_size > 0
    for result in json.loads((tmp_path / "results.json").read_text()):
        assert result["segmentation"]["size"] == [64, 64]


def test_evaluate_program_on_other_data_measures_them(run, tmp_path):
    _, out = run
    evaluate_main(["--weights", str(out / "last.safetensors"), "--out", str(tmp_path), "--data.count", "20"])
    final = json.loads((out / "metrics.json").read_text())
    assert json.loads((tmp_path / "metrics.json").read_text())["instances"] > final["instances"]


def test_predict_program_writes_all_outputs(run, tmp_path):
    _, out = run
    images = tmp_path / "images"
    images.mkdir()
    grey = (np.random.default_rng(0).random((50, 70)) * 60000).astype(np.uint16)
    tifffile.imwrite(images / "deep.tif", grey)
    Image.fromarray(grey).save(images / "deep_too.png")
    Image.fromarray((grey // 256).astype(np.uint8)).convert("RGBA").save(images / "colour.png")
    predict_main(
        ["--weights", str(out / "best.safetensors"), str(images), "--out", str(tmp_path / "p"), "--score", "0.01"]
    )
    names = ["colour", "deep", "deep_too"]
    assert sorted(path.stem for path in (tmp_path / "p" / "overlays").iterdir()) == names
    files = json.loads((tmp_path / "p" / "images.json").read_text())
    results = json.loads((tmp_path / "p" / "results.json").read_text())
    for image_id, name in enumerate(names, 1):
        assert name in files[str(image_id)]
        labels = tifffile.imread(tmp_path / "p" / "labels" / f"{name}.tif")
        assert labels.shape == (50, 70)
        mine = [entry for entry in results if entry["image_id"] == image_id and entry["score"] >= 0.01]
        assert labels.max() <= len(mine)
    assert {entry["category_id"] for entry in results} <= {1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["--precision", "bf16"], marks=pytest.mark.skipif(not HAS_BF16, reason="no arithmetic in bfloat16")
        ),
        pytest.param(["--device", "cuda"], marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
    ],
)
def test_precisions_and_devices_find_nearly_the_same(run, tmp_path, options):
    weights = ["--weights", str(run[1] / "last.safetensors")]
    image = tmp_path / "image.png"
    Image.fromarray((polarmask.data.Shapes(1, 64)[0].image.permute(1, 2, 0) * 255).byte().numpy()).save(image)
    scores, metrics = [], []
    for name, more in (("cpu", ["--device", "cpu"]), ("other", options)):
        predict_main([*weights, str(image), "--out", str(tmp_path / name), *more])
        scores.append(max(entry["score"] for entry in json.loads((tmp_path / name / "results.json").read_text())))
        evaluate_main([*weights, "--out", str(tmp_path / name), *more])
        metrics.append(json.loads((tmp_path / name / "metrics.json").read_text())["segm/AP"])
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    assert metrics[1] == pytest.approx(metrics[0], abs=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU's precisions")
@pytest.mark.parametrize("main", [evaluate_main, predict_main])
def test_what_this_machine_does_not_have_is_refused(run, tmp_path, main):
    options = ["--weights", str(run[1] / "last.safetensors"), *([str(tmp_path)] if main is predict_main else [])]
    with pytest.raises(ValueError, match="no arithmetic in fp16"):
        main([*options, "--precision", "fp16"])
    with pytest.raises(ValueError, match=r"--device: expected a device of this machine \(cpu\), got cuda"):
        main([*options, "--device", "cuda"])


def test_predict_names_what_is_missing(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an image or a folder of images"):
        predict_main(["--weights", str(run[1] / "last.safetensors"), str(tmp_path)])


def test_evaluate_without_detections_gives_0(run):
    detector = polarmask.load(run[1] / "last.safetensors")
    torch.nn.init.constant_(detector.model.head.classes.bias, -100)
    metrics = evaluate(detector, polarmask.data.Shapes(2, 64)).metrics
    assert metrics["segm/AP"] == metrics["bbox/AP"] == 0


def test_losses_that_are_not_finite_stop_the_run(run, tmp_path, monkeypatch):
    getitem = polarmask.data.Shapes.__getitem__

    def poisoned(self, index):
        sample = getitem(self, index)
        return replace(sample, image=sample.image * float("nan")) if index == 5 else sample

    monkeypatch.setattr(polarmask.data.Shapes, "__getitem__", poisoned)
    with pytest.raises(FloatingPointError, match=r"finite losses .* with the images .*\b5\b") as raised:
        train_main([*run[0], "--out", str(tmp_path), "--optim.ema", "null"])
    kept = torch.load(tmp_path / "nonfinite_0.pt", weights_only=True)
    bad = [n for n, image in zip(kept["image_ids"], kept["images"], strict=True) if image.isnan().any()]
    assert bad == [5]
    assert f"at step {kept['step']}" in str(raised.value)
    assert set(kept["targets"][0]) == {"boxes", "labels", "ignore", "segments", "offsets"}


def test_overfit_trains_and_evaluates_on_the_same_images(run, tmp_path):
    train_main([*run[0], "--out", str(tmp_path), "--overfit", "2", "--optim.batch_size", "2", "--optim.epochs", "1"])
    data = polarmask.data.Shapes(2, 64)
    assert json.loads((tmp_path / "metrics.json").read_text())["instances"] == sum(len(d.labels) for d in data)
    assert len(losses(tmp_path)) == 1


def test_train_without_improvement_stops(run, tmp_path, monkeypatch):
    found = iter([0.2, 0.5, 0.5, 0.1, 0.9])
    metrics = lambda *_, **__: Evaluation({"segm/AP": (ap := next(found)), "segm/AP50": ap}, [], {}, [])  # noqa: E731
    monkeypatch.setattr("polarmask.training.trainer.evaluate", metrics)
    curves = []
    monkeypatch.setattr("polarmask.inference.draw.learning_curve", lambda *_: curves.append(len(losses(tmp_path))))
    options = ["--stop_after", "2", "--optim.epochs", "9", "--optim.batch_size", "8"]
    train_main([*run[0], *options, "--out", str(tmp_path)])
    assert json.loads((tmp_path / "metrics.json").read_text())["segm/AP"] == 0.1
    assert curves == [1, 2, 3, 4]  # drawn at each evaluation


def test_train_without_images_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"the training set is empty \(shapes\): there is nothing to train on"):
        train_main([*run[0], "--out", str(tmp_path), "--data.count", "0"])


class Crops:
    """Two fixed crops of the nuclei, to train and to evaluate on."""

    categories = {1: "nucleus"}  # noqa: RUF012

    def __init__(self, whole):
        crops = [random_crop(whole, 192, (1, 1), False, np.random.default_rng(seed)) for seed in (0, 1)]
        self.samples = [replace(drop_small(crop, 10), image_id=n) for n, crop in enumerate(crops, 1)]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.samples[index]

    def ground_truth(self):
        return coco_truth(self.samples, self.categories)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_train_on_two_crops_overfits_them(nuclei, monkeypatch, tmp_path):
    crops = Crops(nuclei[0][0])
    monkeypatch.setattr("polarmask.training.run.build_data", lambda *_: crops)
    still = {"data__crop": "null", "data__flip": 0, "data__photometric": False}
    config = polarmask.load_config("nuclei", **still, data__repeat=50, optim__batch_size=2, out=tmp_path)
    polarmask.train(config)  # 500 steps
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["segm/AP"] >= 0.85

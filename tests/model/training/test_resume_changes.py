"""What may change between a run that was stopped and its resume, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import tiny_runs
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import polarmask
from polarmask.cli.train import main as train_main
from polarmask.model import build_model
from polarmask.model.backbone import load_pretrained, resnet_fpn
from polarmask.training.checkpoint import (
    Checkpoint,
    differences,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

STEP = ["--optim.schedule", "step", "--evaluate_every", "0", "--checkpoint_every", "1", "--keep_checkpoints", "99"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """COCO's format: four images to train on, two to evaluate on, two categories."""
    root = tmp_path_factory.mktemp("data") / "set"
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", 4), ("val", 2)):
        (root / split).mkdir()
        images, annotations = [], []
        for n in range(1, count + 1):
            pixels = np.full((64, 64, 3), 40, np.uint8)
            pixels[10 : 30 + n, 12:44] = 200
            Image.fromarray(pixels).save(root / split / f"{n}.png")
            images.append({"id": n, "file_name": f"{n}.png", "height": 64, "width": 64})
            corners = [12, 10, 44, 10, 44, 30 + n, 12, 30 + n]
            annotations.append({"id": n, "image_id": n, "category_id": 1 + n % 2, "segmentation": [corners]})
        categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def arguments(data, out, *more):
    files = ["--data.dataset", "files", "--data.root", str(data), "--optim.batch_size", "2"]
    return [*tiny_runs.NETWORK, *files, *STEP, "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Two epochs of two steps, with a checkpoint for each."""
    out = tmp_path_factory.mktemp("whole")
    train_main(arguments(data, out))
    return out


@pytest.fixture
def half(whole, tmp_path):
    """The same run, stopped after three steps."""
    out = tmp_path / "half"
    shutil.copytree(whole, out)
    (out / "checkpoints" / "step_000000004.pt").unlink()
    return out


def test_what_is_not_learned_from_may_change(data, whole, half, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "moved")
    changed = ["--data.workers", "1", "--log_every", "1", "--stop_after", "3", "--evaluate_every", "2"]
    changed += ["--eval.score_threshold", "0.5", "--keep_checkpoints", "1", "--model.nms_threshold", "0.4"]
    train_main(arguments(tmp_path / "moved", half, "--resume", "auto", *changed))
    kept = [[line for line in tiny_runs.lines(out) if "lr" in line] for out in (half, whole)]
    assert kept[0] == kept[1]
    for left, right in zip(*(tiny_runs.weights(out).values() for out in (half, whole)), strict=True):
        assert torch.equal(left, right)
    assert "the search for the best weights begins anew" in capsys.readouterr().out


def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_once(data, whole, half, tmp_path):
    train_main(arguments(data, half, "--resume", "auto", "--optim.epochs", "3"))
    train_main(arguments(data, tmp_path / "three", "--optim.epochs", "3"))
    tiny_runs.assert_same(half, tmp_path / "three")


def test_fewer_epochs_than_were_begun_are_refused(data, half):
    with pytest.raises(ValueError, match=r"optim\.epochs 2, got 1; 2 epochs were begun"):
        train_main(arguments(data, half, "--resume", "auto", "--optim.epochs", "1"))


def test_more_epochs_of_a_cosine_are_refused(data, tmp_path, monkeypatch):
    options = arguments(data, tmp_path, "--optim.schedule", "cosine")
    with monkeypatch.context() as patch:
        tiny_runs.signal_at(patch, 1)
        with pytest.raises(SystemExit):
            train_main(options)
    with pytest.raises(ValueError, match=r"optim\.epochs 2, got 3; a cosine schedule spans all epochs"):
        train_main([*options, "--resume", "auto", "--optim.epochs", "3"])


def test_all_options_that_may_not_change_are_named(data, half):
    with pytest.raises(ValueError, match=r"optim\.lr 0\.002, got 0\.1; seed 0, got 4"):
        train_main(arguments(data, half, "--resume", "auto", "--optim.lr", "0.1", "--seed", "4"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["categories"].reverse(), None),
        (lambda c: [entry.update(id=3 - entry["id"]) for entry in c["categories"]], r"categories\.1 is 'debris'"),
        (lambda c: c["annotations"][0]["segmentation"][0].__setitem__(0, 14), "train.annotations"),
        (lambda c: (c["images"].pop(), c["annotations"].pop()), "train.images is 3 instead of 4"),
    ],
)
def test_other_data_than_before_are_refused(data, half, tmp_path, change, words):
    shutil.copytree(data, tmp_path / "other")
    file = tmp_path / "other" / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    validation = tmp_path / "other" / "annotations" / "instances_val.json"
    validation.write_text(json.dumps({**json.loads(validation.read_text()), "categories": content["categories"]}))
    options = arguments(tmp_path / "other", half, "--resume", "auto")
    with pytest.raises(ValueError, match=f"expected the data that .*{words or ''}.*begin anew in another folder"):
        train_main(options)
    assert [path.name for path in list_checkpoints(half)][-1] == "step_000000003.pt"


def rewritten(path, **changes):
    found = load_checkpoint(path)
    save_checkpoint(path.parents[1], Checkpoint(**{**found.__dict__, **changes}), keep=99)


def test_another_number_of_processes_is_said(data, half, capsys):
    rewritten(list_checkpoints(half)[-1], processes=2)
    train_main(arguments(data, half, "--resume", "auto"))
    assert capsys.readouterr().out.count("with 1 processes instead of 2: sums have another order") == 1


def test_a_checkpoint_whose_bytes_changed_is_refused(data, half):
    path = list_checkpoints(half)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"in .*step_000000003\.pt, got a file that is damaged"):
        train_main(arguments(data, half, "--resume", "auto"))


@pytest.mark.parametrize("part", ["progress", "config", "data", "processes", "state", "network", "best", "optimizer"])
def test_a_checkpoint_without_a_part_is_refused(data, half, part):
    path = list_checkpoints(half)[-1]
    content = torch.load(path, weights_only=True)
    for holder in (content, content["progress"], content["state"]):
        holder.pop(part, None)
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"step_000000003\.pt, got .*{part}"):
        train_main(arguments(data, half, "--resume", "auto"))


def test_an_older_checkpoint_beside_newer_ones_is_refused_until_they_are_given_up(data, whole, half, caplog):
    older = half / "checkpoints" / "step_000000001.pt"
    with pytest.raises(FileExistsError, match=r"step_000000001\.pt is older than .*step_000000003\.pt, which would be"):
        train_main(arguments(data, half, "--resume", str(older)))
    train_main(arguments(data, half, "--resume", str(older), "--overwrite", "true"))
    assert "gave up what is newer" in caplog.text
    tiny_runs.assert_same(half, whole)


@pytest.mark.parametrize("holds", ["checkpoints", "weights"])
def test_a_checkpoint_of_another_run_does_not_overwrite_a_run(data, whole, half, holds):
    if holds == "weights":
        shutil.rmtree(half / "checkpoints")
    start = str(whole / "checkpoints" / "step_000000002.pt")
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"holds another run.*--overwrite"):
        train_main(arguments(data, half, "--resume", start))
    assert before == {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    train_main(arguments(data, half, "--resume", start, "--overwrite", "true"))
    assert [line["step"] for line in tiny_runs.lines(half)] == [3, 4, 4]


def test_overwrite_leaves_nothing_of_the_earlier_run(data, half, capsys):
    for name in ("best.safetensors", "predictions.png", "nonfinite_3.pt", "nonfinite_of_mine.pt", "notes.txt"):
        (half / name).write_text("earlier")
    events = set((half / "tensorboard").iterdir())
    train_main(arguments(data, half, "--overwrite", "true", "--optim.epochs", "1"))
    assert not (half / "best.safetensors").exists()
    assert not (half / "nonfinite_3.pt").exists()
    assert "best.safetensors" not in capsys.readouterr().out
    assert (half / "predictions.png").read_bytes()[:4] == b"\x89PNG"
    assert [(half / name).read_text() for name in ("nonfinite_of_mine.pt", "notes.txt")] == ["earlier"] * 2
    assert not events & set((half / "tensorboard").iterdir())
    assert [path.name for path in list_checkpoints(half)] == ["step_000000001.pt", "step_000000002.pt"]


def test_differences_are_named_by_their_place():
    before = {"count": 2, "names": ["a", "b"], "sizes": {"a": [1, 2]}, "digest": "0" * 64}
    now = {"count": 3, "names": ["a", "b", "c"], "sizes": {"a": [1, 5]}, "digest": "1" * 64}
    assert differences(before, now, "train") == [
        "train.count is 3 instead of 2",
        "train.digest are others",
        "train.names are 3 instead of 2, with 'c'",
        "train.sizes.a[1] is 5 instead of 2",
    ]
    assert differences(now, now, "train") == []
    assert differences(None, {"a": 1}, "test") == ["test is {'a': 1} instead of None"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, detector: shutil.copy(detector, path), "got a detector that polarmask.train wrote; --resume"),
        (lambda path, detector: path.write_bytes(detector.read_bytes()[:-9]), "got one that is damaged"),
        (lambda path, detector: path.write_bytes(b""), "got one that is damaged"),
        (lambda path, detector: path.write_text("no weights at all"), "got one that is damaged"),
        (lambda path, detector: save_file(load_file(detector), path), r"are missing and \d+ unknown.*model\.backbone"),
    ],
)
def test_weights_that_do_not_fit_end_in_one_sentence(whole, tmp_path, make, words):
    path = tmp_path / "weights.safetensors"
    make(path, whole / "last.safetensors")
    with pytest.raises(ValueError, match=words):
        load_pretrained(resnet_fpn("resnet18", frozen=True), "resnet18", str(path))
    config = polarmask.load_config("nuclei")
    with pytest.raises(ValueError, match=r"expected none with model\.backbone small, .* got .*weights\.safetensors"):
        load_pretrained(build_model(config.model, 1).backbone, "small", str(path))


def test_weights_of_another_shape_are_named(tmp_path):
    backbone = resnet_fpn("resnet18", frozen=True)
    state = {name: value.contiguous() for name, value in backbone.body.state_dict().items()}
    save_file({**state, "layer1.0.conv1.weight": torch.zeros(2, 3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight is \(2, 3\) instead of \(64, 64, 3, 3\)"):
        load_pretrained(backbone, "resnet18", str(tmp_path / "weights.safetensors"))


def test_resume_auto_beside_weights_without_checkpoints_is_refused(tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"kept")
    with pytest.raises(FileExistsError, match=r"best\.safetensors and no checkpoint to go on from"):
        find_checkpoint(tmp_path, "auto", overwrite=False)
    assert find_checkpoint(tmp_path, "auto", overwrite=True) is None


def test_overfit_with_images_to_evaluate_on_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"leave out data\.test"):
        train_main(arguments(data, tmp_path / "out", "--overfit", "1", "--data.test", "val"))

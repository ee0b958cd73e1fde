"""What ``predict`` writes for folders of images, good and broken ones, and what it refuses."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import polarmask
from polarmask.cli.predict import main
from polarmask.inference.detector import Detector
from polarmask.inference.prediction import find_inputs, predict
from polarmask.model import Cuts, PostProcess


class Spots(nn.Module):
    """Finds every bright pixel as a circle of radius 3, with the pixel's brightness for a score."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0))
        self.postprocess = PostProcess(max_candidates=None, max_detections=None, nms="polygon")
        self.cuts = Cuts()
        self.sides = []  # of the images that went through the network

    def forward(self, images):
        self.sides += [max(image.shape) for image in images]
        results = []
        for image in images:
            i, j = torch.nonzero(image[0] > 0.2, as_tuple=True)
            centers = torch.stack([j, i], 1) + 0.5
            results.append(
                {
                    "boxes": torch.cat([centers - 3, centers + 3], 1),
                    "labels": torch.zeros_like(i),
                    "scores": image[0, i, j],
                    "centers": centers,
                    "rays": torch.full((len(centers), 8), 3.0),
                }
            )
        return results


@pytest.fixture
def detector():
    return Detector(Spots(), polarmask.load_config("shapes"), {1: "spot"})


def spots(path, count=3, size=(40, 40), value=200):
    pixels = np.zeros(size, np.uint8)
    pixels.ravel()[np.arange(count) * size[0] * 10 + 10] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def written(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def outputs(*names):
    each = [f"{kind}/{name}{suffix}" for name in names for kind, suffix in (("overlays", ".png"), ("labels", ".tif"))]
    return sorted([*each, *(f"polygons/{name}.json" for name in names), "images.json", "results.json"])


def test_predict_broken_file_is_named_and_the_others_are_written(detector, tmp_path, caplog):
    for name in "abd":
        spots(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:50])
    (tmp_path / "in" / "e.tif").write_bytes(b"")
    done = predict(detector, tmp_path / "in", tmp_path / "out")
    assert (done.images, done.instances) == (3, 9)
    assert [path.name for path in done.failed] == ["c.png", "e.tif"]
    assert written(tmp_path / "out") == outputs("a", "b", "d")
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {number: path.rsplit("/", 1)[1] for number, path in images.items()} == {
        "1": "a.png",
        "2": "b.png",
        "4": "d.png",
    }
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 4}
    assert "c.png" in caplog.text
    assert "e.tif" in caplog.text


def test_predict_sub_folders_are_kept(detector, tmp_path):
    for name in ("1.png", "A/1.png", "A/deep/2.png", "B/1.png"):
        spots(tmp_path / "in" / name)
    predict(detector, tmp_path / "in", tmp_path / "out")
    assert written(tmp_path / "out") == outputs("1", "A/1", "A/deep/2", "B/1")


def test_predict_folders_with_equal_names_are_told_apart_by_the_folder(detector, tmp_path):
    folders = [spots(tmp_path / name / "1.png").parent for name in ("A", "B")]
    predict(detector, folders, tmp_path / "out")
    assert written(tmp_path / "out") == outputs("A/1", "B/1")
    predict(detector, [tmp_path / "*" / "1.png"], tmp_path / "patterns")
    assert written(tmp_path / "patterns") == outputs("A/1", "B/1")


def test_predict_two_suffixes_of_one_name_are_refused(detector, tmp_path):
    spots(tmp_path / "in" / "a.png"), spots(tmp_path / "in" / "a.bmp")
    with pytest.raises(ValueError, match=r"expected images of different names, got .*a\.bmp and .*a\.png"):
        predict(detector, tmp_path / "in", tmp_path / "out")


def test_find_inputs_same_file_twice_counts_once(tmp_path):
    spots(tmp_path / "a.png")
    assert [each.name for each in find_inputs([tmp_path, tmp_path / "a.png"], tmp_path / "out")] == ["a"]


def test_predict_files_of_other_kinds_are_said_once(detector, tmp_path, caplog):
    spots(tmp_path / "in" / "a.png")
    for name in ("b.xyz", "c.dcm", "notes.txt", "._a.png"):
        (tmp_path / "in" / name).write_bytes(b"?")
    predict(detector, tmp_path / "in", tmp_path / "out")
    (record,) = [record for record in caplog.records if "left out" in record.message]
    assert "2 files" in record.message
    assert "b.xyz" in record.message


def test_predict_into_the_folder_of_the_images_does_not_predict_its_pictures(detector, tmp_path):
    spots(tmp_path / "a.png")
    for _ in range(2):
        assert predict(detector, tmp_path, tmp_path).images == 1
    assert written(tmp_path) == sorted(["a.png", *outputs("a")])


def test_predict_into_an_earlier_run_of_other_images_is_refused_unless_overwritten(detector, tmp_path):
    old, new = (spots(tmp_path / name / f"{name}.png").parent for name in ("old", "new"))
    out = tmp_path / "out"
    predict(detector, old, out)
    predict(detector, old, out)  # the same images: all is written anew
    with pytest.raises(FileExistsError, match=r"old\..* of an earlier run of other images.*--overwrite true"):
        predict(detector, new, out)
    assert written(out) == outputs("old")
    predict(detector, new, out, overwrite=True)
    assert written(out) == outputs("new")


def test_predict_into_a_folder_of_others_files_is_refused(detector, tmp_path):
    labels = tmp_path / "set" / "labels" / "a.tif"
    labels.parent.mkdir(parents=True)
    tifffile.imwrite(labels, np.ones((4, 4), np.uint8))
    spots(tmp_path / "set" / "images" / "a.png")
    with pytest.raises(FileExistsError, match=r"a\.tif\) that predict did not write"):
        predict(detector, tmp_path / "set" / "images", tmp_path / "set", overwrite=True)
    assert tifffile.imread(labels).all()


def test_predict_failed_image_leaves_nothing_of_an_earlier_run(detector, tmp_path):
    first, second = (spots(tmp_path / "in" / f"{name}.png") for name in "ab")
    predict(detector, tmp_path / "in", tmp_path / "out")
    second.write_bytes(b"broken")
    (tmp_path / "out" / "labels" / ".b.999999999-0.polarmask.tif").write_bytes(b"of a killed process")
    predict(detector, tmp_path / "in", tmp_path / "out")
    assert written(tmp_path / "out") == outputs("a")
    assert first.exists()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_predict_every_format_is_tiled_by_its_size(detector, tmp_path, suffix):
    path = spots(tmp_path / f"large{suffix}", count=5, size=(60, 300))
    predict(detector, path, tmp_path / "out", tile=64, margin=16)
    assert max(detector.model.sides) < 300
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 5
    assert len(np.unique(tifffile.imread(tmp_path / "out" / "labels" / "large.tif"))) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_threshold": 1.5}, "score from 0 to 1, got 1.5"),
        ({"score_threshold": float("nan")}, "score from 0 to 1, got nan"),
        ({"tile": 0}, "tile of at least 1, got 0"),
        ({"margin": -1}, "margin of at least 0"),
        ({"batch": 0}, "batch of at least 1"),
    ],
)
def test_predict_numbers_out_of_range_are_refused(detector, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        predict(detector, spots(tmp_path / "a.png"), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def weights(tmp_path):
    config = polarmask.load_config("nuclei", model__channels=32, model__depth=1)
    polarmask.Detector(polarmask.model.build_model(config.model, 1), config, {1: "cell"}).save(
        tmp_path / "w.safetensors"
    )
    return str(tmp_path / "w.safetensors")


def test_predict_exit_status_says_whether_images_failed(weights, tmp_path, capsys):
    good, bad = spots(tmp_path / "in" / "a.png"), tmp_path / "in" / "b.png"
    options = ["--weights", weights, "--out", str(tmp_path / "out")]
    assert main([*options, str(good)]) == 0
    bad.write_bytes(b"broken")
    assert main([*options, str(good), str(bad)]) == 1
    assert "1 of 2 images" in capsys.readouterr().out.splitlines()[-1]
    assert main([*options, "--overwrite", "true", str(bad)]) == 2
    assert written(tmp_path / "out") == ["images.json", "results.json"]


def test_predict_channels_say_which_planes_of_a_stack_are_taken(weights, tmp_path):
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, np.zeros((5, 40, 40), np.uint8), photometric="minisblack")
    options = ["--weights", weights, "--out", str(tmp_path / "out"), str(stack)]
    assert main(options) == 2
    assert main([*options, "--channels", "[0, 4]"]) == 0
    with pytest.raises(ValueError, match=r"data\.channels: expected from one to three channels"):
        main([*options, "--channels", "[0, 1, 2, 3]"])

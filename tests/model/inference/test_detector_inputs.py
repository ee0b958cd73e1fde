"""What a detector takes for an image, the scores that it keeps, and what ``load`` takes for weights."""

import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import polarmask
from polarmask.inference.detector import FORMAT
from polarmask.inference.inputs import as_image
from polarmask.model import build_model

TINY = {"model__channels": 32, "model__depth": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    config = polarmask.load_config("nuclei", **TINY, data__percentiles=None)
    detector = polarmask.Detector(build_model(config.model, 1).eval(), config, {1: "cell"})
    torch.nn.init.zeros_(detector.model.head.classes.bias)  # finds things, if only by chance
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    detector.save(path)
    return path


@pytest.fixture
def detector(weights):
    return polarmask.load(weights)


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
GREY = PIXELS[..., 0]
TENSOR = torch.from_numpy(PIXELS).permute(2, 0, 1)
SAME = {
    "array": PIXELS,
    "float array": PIXELS / 255,
    "half": (PIXELS / 255).astype(np.float16),
    "16 bits": PIXELS.astype(np.uint16) * 257,
    "big-endian": (PIXELS.astype(np.uint16) * 257).astype(">u2"),
    "reversed": np.ascontiguousarray(PIXELS[::-1])[::-1],
    "PIL": Image.fromarray(PIXELS),
    "RGBA": Image.fromarray(np.dstack([PIXELS, GREY])),
    "tensor": TENSOR,
    "16 bits tensor": torch.from_numpy(PIXELS.astype(np.uint16) * 257).permute(2, 0, 1),
    "float tensor": TENSOR / 255,
    "with gradient": (TENSOR / 255).requires_grad_(),
}
SAME_GREY = {
    "(H, W)": GREY,
    "(H, W, 1)": GREY[..., None],
    "bool PIL": Image.fromarray(GREY),
    "tensor (H, W)": torch.from_numpy(GREY),
    "tensor (1, H, W)": torch.from_numpy(GREY)[None].double() / 255,
    "PIL of 16 bits": Image.fromarray(GREY.astype(np.uint16) * 257),
    "palette": Image.fromarray(GREY).convert("P"),
}


@pytest.mark.parametrize("name", [*SAME, *SAME_GREY])
def test_as_image_plain_inputs_are_the_same_image(name):
    want = TENSOR / 255 if name in SAME else torch.from_numpy(GREY).expand(3, -1, -1) / 255
    got = as_image((SAME | SAME_GREY)[name])
    assert (got.dtype, got.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(got, want, rtol=0, atol=4e-4 if name == "half" else 1e-6)


def test_detector_paths_and_lists_and_batches_are_taken(detector, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    want, grey = detector(PIXELS), detector(GREY)
    assert len(want["scores"]) > 0
    lists = [str(tmp_path / "a.png"), tmp_path / "a.tif"], (PIXELS, torch.from_numpy(GREY))
    batches = torch.stack([TENSOR, TENSOR]) / 255, PIXELS[None]
    for results, expected in [*((detector(each), [want, grey]) for each in lists)]:
        for got, one in zip(results, expected, strict=True):
            torch.testing.assert_close(got, one)
    for batch in batches:
        results = detector(batch)
        assert len(results) == len(batch)
        torch.testing.assert_close(results[0], want)
    assert detector([]) == []


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((3, 20, 30), np.uint8), ValueError, "got an array of shape (3, 20, 30); put the channels last"),
        (torch.zeros(20, 30, 3), ValueError, "got a tensor of shape (20, 30, 3); put the channels first"),
        (np.zeros((20, 30, 5), np.uint8), ValueError, "shape (20, 30, 5); choose three channels"),
        (torch.zeros(2, 20, 30), ValueError, "shape (2, 20, 30)"),
        (torch.zeros(1, 1, 3, 20, 30), ValueError, "shape (1, 1, 3, 20, 30)"),
        (torch.zeros(5), ValueError, "shape (5,)"),
        (np.float32(1), TypeError, "expected a path, a PIL image"),
        (torch.zeros(3, 20, 0), ValueError, "at least one pixel, got shape (3, 20, 0)"),
        (np.zeros((0, 30), np.uint8), ValueError, "at least one pixel"),
        (torch.full((3, 8, 8), torch.nan), ValueError, "expected finite values"),
        (np.full((8, 8), np.inf), ValueError, "expected finite values"),
        (np.zeros((8, 8), complex), TypeError, "got an array of complex128"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), TypeError, "got a tensor of torch.complex64"),
        (np.zeros((8, 8), int), TypeError, "got an array of int64"),
        (torch.zeros(8, 8, dtype=torch.bool), TypeError, "got a tensor of torch.bool"),
        (np.array([["a"]]), TypeError, "got an array of <U1"),
        (torch.zeros(3, 8, 8, device="meta"), TypeError, "on meta"),
        ("no such file.png", FileNotFoundError, "got no such file.png, where there is none"),
        (None, TypeError, "got NoneType None"),
        ([[0, 1], [2, 3]], TypeError, "got int 0"),
        (b"bytes", TypeError, "got bytes b'bytes'"),
        ({"image": 1}, TypeError, "got dict"),
    ],
)
def test_detector_what_is_no_image_is_refused_in_one_sentence(detector, image, error, words):
    with pytest.raises(error) as raised:
        detector(image)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_detector_called_with_a_folder_is_refused(detector, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"polarmask\.predict takes folders"):
        detector(tmp_path)


def test_detector_keeps_the_scores_that_the_command_keeps(weights, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    detector = polarmask.load(weights)
    every = detector(PIXELS, score=0)
    assert torch.equal(every["scores"], detector.detect([PIXELS])[0]["scores"])
    threshold = float(every["scores"].median())
    kept = polarmask.Detector(
        detector.model, polarmask.evaluation.with_thresholds(detector, threshold, 0.5).config, detector.categories
    )
    found = kept(PIXELS)
    assert 0 < len(found["scores"]) < len(every["scores"])
    assert (found["scores"] >= threshold).all()
    polarmask.predict(kept, tmp_path / "a.png", tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "polygons" / "a.json").read_text())) == len(found["scores"])
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == len(every["scores"])


@pytest.mark.parametrize(("factor", "said"), [(1, False), (255, True), (-1, True)])
def test_detector_values_beyond_0_to_1_are_said_once(detector, caplog, factor, said):
    image = (TENSOR / 255 * factor).float()
    detector(image), detector(image)
    records = [record for record in caplog.records if "expected values from 0 to 1" in record.message]
    assert len(records) == said


def test_load_what_is_no_weights_is_refused_in_one_sentence(weights, tmp_path):
    def refused(path, error, *words):
        with pytest.raises(error) as raised:
            polarmask.load(path)
        for word in (*words, str(path)):
            assert word in str(raised.value)
        assert "\n" not in str(raised.value)

    content = weights.read_bytes()
    for name, data in {"cut": content[:-9], "head": content[:20], "text": b"hello", "zeros": bytes(100)}.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, ValueError, "not safetensors, or not a whole one")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", ValueError, "got an empty file")
    refused(tmp_path / "missing", FileNotFoundError, "where there is none")
    shutil.copy(weights, tmp_path / "last.safetensors")
    refused(tmp_path, IsADirectoryError, "it holds last.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "released.pth")
    refused(tmp_path / "released.pth", ValueError, "polarmask.convert takes a .pth of the released PolarMask")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    refused(tmp_path / "foreign.safetensors", ValueError, FORMAT, "got None")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: about.pop("categories"), "no 'categories'"),
        (lambda about: about.update(categories=[]), "which are no pairs"),
        (lambda about: about.update(categories=[[1, "a"], [1, "b"]]), "which are no pairs"),
        (lambda about: about.update(categories=5), "configuration and categories"),
        (lambda about: about["config"]["model"].update(num_rays="many"), "num_rays: expected a whole number, got many"),
        (lambda about: about["config"]["model"].update(num_rays=2), "num_rays: expected a whole number of at least 3"),
        (lambda about: about["config"]["model"].update(colour=1), "colour"),
        (lambda about: about["config"]["model"].update(num_rays=36), "head.rays"),
        (lambda about: about.update(config=None), "configuration and categories"),
    ],
)
def test_load_broken_inside_is_refused_in_one_sentence(weights, tmp_path, change, words):
    about = json.loads(read_about(weights))
    change(about)
    path = tmp_path / "changed.safetensors"
    save_file(load_file(weights), path, {"format": FORMAT, "polarmask": json.dumps(about)})
    with pytest.raises(ValueError, match="load: expected") as raised:
        polarmask.load(path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def read_about(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["polarmask"]

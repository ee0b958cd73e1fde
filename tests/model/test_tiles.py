"""Prediction in tiles: what the whole image would give, in bounded memory."""

import json

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import polarmask
from polarmask.data.images import DataError, LargeTiff, read_image
from polarmask.detector import Detector
from polarmask.prediction import find_images, predict
from polarmask.tiles import detect_in_tiles


class Spots(nn.Module):
    """Finds every bright pixel, as a circle of radius 10 with the pixel's brightness for a score."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0))

    def forward(self, images):
        results = []
        for image in images:
            i, j = torch.nonzero(image[0] > 0.5, as_tuple=True)
            centers = torch.stack([j, i], 1) + 0.5
            rays = torch.full((len(centers), 8), 10.0)
            boxes = torch.cat([centers - 10, centers + 10], 1)
            scores = image[0, i, j]
            results.append(
                {"boxes": boxes, "labels": torch.zeros_like(i), "scores": scores, "centers": centers, "rays": rays}
            )
        return results


@pytest.fixture
def spots():
    return Detector(Spots(), polarmask.load_config("shapes"), {1: "spot"})


class Whole:
    def __init__(self, image):
        self.image, self.size = image, tuple(image.shape[1:])

    def __getitem__(self, window):
        return self.image[(slice(None), *window)]


@pytest.mark.parametrize("size", [(64, 64), (100, 333), (257, 130)])
def test_each_object_is_found_once_wherever_the_seams_are(spots, size):
    rng = np.random.default_rng(0)
    image = torch.zeros(3, *size)
    for n, (i, j) in enumerate(rng.permutation([(y, x) for y in range(0, size[0], 16) for x in range(0, size[1], 16)])):
        image[:, i, j] = 0.6 + 0.3 * n / 1000
    want = spots(image)
    for tile, margin in ((16, 16), (48, 16), (64, 32), (1024, 128)):
        got = detect_in_tiles(spots, Whole(image), tile, margin)
        assert set(got) == set(want)
        for name in want:
            torch.testing.assert_close(
                got[name], want[name][torch.argsort(-want["scores"])] if name != "scale" else want[name]
            )


def test_what_two_tiles_find_alike_is_kept_once(spots):
    image = torch.zeros(3, 64, 64)
    image[:, 31, 31], image[:, 32, 32] = 0.9, 0.8  # to the left and to the right of a seam
    got = detect_in_tiles(spots, Whole(image), 32, 16)
    assert got["scores"].tolist() == pytest.approx([0.9])


def test_a_detector_that_resizes_is_refused(spots):
    resized = Detector(spots.model, polarmask.load_config("shapes", data__resize="[64,64]"), spots.categories)
    with pytest.raises(ValueError, match="does not resize"):
        detect_in_tiles(resized, Whole(torch.zeros(3, 64, 64)))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3)])
def test_windows_of_a_tiff_are_those_of_the_whole(tmp_path, compression, shape):
    path = tmp_path / "large.tif"
    tifffile.imwrite(
        path, np.random.default_rng(0).integers(0, 65535, shape).astype(np.uint16), compression=compression
    )
    large, whole = LargeTiff(path), read_image(path)
    assert large.size == (50, 70)
    for window in (
        (slice(0, 50), slice(0, 70)),
        (slice(7, 30), slice(60, 90)),
        (slice(None, None, 3), slice(None, None, 3)),
    ):
        assert torch.equal(large[window], whole[(slice(None), *window)])
    (tmp_path / "broken.tif").write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.tif"):
        LargeTiff(tmp_path / "broken.tif")


def test_predict_in_tiles_writes_what_it_writes_for_a_whole_image(spots, tmp_path):
    image = np.zeros((200, 300), np.uint8)
    image[20:180:20, 20:280:20] = 200
    tifffile.imwrite(tmp_path / "spots.tif", image)
    predict(spots, [tmp_path / "*.tif"], tmp_path / "whole")
    predict(spots, [tmp_path / "spots.tif"], tmp_path / "tiles", tile=64, margin=16)
    labels = [tifffile.imread(tmp_path / out / "labels" / "spots.tif") > 0 for out in ("whole", "tiles")]
    assert labels[0].any()
    np.testing.assert_array_equal(*labels)
    polygons = json.loads((tmp_path / "tiles" / "polygons" / "spots.json").read_text())
    assert len(polygons) == 8 * 13
    assert {entry["category"] for entry in polygons} == {"spot"}
    assert (tmp_path / "tiles" / "overlays" / "spots.png").is_file()


def test_batches_and_patterns(spots, tmp_path):
    for n, size in enumerate([(64, 64), (64, 64), (64, 64), (64, 96), (64, 64)]):
        image = np.zeros(size, np.uint8)
        image[32, 10 + n] = 255
        tifffile.imwrite(tmp_path / f"{n}.tif", image)
    assert [path.name for path in find_images([tmp_path / "[13].tif"])] == ["1.tif", "3.tif"]
    for batch in (1, 2, 9):
        predict(spots, [tmp_path / "*.tif"], tmp_path / "out", batch=batch)
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert [(r["image_id"], r["bbox"][0]) for r in results] == [(n + 1, n + 0.5) for n in range(5)]

"""Prediction in tiles: what the whole image would give, in bounded memory."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image
from torch import nn

import polarmask
from polarmask.data.images import DataError, LargeTiff, image_size, is_turned, read_image, read_labels
from polarmask.data.images.reading import UPRIGHT
from polarmask.evaluation import compare
from polarmask.inference.detector import Detector
from polarmask.inference.prediction import find_images, predict, write_labels
from polarmask.inference.results import coco_results
from polarmask.inference.tiles import detect_in_tiles
from polarmask_ops import outlines_to_masks, polygons_to_labels, polygons_to_masks, rays_to_polygons


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


@pytest.mark.parametrize("size", [(100, 333), (128, 256), (40, 700)])
def test_tiles_see_as_much_at_the_ends_of_an_image_as_inside(spots, size):
    model = spots.config.model
    stride = max(model.strides)
    tile, margin = 2 * stride, stride
    around = margin + math.ceil(model.center_radius) * stride  # so far away may points answer
    seen = []

    class Watched(Whole):
        def __getitem__(self, window):
            rows, columns = window
            assert rows.start % stride == columns.start % stride == 0
            seen.append((rows.stop - rows.start, columns.stop - columns.start))
            return super().__getitem__(window)

    detect_in_tiles(spots, Watched(torch.zeros(3, *size)), tile, margin)
    for axis in (0, 1):
        lengths = [view[axis] for view in seen]
        assert min(lengths) >= min(size[axis], tile + 2 * around)
        assert max(lengths) <= 1.5 * tile + 2 * around + stride


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


@pytest.mark.parametrize("shape", [(53, 71), (53, 71, 3), (3, 53, 71), (5, 53, 71)])
@pytest.mark.parametrize("layout", [{"tile": (16, 32)}, {"rowsperstrip": 7}, {"compression": "zlib"}, {"predictor": 2}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_strips_and_tiles(tmp_path, monkeypatch, shape, layout, byteorder):
    monkeypatch.setattr("polarmask.data.images.tiff.CACHE", 2000)  # some are decoded again
    layout = {**layout, "compression": "zlib"} if "predictor" in layout else layout
    path, kind = tmp_path / "large.tif", {"photometric": "rgb" if shape[-1] == 3 else "minisblack"}
    if shape[0] == 3:
        kind = {"photometric": "rgb", "planarconfig": "separate"}
    if shape[0] == 5:
        kind["metadata"] = {"axes": "CYX"}
    pixels = np.random.default_rng(0).integers(0, 65535, shape).astype(np.uint16)
    tifffile.imwrite(path, pixels, byteorder=byteorder, **kind, **layout)
    channels = [4, 1] if shape[0] == 5 else None
    large, whole = LargeTiff(path, channels), read_image(path, channels)
    assert large.size == (53, 71)
    for window in (
        (slice(None), slice(None)),
        (slice(7, 30), slice(60, 90)),
        (slice(15, 17), slice(31, 33)),
        (slice(3, 50, 20), slice(None, None, 3)),
        (slice(5, 5), slice(0, 3)),
    ):
        assert torch.equal(large[window], whole[(slice(None), *window)])


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32), "compression": "zlib"}, {"compression": "lzw"}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_read_upright(tmp_path, layout, orientation):
    path, pixels = tmp_path / "turned.tif", np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
    if layout.get("compression") == "lzw":
        Image.fromarray(pixels).save(path, compression="tiff_lzw", tiffinfo={ExifTags.Base.Orientation: orientation})
    else:
        tifffile.imwrite(path, pixels, extratags=[(ExifTags.Base.Orientation, "H", 1, orientation, True)], **layout)
    turn = UPRIGHT.get(orientation)
    shown = Image.fromarray(pixels) if turn is None else Image.fromarray(pixels).transpose(turn)
    want = torch.from_numpy(np.array(shown)).float().expand(3, -1, -1) / 255
    assert torch.equal(read_image(path), want)
    np.testing.assert_array_equal(read_labels(path), shown)
    large = LargeTiff(path)
    assert image_size(path) == large.size == tuple(want.shape[1:])
    assert is_turned(path) == (orientation >= 5)
    for window in (
        (slice(None), slice(None)),
        (slice(7, 30), slice(40, 90)),
        (slice(3, 50, 20), slice(None, None, 3)),
        (slice(5, 5), slice(0, 3)),
    ):
        assert torch.equal(large[window], want[(slice(None), *window)])


def test_what_cannot_be_read_in_parts_says_so(tmp_path, monkeypatch):
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, np.zeros((50, 70), np.uint8), compression="zlib", rowsperstrip=50)
    assert LargeTiff(path).size == (50, 70)
    monkeypatch.setattr("polarmask.data.images.tiff.LARGEST_PIECE", 50 * 70 - 1)
    with pytest.raises(DataError, match=r"large\.tif: expected strips or tiles of at most 3499 bytes.* got 3500"):
        LargeTiff(path)


def test_large_tiff_with_pillows_codec_gives_the_same(tmp_path, monkeypatch):
    pixels = np.arange(3500, dtype=np.uint16).reshape(50, 70)
    Image.fromarray(pixels).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    large = LargeTiff(tmp_path / "lzw.tif")
    assert torch.equal(large[7:30, 5:9], read_image(tmp_path / "lzw.tif")[:, 7:30, 5:9])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its peak of memory")
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32), "compression": "zlib"}])
def test_large_tiff_that_is_broken_is_refused(tmp_path, layout):
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8), **layout)
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    with pytest.raises(DataError, match=r"large\.tif"):
        LargeTiff(path)[:, :]
    if layout:
        path.write_bytes(content[:-200] + bytes(200))
        with pytest.raises(DataError, match=r"large\.tif: cannot be read"):
            LargeTiff(path)[:, :]


@pytest.mark.parametrize("size", [(40, 60), (700, 90)])
def test_labels_in_strips_are_those_of_the_whole(tmp_path, size):
    generator = torch.Generator().manual_seed(0)
    corner = torch.tensor([size[1], size[0]])
    centers = torch.rand(300, 2, generator=generator) * (corner + 40) - 20
    polygons = rays_to_polygons(centers, 30 * torch.rand(300, 16, generator=generator))
    polygons[7, 3] = torch.nan
    write_labels(tmp_path / "labels.tif", polygons, size)
    want = polygons_to_labels(polygons, size, order=torch.arange(300).flip(0))
    got = tifffile.imread(tmp_path / "labels.tif")
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want.numpy())
    write_labels(tmp_path / "none.tif", polygons[:0], size)
    assert not tifffile.imread(tmp_path / "none.tif").any()


PREDICT = """
import sys, threading, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_tiles import Spots
import polarmask
from polarmask.inference.detector import Detector
from polarmask.inference.prediction import predict

def memory(field):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024

shared = 0
def watch():
    global shared
    while True:
        shared = max(shared, memory("RssFile"))
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
config = polarmask.load_config("nuclei")
predict(Detector(Spots(), config, {1: "spot"}), sys.argv[1:2], sys.argv[2])
print(memory("VmHWM"), shared)  # getrusage's peak would be that of the process that started this one, if larger
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its peak of memory")
@pytest.mark.parametrize("layout", [{}, {"tile": (256, 256), "compression": "zlib"}])
def test_a_very_large_image_in_bounded_memory(tmp_path, layout):
    """20,000 × 20,000 pixels, 16 bits: as float32 they would be 4.8 GB, the labels alone are 1.6 GB."""
    side, apart = 20_000, 250
    path = tmp_path / "large.tif"
    count = side // apart
    spot = np.zeros((apart, side), np.uint16)
    spot[apart // 2, apart // 2 :: apart] = 60_000
    if layout:
        rows = np.tile(spot, (count, 1))
        tifffile.imwrite(path, rows, **layout)
        del rows
    else:
        tifffile.imwrite(path, (row for _ in range(count) for row in spot), shape=(side, side), dtype=np.uint16)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = subprocess.run(
        [sys.executable, "-c", PREDICT, str(path), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    peak, shared = map(int, found.stdout.split())
    print(f"{layout}: {peak / 1e9:.2f} GB at most, of it pages of files {shared / 1e9:.2f} GB at most")
    assert peak < 4e9
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == count**2
    labels = LargeTiff(tmp_path / "out" / "labels" / "large.tif")
    assert labels.size == (side, side)
    middle = labels._read((slice(apart // 2, None, apart), slice(apart // 2, None, apart)))[..., 0]
    assert sorted(middle.ravel().tolist()) == list(range(1, count**2 + 1))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nuclei_in_tiles_are_those_of_the_whole_image(nuclei, tmp_path):
    config = polarmask.load_config("nuclei", out=tmp_path)
    detector = polarmask.train(config)
    data = nuclei[1]
    sample = data[0]
    truth = outlines_to_masks(sample.outlines, sample.size).flatten(1).float()

    def evaluated(found):
        """AP50, and how often each nucleus is found by what `predict` shows: 0, 1, more."""
        metrics = compare(data, coco_results(found, sample.size, 1, [1]), config.eval).metrics
        masks = polygons_to_masks(found["polygons"][found["scores"] >= 0.3], sample.size).flatten(1).float()
        both = truth @ masks.T
        ious = both / (truth.sum(1)[:, None] + masks.sum(1) - both)
        return metrics["segm/AP50"], (ious > 0.5).sum(1), len(masks)

    want, found, shown = evaluated(detector(sample.image))
    assert want > 0.9
    for tile, margin in ((96, 32), (128, 64)):
        got, again, count = evaluated(detect_in_tiles(detector, Whole(sample.image), tile, margin))
        assert got == pytest.approx(want, abs=0.02)
        assert abs(count - shown) <= 0.1 * shown
        boxes = sample.outlines.boxes()
        seams = [torch.arange(tile, side - tile // 2, tile) for side in reversed(sample.size)]
        on_seam = torch.zeros(len(boxes), dtype=torch.bool)
        for axis, at in enumerate(seams):
            on_seam |= ((boxes[:, axis, None] < at) & (boxes[:, axis + 2, None] > at)).any(1)
        assert on_seam.sum() > 10
        # What NMS at 0.5 leaves twice it leaves in the whole image too. One more: GroupNorm sees other images.
        for wrong in ((lambda times: times == 0), (lambda times: times > 1)):
            assert wrong(again[on_seam]).sum() <= wrong(found[on_seam]).sum() + 1

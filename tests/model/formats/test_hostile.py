"""Files that nobody should have: an error with the file's name, or a logged skip; nothing crashes, hangs or is run."""

import json
import os
import time
import zlib
from contextlib import contextmanager
from itertools import pairwise

import made_sets
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sets import SQUARE, audited, write_coco
from PIL import Image

import polarmask
from polarmask.cli.evaluate import main as evaluate_main
from polarmask.cli.train import main as train_main
from polarmask.config import DataConfig
from polarmask.data import DataError, open_data, readable
from polarmask.data.batches.augment import augment
from polarmask.data.batches.loader import training_loader
from polarmask.data.images import image_size, read_image, read_labels
from polarmask.data.instances import labels_to_rle

# The readers of images, fed with broken copies of good files.

MUTANTS = 150
PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)


def good_files(folder):
    colours = Image.fromarray(np.stack([PIXELS] * 3, 2))
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp"):
        colours.save(folder / name)
    Image.fromarray(PIXELS.astype(np.uint16) * 200).save(folder / "b.png")
    tifffile.imwrite(folder / "c.tif", PIXELS)
    tifffile.imwrite(folder / "d.tif", PIXELS.astype(np.uint16), compression="zlib", tile=(16, 16))
    tifffile.imwrite(folder / "e.tif", np.stack([PIXELS] * 3), imagej=True)
    Image.fromarray(PIXELS).save(folder / "f.tif", compression="tiff_lzw")
    return sorted(folder.iterdir())


def mutants(content, seed):
    """Cut off, with other bytes, with bytes too many."""
    rng = np.random.default_rng(seed)
    for n in range(MUTANTS):
        changed = bytearray(content)
        if n % 3 == 0:
            changed = changed[: rng.integers(len(changed))]
        for _ in range(rng.integers(1, 8) if changed else 0):
            # Headers are what readers believe.
            place = int(rng.integers(min(len(changed), 200 if n % 2 else len(changed))))
            if n % 7 == 1:
                changed[place:place] = rng.bytes(4)
            else:
                changed[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        yield bytes(changed)


@contextmanager
def suppress_named(words):
    """A DataError must hold these words; nothing else may be raised."""
    try:
        yield
    except DataError as error:
        if str(words) not in str(error):
            raise AssertionError(f"{words} is not in: {error}") from error


def survives(read, path):
    """Or says which file it is."""
    with suppress_named(path):
        read(path)


@pytest.mark.parametrize("number", range(9))
def test_read_image_of_broken_files_raises_nothing_else_than_data_errors(tmp_path, number):
    (tmp_path / "good").mkdir()
    file = good_files(tmp_path / "good")[number]
    path = tmp_path / f"broken{file.suffix}"
    began = time.perf_counter()
    for content in mutants(file.read_bytes(), number):
        path.write_bytes(content)
        for read in (read_image, read_labels, image_size):
            survives(read, path)
    assert time.perf_counter() - began < 120  # no reader hangs; a second on a machine that does nothing else


def png(width, height, data):
    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_read_image_of_a_decompression_bomb_is_refused(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, bytes(10**6)))
    tifffile.imwrite(tmp_path / "small.tif", PIXELS)
    content = (tmp_path / "small.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "small.tif") as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for place in places:
        content = content[:place] + (10**6).to_bytes(4, "little") + content[place + 4 :]
    (tmp_path / "bomb.tif").write_bytes(content)
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


def test_read_image_of_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe", "loop", "gone", "zero", "folder"):
        for read in (read_image, read_labels, image_size):
            with pytest.raises(DataError, match=rf"{name}\.png: expected an image file"):
                read(tmp_path / f"{name}.png")
    Image.fromarray(PIXELS).save(tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    assert image_size(tmp_path / "link.png") == PIXELS.shape


# Annotations of every kind of nonsense.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(2**70) | st.just(1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
COORDINATES = st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**40), 2**40), max_size=12)
RLES = st.fixed_dictionaries(
    {"size": st.lists(st.integers(-5, 50), max_size=3) | st.just([40, 60]) | ANYTHING},
    optional={"counts": st.text(max_size=9) | st.lists(st.integers(-9, 3000), max_size=5) | ANYTHING},
)
ANNOTATIONS = st.fixed_dictionaries(
    {},
    optional={
        "id": ANYTHING,
        "image_id": st.just(1) | ANYTHING,
        "category_id": st.just(1) | ANYTHING,
        "segmentation": st.lists(COORDINATES, max_size=3) | RLES | ANYTHING,
        "iscrowd": st.integers(0, 1) | ANYTHING,
        "bbox": COORDINATES | ANYTHING,
    },
)


@settings(max_examples=100)
@given(annotations=st.lists(ANNOTATIONS, max_size=4))
def test_any_annotation_is_read_or_named(tmp_path_factory, annotations):
    root = tmp_path_factory.getbasetemp() / "any"
    file = write_coco(root, [{"segmentation": [SQUARE]}, *annotations])
    result = audited(file)
    assert result.images == 1
    data = open_data(file, config=DataConfig(invalid="skip"))
    sample = data[0]
    assert len(sample.labels) >= 1
    assert np.isfinite(sample.outlines.clip(sample.size).areas().numpy()).all()
    truth = data.ground_truth()
    assert json.dumps(truth, default=str)
    with suppress_named("image.png: annotation"):
        open_data(file)[0]


@settings(max_examples=150)
@given(content=ANYTHING | st.fixed_dictionaries({"images": ANYTHING, "annotations": ANYTHING, "categories": ANYTHING}))
def test_coco_any_json_gives_data_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    with suppress_named(path):
        data = open_data(path, config=DataConfig(invalid="skip"))
        audited(path)
        assert list(readable(data, "skip")) == []


@settings(max_examples=60)
@given(lines=st.lists(st.text(max_size=30) | st.lists(st.floats() | st.integers(-3, 3), max_size=9), max_size=4))
def test_yolo_any_lines_give_data_or_a_data_error(tmp_path_factory, lines):
    root = tmp_path_factory.getbasetemp() / "yolo"
    if not root.exists():
        made_sets.yolo(root)
    text = "\n".join(line if isinstance(line, str) else " ".join(map(str, line)) for line in lines)
    (root / "labels" / "train" / "0.txt").write_bytes(text.encode(errors="surrogatepass"))
    result = audited(root)
    assert result.images == made_sets.COUNT
    survives(lambda _: open_data(root)[0], root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "names: 3\ntrain: images",
        "names: {a: b}\ntrain: images/train",
        "names: [a]\ntrain: {x: 1}",
        "names: [a]\ntrain: 5",
        "names: [a]\ntrain: nowhere",
        "names: [a]\npath: [x]\ntrain: images/train",
        "names: [a\ntrain",
        "names: !!python/object/apply:os.system ['touch executed']\ntrain: images/train",
        "\n".join(["a: &a [x, x]", *(f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in pairwise("abcdefghijklmn"))])
        + "\nnames: [*n]\ntrain: images/train",
    ],
)
def test_yolo_hostile_yaml_is_refused(tmp_path, monkeypatch, text):
    root = made_sets.yolo(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError):
        open_data(root)
    assert not (tmp_path / "executed").exists()


def test_lists_do_not_lead_out_of_their_folder(tmp_path):
    root = made_sets.yolo(tmp_path / "set")
    Image.fromarray(PIXELS).save(tmp_path / "secret.png")
    (root / "data.yaml").write_text("names: [a, b]\ntrain: train.txt")
    (root / "train.txt").write_text("./images/train/0.jpg\n../secret.png\n")
    with pytest.raises(DataError, match=r"expected the name of a file in this folder, got '\.\./secret\.png'"):
        open_data(root)
    (root / "train.txt").write_text("./images/train/0.jpg\n")
    assert len(open_data(root)[0].labels) == 3
    voc = made_sets.voc(tmp_path / "voc")
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("../../secret\n")
    with pytest.raises(DataError, match="expected the name of a file in this folder"):
        open_data(voc)[0]


# Much of it.


def test_polygons_of_100000_vertices(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    ring = np.stack([30 + 15 * np.cos(angle), 20 + 15 * np.sin(angle)], 1).ravel().tolist()
    file = write_coco(tmp_path / "set", [{"segmentation": [ring]}])
    assert float(open_data(file)[0].outlines.areas()) == pytest.approx(np.pi * 15**2, rel=1e-3)
    result = audited(file)
    assert not result.problems
    assert result.total.means()[-1] > 0.95


def test_images_of_60000_instances(tmp_path):
    """3 × 3 pixels each; values far above 65,535 survive."""
    side = 980
    cells = np.arange(245 * 245, dtype=np.uint32).reshape(245, 245) + 4_000_000_000
    labels = np.zeros((side, side), np.uint32)
    for i in range(3):
        for j in range(3):
            labels[i::4, j::4] = cells
    for name, pixels in (("images", (labels > 0).astype(np.uint8)), ("masks", labels)):
        (tmp_path / "train" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "train" / name / "a.tif", pixels)
    data = open_data(tmp_path)
    assert data.instances(0, (side, side)).ids[-1] == 4_000_000_000 + 245 * 245 - 1
    sample = data[0]
    assert len(sample.labels) == 245 * 245
    assert torch.equal(sample.outlines.areas(), torch.full((245 * 245,), 9.0))
    changed = augment(sample, DataConfig(crop=100, flip=1), np.random.default_rng(0))
    assert 600 < len(changed.labels) < 760
    result = audited(tmp_path)
    assert result.total.instances == 245 * 245
    assert result.total.means()[0] > 0.9


def test_huge_ids(tmp_path):
    huge = [2**62, 2**63, 10**30, -(10**30), "text"]
    for number in huge:
        images = [{"id": number, "file_name": "image.png", "height": 40, "width": 60}]
        file = write_coco(
            tmp_path / "set", [{"segmentation": [SQUARE], "image_id": number, "id": number}], images=images
        )
        data = open_data(file)
        assert len(data[0].labels) == 1
        assert data[0].image_id == number


# Training goes on, as the option says.


@pytest.fixture
def half_broken(tmp_path):
    """Two good images, a truncated one, a missing one, and a broken annotation."""
    names = ["a.png", "b.png", "cut.png", "missing.png"]
    images = [{"id": n, "file_name": name, "height": 48, "width": 48} for n, name in enumerate(names, 1)]
    annotations = [{"segmentation": [SQUARE], "image_id": n} for n in (1, 2, 3, 4)]
    annotations.append({"segmentation": [[1, 2, 3]], "image_id": 2})
    root = tmp_path / "set"
    file = write_coco(root, annotations, images=images)
    for name in names[:3]:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)).save(root / name)
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:3000])
    return file


def batches(file, **options):
    config = polarmask.load_config("shapes", data__dataset="files", data__root=file, optim__batch_size=2, **options)
    loader, _ = training_loader(open_data(file, config=config.data), config)
    return [target for batch in loader for target in batch[1]]


def test_skipping(half_broken, caplog):
    targets = batches(half_broken, data__invalid="skip")
    assert len(targets) == 4
    assert all(len(target["labels"]) == 1 for target in targets)
    for words in (
        "cut.png: cannot be read",
        "missing.png: expected an image file",
        "b.png: annotation 4: expected x, y",
    ):
        assert words in caplog.text


def test_raising(half_broken):
    with pytest.raises(DataError, match=r"cut\.png|missing\.png|b\.png: annotation 4"):
        batches(half_broken)


def test_images_without_instances_are_replaced(tmp_path):
    images = [{"id": n, "file_name": "image.png", "height": 40, "width": 60} for n in range(4)]
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE], "image_id": 2}], images=images)
    assert sorted(len(target["labels"]) for target in batches(file)) == [0, 0, 0, 1]
    assert [len(target["labels"]) for target in batches(file, data__keep_empty="false")] == [1] * 4


def test_train_and_evaluate_skip_broken_files_and_go_on(half_broken, tmp_path):
    out = tmp_path / "out"
    small = ["--model.channels", "32", "--model.depth", "1", "--optim.batch_size", "2", "--optim.epochs", "1"]
    files = ["--data.dataset", "files", "--data.root", str(half_broken), "--data.test", half_broken.name]
    options = [*files, "--data.invalid", "skip"]
    train_main(["--config", "shapes", *small, *options, "--out", str(out)])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["instances"] == 4  # of broken images too: they count as missed
    evaluate_main(["--weights", str(out / "last.safetensors")])
    with pytest.raises(DataError, match=r"b\.png: annotation 4"):
        evaluate_main(["--weights", str(out / "last.safetensors"), "--data.invalid", "raise"])


def test_labels_to_rle_of_any_content_covers_every_label():
    for seed in range(20):
        labels = np.random.default_rng(seed).integers(0, 2**40, (7, 5))
        values, rle = labels_to_rle(labels)
        assert len(values) == len(rle)
        assert int(rle.areas().sum()) == int((labels > 0).sum())

"""The same objects in every format: what is read, what is made of it, and that it trains."""

import json

import made_sets
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from polarmask.cli.train import main as train_main
from polarmask.config import DataConfig
from polarmask.data import Coco, DataError, LabelImages, Voc, Yolo, open_data
from polarmask.data.formats.json_index import entries
from polarmask.data.images import image_size, inside, is_turned, read_image, read_labels
from polarmask_ops import outlines_to_labels, outlines_to_masks, outlines_to_rle

CLASSES = {"coco": Coco, "yolo": Yolo, "stardist": LabelImages, "cellpose": LabelImages, "voc": Voc}


@pytest.fixture(scope="module", params=made_sets.MAKERS)
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "set"
    return request.param, made_sets.MAKERS[request.param](root)


def test_formats_are_found_by_the_path(made):
    kind, root = made
    data = open_data(root)
    assert type(data) is CLASSES[kind.split()[0]]
    assert len(data) == made_sets.COUNT


def test_what_is_read_is_what_was_written(made):
    kind, root = made
    data = open_data(root)
    for n in range(made_sets.COUNT):
        labels, classes = made_sets.scene(n)
        sample = data[n]
        assert sample.size == image_size(data.path(n)) == made_sets.SIZE
        boxes = [list(map(float, made_sets.rectangle(labels, value))) for value in classes]
        order = sample.outlines.boxes()[:, 0].argsort() if boxes else slice(None)
        assert sample.outlines.boxes()[order].tolist() == sorted(boxes)
        assert not sample.ignore.any()
        if kind not in ("stardist", "cellpose"):
            names = [list(data.categories.values())[label] for label in sample.labels[order].tolist()]
            assert names == ["ab"[label] for _, label in sorted(zip(boxes, classes.values(), strict=True))]
        if boxes:  # objects are bright
            assert sample.image[0][labels > 0].min() > 2 * sample.image[0][labels == 0].median()


def test_files_of_all_formats_give_the_same_masks(made):
    """Format → Outlines → RLE and label image: the very pixels."""
    _, root = made
    data = open_data(root)
    for n in range(made_sets.COUNT):
        labels, classes = made_sets.scene(n)
        found = data.instances(n, made_sets.SIZE)
        outlines, owner = found.outlines("all")
        assert owner.tolist() == list(range(len(classes)))
        masks = outlines_to_rle(outlines, made_sets.SIZE).to_masks()
        assert sorted(map(bytes, masks.numpy())) == sorted(bytes(labels == value) for value in classes)
        drawn = outlines_to_labels(outlines, made_sets.SIZE)
        assert torch.equal(drawn > 0, torch.from_numpy(labels > 0))


def test_label_images_large_values_stay(tmp_path):
    data = open_data(made_sets.stardist(tmp_path / "set"))
    assert data.instances(1, made_sets.SIZE).ids == [70_001, 140_001]


def test_ground_truth_holds_the_masks(made):
    _, root = made
    truth = open_data(root).ground_truth()
    assert len(truth["images"]) == made_sets.COUNT
    count = sum(len(made_sets.scene(n)[1]) for n in range(made_sets.COUNT))
    assert len({entry["id"] for entry in truth["annotations"]}) == len(truth["annotations"]) == count
    for entry in truth["annotations"]:
        assert entry["iscrowd"] == 0
        assert entry["area"] == entry["bbox"][2] * entry["bbox"][3]


def test_each_format_trains_and_evaluates(made, tmp_path):
    _, root = made
    small = ["--model.channels", "32", "--model.depth", "1", "--optim.batch_size", "3", "--optim.epochs", "2"]
    files = ["--data.dataset", "files", "--data.root", str(root), "--data.test", "train", "--data.repeat", "2"]
    if (root / "data.yaml").exists() or (root / "train").exists() or (root / "annotations").exists():
        files += ["--data.train", "train"]
    train_main(["--config", "shapes", *small, *files, "--out", str(tmp_path)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["instances"] == sum(len(made_sets.scene(n)[1]) for n in range(made_sets.COUNT))
    assert 0 <= metrics["segm/AP"] <= 1


def test_open_data_without_data_names_what_it_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"expected a COCO JSON file, a YOLO data\.yaml.*one of train2017, train"):
        open_data(tmp_path)


# Parts and crowds.

RING = np.pad(np.pad(np.zeros((3, 3), bool), 2, constant_values=True), [(1, 20), (1, 40)])  # a hole, and
RING[15:17, 20:40] = True  # another part


def several(tmp_path, **options):
    """Two parts as polygons, two parts with a hole as RLE, a crowd of two parts; in a single file."""
    size = list(RING.shape)
    rle = coco_mask.encode(np.asfortranarray(RING, np.uint8))
    rle = {"size": size, "counts": rle["counts"].decode()}
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 5, 24, 5, 24, 9, 20, 9]]
    entries = [
        {"id": n, "image_id": 5, "category_id": 1, "segmentation": segmentation, "iscrowd": crowd}
        for n, (segmentation, crowd) in enumerate([(parts, 0), (rle, 0), (rle, 1)])
    ]
    Image.new("L", size[::-1]).save(tmp_path / "image.png")
    images = [{"id": 5, "file_name": "image.png", "height": size[0], "width": size[1]}]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "some.json").write_text(json.dumps(content))
    return open_data(tmp_path / "some.json", config=DataConfig(**options))


@pytest.mark.parametrize(
    ("parts", "areas"),
    [("largest", [64, 49, 80]), ("all", [80, 80, 80]), ("split", [64, 16, 49, 40, 80])],
)
def test_parts(tmp_path, parts, areas):
    sample = several(tmp_path, parts=parts)[0]
    assert sample.outlines.areas().tolist() == areas
    assert sample.labels.tolist() == [0] * len(areas)
    assert sample.ignore.tolist() == [False] * (len(areas) - 1) + [True]


def test_evaluation_sees_all_parts_whatever_is_trained_on(tmp_path):
    truth = several(tmp_path, parts="split").ground_truth()
    assert [entry["area"] for entry in truth["annotations"]] == [80, 80, 80]
    assert [entry["iscrowd"] for entry in truth["annotations"]] == [0, 0, 1]


def test_files_crowds_become_background_if_asked(tmp_path):
    assert several(tmp_path, crowd="background")[0].ignore.tolist() == [False, False]


def test_void_is_neither_object_nor_background(tmp_path):
    root = made_sets.voc(tmp_path / "set")
    folders = [root / name for name in ("SegmentationObject", "SegmentationClass")]
    for folder in folders:
        pixels = np.array(Image.open(folder / "0.png"))
        pixels[6:10, 4:20] = 255  # the upper third of the first object, of class a
        pixels[44:48, :4] = 255  # and beside all
        Image.fromarray(pixels).save(folder / "0.png")
    data = open_data(root)
    sample = data[0]
    assert float(sample.outlines[0].areas()) == 16 * 8
    # Of either class that the image shows, for COCO compares class by class.
    assert sample.labels[sample.ignore].tolist() == [0, 1]
    for void in outlines_to_masks(sample.outlines[sample.ignore], made_sets.SIZE):
        assert void.sum() == 4 * 16 + 4 * 4
        assert void[6:10, 4:20].all()
        assert void[44:, :4].all()
    truth = [entry for entry in data.ground_truth()["annotations"] if entry["iscrowd"]]
    assert [(entry["image_id"], entry["category_id"], entry["area"]) for entry in truth] == [(1, 1, 80), (1, 2, 80)]
    assert not open_data(root, config=DataConfig(crowd="background"))[0].ignore.any()


# Images.


@pytest.mark.parametrize(
    ("pixels", "channels", "want"),
    [
        (np.full((4, 5), 128, np.uint8), None, [128 / 255] * 3),
        (np.full((4, 5), 513, np.uint16), None, [513 / 65535] * 3),
        (np.full((4, 5), 0.25, np.float32), None, [0.25] * 3),
        (np.full((4, 5), 7, np.uint32), None, [7 / (2**32 - 1)] * 3),
        (np.arange(1, 4, dtype=np.uint8) * np.ones((4, 5, 3), np.uint8), None, [1 / 255, 2 / 255, 3 / 255]),
        (np.arange(1, 6, dtype=np.uint16)[:, None, None] * np.ones((5, 6, 7), np.uint16), [0, 1, 2], [1, 2, 3]),
        (np.arange(1, 6, dtype=np.uint16)[:, None, None] * np.ones((5, 6, 7), np.uint16), [4, 1], [5, 2, 0]),
        (np.arange(1, 6, dtype=np.uint16)[:, None, None] * np.ones((5, 6, 7), np.uint16), [3], [4, 4, 4]),
        (np.arange(1, 3, dtype=np.uint16)[:, None, None] * np.ones((2, 6, 7), np.uint16), None, [1, 2, 0]),
    ],
)
def test_images_of_microscopes(tmp_path, pixels, channels, want):
    path = tmp_path / "image.tif"
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        tifffile.imwrite(path, pixels, metadata={"axes": "CYX"}, photometric="minisblack")
        want = [value / 65535 for value in want]
    else:
        tifffile.imwrite(path, pixels)
    image = read_image(path, channels)
    assert image.shape[0] == 3
    assert image.dtype == torch.float32
    torch.testing.assert_close(image[:, 0, 0], torch.tensor(want, dtype=torch.float32))
    assert image_size(path) == tuple(image.shape[1:])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_modes_of_pillow(tmp_path, mode):
    image = Image.fromarray(np.full((3, 4), 255, np.uint16)) if mode == "I;16" else Image.new("L", (4, 3), 255)
    suffix = "jpg" if mode == "CMYK" else "png"
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / f"image.{suffix}")
    read = read_image(tmp_path / f"image.{suffix}")
    assert read.shape == (3, 3, 4)
    assert read.mean() == pytest.approx(255 / 65535 if mode == "I;16" else 1, abs=0.01)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_with_orientation_is_upright(tmp_path, orientation, suffix):
    """As orientation says, the first row and column of the file are these sides of the scene."""
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    scene = np.zeros((16, 32, 3), np.uint8)
    scene[:8, :8] = 250  # bright at the upper left
    stored = scene.transpose(1, 0, 2) if row in ("left", "right") else scene
    stored = stored[::-1] if row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column in ("bottom", "right") else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    image = read_image(path)
    assert image_size(path) == tuple(image.shape[1:]) == (16, 32)
    assert (image[0] - torch.from_numpy(scene[..., 0] / 255)).abs().max() < 0.1
    assert is_turned(path) == (orientation >= 5)


@pytest.mark.parametrize("value", [0, 9, 700])
def test_read_image_with_an_unknown_orientation_ignores_it(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.new("RGB", (4, 3)).save(tmp_path / "image.jpg", exif=exif)
    assert image_size(tmp_path / "image.jpg") == tuple(read_image(tmp_path / "image.jpg").shape[1:]) == (3, 4)
    Image.new("RGB", (4, 3)).save(tmp_path / "broken.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(tmp_path / "broken.jpg").shape == (3, 3, 4)


def test_annotations_of_what_is_not_upright_are_named(tmp_path):
    file = made_sets.write_coco(tmp_path / "set", [{"segmentation": [made_sets.SQUARE]}], (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "set" / "image.png", exif=exif)
    assert open_data(file)[0].size == (60, 40)
    made_sets.write_coco(tmp_path / "set", [{"segmentation": [made_sets.SQUARE]}], (40, 60))
    Image.new("RGB", (60, 40)).save(tmp_path / "set" / "image.png", exif=exif)
    with pytest.raises(
        DataError, match=r"image\.png: expected height and width \(60, 40\).*without its orientation tag"
    ):
        open_data(file)[0]


def test_read_labels_of_a_tiff_with_pillows_codec_gives_its_values(tmp_path):
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert read_labels(tmp_path / "lzw.tif").tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32, np.int64])
def test_read_labels_of_any_type_gives_the_same(tmp_path, dtype):
    labels = np.array([[0, 1], [2, 250]], dtype)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    assert read_labels(tmp_path / "labels.tif").tolist() == labels.tolist()


@pytest.mark.parametrize("labels", [[[0, -1.5]], [[0, 0.5]], [[0, float("nan")]]])
def test_read_labels_of_other_values_are_refused(tmp_path, labels):
    tifffile.imwrite(tmp_path / "labels.tif", np.array(labels, np.float32))
    with pytest.raises(DataError, match=r"labels\.tif: expected labels that are integers, got float32"):
        read_labels(tmp_path / "labels.tif")


@pytest.mark.parametrize(("axes", "shape"), [("ZYX", (9, 20, 30)), ("TYX", (3, 20, 30)), ("QYX", (40, 50, 60))])
def test_read_image_of_a_stack_is_refused(tmp_path, axes, shape):
    tifffile.imwrite(
        tmp_path / "stack.tif", np.zeros(shape, np.uint8), metadata={"axes": axes}, photometric="minisblack"
    )
    with pytest.raises(DataError, match=r"stack\.tif: expected one image, got"):
        read_image(tmp_path / "stack.tif")


def test_read_image_without_such_channels_is_refused(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "image.png")
    with pytest.raises(DataError, match=r"image\.png: expected up to 3 channels from 0 to 2, got \[3\]"):
        read_image(tmp_path / "image.png", [3])


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "b/../../a.png", "..\\a.png", "C:\\a.png", "", None, "a\0b"]
)
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(DataError, match="expected the name of a file"):
        inside(tmp_path, name)
    assert inside(tmp_path, "b/c.png") == tmp_path / "b" / "c.png"


# Large JSON.


@pytest.mark.parametrize("indent", [None, 2])
def test_entries_of_json_are_found_without_holding_it(tmp_path, monkeypatch, indent):
    monkeypatch.setattr("polarmask.data.formats.json_index.PIECE", 7)
    content = {"info": {"a": "ä€😀"}, "n": 12345678901, "images": [{"ä": [1, 2]}, 3, "x]"], "empty": [], "last": None}
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8-sig")
    raw = path.read_bytes()
    found = list(entries(path))
    want = [(key, each) for key, value in content.items() for each in (value if isinstance(value, list) else [value])]
    assert [(entry.key, entry.value) for entry in found] == want
    assert [json.loads(raw[entry.begin : entry.end]) for entry in found] == [value for _, value in want]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": [1, 2', '{"a" 1}', '{"a": [1 2]}', "[" * 10**5, '{"a": ' + "[" * 10**5]
)
def test_broken_json(tmp_path, text):
    (tmp_path / "some.json").write_text(text)
    with pytest.raises(DataError, match=r"some\.json: cannot be read as JSON"):
        list(entries(tmp_path / "some.json"))

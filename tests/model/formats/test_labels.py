"""Label images: which image each belongs to, and what their values mean."""

import made_sets
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from polarmask.config import DataConfig
from polarmask.data import DataError, LabelImages, Voc, open_data
from polarmask.data.formats.label_parts import parts_of, seem_interpolated
from polarmask.data.images import read_labels
from polarmask.data.instances import EIGHT, labels_to_rle

SIZE = (24, 36)


def labels(dtype=np.uint16):
    """Two rectangles, 1 and 2."""
    values = np.zeros(SIZE, dtype)
    values[4:14, 4:14] = 1
    values[8:20, 18:30] = 2
    return values


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def picture(path):
    write(path, np.full(SIZE, 100, np.uint8))


def pair(root, image="a.png", label="a_masks.png", pixels=None):
    picture(root / "train" / image)
    write(root / "train" / label, labels() if pixels is None else pixels)
    return root


def kinds(data):
    return [kind for kind, _ in data.problems()]


# Pairs.


@pytest.mark.parametrize(
    ("image", "label"),
    [
        *(("a.png", f"a{ending}.tif") for ending in ("_masks", "_cp_masks", "_mask", "_label", "_labels", "_MASKS")),
        ("a_img.png", "a_cp_masks.png"),
        ("a_img.TIF", "a_masks.npy"),
        ("images/a.png", "masks/a_mask.png"),
        ("images/a.png", "masks/a.ome.tif"),
        ("images/a.ome.tif", "masks/a.PNG"),
        ("images/a_mask.png", "masks/a_mask.png"),
        ("images/a_img.png", "labels/a_labels.tif"),
        ("Images/a.png", "Masks/a.npy"),
        ("images/day1/a.png", "masks/day1/a.png"),
        ("day1/images/a.png", "day1/masks/a.png"),
        ("day1/a.png", "day1/a_masks.png"),
        ("images/a.png", "images/a_masks.png"),
        ("PNGImages/a.png", "PedMasks/a_mask.png"),
    ],
)
def test_label_images_of_every_layout_are_paired(tmp_path, image, label):
    data = open_data(pair(tmp_path, image, label), ["train"])
    assert isinstance(data, LabelImages)
    assert [data.path(n).relative_to(tmp_path / "train").as_posix() for n in range(len(data))] == [image]
    assert data[0].outlines.areas().tolist() == [100, 144]
    assert list(data.problems()) == []


def test_label_images_in_a_folder_for_each_split_below_images_and_masks(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / f"{split}.png")
        write(tmp_path / "masks" / split / f"{split}.png", labels())
        data = open_data(tmp_path, [split])
        assert [data.name(n) for n in range(len(data))] == [f"images/{split}/{split}.png"]


def test_label_images_of_one_name_in_two_folders_are_kept_apart(tmp_path):
    for day in ("day1", "day2"):
        picture(tmp_path / "train" / day / "a.png")
        write(tmp_path / "train" / day / "a_masks.png", labels())
    data = open_data(tmp_path)
    assert [data.name(n) for n in range(len(data))] == ["train/day1/a.png", "train/day2/a.png"]


def test_folders_of_other_splits_are_no_part_of_the_root(tmp_path):
    for folder in (".", "val", "test"):
        picture(tmp_path / folder / "a.png")
        write(tmp_path / folder / "a_masks.png", labels())
    assert [path for path, _ in open_data(tmp_path).pairs] == [tmp_path / "a.png"]
    (tmp_path / "a_masks.png").unlink()
    with pytest.raises(DataError, match="expected a COCO JSON file"):
        open_data(tmp_path)


def test_files_without_a_counterpart_are_counted_and_named(tmp_path):
    pair(tmp_path)
    picture(tmp_path / "train" / "b.png")
    picture(tmp_path / "train" / "d.png")
    np.save(tmp_path / "train" / "d_seg.npy", {"masks": labels()}, allow_pickle=True)
    write(tmp_path / "train" / "c_masks.png", labels())
    (tmp_path / "train" / "e.nd2").touch()
    picture(tmp_path / "train" / "._f.png")
    data = open_data(tmp_path)
    assert len(data) == 1
    found = list(data.problems())
    assert [kind for kind, _ in found] == ["no label image", "no label image", "no image of labels", "not read"]
    for (_, sentence), name in zip(found, ("b.png", "d.png", "c_masks.png", "e.nd2"), strict=True):
        assert name in sentence
    assert "Cellpose" in found[1][1]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png"], ["a_masks.png", "a_masks.tif"]),
        (["a.png"], ["a_masks.png", "a_cp_masks.png"]),
        (["a.png", "a.tif"], ["a_masks.png"]),
        (["a.png", "a_img.png"], ["a_masks.png"]),
        (["images/a.png"], ["masks/a.png", "masks/a_mask.png"]),
    ],
)
def test_label_images_ambiguous_pairs_are_refused(tmp_path, images, masks):
    for image in images:
        picture(tmp_path / "train" / image)
    for label in masks:
        write(tmp_path / "train" / label, labels())
    with pytest.raises(DataError, match="expected one label image for an image, got"):
        open_data(tmp_path)


def test_no_pair_is_an_error_that_names_files(tmp_path):
    pair(tmp_path, "images/a.png", "masks/b.png")
    with pytest.raises(
        DataError, match=r"train: .*no such pair among 1 images \(a\.png\) and 1 label images \(b\.png\)"
    ):
        open_data(tmp_path)


def test_cellpose_arrays_alone_are_an_error_that_says_what_to_do(tmp_path):
    picture(tmp_path / "train" / "a.png")
    np.save(tmp_path / "train" / "a_seg.npy", {"masks": labels()}, allow_pickle=True)
    with pytest.raises(DataError, match=r"NAME_seg\.npy is not read.*save the masks as PNG or TIFF"):
        open_data(tmp_path)


def test_masks_of_objects_in_folders_of_their_own_are_read(tmp_path):
    for name in ("id1", "id2"):
        picture(tmp_path / name / "images" / f"{name}.png")
        for value in (1, 2):
            write(tmp_path / name / "masks" / f"m{value}.png", (labels() == value).astype(np.uint8) * 255)
    data = open_data(tmp_path)
    assert len(data) == 2
    assert sorted(data[0].outlines.areas().tolist()) == [100, 144]
    assert data.instances(0, SIZE).ids == ["m1.png", "m2.png"]
    write(tmp_path / "id1" / "masks" / "m1.png", labels(np.uint8))
    with pytest.raises(DataError, match=r"m1\.png: expected a mask of one object.* got 2 values"):
        data[0]


# Values.


def test_labels_below_zero_are_ignored_regions(tmp_path):
    values = labels(np.int16)
    values[values == 2] = -1
    data = open_data(pair(tmp_path, label="a_masks.tif", pixels=values), config=DataConfig(crowd="background"))
    sample = data[0]
    assert sample.ignore.tolist() == [True, False]
    assert sample.outlines.areas().tolist() == [144, 100]
    assert [entry["iscrowd"] for entry in data.ground_truth()["annotations"]] == [1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint32])
def test_labels_of_any_type_and_number(tmp_path, dtype):
    values = labels(dtype) * 70_000
    data = open_data(pair(tmp_path, label="a_masks.tif", pixels=values))
    assert data.instances(0, SIZE).ids == [70_000, 140_000]


def test_read_labels_of_a_boolean_array_gives_one_instance(tmp_path):
    data = open_data(pair(tmp_path, label="a_masks.npy", pixels=labels() > 0))
    assert data.instances(0, SIZE).ids == [1]


def test_arrays_with_objects_are_not_unpickled(tmp_path):
    pair(tmp_path)
    np.save(tmp_path / "train" / "b_masks.npy", {"masks": labels()}, allow_pickle=True)
    with pytest.raises(DataError, match=r"b_masks\.npy: expected an array of numbers, got Python objects"):
        read_labels(tmp_path / "train" / "b_masks.npy")


def test_colour_label_images_are_refused(tmp_path):
    colours = np.repeat(labels(np.uint8)[..., None], 3, 2)
    for name in ("a_masks.png", "a_masks.tif"):
        write(tmp_path / name, colours)
        with pytest.raises(DataError, match=r"expected a label image .*where the pixels of an object have a number"):
            read_labels(tmp_path / name)


def test_labels_stored_as_jpeg_are_refused(tmp_path):
    for name, suffix in (("a_masks.jpg", "jpeg"), ("b_masks.png", "jpeg")):
        Image.fromarray(labels(np.uint8) * 100).save(tmp_path / name, format=suffix)
        with pytest.raises(DataError, match=r"_masks\..*got JPEG, which changes values"):
            read_labels(tmp_path / name)


def test_a_foreground_mask_of_several_parts_names_the_option(tmp_path):
    pair(tmp_path, pixels=(labels(np.uint8) > 0).astype(np.uint8) * 255)
    data = open_data(tmp_path)
    ((kind, sentence),) = data.remarks(0, data.instances(0, SIZE))
    assert kind == "several parts"
    assert "its only value, 255, has 2 parts and is trained on as one object, by its largest part" in sentence
    assert "data.parts=split" in sentence
    data = open_data(tmp_path, config=DataConfig(parts="split"))
    assert list(data.remarks(0, data.instances(0, SIZE))) == []
    assert len(data[0].labels) == 2


def test_values_of_several_parts_are_counted(tmp_path):
    values = labels()
    values[22, 2:5] = 2
    data = open_data(pair(tmp_path, pixels=values))
    ((_, sentence),) = data.remarks(0, data.instances(0, SIZE))
    assert "1 of 2 values have several parts, such as 2;" in sentence


def circles(count, side=40):
    """Discs, and a ring: a value with a hole has one part."""
    rows, columns = np.mgrid[: side * count, :side]
    values = np.zeros(rows.shape, np.uint16)
    for n in range(count):
        distance = np.hypot(rows - side * (n + 0.5), columns - side / 2)
        values[(distance < 15) & ((n > 0) | (distance > 5))] = 40 * (n + 1)
    return values


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("zoom", [0.5, 1.7, 3.0])
def test_label_images_interpolated_values_are_reported(order, zoom):
    values = circles(5)
    assert not seem_interpolated(parts_of(labels_to_rle(values)[1]))
    resized = ndimage.zoom(values.astype(np.float32), zoom, order=order).round().clip(0).astype(np.int64)
    assert seem_interpolated(parts_of(labels_to_rle(resized)[1]))
    nearest = ndimage.zoom(values, zoom, order=0).astype(np.int64)
    assert not seem_interpolated(parts_of(labels_to_rle(nearest)[1]))


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 12, 2))
    values = rng.integers(0, 4, shape)
    ids, masks = labels_to_rle(values)
    want = [ndimage.label(values == value, EIGHT)[1] for value in ids]
    assert parts_of(masks).count.tolist() == want
    whole = labels_to_rle(np.ones(shape, np.int64))[1]
    assert parts_of(whole).count.tolist() == [1]


def test_parts_of_no_masks():
    parts = parts_of(labels_to_rle(np.zeros((4, 5), np.int64))[1])
    assert len(parts.count) == 0
    assert not seem_interpolated(parts)


# Pascal VOC.


@pytest.mark.parametrize(
    "content",
    [
        "0\n1\n2\n",
        "\ufeff0\r\n\r\n1\r\n2\r\n\r\n",
        "0.jpg\n1.jpg\n  2.jpg",
        "0 1\n1 -1\n2  0\n",
    ],
)
def test_voc_lists_as_other_tools_write_them(tmp_path, content):
    root = made_sets.voc(tmp_path / "set")
    (root / "ImageSets/Segmentation/train.txt").write_bytes(content.encode())
    data = open_data(root)
    assert isinstance(data, Voc)
    assert [data.path(n).name for n in range(len(data))] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(data[0].labels) == 3


@pytest.mark.parametrize("folder", ["SegmentationObject", "SegmentationClass", "JPEGImages"])
def test_voc_without_one_of_its_folders_is_refused(tmp_path, folder):
    root = made_sets.voc(tmp_path / "set")
    (root / folder).rename(root / "other")
    with pytest.raises(DataError, match=f"expected folders JPEGImages, SegmentationObject, .* found no {folder}"):
        open_data(root)


def test_voc_with_two_images_of_a_listed_name_is_refused(tmp_path):
    root = made_sets.voc(tmp_path / "set")
    picture(root / "JPEGImages" / "1.png")
    with pytest.raises(DataError, match=r"JPEGImages: expected one image called 1, got \.jpg, \.png"):
        open_data(root)


def test_voc_names_listed_images_that_are_missing(tmp_path):
    root = made_sets.voc(tmp_path / "set")
    (root / "JPEGImages" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg: expected an image file, found nothing"):
        open_data(root)[1]
    (root / "ImageSets/Segmentation/train.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"train\.txt: expected names of images"):
        open_data(root)

"""YOLO: where its files lie, and what its lines mean."""

import codecs

import numpy as np
import pytest
from PIL import Image

from polarmask.config import DataConfig
from polarmask.data import DataError, Yolo, open_data
from polarmask.data.check import check_data

YAML = "path: .\ntrain: images/train\nnames: [cat, dog]\n"
LINE = "1 0.1 0.2 0.6 0.2 0.6 0.7 0.1 0.7\n"  # 30 × 20 pixels


def write(root, images=("images/train/a.png",), text=LINE, content=YAML):
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(content)
    for name in images:
        image = root / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60), 90, np.uint8)).save(image)
        label = (root / name.replace("images", "labels")).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def names(data):
    return [data.name(n) for n in range(len(data))]


def check_one(data, name="images/train/a.png"):
    assert isinstance(data, Yolo)
    assert names(data) == [name]
    np.testing.assert_allclose(data[0].outlines.areas(), [600], rtol=1e-5)
    assert data[0].labels.tolist() == [1]


# Where files lie.


@pytest.mark.parametrize(
    "entry",
    [
        "images/train",
        "./images/train",
        "images\\train",
        "[images/train]",
        "../images/train",
        "images",
        "/content/some/set/images/train",
        '"images/train"',
    ],
)
def test_folders_of_images_are_found(tmp_path, entry):
    check_one(open_data(write(tmp_path / "set", content=f"train: {entry}\nnames: [cat, dog]\n")))


@pytest.mark.parametrize(
    "path", ["", "null", "set", "../sets/set", "/content/sets/set", "C:\\sets\\set", "~/nowhere", "."]
)
def test_a_path_of_another_machine_is_the_folder_of_the_yaml(tmp_path, path):
    data = open_data(write(tmp_path / "set", content=f"path: {path}\ntrain: images/train\nnames: [cat, dog]\n"))
    check_one(data)
    assert [kind for kind, _ in data.problems()] == ([] if path in ("", "null", ".") else ["other place"])


def test_a_path_may_be_seen_from_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path / "sets" / "one")
    (tmp_path / "some.yaml").write_text("path: one\ntrain: images/train\nnames: [cat, dog]\n")
    monkeypatch.chdir(tmp_path / "sets")
    data = open_data(tmp_path / "some.yaml")
    assert data.path(0) == tmp_path / "sets/one/images/train/a.png"
    ((kind, sentence),) = data.problems()
    assert kind == "other place"
    assert "path 'one' is not there" in sentence


def test_a_split_that_is_nowhere_names_where_it_was_looked_for(tmp_path):
    write(tmp_path / "set", content="path: /content/set\ntrain: images/other\nnames: [cat]\n")
    with pytest.raises(DataError, match=rf"'images/other', which is not there; looked in /content/set, {tmp_path}/set"):
        open_data(tmp_path / "set")


def test_images_in_sub_folders_and_of_any_suffix_are_found(tmp_path):
    images = ("images/train/day1/a.png", "images/train/b.PNG", "images/train/day 2/ö.jpg")
    data = open_data(write(tmp_path / "set", images))
    assert names(data) == ["images/train/b.PNG", "images/train/day 2/ö.jpg", "images/train/day1/a.png"]
    assert [len(data[n].labels) for n in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        ("train.txt", "images/train/a.png"),
        ("train.txt", "./images/train/a.png"),
        ("train.txt", "{root}/images/train/a.png"),
        ("train.txt", "/content/set/images/train/a.png"),
        ("train.txt", "C:\\set\\images\\train\\a.png"),
        ("train.txt", "images\\train\\a.png\r\n\r\n"),
        ("train.txt", "# images\n\n  images/train/a.png  \n"),
        ("train.txt", '"images/train/a.png"'),
        ("train.txt", "\ufeffimages/train/a.png\r\n"),
        ("TRAIN.TXT", "images/train/a.png"),
        ("lists/train.txt", "images/train/a.png"),
        ("lists/train.txt", "../images/train/a.png"),
        ("lists/train.txt", "./images/train/a.png"),
    ],
)
def test_lists_of_images_are_read(tmp_path, place, lines):
    root = write(tmp_path / "set", content=f"train: {place}\nnames: [cat, dog]\n")
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_bytes(lines.format(root=root).encode())
    data = open_data(root)
    check_one(data)
    moved = lines.startswith(("/content", "C:"))
    assert [kind for kind, _ in data.problems()] == (["other place"] if moved else [])


def test_lists_in_utf_16_are_read(tmp_path):
    root = write(tmp_path / "set", content="train: train.txt\nnames: [cat, dog]\n")
    (root / "train.txt").write_bytes(codecs.BOM_UTF16_LE + "images/train/a.png\r\n".encode("utf-16-le"))
    check_one(open_data(root))


@pytest.mark.parametrize("line", ["images/train/b.png", "/nowhere/b.png", "labels/train"])
def test_listed_images_that_are_missing_are_named(tmp_path, line):
    root = write(tmp_path / "set", content="train: train.txt\nnames: [cat, dog]\n")
    (root / "train.txt").write_text(f"images/train/a.png\n{line}\n")
    data = open_data(root)
    with pytest.raises(DataError, match=line[:100]):
        data[1]
    with pytest.raises(DataError, match=line[:100]):
        check_data(data, "train")


def test_a_list_of_missing_images_alone_names_them(tmp_path):
    root = write(tmp_path / "set", content="train: train.txt\nnames: [cat, dog]\n")
    (root / "train.txt").write_text("images/train/x.png\n")
    with pytest.raises(DataError, match=r"x\.png: expected an image file, found nothing"):
        check_data(open_data(root), "train")
    (root / "train.txt").write_text("x" * 3000 + ".png")
    with pytest.raises(DataError, match=r"/xxx.*: expected an image file: File name too long"):
        open_data(root)


def test_no_label_file_at_all_is_an_error_that_says_where_they_should_be(tmp_path):
    root = write(tmp_path / "set", ("images/train/a.png", "images/train/b.png"))
    (root / "labels" / "train").rename(root / "labels" / "other")
    with pytest.raises(
        DataError, match=r"found none for the 2 images of train; .*a\.png would be .*labels/train/a\.txt"
    ):
        open_data(root)


def test_missing_label_files_are_counted_and_said_once(tmp_path, caplog):
    root = write(tmp_path / "set", [f"images/train/{n}.png" for n in range(5)])
    for n in (1, 3):
        (root / f"labels/train/{n}.txt").unlink()
    (root / "images/train/x.heic").touch()
    data = open_data(root)
    assert [len(data[n].labels) for n in range(5)] == [1, 0, 1, 0, 1]
    assert [kind for kind, _ in data.problems()] == ["no label file", "no label file", "not read"]
    check_data(data, "train")
    (record,) = caplog.records
    assert "2 images without a file of labels, taken for images without objects, such as" in record.message
    assert "x.heic" in record.message


def test_a_folder_without_images_is_named(tmp_path):
    root = write(tmp_path / "set")
    (root / "images/train/a.png").unlink()
    with pytest.raises(DataError, match=r"expected images of train in .*images/train, found none"):
        open_data(root)


def test_upper_case_suffixes_of_label_files_are_read(tmp_path):
    root = write(tmp_path / "set")
    (root / "labels/train/a.txt").rename(root / "labels/train/a.TXT")
    check_one(open_data(root))


# Classes.


@pytest.mark.parametrize(
    "text",
    [
        "names: [cat, dog]",
        "names: {0: cat, 1: dog}",
        'names: {"1": dog, "0": cat}',
        '"names": ["cat", "dog"]',
        "names: [cat, dog]\nnc: 2",
        "names:\n  0: cat\n  1: dog\nnc: '2'",
    ],
)
def test_names_of_classes(tmp_path, text):
    data = open_data(write(tmp_path / "set", content=f"\ufefftrain: images/train\r\n{text}\r\n"))
    assert data.categories == {0: "cat", 1: "dog"}
    check_one(data)


def test_classes_without_names_are_numbered(tmp_path):
    data = open_data(write(tmp_path / "set", content="train: images/train\nnc: 2\n"))
    assert data.categories == {0: "class_0", 1: "class_1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [cat, dog]\nnc: 3", "expected nc and names to agree, got nc 3 and 2 names"),
        ("names: [cat, dog]\nnc: two", "expected nc to be a number, got 'two'"),
        ('names: {0: cat, "0": dog}', "expected names of classes"),
        ("names: {a: cat}", "expected names of classes"),
        ("names: {-1: cat}", "expected names of classes"),
        ("names: [null]", "expected names of classes"),
        ("names: cat", "expected names of classes"),
        ("nc: 0", "expected names of classes"),
    ],
)
def test_yolo_names_that_cannot_be_classes_are_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        open_data(write(tmp_path / "set", content=f"train: images/train\n{text}\n"))


# Lines.


def problems_of(root, text, **options):
    data = open_data(write(root / "set", text=text), config=DataConfig(**options))
    found = data.instances(0, (40, 60))
    return found, [(problem.kind, str(problem)) for _, problem in found.problems]


@pytest.mark.parametrize(
    "text",
    [
        LINE.replace("1 ", "1.0 ", 1),
        LINE.rstrip(),
        LINE.replace("\n", " \r\n\r\n"),
        "\ufeff" + LINE,
        LINE.replace(" ", "\t"),
    ],
)
def test_lines_as_other_tools_write_them(tmp_path, text):
    check_one(open_data(write(tmp_path / "set", text=text)))


@pytest.mark.parametrize(
    "text",
    [
        "1 6 8 36 8 36 28 6 28",
        "1 0.1 0.2 1.6 0.2 0.6 0.7 0.1 0.7",
        "1 -0.1 0.2 0.6 0.2 0.6 0.7 0.1 0.7",
        "1 30 20 12 8",
        "1 0 0 2 0 2 2 0 2",
    ],
)
def test_coordinates_in_pixels_are_named(tmp_path, text):
    found, ((kind, sentence),) = problems_of(tmp_path, text)
    assert kind == "broken"
    assert "expected coordinates in shares of the image's sides from 0 to 1, got" in sentence
    assert len(found) == 0
    with pytest.raises(DataError, match=r"a\.txt:1: expected coordinates in shares"):
        check_data(open_data(tmp_path / "set"), "train")


def test_coordinates_that_rounding_puts_beyond_the_border_are_kept(tmp_path):
    found, problems = problems_of(tmp_path, "1 -0.001 0 1.0005 0 1.0005 1 0 1")
    assert not problems
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("2 0 0 1 0 1 1", "unknown category", "expected a class of data.yaml, one of [0, 1], got '2'"),
        ("-1 0 0 1 0 1 1", "unknown category", "got '-1'"),
        ("0.5 0 0 1 0 1 1", "unknown category", "got '0.5'"),
        ("nan 0 0 1 0 1 1", "unknown category", "got 'nan'"),
        ("dog 0 0 1 0 1 1", "broken", "expected numbers, got 'dog 0 0 1 0 1 1'"),
        ("0,0.1,0.2,0.3,0.4,0.5,0.6", "broken", "expected numbers"),
        ("0 0 0 1 0 1 nan", "not finite", "expected finite coordinates"),
        ("0 0 0 1 0 1 inf", "not finite", "expected finite coordinates"),
        ("0 0 0 1 0 1", "broken", "at least three vertices, got 5 numbers"),
        ("0", "broken", "at least three vertices, got 0 numbers"),
        ("0 0.5 0.5 0.2 0.2", "no segmentation", "set data.boxes to ignore or to rectangle"),
    ],
)
def test_yolo_lines_that_are_no_instances_are_reported(tmp_path, text, kind, words):
    found, problems = problems_of(tmp_path, f"{text}\n{LINE}")
    assert [each for each, _ in problems] == [kind]
    assert words in problems[0][1]
    assert found.problems[0][0] == "a.txt:1"
    assert found.ids == [2]


@pytest.mark.parametrize(("boxes", "crowd"), [("rectangle", False), ("ignore", True)])
def test_yolo_boxes_follow_the_option(tmp_path, boxes, crowd):
    found, problems = problems_of(tmp_path, "0 0.5 0.5 0.2 0.5\n", boxes=boxes)
    assert not problems
    assert found.crowd == [crowd]
    np.testing.assert_allclose(found.outlines("all")[0].boxes(), [[24, 10, 36, 30]], atol=1e-4)


def test_a_label_file_that_is_no_text_is_named(tmp_path):
    data = open_data(write(tmp_path / "set", text=b"\xff\xfe\xfd"))
    with pytest.raises(DataError, match=r"a\.txt: cannot be read as text"):
        data[0]


def test_labels_without_an_image_are_counted(tmp_path, caplog):
    root = write(tmp_path / "set", ("images/train/a.png", "images/train/deep/b.png", "images/val/c.png"))
    (root / "images/train/deep/b.png").unlink()
    for name in ("classes.txt", "empty.txt"):
        (root / "labels/train" / name).write_text("cat" if name == "classes.txt" else "")
    check_data(open_data(root), "train")
    (record,) = caplog.records
    assert "1 file of labels without an image, such as " in record.getMessage()
    assert "b.txt: no image belongs to it" in record.getMessage()

"""What stops training and what is said, splits of the images, and where images and annotations are found."""

import json

import made_sets
import numpy as np
import pytest
import tifffile
from made_sets import SQUARE, write_coco
from PIL import Image

from polarmask import Detector, load_config
from polarmask.cli.evaluate import main as evaluate
from polarmask.config import DataConfig
from polarmask.data import DataError, Shapes, Subset, build_data, check_categories, check_data, open_data
from polarmask.data.formats.json_index import entries
from polarmask.model import build_model

IMAGE = {"id": 1, "file_name": "image.png", "height": 40, "width": 60}
CONTENT = {
    "images": [{**IMAGE, "file_name": "a.png"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}],
    "categories": [{"id": 1, "name": "thing"}],
}


def place(root, file, image, name=None):
    """An annotation file and an image somewhere below a folder, and the name that the file has for it."""
    for path in (root / file, root / image):
        path.parent.mkdir(parents=True, exist_ok=True)
    named = {**CONTENT, "images": [{**IMAGE, "file_name": name or image.split("/")[-1]}]}
    (root / file).write_text(json.dumps(named))
    Image.new("RGB", (60, 40)).save(root / image)


def test_problems_are_counted_in_one_message(tmp_path, caplog):
    broken = [{"segmentation": [[1, 2, 3]]}] * 3
    left_out = [{"segmentation": [[1, 1, 9, 9, 5, 5]]}, {"segmentation": [[100, 100, 120, 100, 120, 120]]}]
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}, *broken, *left_out])
    with pytest.raises(DataError, match=r"3 annotations that cannot be parsed, such as .*annotation 1: .*invalid=skip"):
        check_data(open_data(file), "train")
    data = open_data(file, config=DataConfig(invalid="skip"))
    check_data(data, "train")
    assert len(data[0].labels) == 3
    assert len(caplog.records) == 2  # what is read again is not said again
    assert "left out: 3 annotations that cannot be parsed" in caplog.records[0].getMessage()
    assert "1 annotation without area" in caplog.records[1].getMessage()
    assert "1 annotation that lies beside its image" in caplog.records[1].getMessage()


def test_evaluate_says_once_what_it_leaves_out(tmp_path, caplog):
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}, *[{"segmentation": [[1, 2, 3]]}] * 3])
    config = load_config("nuclei", model__channels=8, model__depth=0)
    categories = open_data(file).categories
    Detector(build_model(config.model, len(categories)), config, categories).save(tmp_path / "weights.safetensors")
    options = ["--weights", str(tmp_path / "weights.safetensors"), "--data.root", str(tmp_path / "set")]
    evaluate([*options, "--data.test", str(file), "--data.invalid", "skip"])
    (record,) = caplog.records
    assert "left out: 3 annotations that cannot be parsed" in record.getMessage()


def test_nothing_to_train_on_is_an_error(tmp_path, caplog):
    data = open_data(write_coco(tmp_path / "set", [{"segmentation": [[1, 1, 3, 1, 3, 3]]}]))
    check_data(data, "train")
    data.config.min_area = 50
    with pytest.raises(DataError, match=r"no instances to train on \(1 instance that min_area or min_side leave out"):
        check_data(data, "train")
    check_data(data, "test")
    assert not caplog.records  # nothing is too small to be evaluated on
    check_data(open_data(write_coco(tmp_path / "none", [])), "test")
    assert "no instances to find" in caplog.text
    check_data(Shapes(1), "train")
    with pytest.raises(DataError, match="expected images, got none"):
        check_data(Shapes(0), "train")


def test_categories_that_only_the_test_data_have_are_refused(tmp_path):
    train, test = (open_data(write_coco(tmp_path / name, [])) for name in ("train", "test"))
    check_categories(train, test)
    for more in ({2: "other"}, {1: "renamed"}):
        test.categories = {**train.categories, **more}
        with pytest.raises(DataError, match="expected the categories of the training data"):
            check_categories(train, test)
        check_categories(test, train) if 2 in more else None


@pytest.mark.parametrize("kind", ["coco", "yolo", "stardist", "voc"])
def test_a_share_of_the_training_images_is_evaluated_on(tmp_path, kind):
    root = made_sets.MAKERS[kind](tmp_path / "set")
    config = DataConfig(root=str(root), val_fraction=0.4)
    train, test = build_data(config, "train", 3), build_data(config, "test", 3)
    assert isinstance(train, Subset)
    assert (len(train), len(test)) == (2, 1)
    ids = {part: [data.image_id(n) for n in range(len(data))] for part, data in (("train", train), ("test", test))}
    assert len({*ids["train"], *ids["test"]}) == made_sets.COUNT
    assert test.indices == build_data(config, "test", 3).indices
    for data, part in ((train, "train"), (test, "test"), (Subset(train, 1), "train")):
        truth = data.ground_truth()
        assert [image["id"] for image in truth["images"]] == ids[part][: len(data)]
        assert len(truth["annotations"]) == sum(len(data[n].labels) for n in range(len(data)))
        assert [data[n].image_id for n in range(len(data))] == ids[part][: len(data)]


def test_shares_need_two_images_and_no_other_test_data(tmp_path):
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}])
    with pytest.raises(DataError, match="at least two images to divide, got 1"):
        build_data(DataConfig(root=str(file), val_fraction=0.5), "test")
    with pytest.raises(DataError, match="expected val_fraction or test, got both"):
        build_data(DataConfig(root=str(file), val_fraction=0.5, test="val"), "test")


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path):
    for kind in ("coco", "yolo", "stardist", "voc"):
        first, second = (made_sets.MAKERS[kind](tmp_path / place / kind) for place in ("a", "b"))
        want = open_data(first).fingerprint()
        assert json.loads(json.dumps(want)) == want == open_data(second).fingerprint()
        changed = open_data(second).sources(0) or [second / "annotations" / "instances_train.json"]
        changed[0].write_bytes(changed[0].read_bytes() + b"\n")
        assert open_data(second).fingerprint() != want


# Where things are.


@pytest.mark.parametrize(
    ("file", "image", "name"),
    [
        ("annotations/instances_train.json", "train/a.png", "a.png"),
        ("annotations/instances_train.json", "images/train/a.png", "a.png"),
        ("annotations/instances_train.json", "images/a.png", "images/a.png"),
        ("annotations/train.json", "images/a.png", "a.png"),
        ("instances_train.json", "images/a.png", "a.png"),
        ("train.json", "images/a.png", "a.png"),
        ("train.json", "train/a.png", "train\\a.png"),
        ("train/_annotations.coco.json", "train/a.png", "a.png"),
        ("train.json", "images/a b.png", "a%20b.png"),
        ("train.json", "images/a%20b.png", "a%20b.png"),
        ("train.json", "images/deep/ä.png", "ä.png"),
        ("train.json", "images/deep/a.png", "media/upload/deep/a.png"),
    ],
)
def test_images_are_found_by_the_names_that_tools_write(tmp_path, file, image, name):
    place(tmp_path, file, image, name)
    data = open_data(tmp_path)
    assert data.path(0) == tmp_path / image
    check_data(data, "train")


def test_absolute_names_are_found_below_the_folder_only(tmp_path):
    place(tmp_path / "set", "train.json", "images/a.png", str(tmp_path / "set" / "images" / "a.png"))
    assert open_data(tmp_path / "set").path(0) == tmp_path / "set" / "images" / "a.png"
    place(tmp_path / "set", "train.json", "images/a.png", str(tmp_path / "a.png"))
    with pytest.raises(DataError, match=r"train\.json: image 1: .*which lies elsewhere; data\.images sets the folder"):
        open_data(tmp_path / "set").path(0)


@pytest.mark.parametrize("name", [None, "", 3, ["a.png"], "a\0.png", "../images/a.png", "%2e%2e/a.png", "C:\\a.png"])
def test_check_categories_other_names_are_refused(tmp_path, name):
    place(tmp_path, "train.json", "images/a.png", "a.png")
    (tmp_path / "train.json").write_text(json.dumps({**CONTENT, "images": [{**IMAGE, "file_name": name}]}))
    with pytest.raises(DataError, match=r"train\.json: image 1: .*expected the name of a file"):
        check_data(open_data(tmp_path), "train")


def test_names_that_may_mean_two_files_are_refused(tmp_path):
    place(tmp_path, "train.json", "images/x/a.png")
    place(tmp_path, "train.json", "images/y/a.png")
    with pytest.raises(DataError, match=r"found none; tried .*\(2 files of this name lie there\)"):
        open_data(tmp_path).path(0)
    images = [{**IMAGE, "id": n, "file_name": f"{folder}/a.png"} for n, folder in enumerate("pq")]
    (tmp_path / "images" / "y" / "a.png").unlink()
    (tmp_path / "train.json").write_text(json.dumps({**CONTENT, "images": images}))
    for n in range(2):  # one file would be two images
        with pytest.raises(DataError, match="found none"):
            open_data(tmp_path).path(n)


def test_build_data_of_two_named_files_opens_both(tmp_path):
    for name in ("some", "other"):
        place(tmp_path, f"{name}.json", "images/a.png")
    for root in (tmp_path, tmp_path / "some.json"):
        config = DataConfig(root=str(root), train="some.json", test="other.json")
        parts = [build_data(config, part) for part in ("train", "test")]
        assert [data.file.name for data in parts] == ["some.json", "other.json"]
    absolute = DataConfig(root=str(tmp_path), train=str(tmp_path / "other.json"))
    assert build_data(absolute, "train").file.name == "other.json"
    with pytest.raises(DataError, match=r"nothing\.json: expected a JSON file, found none; tried"):
        build_data(DataConfig(root=str(tmp_path), test="nothing.json"), "test")


def test_without_test_data_there_is_nothing_to_evaluate(tmp_path):
    place(tmp_path, "train.json", "images/a.png")
    for root in (tmp_path, tmp_path / "train.json"):
        assert build_data(DataConfig(root=str(root)), "test") is None
    place(tmp_path, "val.json", "images/a.png")
    assert build_data(DataConfig(root=str(tmp_path)), "test").file.name == "val.json"
    assert build_data(DataConfig(root=str(tmp_path / "train.json")), "test") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (json.dumps(CONTENT).encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "the file is compressed by gzip: unpack it"),
        (b"[]", "expected an object, found a list"),
        (json.dumps(CONTENT).encode()[:-30], "a.json: cannot be read as JSON"),
        (json.dumps(CONTENT).encode() + b"{}", "expected the end at byte"),
        (json.dumps({**CONTENT, "annotations": None}).encode(), "expected annotations to be a list, got None"),
        (json.dumps({"images": [], "categories": []}).encode(), "found no annotations"),
        (b'{"images": [], "images": []}', "the key 'images' is there twice"),
        (b'{"images": [{"id": 1, "id": 2}]}', "an object has the key 'id' twice"),
    ],
)
def test_files_that_are_no_annotations_are_named(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: cannot be read as JSON") as error:
        open_data(tmp_path / "a.json")
    assert words in str(error.value)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CONTENT), encoding="utf-8-sig")
    assert [entry.key for entry in entries(tmp_path / "a.json")] == ["images", "annotations", "categories"]
    assert open_data(tmp_path / "a.json").image_id(0) == 1


@pytest.mark.parametrize("invalid", ["raise", "skip"])
def test_every_image_of_floats_is_looked_at(tmp_path, caplog, invalid):
    labels = np.pad(np.ones((8, 8), np.uint8), 4)
    for n in range(30):
        for folder, pixels in (("images", labels / np.float32(2)), ("masks", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{n:02}.tif", np.where(pixels, pixels, np.nan if n == 7 else 0))
    tifffile.imwrite(tmp_path / "masks" / "07.tif", labels)
    data = open_data(tmp_path, config=DataConfig(invalid=invalid))
    if invalid == "raise":
        with pytest.raises(DataError, match=r"1 image .*07\.tif: expected finite values, got NaN"):
            check_data(data, "test")
    else:
        check_data(data, "test")
        assert "left out: 1 image " in caplog.text

"""The fields of COCO's JSON as people and programs write them: one reading for training, evaluation and audit."""

import json
import math

import pytest
from made_sets import SQUARE, audited, write_coco

from polarmask.config import DataConfig, EvalConfig
from polarmask.data import DataError, check_data, open_data
from polarmask.evaluation import compare

NAN = float("nan")
OTHER = [30, 5, 50, 5, 50, 25, 30, 25]
RLE = {"size": [40, 60], "counts": [205, 20, 2175]}


def written(tmp_path, *annotations, images=None, categories=None, **options):
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}, *annotations], images=images)
    if categories is not None:
        file.write_text(json.dumps({**json.loads(file.read_text()), "categories": categories}))
    return open_data(file, config=DataConfig(root=str(file), **options))


def counted(data):
    """Instances that training and evaluation see, crowds left out; they must agree."""
    check_data(data, "train")
    sample = data[0]
    metrics = compare(data, [], EvalConfig()).metrics
    assert metrics["instances"] == int((~sample.ignore).sum())
    return metrics["instances"]


def refused(data, *words):
    """The check, the audit and the sample refuse alike."""
    with pytest.raises(DataError) as error:
        check_data(data, "train")
    assert all(word in str(error.value) for word in (*words, data.file.name))
    assert audited(data.file, **vars_of(data.config)).reasons
    return str(error.value)


def vars_of(config):
    return {"boxes": config.boxes, "crowd": config.crowd}


# Ids.


@pytest.mark.parametrize(("stated", "id"), [(1, 1), (1.0, 1), ("frame_1", "frame_1"), ("1", "1"), (0, 0), (-3.0, -3)])
def test_image_ids_are_integers_or_text_and_come_back(tmp_path, stated, id):
    images = [{"id": id, "file_name": "image.png", "height": 40, "width": 60}]
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE], "image_id": stated}], images=images)
    data = open_data(file)
    assert counted(data) == 1
    assert (data[0].image_id, type(data[0].image_id)) == (id, type(id))
    truth = data.ground_truth()
    assert truth["images"][0]["id"] == truth["annotations"][0]["image_id"] == id
    mask = {**RLE, "counts": "05"}
    result = {"image_id": id, "category_id": 1, "score": 0.9, "bbox": [5, 5, 20, 20], "segmentation": mask}
    assert compare(data, [], EvalConfig()).metrics["segm/AP"] == 0
    with pytest.raises(ValueError, match="results of the 1 images of the data, got also results of 'nowhere'"):
        compare(data, [{**result, "image_id": "nowhere"}], EvalConfig())


@pytest.mark.parametrize("id", [None, [1], True, NAN, 1.5, {}, math.inf])
def test_images_without_a_usable_id_are_refused(tmp_path, id):
    images = [
        {"id": 1, "file_name": "image.png", "height": 40, "width": 60},
        {"id": id, "file_name": "image.png", "height": 40, "width": 60},
    ]
    with pytest.raises(DataError, match=r"a\.json: entry 1 of images: expected an image's id that is an integer"):
        written(tmp_path, images=images)
    assert len(written(tmp_path, images=images, invalid="skip")) == 1


@pytest.mark.parametrize("id", [None, [1], True, NAN, 1.5, {}])
def test_annotations_without_a_usable_image_id_are_refused(tmp_path, id):
    entry = {"segmentation": [OTHER], "image_id": id}
    refused(written(tmp_path, entry), "1 annotation that cannot be parsed", "annotation 1", "image_id")
    assert counted(written(tmp_path, entry, invalid="skip")) == 1


def test_text_that_looks_like_the_id_of_an_image_is_refused(tmp_path):
    message = refused(written(tmp_path, {"segmentation": [OTHER], "image_id": "1"}))
    assert "annotation 1 has the image_id '1', but the image's id is 1" in message


def test_annotations_of_other_images_are_counted(tmp_path, caplog):
    data = written(tmp_path, *[{"segmentation": [OTHER], "image_id": 7}] * 3)
    assert counted(data) == 1
    assert "3 annotations of images that are not there, such as" in caplog.text
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE], "image_id": 7}])
    with pytest.raises(DataError, match="expected annotations of the images in the file, got 1 of others"):
        check_data(open_data(file), "train")


@pytest.mark.parametrize("other", [1, 1.0])
def test_two_images_with_one_id_stop_training(tmp_path, other):
    image = {"id": 1, "file_name": "image.png", "height": 40, "width": 60}
    images = [image, {**image, "id": other}, {**image, "id": 2}]
    refused(written(tmp_path, images=images), "2 images with the same id")
    with pytest.raises(DataError, match="images with the same id"):
        written(tmp_path, images=images).ground_truth()
    assert len(written(tmp_path, images=images, invalid="skip")) == 1


@pytest.mark.parametrize("entry", [3, "text", None, [1]])
def test_entries_that_are_no_objects_are_named(tmp_path, entry):
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}])
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "annotations": [*content["annotations"], entry]}))
    refused(open_data(file), "entry 1 of the list")
    file.write_text(json.dumps({**content, "images": [*content["images"], entry]}))
    with pytest.raises(DataError, match="entry 1 of images: expected an object"):
        open_data(file)


# Segmentations.


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[10, 10], [40, 10], [40, 40]], "at least three vertices (x1, y1, x2, y2, …), got a list of points"),
        ([[10, 10, 30, 30]], "at least three vertices (x1, y1, x2, y2, …), got [10, 10, 30, 30]"),
        ([SQUARE, [1, 2, 3, 4]], "at least three vertices"),
        (SQUARE, "expected a list of polygons"),
        ([[1, 2, 3, 4, 5, 6, 7]], "expected x, y, x, y"),
        ([["1", "2", "3", "4", "5", "6"]], "expected a polygon of numbers"),
        ([[1, 2, 3, 4, 5, None]], "expected a polygon of numbers"),
        ([[1, 2, 3, 4, 5, NAN]], "expected finite coordinates"),
        ([RLE], "expected a list of polygons"),
        ("0505", "expected polygons or a run-length encoded mask, got the text"),
        (True, "expected polygons or a run-length encoded mask"),
        ({**RLE, "counts": [2399]}, "counts add up to 40 · 60, got [2399]"),
        ({**RLE, "counts": "zz"}, "counts add up to 40 · 60"),
        ({**RLE, "counts": [-1, 2401]}, "counts add up to 40 · 60"),
        ({**RLE, "counts": None}, "with size [height, width] and counts"),
        ({**RLE, "size": ["40", "60"]}, "with size [height, width] and counts"),
        ({"counts": [2400]}, "with size [height, width] and counts"),
        ({**RLE, "size": [60, 40]}, "expected a mask of the image's size (40, 60), got (60, 40)"),
        (None, "expected a segmentation or a box with an area, got None and no box"),
        ([], "got [] and no box"),
        ([[]], "got [[]] and no box"),
        ({}, "got {} and no box"),
    ],
)
def test_segmentations_that_say_nothing_are_refused(tmp_path, segmentation, words):
    entry = {"segmentation": segmentation}
    refused(written(tmp_path, entry), "image.png: annotation 1: ", words)
    data = written(tmp_path, entry, invalid="skip")
    assert counted(data) == 1


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        ([[[30, 5], [50, 5], [50, 25], [30, 25]]], 400),  # points in a polygon of their own
        ([OTHER, [1, 30, 5, 30, 5, 34, 1, 34]], 416),
        (RLE, 20),
        ({**RLE, "size": [40.0, 60.0]}, 20),
    ],
)
def test_segmentations_that_are_plain_are_read(tmp_path, segmentation, area):
    data = written(tmp_path, {"segmentation": segmentation}, parts="all")
    assert counted(data) == 2
    assert data[0].outlines.areas().tolist() == [400, area]
    assert data.ground_truth()["annotations"][1]["area"] == area


@pytest.mark.parametrize(
    ("segmentation", "boxes", "crowd", "instances"),
    [
        (None, "rectangle", "ignore", 2),
        ([], "ignore", "ignore", 1),
        ([[]], "ignore", "background", 1),
        ({}, "ignore", "instance", 1),
    ],
)
def test_boxes_without_an_outline_follow_one_option(tmp_path, segmentation, boxes, crowd, instances):
    entry = {"segmentation": segmentation, "bbox": [30, 5, 20, 20]}
    refused(written(tmp_path, entry), "expected an outline, got a box alone; set data.boxes to ignore or to rectangle")
    data = written(tmp_path, entry, boxes=boxes, crowd=crowd)
    assert counted(data) == instances
    assert data[0].outlines.boxes().tolist() == [[5, 5, 25, 25], [30, 5, 50, 25]]
    assert data[0].ignore.tolist() == [False, boxes == "ignore"]
    refused(written(tmp_path, {**entry, "bbox": [30, 5, 0, 20]}, boxes=boxes), "a box with an area, got")


# Other fields.


@pytest.mark.parametrize("box", [[], None, "text", [1, 2, 3], [1, 2, NAN, 4], ["5", "5", "20", "20"], [5, 5, 0, 0], {}])
def test_boxes_that_are_none_are_computed(tmp_path, box, caplog):
    data = written(tmp_path, {"segmentation": [OTHER], "bbox": box})
    assert counted(data) == 2
    assert data.ground_truth()["annotations"][1]["bbox"] == [30, 5, 20, 20]
    assert ("1 annotation whose box is none" in caplog.text) == bool(box)


@pytest.mark.parametrize("area", [None, "400", -1, 0, NAN, []])
def test_areas_that_are_none_are_computed(tmp_path, area):
    data = written(tmp_path, {"segmentation": [OTHER], "area": area})
    assert counted(data) == 2
    assert data.ground_truth()["annotations"][1]["area"] == 400


def test_what_the_file_says_is_kept_where_it_is_sound(tmp_path):
    entry = {"segmentation": [OTHER], "area": 399.5, "bbox": [30.5, 5, 19.5, 20]}
    truth = written(tmp_path, entry, {"segmentation": RLE}).ground_truth()
    assert entry.items() <= truth["annotations"][1].items()
    assert truth["annotations"][2]["segmentation"] == RLE


@pytest.mark.parametrize(
    ("flag", "crowd"), [(None, False), (False, False), (0.0, False), (True, True), (1, True), (1.0, True)]
)
def test_crowd_flags_that_are_plain_are_read(tmp_path, flag, crowd):
    entry = {"segmentation": [OTHER], "iscrowd": flag}
    data = written(tmp_path, entry)
    assert counted(data) == 2 - crowd
    assert data.ground_truth()["annotations"][1]["iscrowd"] == crowd
    assert counted(written(tmp_path, entry, crowd="instance")) == 2


@pytest.mark.parametrize("flag", ["0", "1", "text", 2, -1, [], NAN])
def test_other_crowd_flags_are_refused(tmp_path, flag):
    refused(written(tmp_path, {"segmentation": [OTHER], "iscrowd": flag}), "expected iscrowd to be 0 or 1, got")


def test_data_of_crowds_alone_name_the_option(tmp_path):
    file = write_coco(tmp_path / "set", [{"segmentation": RLE, "iscrowd": 1}])
    message = refused(open_data(file))
    assert message.endswith("no instances to train on: 1 are crowds; data.crowd=instance trains on them")
    check_data(open_data(file, config=DataConfig(crowd="instance")), "train")


@pytest.mark.parametrize(("category", "label"), [(1, 0), (1.0, 0), ("1", None), (None, None), (True, None), (7, None)])
def test_categories_of_annotations(tmp_path, category, label):
    data = written(tmp_path, {"segmentation": [OTHER], "category_id": category})
    if label is None:
        refused(data, "expected the number of a category of the file, got")
    else:
        assert counted(data) == 2
        assert data[0].labels.tolist() == [0, label]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"height": 40.0, "width": 60.0}, None),
        ({"height": None, "width": None}, None),
        ({"width": 60}, None),
        ({}, None),
        ({"height": "40", "width": "60"}, "expected height and width that are positive integers, got '40' and '60'"),
        ({"height": NAN, "width": 60}, "expected height and width that are positive integers"),
        ({"height": 0, "width": 60}, "expected height and width that are positive integers"),
        ({"height": 60, "width": 40}, "expected height and width (40, 60)"),
    ],
)
def test_sizes_of_images(tmp_path, sizes, words):
    data = written(tmp_path, images=[{"id": 1, "file_name": "image.png", **sizes}])
    if words:
        refused(data, words)
    else:
        assert counted(data) == 1
        (image,) = data.ground_truth()["images"]
        assert [(type(image[name]), image[name]) for name in ("height", "width")] == [(int, 40), (int, 60)]


# Categories.


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ([{"id": 1.0, "name": "a"}], {1: "a"}),
        ([{"id": 1}], {1: "1"}),
        ([{"id": 1, "name": None}, {"id": 5, "name": 7}], {1: "1", 5: "7"}),
        ([{"id": 1, "name": ""}], {1: "1"}),
        ([{"id": 1, "name": "ä 😀"}], {1: "ä 😀"}),
    ],
)
def test_categories_that_are_plain_are_read(tmp_path, categories, names):
    assert written(tmp_path, categories=categories).categories == names


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([], "expected categories with an integer id each, got none"),
        ([{"id": "1", "name": "a"}], "expected categories with an integer id and a name each"),
        ([{"id": None, "name": "a"}], "expected categories with an integer id and a name each"),
        ([{"id": True, "name": "a"}], "expected categories with an integer id and a name each"),
        ([{"id": 1, "name": ["a"]}], "expected categories with an integer id and a name each"),
        (["a"], "expected categories with an integer id and a name each"),
        ([{"id": 1, "name": "a"}, {"id": 1.0, "name": "b"}], "expected categories of different ids"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "expected categories of different names"),
        ([{"id": 1}, {"id": 2, "name": "1"}], "expected categories of different names"),
    ],
)
def test_coco_other_categories_are_refused(tmp_path, categories, words):
    with pytest.raises(DataError, match=r"a\.json") as error:
        written(tmp_path, categories=categories)
    assert words in str(error.value)


def test_the_empty_root_of_an_export_is_left_out(tmp_path, caplog):
    root = {"id": 0, "name": "cells", "supercategory": "none"}
    leaf = {"id": 1, "name": "cells", "supercategory": "cells"}
    data = written(tmp_path, categories=[root, leaf])
    assert data.categories == {1: "cells"}
    assert caplog.text.count("category 0, 'cells', is the empty root of the others; left out") == 1
    plain = [{**root, "name": "a"}, {**leaf, "name": "b", "supercategory": "none"}]
    assert len(written(tmp_path, categories=plain).categories) == 2
    used = [root, {**leaf, "name": "b"}]
    assert len(written(tmp_path, {"segmentation": [OTHER], "category_id": 0}, categories=used).categories) == 2

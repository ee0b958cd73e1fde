"""Small data sets, the same objects in every format."""

import json

import numpy as np
import tifffile
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from polarmask.audit import audit
from polarmask.config import Config, DataConfig, ModelConfig
from polarmask.data import open_data

SIZE = (48, 64)
COUNT = 3  # images; the last one is empty
RECTANGLES = [(4, 6, 20, 18), (25, 5, 45, 20), (40, 30, 60, 44)]  # x0, y0, x1, y1: the same polygon in every format


def scene(n):
    """A label image with huge values, and the class of each: a rectangle a value."""
    labels = np.zeros(SIZE, np.uint32)
    classes = {}
    for k, (left, top, right, bottom) in enumerate(RECTANGLES[n:] if n + 1 < COUNT else []):
        value = 70_000 * (k + 1) + n
        labels[top:bottom, left:right] = value
        classes[value] = k % 2
    return labels, classes


def picture(labels):
    return np.where(labels[..., None] > 0, np.uint8(200), np.uint8(30)).repeat(3, 2)


def rectangle(labels, value):
    rows, columns = np.nonzero(labels == value)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def corners(labels, value):
    left, top, right, bottom = map(float, rectangle(labels, value))
    return [left, top, right, top, right, bottom, left, bottom]


def coco(root, kind="polygons", exported=False):
    """A COCO folder, or the layout of an export with the annotations beside the images."""
    folder = root / "train"
    folder.mkdir(parents=True)
    images, annotations = [], []
    for n in range(COUNT):
        labels, classes = scene(n)
        Image.fromarray(picture(labels)).save(folder / f"{n}.png")
        images.append({"id": 1000 - n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]})
        for value, label in classes.items():
            rle = coco_mask.encode(np.asfortranarray(labels == value, np.uint8))
            if kind == "polygons":
                segmentation = [corners(labels, value)]
            elif kind == "compressed":
                segmentation = {"size": list(SIZE), "counts": rle["counts"].decode()}
            else:
                flat = (labels == value).T.ravel()
                bounds = np.flatnonzero(np.diff(np.r_[False, flat, not flat[-1]].astype(int)))
                segmentation = {"size": list(SIZE), "counts": np.diff(np.r_[0, bounds]).tolist()}
            entry = {"id": value, "image_id": 1000 - n, "category_id": 7 - 4 * label, "segmentation": segmentation}
            annotations.append(entry)  # no area, box or crowd flag, as many tools write them
    categories = [{"id": 7, "name": "a"}, {"id": 3, "name": "b"}]  # a is label 1
    content = {"images": images, "annotations": annotations[::-1], "categories": categories}
    file = folder / "_annotations.coco.json" if exported else root / "annotations" / "instances_train.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return root


def yolo(root):
    for name in ("images", "labels"):
        (root / name / "train").mkdir(parents=True)
    for n in range(COUNT):
        labels, classes = scene(n)
        Image.fromarray(picture(labels)).save(root / "images" / "train" / f"{n}.jpg")
        lines = [
            " ".join(
                [str(label), *map(repr, (np.reshape(corners(labels, value), (4, 2)) / SIZE[::-1]).ravel().tolist())]
            )
            for value, label in classes.items()
        ]
        (root / "labels" / "train" / f"{n}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"path": ".", "train": "images/train", "names": ["a", "b"]}))
    return root


def stardist(root):
    """16-bit TIFFs in two folders, labels of 32 bits."""
    for name in ("images", "masks"):
        (root / "train" / name).mkdir(parents=True)
    for n in range(COUNT):
        labels, _ = scene(n)
        tifffile.imwrite(root / "train" / "images" / f"{n}.tif", picture(labels)[..., 0].astype(np.uint16) * 300)
        tifffile.imwrite(root / "train" / "masks" / f"{n}.tif", labels, compression="zlib")
    return root


def cellpose(root):
    """PNGs side by side, labels of 16 bits."""
    (root / "train").mkdir(parents=True)
    for n in range(COUNT):
        labels, _ = scene(n)
        Image.fromarray(picture(labels)).save(root / "train" / f"{n}_img.png")
        Image.fromarray((labels // 7 * (labels > 0)).astype(np.uint16)).save(root / "train" / f"{n}_masks.png")
    return root


def voc(root):
    for name in ("JPEGImages", "SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for n in range(COUNT):
        labels, classes = scene(n)
        Image.fromarray(picture(labels)).save(root / "JPEGImages" / f"{n}.jpg")
        objects, kinds = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
        for k, (value, label) in enumerate(classes.items(), 1):
            objects[labels == value], kinds[labels == value] = k, label + 1
        for name, pixels in (("SegmentationObject", objects), ("SegmentationClass", kinds)):
            image = Image.fromarray(pixels, "P")
            image.putpalette([n % 256 for n in range(768)])
            image.save(root / name / f"{n}.png")
    (root / "labelmap.txt").write_text("# label:color\nbackground:0,0,0::\na:1,0,0::\nb:2,0,0::\n")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(map(str, range(COUNT))))
    return root


MAKERS = {
    "coco": coco,
    "coco compressed": lambda root: coco(root, "compressed"),
    "coco uncompressed": lambda root: coco(root, "counts"),
    "coco export": lambda root: coco(root, exported=True),
    "yolo": yolo,
    "stardist": stardist,
    "cellpose": cellpose,
    "voc": voc,
}


# One image in COCO's JSON, with any annotations; and audits.

SMALL = ModelConfig(strides=[4], ranges=[(-1, 1e8)])
SQUARE = [5, 5, 25, 5, 25, 25, 5, 25]


def audited(root, model=SMALL, **options):
    config = Config(model=model, data=DataConfig(root=str(root), **options))
    return audit(open_data(root, config=config.data), config)


def write_coco(root, annotations, size=(40, 60), images=None):
    root.mkdir(exist_ok=True)
    Image.new("RGB", size[::-1]).save(root / "image.png")
    images = images or [{"id": 1, "file_name": "image.png", "height": size[0], "width": size[1]}]
    entries = [{"id": n, "image_id": 1, "category_id": 1, **entry} for n, entry in enumerate(annotations)]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "<b>$thing</b>"}]}
    (root / "a.json").write_text(json.dumps(content))
    return root / "a.json"

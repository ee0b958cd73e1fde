"""Small valid data sets of every format, from a seeded generator."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

Rng = np.random.Generator
NAMES = ["cell", "debris"]
MOST = 6  # instances of an image


@dataclass
class Scene:
    """A picture and its objects, which do not touch each other."""

    size: tuple[int, int]  # height and width
    objects: list[tuple[int, np.ndarray]] = field(default_factory=list)  # class from 0, (V, 2) pixels

    def masks(self) -> list[np.ndarray]:
        """A bool mask (H, W) of each object: the pixels whose centres lie in its polygon."""
        y, x = np.mgrid[: self.size[0], : self.size[1]] + 0.5
        found = []
        for _, polygon in self.objects:
            mask = np.zeros(self.size, bool)
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
                if y0 != y1:
                    mask ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
            found.append(mask)
        return found

    def pixels(self, rng: Rng) -> np.ndarray:
        """The picture (H, W, 3) uint8: bright objects on a dark ground."""
        picture = rng.integers(10, 60, (*self.size, 3), dtype=np.uint8)
        for mask in self.masks():
            picture[mask] = rng.integers(150, 250, 3)
        return picture


@dataclass
class MadeSet:
    """A data set on disk, and how it is to be read."""

    folder: Path  # everything lies below it
    root: Path  # what data.root is set to
    format: str
    train: str  # names of the splits; what stands for them in the paths below
    test: str
    options: dict[str, Any] = field(default_factory=dict)  # of the configuration's data, beside root
    images: dict[str, Path] = field(default_factory=dict)  # folder of the pictures, by split
    notes: dict[str, Path] = field(default_factory=dict)  # by split: the JSON file, or the folder of labels

    def pictures(self, split: str) -> list[Path]:
        """The pictures of a split that are there."""
        return [path for path in sorted(self.images[split].rglob("*")) if path.is_file() and is_picture(path)]

    def splits(self) -> list[str]:
        return list(self.images)


def is_picture(path: Path) -> bool:
    """By suffix, and not what lies beside the images in the same folder."""
    known = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
    return path.suffix.lower() in known and not path.stem.endswith("_masks") and not path.name.startswith(".")


def scene(rng: Rng, least: int = 0) -> Scene:
    """Up to MOST objects in different cells of a grid of three by three."""
    size = (int(rng.integers(32, 97)), int(rng.integers(32, 97)))
    made = Scene(size)
    for cell in rng.permutation(9)[: rng.integers(least, MOST + 1)]:
        row, column = divmod(int(cell), 3)
        high, wide = size[0] // 3, size[1] // 3
        top, left = row * high + 1, column * wide + 1
        bottom, right = (row + 1) * high - 1, (column + 1) * wide - 1
        kind = rng.integers(3)
        if kind == 0:
            ring = [(left, top), (right, top), (right, bottom), (left, bottom)]
        elif kind == 1:
            x, y = (left + right) / 2, (top + bottom) / 2
            ring = [(x, top), (right, y), (x, bottom), (left, y)]
        else:
            x, y = (left + right) // 2, (top + bottom) // 2
            ring = [(left, top), (right, top), (right, y), (x, y), (x, bottom), (left, bottom)]
        made.objects.append((int(rng.integers(len(NAMES))), np.array(ring, float)))
    return made


def scenes(rng: Rng) -> list[Scene]:
    """The first has an object, so that there is something to train on."""
    return [scene(rng, least=n == 0) for n in range(rng.integers(1, 5))]


def save_picture(path: Path, pixels: np.ndarray, rng: Rng) -> None:
    """Colour or grey, of 8 or, in TIFF, 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = bool(rng.integers(2))
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels[..., 0].astype(np.uint16) * 257 if grey else pixels)
    else:
        Image.fromarray(pixels[..., 0] if grey else pixels).save(path)


# COCO's JSON: a folder, a single file, or an export with a file beside the images of each split.


def rle_counts(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, of background first."""
    flat = mask.T.ravel()
    ends = np.r_[np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size]
    return [*([0] if flat[0] else []), *np.diff(np.r_[0, ends]).tolist()]


def segmentation(polygon: np.ndarray, mask: np.ndarray, rng: Rng) -> Any:
    kind = rng.integers(4)
    if kind < 2:
        return [polygon.ravel().tolist()]
    if kind == 2:
        return {"size": list(mask.shape), "counts": rle_counts(mask)}
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def coco_content(made: list[Scene], folder: Path, rng: Rng, prefix: str = "im") -> dict[str, Any]:
    """Writes the pictures, and gives what the JSON holds."""
    suffix = rng.choice([".png", ".jpg", ".tif"])
    first = int(rng.integers(0, 50))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for n, each in enumerate(made):
        name = f"{prefix}{n}{suffix}"
        save_picture(folder / name, each.pixels(rng), rng)
        images.append({"id": first + n, "file_name": name, "height": each.size[0], "width": each.size[1]})
        for (label, polygon), mask in zip(each.objects, each.masks(), strict=True):
            (left, top), (right, bottom) = polygon.min(0), polygon.max(0)
            entry = {
                "id": len(annotations) + 1,
                "image_id": first + n,
                "category_id": label + 1,
                "segmentation": segmentation(polygon, mask, rng),
                "bbox": [left, top, right - left, bottom - top],
                "area": float(mask.sum()),
                "iscrowd": 0,
            }
            annotations.append(entry)
    categories = [{"id": n + 1, "name": name, "supercategory": ""} for n, name in enumerate(NAMES)]
    return {"info": {"year": 2024}, "images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path, rng: Rng) -> MadeSet:
    names = ("train2017", "val2017") if rng.integers(2) else ("train", "val")
    made = MadeSet(folder, folder, "coco", *names)
    for split in names:
        made.images[split] = folder / split
        made.notes[split] = folder / "annotations" / f"instances_{split}.json"
        made.notes[split].parent.mkdir(parents=True, exist_ok=True)
        made.notes[split].write_text(json.dumps(coco_content(scenes(rng), made.images[split], rng)))
    return made


def single(folder: Path, rng: Rng) -> MadeSet:
    """One JSON file beside its images; a part of them is evaluated on, or none."""
    made = MadeSet(folder, folder / "all.json", "json", "all", "")
    made.images["all"], made.notes["all"] = folder, made.root
    content = [scene(rng, 1) for _ in range(rng.integers(2, 5))]
    folder.mkdir(parents=True, exist_ok=True)
    made.root.write_text(json.dumps(coco_content(content, folder, rng)))
    return made


def pair(folder: Path, rng: Rng) -> MadeSet:
    """Two JSON files beside a folder of images that they share."""
    made = MadeSet(folder, folder, "json pair", "train", "val")
    for split in ("train", "val"):
        made.images[split], made.notes[split] = folder / "images", folder / f"{split}.json"
        made.notes[split].parent.mkdir(parents=True, exist_ok=True)
        made.notes[split].write_text(json.dumps(coco_content(scenes(rng), folder / "images", rng, split)))
    return made


def roboflow(folder: Path, rng: Rng) -> MadeSet:
    """An export whose first category is a root that nothing belongs to."""
    made = MadeSet(folder, folder, "roboflow", "train", "valid")
    for split in ("train", "valid"):
        made.images[split] = folder / split
        made.notes[split] = folder / split / "_annotations.coco.json"
        content = coco_content(scenes(rng), made.images[split], rng)
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        for each in content["categories"][1:]:
            each["supercategory"] = "things"
        made.notes[split].write_text(json.dumps(content))
    return made


# YOLO.


def yolo(folder: Path, rng: Rng, lists: bool = False) -> MadeSet:
    made = MadeSet(folder, folder, "yolo lists" if lists else "yolo", "train", "val")
    content: dict[str, Any] = {"path": ".", "nc": len(NAMES), "names": list(NAMES)}
    if rng.integers(2):
        content["names"] = dict(enumerate(NAMES))
    for split in ("train", "val"):
        made.images[split], made.notes[split] = folder / "images" / split, folder / "labels" / split
        made.notes[split].mkdir(parents=True)
        suffix = rng.choice([".png", ".jpg"])
        for n, each in enumerate(scenes(rng)):
            save_picture(made.images[split] / f"im{n}{suffix}", each.pixels(rng), rng)
            shares = [polygon / each.size[::-1] for _, polygon in each.objects]
            lines = [
                f"{label} {' '.join(f'{value:.6f}' for value in share.ravel())}"
                for (label, _), share in zip(each.objects, shares, strict=True)
            ]
            if lines or rng.integers(2):
                (made.notes[split] / f"im{n}.txt").write_text("".join(f"{line}\n" for line in lines))
        if lists:
            names = [f"./images/{split}/{path.name}" for path in made.pictures(split)]
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        content[split] = f"{split}.txt" if lists else f"images/{split}"
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return made


# Label images, in two folders or side by side.


def label_image(each: Scene, rng: Rng) -> np.ndarray:
    """uint16: values with gaps."""
    labels = np.zeros(each.size, np.uint16)
    value = 0
    for mask in each.masks():
        value += int(rng.integers(1, 300))
        labels[mask] = value
    return labels


def save_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path)


def labels(folder: Path, rng: Rng, beside: bool = False) -> MadeSet:
    made = MadeSet(folder, folder, "labels beside" if beside else "labels", "train", "val")
    suffix = rng.choice([".tif", ".png"])
    for split in ("train", "val"):
        made.images[split] = folder / split / ("." if beside else "images")
        made.notes[split] = folder / split / ("." if beside else "masks")
        for n, each in enumerate(scenes(rng)):
            save_picture(made.images[split] / f"im{n}{suffix}", each.pixels(rng), rng)
            name = f"im{n}_masks{suffix}" if beside else f"im{n}{suffix}"
            save_labels(made.notes[split] / name, label_image(each, rng))
    return made


# Pascal VOC's folders.


def voc(folder: Path, rng: Rng) -> MadeSet:
    made = MadeSet(folder, folder, "voc", "train", "val")
    listed = folder / "ImageSets" / "Segmentation"
    listed.mkdir(parents=True)
    (folder / "labelmap.txt").write_text("background:0,0,0::\n" + "".join(f"{name}:1,2,3::\n" for name in NAMES))
    for split in ("train", "val"):
        made.images[split] = folder / "JPEGImages"
        made.notes[split] = folder / "SegmentationObject"
        names = []
        for n, each in enumerate(scenes(rng)):
            names.append(f"{split}_{n}")
            save_picture(made.images[split] / f"{names[-1]}.jpg", each.pixels(rng), rng)
            objects, classes = np.zeros(each.size, np.uint8), np.zeros(each.size, np.uint8)
            for k, ((label, _), mask) in enumerate(zip(each.objects, each.masks(), strict=True), 1):
                objects[mask], classes[mask] = k, label + 1
            for kind, pixels in (("SegmentationObject", objects), ("SegmentationClass", classes)):
                save_indexed(folder / kind / f"{names[-1]}.png", pixels)
        (listed / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return made


def save_indexed(path: Path, pixels: np.ndarray) -> None:
    """As a PNG with a palette, as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels, "P")
    image.putpalette([value * 37 % 256 for value in range(768)])
    image.save(path)


MAKERS: dict[str, Callable[[Path, Rng], MadeSet]] = {
    "coco": coco,
    "json": single,
    "json pair": pair,
    "roboflow": roboflow,
    "yolo": yolo,
    "yolo lists": lambda folder, rng: yolo(folder, rng, lists=True),
    "labels": labels,
    "labels beside": lambda folder, rng: labels(folder, rng, beside=True),
    "voc": voc,
}

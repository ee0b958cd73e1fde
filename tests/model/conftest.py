import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from polarmask.data import Nuclei
from polarmask.data.nuclei import fetch


@pytest.fixture(scope="session")
def nuclei():
    try:
        fetch()
    except subprocess.CalledProcessError:
        pytest.skip("no package index to fetch the nuclei from")
    return Nuclei("train"), Nuclei("test")


@pytest.fixture
def coco_folder(tmp_path):
    """Three images: a polygon of two parts and a crowd; an uncompressed RLE; nothing."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val").mkdir()
    images = []
    for n, (height, width) in enumerate([(40, 60), (30, 30), (20, 50)], 1):
        Image.new("RGB", (width, height), (40 * n, 0, 0)).save(root / "val" / f"{n}.png")
        images.append({"id": 10 * n, "file_name": f"{n}.png", "height": height, "width": width})
    crowd = np.zeros((40, 60), np.uint8)
    crowd[2:6, 40:50] = crowd[10:12, 40:50] = 1
    crowd_rle = coco_mask.encode(np.asfortranarray(crowd))
    parts = [[5, 5, 25, 5, 25, 20, 5, 20], [30, 5, 34, 5, 34, 9, 30, 9]]
    column = {"size": [30, 30], "counts": [30 * 10 + 5, 8, 22, 8, 900 - 343]}
    annotations = [
        {
            "segmentation": crowd_rle | {"counts": crowd_rle["counts"].decode()},
            "iscrowd": 1,
            "image_id": 10,
            "category_id": 9,
        },
        {"segmentation": parts, "iscrowd": 0, "image_id": 10, "category_id": 9},
        {"segmentation": column, "iscrowd": 0, "image_id": 20, "category_id": 4},
    ]
    for n, entry in enumerate(annotations, 1):
        rle = entry["segmentation"]
        if isinstance(rle, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(rle, 40, 60))
        elif isinstance(rle["counts"], list):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        entry |= {"id": n, "area": float(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist()}
    categories = [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root

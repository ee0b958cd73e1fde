"""The audit: what it finds in made sets, ceilings that are known, and that it does not hold the data set."""

import csv
import re
import shutil
import tracemalloc

import made_sets
import numpy as np
import pytest
import torch
from made_sets import SMALL, SQUARE, audited, write_coco
from PIL import Image

from polarmask.audit import RAYS, audit, suggest
from polarmask.audit.collect import ClassAudit
from polarmask.audit.geometry import ceilings, claimed, contains, crosses
from polarmask.cli.audit import main
from polarmask.config import Config, ModelConfig
from polarmask.data import open_data
from polarmask.data.nuclei import fetch
from polarmask.data.problems import ERRORS, WARNINGS
from polarmask_ops import (
    cast_rays,
    encode_ragged_targets,
    outlines_from_masks,
    outlines_from_polygons,
    outlines_to_masks,
    polygon_iou,
    rays_to_polygons,
)


@pytest.mark.parametrize("kind", made_sets.MAKERS)
def test_made_sets_are_in_order(tmp_path, kind):
    result = audited(made_sets.MAKERS[kind](tmp_path / "set"))
    assert not result.problems
    assert not result.reasons
    assert (result.images, result.empty_images) == (3, 1)
    assert (result.total.instances, result.total.measured, result.total.outside) == (5, 5, 0)
    means = result.total.means()
    assert (np.diff(means) >= 0).all()
    assert means[-1] > 0.99  # rectangles


def test_ceilings_of_stardists_nuclei_are_the_known_ones(nuclei, tmp_path):
    """36 rays, last hit, from the centroid: 0.977, known from a measurement by other means."""
    for name, file in (("images", "img2d.tif"), ("masks", "mask2d.tif")):
        (tmp_path / name).mkdir()
        shutil.copy(fetch() / file, tmp_path / name / "nuclei.tif")
    result = audited(tmp_path)
    assert result.total.instances == 125
    assert result.total.means()[RAYS.index(36)] == pytest.approx(0.977, abs=0.001)
    best = suggest(result)
    assert (best.num_rays, best.strides, best.ranges) == (36, [4], [(-1, 1e8)])


PROBLEMS = {
    "broken": {"segmentation": [[1, 2, "x", 4, 5, 6]]},
    "not finite": {"segmentation": [[1, 2, float("nan"), 4, 5, 6]]},
    "wrong size": {"segmentation": {"size": [4, 4], "counts": [16]}},
    "no segmentation": {},
    "unknown category": {"segmentation": [SQUARE], "category_id": 7},
    "unknown image": {"segmentation": [SQUARE], "image_id": 7},
    "empty": {"segmentation": [[1, 1, 9, 9, 5, 5]]},
    "outside": {"segmentation": [[100, 100, 120, 100, 120, 120]]},
    "out of image": {"segmentation": [[30, 5, 90, 5, 90, 25]]},
    "self-crossing": {"segmentation": [[5, 5, 25, 5, 25, 25, 10, 25, 10, 30, 14, 30, 14, 22, 5, 22]]},
    "box differs": {"segmentation": [SQUARE], "bbox": [5, 5, 0, 0]},
    "too small": {"segmentation": [[1, 1, 1.5, 1, 1.5, 1.5]]},
    "no point": {"segmentation": [[3, 3, 5, 3, 5, 5, 3, 5]]},
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_audit_of_a_spoilt_annotation_names_the_problem(tmp_path, kind):
    other = {"segmentation": [[30, 5, 50, 5, 50, 25, 30, 25]], "bbox": [30, 5, 20, 20]}
    result = audited(write_coco(tmp_path / "set", [other, PROBLEMS[kind]]))
    assert dict(result.problems) == {kind: 1}
    assert "annotation 1" in result.examples[kind][0]
    assert bool(result.reasons) == (kind in ERRORS)
    assert not audited(tmp_path / "set" / "a.json", invalid="skip").reasons


def test_audit_repeated_annotations_are_counted(tmp_path):
    square = {"segmentation": [SQUARE]}
    turned = {"segmentation": [[25, 25, 5, 25, 5, 5, 25, 5]]}
    result = audited(write_coco(tmp_path / "set", [square, {**square, "id": 0}, turned]))
    assert dict(result.problems) == {"duplicate annotation id": 2, "duplicate": 2}


def test_audit_images_that_cannot_be_read_are_counted(tmp_path):
    images = [
        {"id": n, "file_name": name, "height": 40, "width": 60}
        for n, name in enumerate(["missing.png", "../image.png", "cut.png", "image.png"], 1)
    ]
    file = write_coco(tmp_path / "set", [{"segmentation": [SQUARE], "image_id": 4}], images=images)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    noise.save(tmp_path / "set" / "whole.png")
    (tmp_path / "set" / "cut.png").write_bytes((tmp_path / "set" / "whole.png").read_bytes()[:2000])
    result = audited(file)
    assert dict(result.problems) == {"unreadable image": 3}
    places = " ".join(result.examples["unreadable image"])
    assert all(name in places for name in ("missing.png", "../image.png", "cut.png"))
    assert result.reasons == ["3 images that are missing or broken"]


def test_images_of_another_size_and_of_the_same_id(tmp_path):
    entry = {"id": 1, "file_name": "image.png", "height": 40, "width": 61}
    result = audited(write_coco(tmp_path / "set", [], images=[entry, {**entry, "width": 60}]))
    assert dict(result.problems) == {"duplicate image id": 2, "unreadable annotations": 1}
    assert "no instances to train on" in result.reasons


def test_audit_of_several_classes_and_parts_counts_them(tmp_path):
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:35] = True
    mask[12:28, 12:28] = False  # around its centroid: nothing
    flat = mask.T.ravel()
    counts = np.diff(np.r_[0, np.flatnonzero(np.diff(flat)) + 1, len(flat)]).tolist()
    rle = {"size": [40, 60], "counts": counts}
    parts = {"segmentation": [SQUARE, [40, 5, 50, 5, 50, 25, 40, 25]]}
    result = audited(write_coco(tmp_path / "set", [{"segmentation": rle}, parts, {"segmentation": rle, "iscrowd": 1}]))
    total = result.total
    assert (total.instances, total.crowds, total.parts, total.measured) == (3, 1, 2, 2)
    assert total.outside == 0  # what is trained on has no holes
    # A square without its hole; two thirds of two parts.
    assert total.means()[-1] == pytest.approx((644 / 900 + 400 / 600) / 2, abs=0.01)
    split = audited(tmp_path / "set" / "a.json", parts="split").total
    assert split.measured == 3
    assert split.means()[-1] == pytest.approx((644 / 900 + 2) / 3, abs=0.12)


def test_audit_centroids_outside_are_counted(tmp_path):
    moon = [[30 + 20 * np.cos(t), 20 + 15 * np.sin(t)] for t in np.linspace(0.3, np.pi - 0.3, 30)]
    moon += [[30 + 17 * np.cos(t), 20 + 12 * np.sin(t)] for t in np.linspace(np.pi - 0.3, 0.3, 30)]
    result = audited(write_coco(tmp_path / "set", [{"segmentation": [(2 * np.ravel(moon)).tolist()]}], (80, 120)))
    assert result.total.outside == 1
    assert result.total.means()[-1] < 0.7
    assert len(result.worst) == 1
    assert -result.worst[0].priority == pytest.approx(result.total.means()[RAYS.index(36)])


# Geometry.


def random_polygons(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = 20 + 200 * torch.rand(count, 2, generator=generator)
    rays = 4 + 16 * torch.rand(count, 24, generator=generator)
    return rays_to_polygons(centers, rays)


def test_ceilings_are_those_of_the_polygons():
    polygons = random_polygons(60) * 8  # pixels matter little
    outlines = outlines_from_polygons([[polygon] for polygon in polygons])
    centers = outlines.centroids()
    rays = cast_rays(centers, outlines, torch.arange(60), 36)
    exact = polygon_iou(polygons, rays_to_polygons(centers, rays), paired=True)
    assert np.abs(ceilings(outlines, centers, rays) - exact.numpy()).max() < 0.005
    far = outlines.scale(100, 100)  # measured at 1024 pixels
    assert np.abs(ceilings(far, centers * 100, rays * 100) - exact.numpy()).max() < 0.005


def test_contains_random_points_as_the_masks_do():
    outlines = outlines_from_masks(torch.rand(40, 30, 30, generator=torch.Generator().manual_seed(0)) > 0.5, keep="all")
    masks = outlines_to_masks(outlines, (30, 30))
    points = torch.randint(0, 30, (40, 2), generator=torch.Generator().manual_seed(1))
    want = masks[torch.arange(40), points[:, 1], points[:, 0]]
    assert torch.equal(contains(outlines, points + 0.5), want)


@pytest.mark.parametrize("radius", [1.5, 2.25])
def test_claims_are_those_of_the_targets(radius):
    """Each instance by itself through the encoder: its positive points are the points that it claims."""
    outlines = outlines_from_polygons([[polygon] for polygon in random_polygons(40)])
    model = ModelConfig(strides=[4, 8, 16], ranges=[(-1, 16), (16, 24), (24, 1e8)], center_radius=radius)
    boxes, centers, size = outlines.boxes(), outlines.centroids(), (230, 240)
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in model.strides]
    alone = encode_ragged_targets(
        shapes,
        model.strides,
        boxes=boxes,
        labels=torch.zeros(40, dtype=torch.int64),
        outlines=outlines,
        image_offsets=torch.arange(41),
        regress_ranges=model.ranges,
        center_radius=radius,
    )
    want = alone.instance >= 0
    claims = claimed(boxes, centers, size, Config(model=model))
    assert claims.of_instance.tolist() == want.sum(1).tolist()
    counts = want.sum(0)
    assert sorted(claims.counts.tolist()) == sorted(counts[counts > 0].tolist())
    assert (claims.counts > 1).any()


@pytest.mark.parametrize(
    ("ring", "want"),
    [
        ([[0, 0], [4, 0], [4, 4], [0, 4]], False),
        ([[0, 0], [4, 4], [4, 0], [0, 4]], True),
        ([[0, 0], [4, 0], [2, 0], [2, 4]], False),  # a side upon another
        ([[0, 0], [2, 2], [4, 0], [4, 4], [2, 2], [0, 4]], False),  # a vertex touches another
        ([[0, 0]], False),
        (np.zeros((0, 2)), False),
    ],
)
def test_crosses_ring_with_or_without_crossing_is_known(ring, want):
    assert crosses([np.array(ring, np.float32)]) is want


def test_crosses_ring_of_many_sides_gives_none():
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32) * 1000
    assert crosses([circle]) is False
    swapped = circle.copy()
    swapped[[100, 101]] = swapped[[101, 100]]
    assert crosses([swapped]) is True
    wide = np.stack([np.tile([0, 1], 50_000), np.arange(100_000)], 1).astype(np.float32)
    assert crosses([wide]) is None


def test_audit_sizes_of_instances_are_summed():
    assert (ClassAudit(instances=2) + ClassAudit(instances=3, parts=1)).instances == 5


# Reports, and how much is held.


def test_audit_program_writes_report_and_exit_status(tmp_path, capsys):
    root = write_coco(tmp_path / "set", [{"segmentation": [SQUARE]}, PROBLEMS["out of image"]])
    args = [str(root), "--report", str(tmp_path / "out"), "--model.strides", "[4]", "--model.ranges", "[[-1, 1e8]]"]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "training may start" in printed
    assert "1 images (0 without instances), 2 instances" in printed
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;$thing&lt;/b&gt;" in page
    assert "<b>$thing" not in page  # names are text
    assert len(re.findall("data:image/png;base64", page)) == 3 + 1
    with (tmp_path / "out" / "problems.csv").open() as file:
        assert list(csv.reader(file)) == [["kind", "place"], ["out of image", f"{root.parent}/image.png: annotation 1"]]
    write_coco(tmp_path / "set", [PROBLEMS["broken"]])
    assert main([*args, "--quick"]) == 1
    assert "training may not start: 1 annotation that cannot be parsed; no instances to train on" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main([str(tmp_path / "nowhere")]) == 1


def test_audit_every_kind_of_problem_is_described():
    assert not set(ERRORS) & set(WARNINGS)
    assert set(PROBLEMS) < set(ERRORS) | set(WARNINGS)


def peak(root, count):
    """Bytes that an audit of so many images holds at most."""
    size = (40, 60)
    images = [{"id": n, "file_name": "image.png", "height": 40, "width": 60} for n in range(count)]
    entries = [{"segmentation": [SQUARE], "image_id": n // 4, "attributes": "…" * 3000} for n in range(4 * count)]
    file = write_coco(root, entries, size, images)
    config = Config(model=SMALL)
    tracemalloc.start()
    audit(open_data(file, config=config.data), config, decode=False)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held, file.stat().st_size


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("polarmask.data.formats.json_index.PIECE", 1 << 14)
    (small, small_size), (large, large_size) = (peak(tmp_path / "set", count) for count in (10, 40))
    assert large_size > small_size + 1e6
    assert large < small + 0.1 * (large_size - small_size)

"""encode_targets of a list of dicts: equal to encode_ragged_targets, and what it refuses."""

import itertools

import pytest
import torch
from polar_target_tester import LEVELS, batch

from polarmask_ops import (
    BACKGROUND,
    IGNORED,
    Outlines,
    encode_ragged_targets,
    encode_targets,
    outlines_from_masks,
)

SHAPES, STRIDES = LEVELS["level_shapes"], LEVELS["strides"]
OPTIONS = {name: LEVELS[name] for name in ("regress_ranges", "num_rays")}


def equal(left, right):
    return all(torch.equal(*pair) for pair in zip(left, right, strict=True))


def split(sample):
    """The images of a batch as dicts with outlines and boxes."""
    ends = sample["image_offsets"].tolist()
    return [
        {
            "outlines": sample["outlines"][begin:end],
            "labels": sample["labels"][begin:end],
            "boxes": sample["boxes"][begin:end],
        }
        for begin, end in itertools.pairwise(ends)
    ]


def disks(device="cpu", dtype=torch.uint8):
    """Masks of three disks in an image of 80 × 96 pixels."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(96.0), indexing="ij")
    masks = [(x - a) ** 2 + (y - b) ** 2 < r * r for a, b, r in ((30, 30, 14), (60, 40, 18), (48, 62, 10))]
    return torch.stack(masks).to(device, dtype)


def encode(targets, **options):
    return encode_targets(SHAPES, STRIDES, targets, **OPTIONS, **options)


@pytest.mark.parametrize("method", ["last", "first", "binned"])
def test_encode_targets_with_outlines_equals_ragged_form(method, device):
    sample = batch(torch.float32, device)
    del sample["centers"]
    got = encode(split(sample), method=method)
    assert got.positive.any()
    assert equal(got, encode_ragged_targets(**sample, method=method))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_encode_targets_with_masks_equals_ragged_form(dtype, device):
    masks, labels = disks(device, dtype), torch.tensor([2, 0, 5], device=device)
    outlines = outlines_from_masks(masks)
    got = encode([{"masks": masks, "labels": labels}])
    want = encode_ragged_targets(
        SHAPES,
        STRIDES,
        boxes=outlines.boxes(),
        labels=labels,
        outlines=outlines,
        image_offsets=torch.tensor([0, 3], device=device),
        **OPTIONS,
    )
    assert got.positive.any()
    assert equal(got, want)


def test_encode_targets_with_torchvision_target_takes_it_as_it_is():
    """The dict of torchvision's detection references, tv_tensors among it."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    masks, labels = disks(), torch.tensor([1, 2, 3])
    boxes = outlines_from_masks(masks).boxes()
    target = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(80, 96)),
        "masks": tv_tensors.Mask(masks),
        "labels": labels,
        "image_id": 7,
        "area": masks.sum((1, 2)),
        "iscrowd": torch.zeros(3, dtype=torch.int64),
    }
    got = encode([target])
    assert all(type(tensor) is torch.Tensor for tensor in got)
    assert equal(got, encode([{"masks": masks, "labels": labels}]))


def test_encode_targets_with_empty_images_gives_them_background():
    masks = disks()
    empty = {"masks": masks[:0], "labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    no_outlines = {"outlines": Outlines(torch.zeros(0, 4), torch.tensor([0])), "labels": empty["labels"]}
    full = {"masks": masks, "labels": torch.tensor([2, 0, 5])}
    got = encode([empty, full, no_outlines])
    assert (got.labels[[0, 2]] == BACKGROUND).all()
    assert not got.rays[[0, 2]].any()
    assert torch.equal(got.rays[1], encode([full]).rays[0])


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_encode_targets_of_crowds_ignores_the_points_inside(key, dtype):
    target = {"masks": disks(), "labels": torch.tensor([2, 0, 5])}
    crowd = torch.tensor([0, 1, 0]).to(dtype)
    got = encode([{**target, key: crowd}])
    assert (got.labels == IGNORED).any()
    assert not (got.instance == 1).any()
    assert not (encode([{**target, key: crowd * 0}]).labels == IGNORED).any()


def test_encode_targets_with_boxes_assigns_by_them():
    target = {"masks": disks(), "labels": torch.tensor([2, 0, 5])}
    nowhere = torch.full((3, 4), -50.0)
    assert not encode([{**target, "boxes": nowhere}]).positive.any()


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        (disks(), TypeError, ("list", "dict", "Tensor", "encode_ragged_targets")),
        ({"masks": disks(), "labels": torch.tensor([1])}, TypeError, ("list", "dict")),
        ([disks()], TypeError, ("targets[0]", "dict", "Tensor")),
        ([], ValueError, ("at least one image",)),
        ([{"masks": disks()}], ValueError, ("targets[0]", "'labels'", "['masks']")),
        ([{"labels": torch.tensor([1])}], ValueError, ("'outlines' or 'masks'", "['labels']")),
        ([{"masks": disks(), "labels": [1, 2, 3]}], TypeError, ("targets[0]['labels']", "tensor", "list")),
        ([{"masks": disks(), "labels": torch.ones(3)}], TypeError, ("targets[0]['labels']", "int64", "float32")),
        ([{"masks": disks(), "labels": torch.ones(3, 1).long()}], ValueError, ("['labels']", "(M,)", "(3, 1)")),
        ([{"masks": disks(), "labels": torch.tensor([1])}], ValueError, ("['masks']", "['labels'], 1", "got 3")),
        ([{"masks": disks().float(), "labels": torch.arange(3)}], TypeError, ("['masks']", "bool or uint8", "float32")),
        ([{"masks": disks()[0], "labels": torch.arange(3)}], ValueError, ("['masks']", "(M, H, W)", "(80, 96)")),
        ([{"outlines": disks(), "labels": torch.arange(3)}], TypeError, ("outlines", "Outlines", "Tensor")),
    ],
)
def test_encode_targets_of_wrong_targets_names_what_is_wrong(targets, error, words):
    with pytest.raises(error) as raised:
        encode(targets)
    assert [word for word in ("encode_targets", *words) if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"boxes": torch.ones(3, 5)}, ValueError, ("['boxes']", "(M, 4)", "(3, 5)")),
        ({"boxes": torch.ones(2, 4)}, ValueError, ("['boxes']", "got 2")),
        ({"boxes": torch.ones(3, 4, dtype=torch.int64)}, TypeError, ("['boxes']", "floating-point", "int64")),
        ({"boxes": torch.ones(3, 4, device="meta")}, ValueError, ("['boxes']", "device", "meta")),
        ({"iscrowd": torch.zeros(2).long()}, ValueError, ("['iscrowd']", "(3,)", "(2,)")),
        ({"iscrowd": torch.zeros(3)}, TypeError, ("['iscrowd']", "float32")),
        ({"ignore": torch.zeros(3, dtype=torch.bool, device="meta")}, ValueError, ("['ignore']", "device", "meta")),
    ],
)
def test_encode_targets_of_wrong_optional_entry_names_it(changes, error, words):
    with pytest.raises(error) as raised:
        encode([{"masks": disks(), "labels": torch.arange(3), **changes}])
    assert [word for word in ("encode_targets", *words) if word not in str(raised.value)] == []


def test_encode_targets_called_with_tensors_of_a_batch_raises_type_error():
    sample = batch(torch.float32)
    given = [sample[name] for name in ("boxes", "labels", "outlines", "image_offsets")]
    with pytest.raises(TypeError, match=r"encode_targets\(\) takes 3 positional arguments but 6"):
        encode_targets(SHAPES, STRIDES, *given)
    with pytest.raises(TypeError, match="encode_ragged_targets takes the tensors of a whole batch"):
        encode_targets(SHAPES, STRIDES, given[0])


def test_encode_targets_compiled_and_exported_equals_eager():
    sample = split(batch(torch.float32))[::2]
    want = encode(sample)
    assert equal(torch.compile(encode, fullgraph=True, backend="aot_eager")(sample), want)

    class Module(torch.nn.Module):
        def forward(self, targets):
            return encode(targets)

    assert equal(torch.export.export(Module(), (sample,)).module()(sample), want)


def test_polar_targets_positive_is_where_an_instance_is_assigned():
    got = encode(
        [{"masks": disks(), "labels": torch.tensor([-7, -7, -7]), "ignore": torch.tensor([False, True, False])}]
    )
    assert torch.equal(got.positive, got.instance >= 0)
    assert got.positive.any()
    assert (BACKGROUND, IGNORED) == (-1, -2)

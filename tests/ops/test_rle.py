import json

import numpy as np
import pycocotools.mask as coco
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import EMULATED, KERNELS, by_cpu_and_kernels, leaves
from reference.rle import rle_of
from torch.utils import _pytree as pytree

from polarmask_ops import RLE, outlines_from_rle

SIZES = [(1, 1), (7, 9), (1, 30), (30, 1), (40, 25)]


def random_masks(size, count=12):
    """From nearly empty to nearly full, smooth and not; the first empty, the second full."""
    masks = torch.rand(count, *size) < torch.linspace(0, 1, count)[:, None, None]
    masks[0], masks[1] = False, True
    masks[2, : size[0] // 2] = True
    return masks


def coco_objects(masks):
    return [coco.encode(np.asfortranarray(mask)) for mask in masks.numpy().astype(np.uint8)]


@pytest.mark.parametrize("size", SIZES)
def test_pycocotools_agrees(size):
    masks = random_masks(size)
    objects = coco_objects(masks)
    rle = RLE.from_masks(masks)
    assert rle.to_coco() == objects
    assert RLE.from_coco(objects) == rle
    assert torch.equal(rle.to_masks(), masks)
    assert rle.areas().tolist() == coco.area(objects).tolist()
    boxes = rle.boxes()
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    assert xywh.tolist() == coco.toBbox(objects).tolist()


@pytest.mark.parametrize("size", [*SIZES, (0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_from_masks_is_the_reference(size, count):
    masks = torch.rand(count, *size) < 0.4
    rle = RLE.from_masks(masks)
    counts, offsets, _ = rle_of(masks.numpy())
    assert (rle.counts.tolist(), rle.offsets.tolist(), rle.size) == (counts.tolist(), offsets.tolist(), size)
    assert rle.counts.dtype == torch.int32
    assert torch.equal(rle.to_masks(), masks)
    assert RLE.from_coco(rle.to_coco(), size=size) == rle
    assert rle.boxes().shape == (count, 4)


def test_uint8_and_strides():
    masks = random_masks((9, 8))
    assert RLE.from_masks(masks.byte() * 255) == RLE.from_masks(masks)
    assert RLE.from_masks(masks.transpose(1, 2)) == RLE.from_masks(masks.transpose(1, 2).contiguous())


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(20, 40), (3, 5), (70, 100)])
def test_from_masks_of_any_byte_but_0_is_inside(size):
    """Bool tensors may hold any byte; every run of the image passes from one byte to another."""
    bytes_ = torch.randint(0, 256, (6, *size), dtype=torch.uint8) * (torch.rand(6, *size) < 0.6)
    bytes_[0], bytes_[1, :, 1:] = 255, 128
    want = RLE.from_masks(bytes_ != 0)
    assert RLE.from_masks(bytes_) == want
    assert RLE.from_masks(bytes_.view(torch.bool)) == want
    assert want.areas().tolist() == (bytes_ != 0).sum((1, 2)).tolist()


@pytest.mark.parametrize(
    ("objects", "error", "words"),
    [
        ([{}], ValueError, "instance 0 to have size and counts, got the keys"),
        ([{"size": [3, 4]}], ValueError, r"instance 0 to have size and counts, got the keys \['size'\]"),
        ([{"size": [3, 4], "counts": b"<"}, {"counts": b"<"}], ValueError, "instance 1 to have size and counts"),
        ([b"<"], TypeError, "instance 0 to be a dict, got bytes"),
        ([{"size": None, "counts": b"<"}], TypeError, "size to be"),
        ([{"size": [3], "counts": b"<"}], ValueError, "size to be"),
        ([{"size": [3, 4.5], "counts": b"<"}], TypeError, "size to be"),
        ([{"size": [3, 4], "counts": None}], TypeError, "counts of instance 0 to be bytes, str or a list"),
        ([{"size": [3, 4], "counts": 12}], TypeError, "counts of instance 0 to be bytes, str or a list"),
        ([{"size": [3, 4], "counts": [6, 7]}], ValueError, r"counts of instance 0 to sum to 3 \* 4, got 13"),
    ],
)
def test_from_coco_of_what_is_no_rle_is_refused(objects, error, words):
    with pytest.raises(error, match=rf"^RLE.from_coco: expected {words}"):
        RLE.from_coco(objects)


def test_load_weights_only_reads_rle_and_outlines(tmp_path):
    rle = RLE.from_masks(random_masks((9, 8)))
    torch.save({"rle": rle, "outlines": outlines_from_rle(rle)}, tmp_path / "saved.pt")
    loaded = torch.load(tmp_path / "saved.pt", weights_only=True)
    assert loaded["rle"] == rle
    assert torch.equal(loaded["outlines"].segments, outlines_from_rle(rle).segments)


@pytest.mark.parametrize("kind", ["bytes", "str", "list"])
def test_from_coco_kinds(kind):
    rle = RLE.from_masks(random_masks((9, 8)))
    objects = rle.to_coco()
    for n, each in enumerate(objects):
        each["counts"] = {"bytes": each["counts"], "str": each["counts"].decode(), "list": rle[n].counts.tolist()}[kind]
    assert RLE.from_coco(objects) == rle


def test_from_coco_keeps_empty_runs():
    rle = RLE.from_coco([{"size": [3, 4], "counts": [5, 0, 2, 3, 2]}, {"size": [3, 4], "counts": [12, 0]}])
    assert rle.counts.tolist() == [5, 0, 2, 3, 2, 12, 0]
    assert rle.areas().tolist() == [3, 0]
    assert rle.boxes().tolist() == [[2, 0, 4, 3], [0, 0, 0, 0]]


def test_large_counts():
    size = (2**16 - 1, 2**15)
    rle = RLE.from_coco([{"size": size, "counts": [1, 2, 3, size[0] * size[1] - 6]}])
    assert RLE.from_coco(rle.to_coco()) == rle
    assert rle.areas().tolist() == [size[0] * size[1] - 4]
    assert rle.boxes().tolist() == [[0, 0, size[1], size[0]]]


@pytest.mark.parametrize(
    "counts",
    [
        b"",
        b"3",  # too few pixels
        b"=",
        b"o",  # more to come
        b"4P",  # likewise
        b"4 ",  # no such character
        b"4\xff",
        "4é",
        "\ud800",
        b"o" * 100 + b"0",
        b"N6",  # -2, 6
        b"PPPPPPP1",  # 2**35
        [13],
        [2, 3],
        [-1, 13],
        [2**31, 0],
        [6.0, 6.0],
    ],
)
def test_malformed_counts(counts):
    good = {"size": [3, 4], "counts": b"<"}
    assert RLE.from_coco([good]).counts.tolist() == [12]
    with pytest.raises(ValueError, match="counts of instance 1"):
        RLE.from_coco([good, {"size": [3, 4], "counts": counts}])


@settings(max_examples=50 if EMULATED else 300, deadline=None)
@given(st.binary(max_size=12) | st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=12))
def test_any_string_is_read_or_refused(counts):
    try:
        rle = RLE.from_coco([{"size": [4, 5], "counts": counts}])
    except ValueError:
        return
    assert rle.counts.sum() == 20
    assert rle.counts.min() >= 0
    assert RLE.from_coco(rle.to_coco()) == rle
    assert torch.equal(rle.to_masks().sum((1, 2)), rle.areas())


@pytest.mark.smoke
@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
@pytest.mark.parametrize("size", [(40, 64), (33, 48), (45, 100), (70, 900)])
def test_kernels_agree_with_cpu(size):
    masks = random_masks(size)
    masks[3] = False
    masks[3, 10:20, 5:40] = True
    everything = (RLE.from_masks, RLE.to_masks, RLE.areas, RLE.boxes, RLE.to_coco)
    rle = RLE.from_masks(masks)
    for function in everything:
        given = {"masks": masks} if function == RLE.from_masks else {"self": rle}
        for want, got in zip(*map(leaves, by_cpu_and_kernels(function, given)), strict=True):
            assert torch.equal(got, want) if isinstance(want, torch.Tensor) else got == want


@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
def test_kernels_on_many_instances():
    """More than one launch sums up, more than there are warps in a block."""
    first = torch.arange(4500, dtype=torch.int32) % 12
    rle = RLE(torch.stack([first, 12 - first], 1).flatten(), 2 * torch.arange(4501), (3, 4))
    for function in (RLE.areas, RLE.boxes, RLE.to_coco):
        by_cpu, by_kernels = by_cpu_and_kernels(function, {"self": rle})
        assert torch.equal(by_kernels, by_cpu) if isinstance(by_cpu, torch.Tensor) else by_kernels == by_cpu


@pytest.mark.skipif(not EMULATED, reason="what a GPU is handed unchecked, the CPU refuses")
@pytest.mark.parametrize(
    ("counts", "offsets"),
    [
        ([13], [0, 1]),
        ([5, -3, 10], [0, 3]),
        ([2**31 - 1, 2**31 - 1, 2**31 - 1], [0, 3]),
        ([6, 6], [2, -9]),
        ([6, 6], [0, 2**62]),
        ([6, 6], [-7, 1, 0, 2]),
        ([], [0, 5]),
    ],
)
def test_kernels_take_what_is_malformed_as_empty(monkeypatch, counts, offsets):
    monkeypatch.setenv("POLARMASK_CHECK", "0")
    rle = RLE(torch.tensor(counts, dtype=torch.int32), torch.tensor(offsets), (3, 4))
    good = RLE.from_masks(torch.ones(1, 3, 4, dtype=torch.bool))
    drawn = rle.to_masks().sum((1, 2)).tolist()
    assert drawn == [6 if (n, offsets[-1]) in ((0, 2**62), (2, 2)) else 0 for n in range(len(offsets) - 1)]
    assert (rle.boxes()[:, 2] > 0).tolist() == [area > 0 for area in drawn]
    assert (rle.areas() >= 0).all()
    assert len(rle.to_coco()) == len(rle)
    strings = torch.tensor(list(b"0<" + b"\xff0<ooooooooo"), dtype=torch.uint8)
    read, ends = torch.ops.polarmask.rle_from_strings(strings, torch.tensor([0, 2, 5, 12, 2**40]), 3, 4)
    assert ends.tolist() == [0, 2, 2, 2, 2]
    assert torch.equal(read, good.counts)


def test_one_size():
    objects = [{"size": [3, 4], "counts": b"<"}, {"size": [4, 3], "counts": b"<"}]
    with pytest.raises(ValueError, match="one size"):
        RLE.from_coco(objects)
    with pytest.raises(ValueError, match="one size"):
        RLE.from_coco(objects[:1], size=(4, 4))
    with pytest.raises(ValueError, match="no size"):
        RLE.from_coco([])
    assert len(RLE.from_coco([], size=(4, 4))) == 0
    assert len(RLE.from_coco(iter(objects[:1]))) == 1
    with pytest.raises(ValueError, match="one size"):
        RLE.cat([RLE.from_coco(objects[:1]), RLE.from_coco(objects[1:])])


@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        (torch.zeros(2, 3, 4), TypeError, "bool or uint8, got torch.float32"),
        (np.zeros((2, 3, 4), bool), TypeError, "got ndarray"),
        (torch.zeros(3, 4, dtype=torch.bool), ValueError, r"\(N, H, W\), got \(3, 4\)"),
    ],
)
def test_bad_masks(masks, error, words):
    with pytest.raises(error, match=words):
        RLE.from_masks(masks)


@pytest.mark.parametrize(
    ("counts", "offsets"),
    [
        ([12], [0, 2]),
        ([12], [1, 1]),
        ([12, 12], [0, 2, 1]),
        ([12, 12], [0, 3, 2]),
        ([12], []),
        ([13], [0, 1]),
        ([11], [0, 1]),
        ([-1, 13], [0, 2]),
        ([2**31 - 1, 2**31 - 1], [0, 2]),
    ],
)
def test_made_up_tensors_are_refused(counts, offsets):
    rle = RLE(torch.tensor(counts, dtype=torch.int32), torch.tensor(offsets, dtype=torch.int64), (3, 4))
    for method in (rle.to_masks, rle.to_coco, rle.areas, rle.boxes):
        with pytest.raises(ValueError, match="expected"):
            method()


@pytest.mark.parametrize("method", ["areas", "boxes", "to_coco", "to_masks"])
def test_counts_that_are_none(method):
    offsets = torch.tensor([0, 2])
    with pytest.raises(
        TypeError, match=rf"RLE.{method}: expected counts to be a tensor of dtype int32, got torch.int64"
    ):
        getattr(RLE(torch.tensor([3, 9]), offsets, (3, 4)), method)()
    with pytest.raises(ValueError, match=r"expected counts not to be negative, got -1 at index 1"):
        getattr(RLE(torch.tensor([13, -1], dtype=torch.int32), offsets, (3, 4)), method)()


def test_size_is_made_of_plain_integers():
    masks = torch.ones(1, 3, 4, dtype=torch.bool)
    objects = [{"size": np.array([3, 4]), "counts": b"0<"}]
    rle = RLE.from_coco(objects)
    assert rle == RLE.from_masks(masks)
    assert json.dumps(rle.to_coco()[0]["size"]) == "[3, 4]"


def test_masks_without_rows_cost_nothing():
    assert RLE.from_masks(torch.zeros(1, 0, 2**40, dtype=torch.bool)).counts.tolist() == [0]


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(2, 9, 3), slice(5, 5), torch.tensor([3, 3, -1, 0]), torch.tensor([], dtype=torch.int64)],
)
def test_index(index):
    masks = random_masks((7, 6))
    picked = RLE.from_masks(masks)[index]
    assert picked == RLE.from_masks(masks[index].reshape(-1, 7, 6))
    assert picked.size == (7, 6)


def test_index_bool_and_out_of_range():
    rle = RLE.from_masks(random_masks((7, 6)))
    assert rle[rle.areas() > 20] == RLE.from_masks(rle.to_masks()[rle.areas() > 20])
    for index in (12, -13, torch.tensor([12])):
        with pytest.raises(IndexError):
            rle[index]
    assert [len(one) for one in rle] == [1] * 12


def test_cat():
    masks = random_masks((7, 6))
    rle = RLE.from_masks(masks)
    assert RLE.cat([rle[:5], rle[:0], rle[5:]]) == rle
    assert RLE.cat([rle]) == rle
    with pytest.raises(ValueError, match="no items"):
        RLE.cat([])


def test_equality():
    rle = RLE.from_masks(random_masks((7, 6)))
    assert rle == RLE(rle.counts.clone(), rle.offsets.clone(), rle.size)
    assert rle != rle[1:]
    assert rle != RLE(rle.counts, rle.offsets, (6, 7))
    assert rle != rle.counts


def test_pytree_and_device(device):
    rle = RLE.from_masks(random_masks((7, 6)))
    leaves, spec = pytree.tree_flatten(rle)
    assert [leaf.dtype for leaf in leaves] == [torch.int32, torch.int64]
    assert pytree.tree_unflatten(leaves, spec) == rle
    assert rle.to(device).counts.device.type == device
    assert rle.to(device).cpu() == rle


def test_export():
    class Boxes(torch.nn.Module):
        def forward(self, rle):
            return rle.boxes(), rle.areas(), rle.to_masks()

    rle = RLE.from_masks(random_masks((7, 6)))
    exported = torch.export.export(Boxes(), (rle,))
    for got, want in zip(exported.module()(rle), Boxes()(rle), strict=True):
        assert torch.equal(got, want)


def test_export_for_images_of_any_size(tmp_path):
    class Module(torch.nn.Module):
        def forward(self, masks):
            return RLE.from_masks(masks)

    masks = torch.rand(3, 20, 30) < 0.5
    sides = {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    torch.export.save(torch.export.export(Module(), (masks,), dynamic_shapes=(sides,)), tmp_path / "module.pt2")
    masks = torch.rand(3, 7, 11) < 0.5
    rle = torch.export.load(tmp_path / "module.pt2").module()(masks)
    assert rle == RLE.from_masks(masks)
    assert torch.equal(rle.to_masks(), masks)


def test_opcheck():
    masks = random_masks((7, 6))
    rle = RLE.from_masks(masks)
    tensors = rle.counts, rle.offsets
    strings, ends = torch.ops.polarmask.rle_to_strings(*tensors, 7, 6)
    torch.library.opcheck(torch.ops.polarmask.masks_to_rle, (masks,))
    torch.library.opcheck(torch.ops.polarmask.rle_to_masks, (*tensors, 7, 6))
    torch.library.opcheck(torch.ops.polarmask.rle_areas, (*tensors, 7, 6))
    torch.library.opcheck(torch.ops.polarmask.rle_boxes, (*tensors, 7, 6))
    torch.library.opcheck(torch.ops.polarmask.rle_to_strings, (*tensors, 7, 6))
    torch.library.opcheck(torch.ops.polarmask.rle_from_strings, (strings, ends, 7, 6))


def test_vmap_says_why_not():
    with pytest.raises(RuntimeError, match="masks_to_rle: vmap is not possible"):
        torch.vmap(lambda masks: RLE.from_masks(masks).counts)(torch.zeros(2, 3, 4, 5, dtype=torch.bool))

"""Polygons through torchvision's transforms: beside the masks of the same shapes, through the same transforms."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional._utils import _KERNEL_REGISTRY

from polarmask.data import Shapes
from polarmask.data.batches.loader import collate
from polarmask.data.polygons import Polygons, SanitizeInstances, from_tv, project, to_tv
from polarmask_ops import outlines_from_masks, outlines_from_polygons, outlines_to_masks

SIZE = (45, 62)


def masks():
    """Three shapes, with a hole, of two parts, and at the border: their outlines run along the sides of pixels."""
    drawn = torch.zeros(3, *SIZE, dtype=torch.bool)
    drawn[0, 5:25, 10:40] = True
    drawn[0, 10:15, 15:22] = False
    drawn[1, 30:42, 5:12] = drawn[1, 26:31, 30:50] = True
    drawn[2, 0:9, 44:62] = True
    drawn[2, 20:45, 58:62] = True
    return drawn


def polygons(dtype=torch.float32):
    return Polygons(outlines_from_masks(masks(), keep="all").to(dtype), canvas_size=SIZE)


def drawn(polygons):
    return outlines_to_masks(polygons.outlines, polygons.canvas_size)


EXACT = {  # where pixels become pixels
    "horizontal_flip": {},
    "vertical_flip": {},
    "resize": {"size": [90, 186]},
    "pad": {"padding": [3, 4, 5, 6]},
    "crop": {"top": 5, "left": 20, "height": 30, "width": 35},
    "center_crop": {"output_size": [31, 32]},
    "resized_crop": {"top": 2, "left": 3, "height": 20, "width": 30, "size": [40, 90]},
}
MORE_EXACT = [
    ("resize", {"size": None, "max_size": 124}),
    ("resize", {"size": 90}),
    ("pad", {"padding": 4}),
    ("pad", {"padding": [2, 3]}),
    ("pad", {"padding": [-7, -3, 5, -2]}),
    ("crop", {"top": -4, "left": -5, "height": 60, "width": 70}),
    ("crop", {"top": 40, "left": 50, "height": 60, "width": 70}),
    ("center_crop", {"output_size": [61, 32]}),
    ("center_crop", {"output_size": 80}),
    *(("rotate", {"angle": angle, "expand": expand}) for angle in (0, 180) for expand in (False, True)),
    ("rotate", {"angle": 90, "expand": True}),
    ("rotate", {"angle": -90, "expand": True}),
    ("rotate", {"angle": 90, "center": [30, 20]}),
    ("affine", {"angle": 0, "translate": [5, -3], "scale": 1, "shear": [0, 0]}),
]
MOVED = {  # where pixels are sampled
    "affine": {"angle": 23, "translate": [4, -2], "scale": 0.9, "shear": [8, -5]},
    "rotate": {"angle": 37, "expand": True},
    "perspective": {
        "startpoints": [[0, 0], [61, 0], [61, 44], [0, 44]],
        "endpoints": [[4, 2], [57, 5], [60, 40], [1, 43]],
    },
}
MORE_MOVED = [
    ("affine", {"angle": -140, "translate": [0, 0], "scale": 1.3, "shear": [0, 0], "center": [10, 30]}),
    ("affine", {"angle": 10, "translate": [0, 0], "scale": 1.0, "shear": 12.0}),
    ("rotate", {"angle": 61, "center": [12.5, 20]}),
    ("rotate", {"angle": 61, "center": [12.5, 20], "expand": True}),
    ("rotate", {"angle": 211, "expand": True}),
    (
        "perspective",
        {"startpoints": None, "endpoints": None, "coefficients": [1.1, 0.1, -3, 0.05, 0.9, 2, 2e-3, -1e-3]},
    ),
]
OTHERS = {"get_size", "to_dtype", "elastic"}


def test_every_functional_of_boxes_has_a_kernel():
    """One that had none would pass polygons through unchanged, silently."""
    geometric = {functional.__name__ for functional, of in _KERNEL_REGISTRY.items() if tv_tensors.BoundingBoxes in of}
    ours = {functional.__name__ for functional, of in _KERNEL_REGISTRY.items() if Polygons in of}
    assert ours == geometric == set(EXACT) | set(MOVED) | OTHERS


@pytest.mark.parametrize(("name", "arguments"), [*EXACT.items(), *MORE_EXACT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_masks_move_to_the_pixel(name, arguments, dtype):
    changed = getattr(F, name)(polygons(dtype), **arguments)
    want = getattr(F, name)(tv_tensors.Mask(masks()), **arguments)
    assert changed.canvas_size == tuple(want.shape[-2:])
    assert changed.dtype == dtype
    assert torch.equal(drawn(changed), want.as_subclass(torch.Tensor).bool())


@pytest.mark.parametrize(("name", "arguments"), [*MOVED.items(), *MORE_MOVED])
def test_as_masks_are_sampled(name, arguments):
    """A pixel of the mask is that of the input that its centre comes from, and so it is inside the moved sides of that.

    The kernels of masks compute in float32: a centre that comes from the side of a pixel may fall on either.
    """
    changed = getattr(F, name)(polygons(torch.float64), **arguments)
    want = getattr(F, name)(tv_tensors.Mask(masks()), **arguments).as_subclass(torch.Tensor).bool()
    assert changed.canvas_size == tuple(want.shape[-2:])
    got = drawn(changed)
    assert want.sum() > 150
    assert (got ^ want).sum() <= 1


@pytest.mark.parametrize(("name", "arguments"), [*EXACT.items(), *MOVED.items()])
def test_areas_change_as_the_map_says(name, arguments):
    """Nothing is cut here, and matter stays on the same side of the sides."""
    outlines = outlines_from_polygons([[[20, 15, 40, 15, 40, 30, 20, 30]]]).to(torch.float64)
    changed = getattr(F, name)(Polygons(outlines, canvas_size=SIZE), **arguments).outlines
    factor = {"resize": 6, "affine": 0.81, "resized_crop": 6}.get(name, 1)
    if name == "perspective":
        assert changed.areas()[0] > 0
    elif name != "resized_crop":
        assert changed.areas()[0] == pytest.approx(300 * factor)


def test_what_leaves_the_image_does_not_come_back():
    there = F.crop(polygons(), 0, 0, 45, 30)
    back = F.pad(there, [0, 0, 32, 0])
    assert back.canvas_size == SIZE
    assert not drawn(back)[..., 30:].any()


def test_polygons_elastic_transform_is_refused():
    with pytest.raises(NotImplementedError, match="maps lines to lines"):
        F.elastic(polygons(), torch.zeros(1, *SIZE, 2))


def test_paddings_that_show_objects_again_raise():
    with pytest.raises(ValueError, match="expected padding_mode constant"):
        F.pad(polygons(), [1, 1], padding_mode="reflect")


def test_a_horizon_through_the_image_raises():
    with pytest.raises(ValueError, match="this side of the map's horizon"):
        project(polygons().outlines, np.array([[1, 0, 0], [0, 1, 0], [-1 / 30, 0, 1]]))


def test_mirroring_projections_keep_matter_on_its_side():
    matrix = np.array([[-1, 0, 62], [0, 1, 0], [1e-3, 0, 1.0]])
    assert (project(polygons().outlines, matrix).areas() > 0).all()


def test_polygons_of_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point dtype"):
        F.to_dtype(polygons(), torch.int64)
    assert F.to_dtype(polygons(), torch.float64).dtype == torch.float64


@pytest.mark.parametrize("change", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p)), lambda p: p.clone()])
def test_polygons_copied_stay_polygons(change):
    copied = change(polygons())
    assert isinstance(copied, Polygons)
    assert copied.canvas_size == SIZE
    assert torch.equal(drawn(copied), masks())
    assert "canvas_size=(45, 62)" in repr(copied)


def test_results_of_arithmetic_are_plain_tensors():
    assert type(polygons() + 1) is torch.Tensor


class Pipeline(torch.utils.data.Dataset):
    """The generated shapes through a random pipeline."""

    def __init__(self, transform):
        self.data, self.transform = Shapes(4, 96), transform

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return from_tv(self.transform(to_tv(self.data[index])))


def pipeline():
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(p=1),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(30, (0.1, 0.1), (0.8, 1.2), 10),
            v2.RandomPerspective(0.3, p=1),
            v2.RandomZoomOut(side_range=(1, 1.5), p=1),
            v2.RandomIoUCrop(min_scale=0.9),
            v2.Resize((80, 120)),
            v2.GaussianBlur(3),
            SanitizeInstances(min_area=20),
        ]
    )


def test_polygons_through_pipelines_agree_with_masks():
    torch.manual_seed(0)
    for sample in map(Shapes(6, 96).__getitem__, range(6)):
        entries = to_tv(sample)
        entries["masks"] = tv_tensors.Mask(outlines_to_masks(sample.outlines, sample.size))
        changed = pipeline()(entries)
        counts = {len(changed[name]) for name in ("boxes", "labels", "ignore", "masks")}
        assert counts == {len(changed["polygons"].outlines)}
        assert torch.equal(changed["boxes"].as_subclass(torch.Tensor), changed["polygons"].outlines.boxes())
        got, want = drawn(changed["polygons"]), changed["masks"].as_subclass(torch.Tensor).bool()
        # Masks are resampled four times, each time by up to half a pixel.
        grown, shrunk = (max_pool2d(each.float(), 5, 1, 2).bool() for each in (want, ~want))
        assert not (got & ~grown).any()
        assert not (~shrunk & ~got).any()


def test_polygons_in_batches_from_workers_become_targets():
    torch.manual_seed(0)
    loader = DataLoader(Pipeline(pipeline()), batch_size=4, num_workers=1, collate_fn=collate)
    ((images, targets, _),) = list(loader)
    assert [tuple(image.shape) for image in images] == [(3, 80, 120)] * 4
    for target in targets:
        assert len(target["boxes"]) == len(target["labels"]) == len(target["outlines"]) == len(target["ignore"])
        assert torch.equal(target["boxes"], target["outlines"].boxes())


def test_sanitize():
    outlines = outlines_from_polygons(
        [[[-5, 0, 3, 0, 3, 4, -5, 4]], [[-9, 0, -1, 0, -1, 4]], [[5, 5, 9, 5, 9, 9, 5, 9]]]
    )
    target = {
        "boxes": tv_tensors.BoundingBoxes(torch.ones(3, 4), format="CXCYWH", canvas_size=(20, 30)),
        "labels": torch.tensor([4, 5, 6]),
        "weights": torch.tensor([0.1, 0.2, 0.3]),
        "other": torch.zeros(3),
        "polygons": Polygons(outlines, canvas_size=(20, 30)),
    }
    image = torch.zeros(3, 20, 30)
    same, changed = SanitizeInstances(fields=["labels", "weights"])(image, target)
    assert same is image
    assert changed["labels"].tolist() == [4, 6]
    assert changed["boxes"].tolist() == [[1.5, 2, 3, 4], [7, 7, 4, 4]]
    assert changed["weights"].tolist() == pytest.approx([0.1, 0.3])
    assert len(changed["other"]) == 3
    assert len(SanitizeInstances(min_side=4.5, fields=["labels"])(target)["labels"]) == 0
    with pytest.raises(ValueError, match="expected labels of 3 instances, got 2"):
        SanitizeInstances()({**target, "labels": torch.zeros(2)})
    with pytest.raises(TypeError, match="expected a dict with Polygons"):
        SanitizeInstances()(image, {"labels": torch.zeros(3)})

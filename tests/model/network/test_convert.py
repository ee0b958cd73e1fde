import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.released_network import Released, checkpoint, shapes

import polarmask
from polarmask.cli.convert import main
from polarmask.config import load_config
from polarmask.model import build_model
from polarmask.model.released import coco_categories, convert, rename, reordered
from polarmask_ops import rays_to_polygons

GOLDEN = Path(__file__).parents[2] / "golden"
RECIPES = [
    ("resnet50", "r50_caffe", False),
    ("resnet101", "r101_caffe", False),
    ("resnext101_64x4d", "x101", False),
    ("resnet50", "r50_caffe", True),
    ("resnet101", "r101_caffe", True),
    ("resnext101_64x4d", "x101", True),
]


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize(("backbone", "recipe", "dcn"), RECIPES)
def test_every_name_has_its_place(backbone, recipe, dcn, old_names):
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes(backbone, dcn, 80, old_names).items()}
        ours = rename({name: value for name, value in state.items() if not name.startswith("bbox_head.polar_mask")})
        model = build_model(load_config(f"{recipe}_{'dcn_' if dcn else ''}1x").model, 80)
    want = {name: value.shape for name, value in model.state_dict().items()}
    got = {name: value.shape for name, value in ours.items()}
    if not old_names:
        got |= {"head.rays.weight": (36, 256, 3, 3), "head.rays.bias": (36,)}
    assert got == want


@pytest.mark.parametrize(
    ("recipe", "dcn", "old_names"),
    [("r50_caffe_1x", False, False), ("r50_caffe_dcn_2x", True, True), ("r50_dcn_1x", True, False)],
)
def test_outputs_are_the_released_ones(recipe, dcn, old_names):
    state = checkpoint(dcn=dcn, classes=3, old_names=old_names)
    config = load_config(recipe)
    detector = convert(state, config, {5: "a", 6: "b", 9: "c"})
    assert detector.categories == {5: "a", 6: "b", 9: "c"}
    image = torch.rand(3, 128, 128)
    model = detector.model
    mean, std = (np.array(values) * 255 for values in (config.model.image_mean, config.model.image_std))
    theirs = torch.tensor((image.permute(1, 2, 0).numpy() * 255 - mean) / std).float().permute(2, 0, 1)
    if config.model.bgr:
        theirs = theirs.flip(0)
    with torch.no_grad():
        want = Released(state, config.model.style)(theirs[None])
        got = model.head(list(model.backbone(model.batch([image])).values()))
    rows = [torch.cat([level[n].flatten(2).transpose(1, 2) for level in want], 1) for n in range(4)]
    assert rows[0].std() > 0.05  # else equality says nothing
    names = ("logits", "log_boxes", "centerness", "log_rays")
    ours = [got.logits, got.log_boxes.exp(), got.centerness[..., None], got.log_rays.exp()[..., reordered(36)]]
    for name, value, expected in zip(names, ours, rows, strict=True):
        # Fifty convolutions in float32; the release adds and divides in units of 255.
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_decoding_is_the_released_one():
    with np.load(GOLDEN / "decode_raster.npz") as file:
        points, rays, polygons = (torch.tensor(file[name]) for name in ("points_xy", "rays", "polygons_unclamped"))
    order = reordered(36)
    ours = rays_to_polygons(points.float(), rays[:, order])
    # Its sines and cosines are float32's, of angles that are.
    torch.testing.assert_close(ours, polygons.transpose(1, 2)[:, order], rtol=1e-5, atol=1e-3)


def test_coco_categories_are_eighty():
    categories = coco_categories()
    assert len(categories) == 80
    assert (categories[1], categories[13], categories[90]) == ("person", "stop sign", "toothbrush")
    assert list(categories) == sorted(categories)


def test_convert_program_writes_a_detector(tmp_path):
    state = checkpoint()
    torch.save({"meta": {"epoch": 12}, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "released.pth")
    main(
        [
            str(tmp_path / "released.pth"),
            str(tmp_path / "ours.safetensors"),
            "--config",
            "r50_caffe_1x",
            "--model.nms",
            "polygon",
        ]
    )
    detector = polarmask.load(tmp_path / "ours.safetensors")
    assert detector.categories == coco_categories()
    assert detector.config.model.nms == "polygon"
    assert torch.equal(detector.model.head.rays.bias, state["bbox_head.polar_mask.bias"][reordered(36)])
    assert "bbox_head" not in "".join(detector.model.state_dict())


def tiny(**changes):
    """The head's last layers are enough to be wrong about."""
    state = {name: torch.zeros(shape) for name, shape in shapes("resnet50", False, 80).items() if "layer" not in name}
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (tiny(**{"bbox_head.polar_depth.weight": torch.zeros(1)}), "got also bbox_head.polar_depth.weight"),
        (tiny(**{"backbone.layer5.conv1.weight": torch.zeros(1)}), "got also backbone.layer5.conv1.weight"),
        (tiny(), "backbone.body.layer1.0.bn1.bias is missing"),
        (tiny(**{"bbox_head.polar_reg.bias": torch.zeros(5)}), "and "),
        (tiny(**{"bbox_head.fcos_reg.bias": torch.zeros(4)}), "head.boxes.bias again as bbox_head.fcos_reg.bias"),
        (tiny(**{"bbox_head.polar_mask.bias": torch.zeros(18)}), "rays that 4 divides, got 18"),
        (tiny(**{"bbox_head.polar_cls.bias": torch.zeros(7)}), "a category for each of 7 classes, got 80"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(state, words):
    with pytest.raises(ValueError, match="convert: expected") as raised:
        convert(state, load_config("r50_caffe_1x"))
    assert words in str(raised.value)


def test_weights_of_another_recipe_are_refused():
    state = {name: torch.zeros(shape) for name, shape in shapes("resnet50", False, 80).items()}
    with pytest.raises(ValueError, match=r"another recipe: .*layer2\.0\.conv2\.offset\.bias is missing"):
        convert(state, load_config("r50_caffe_dcn_1x"))
    with pytest.raises(ValueError, match=r"head\.rays\.bias is \(36,\) instead of \(72,\)"):
        convert(state, load_config("r50_caffe_1x", model__num_rays=72))
    with pytest.raises(ValueError, match="expected a recipe with pretrained weights"):
        convert(state, load_config("r50_caffe_1x", model__weights="none"))


class Hostile:
    """Pickles as a call of a function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_runs_code_is_refused(tmp_path, legacy):
    path, trace = tmp_path / "hostile.pth", tmp_path / "trace"
    torch.save({"state_dict": {}, "meta": Hostile(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="expected tensors and plain containers in"):
        convert(path, load_config("r50_caffe_1x"))
    assert not trace.exists()
    code = f"import torch; torch.load({str(path)!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert trace.exists()  # it would have


@pytest.mark.parametrize("cut", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(tmp_path, cut):
    path = tmp_path / "released.pth"
    torch.save({"state_dict": {"a": torch.arange(1000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if cut < 1 else cut])
    with pytest.raises(ValueError, match="expected tensors and plain containers in"):
        convert(path, load_config("r50_caffe_1x"))

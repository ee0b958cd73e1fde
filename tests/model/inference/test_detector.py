import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import polarmask
from polarmask.config import CONFIGS
from polarmask.inference.detector import FORMAT
from polarmask.model import build_model
from polarmask.model.backbone import SmallBackbone, load_pretrained, resnet_fpn
from polarmask.model.deformable import DeformableConv
from polarmask.training.optim import build_optimizer
from polarmask_ops import outlines_from_polygons

TINY = {"model__backbone": "small", "model__channels": 32, "model__depth": 1}


def tiny(name="nuclei", **changes):
    """An untrained detector that finds things, if only by chance."""
    torch.manual_seed(0)
    config = polarmask.load_config(name, **TINY, **changes)
    detector = polarmask.Detector(build_model(config.model, 1).eval(), config, {7: "thing"})
    torch.nn.init.zeros_(detector.model.head.classes.bias)
    return detector


def square(left, top, side):
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def target(*squares, ignore=None):
    outlines = outlines_from_polygons([square(*each) for each in squares])
    return {
        "boxes": outlines.boxes(),
        "labels": torch.zeros(len(squares), dtype=torch.int64),
        "outlines": outlines,
        "ignore": torch.tensor(ignore or [False] * len(squares), dtype=torch.bool),
    }


RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_build_model_every_recipe_builds(name):
    config = polarmask.load_config(name)
    with torch.device("meta"):
        model = build_model(config.model, 80)
    assert model.head.num_rays == config.model.num_rays
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert bool(frozen) == (config.model.weights != "none")


@pytest.mark.parametrize("name", ["nuclei", "shapes"])
def test_build_model_small_recipes_run(name):
    config = polarmask.load_config(name)
    model = build_model(config.model, 3).eval()
    with torch.no_grad():
        (found,) = model([torch.rand(3, 100, 120)])
    assert found["rays"].shape[1] == config.model.num_rays


def networks():
    """A recipe for each network."""
    return {str(replace(polarmask.load_config(name).model, weights="")): name for name in RECIPES}.values()


def takes_a_step(name, size):
    """On an image of that width and height: it finds things, and learns where the head begins."""
    config = polarmask.load_config(name)
    model = build_model(config.model, 80)
    optimizer = build_optimizer(model, config.optim)
    image = torch.rand(3, size[1], size[0])
    with torch.no_grad():
        (found,) = model.eval()([image])
    assert found["rays"].shape[1] == config.model.num_rays
    before = model.head.rays.weight.clone()
    losses = model.train()([image], [target((100, 100, 120), (30, 40, 50))])
    sum(losses.values()).backward()
    optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    assert not torch.equal(model.head.rays.weight, before)


@pytest.mark.long
@pytest.mark.parametrize("name", networks())
def test_every_network_takes_a_step(name):
    takes_a_step(name, (300, 250))


@pytest.mark.long
def test_polarmask_step_at_full_size_is_finite():
    takes_a_step("r50_2x", (1333, 800))


SWITCHES = [
    {},
    {"model__deformable_head": True},
    {"model__mask_loss": "smooth_l1", "model__mask_weight": 0.3},
    {"model__centerness": "fcos", "model__box_branch": False},
]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("name", ["nuclei", "shapes"])
def test_polarmask_losses_reach_every_weight(name, switches):
    model = tiny(name, **switches).model.train()
    losses = model([torch.rand(3, 64, 64), torch.rand(3, 50, 60)], [target((10, 10, 20)), target((5, 5, 30))])
    sum(losses.values()).backward()
    without = [
        key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()
    ]
    assert not without


def test_polarmask_image_without_instances_has_finite_losses():
    model = tiny().model.train()
    losses = model([torch.rand(3, 64, 64)], [target()])
    sum(losses.values()).backward()
    assert losses["mask"] == 0
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_crowds_are_neither_object_nor_background():
    model = tiny().model
    shapes = [(16, 16)]
    (labels,) = model.encode(shapes, [target((8, 8, 16), (32, 32, 16), ignore=[False, True])]).labels.view(-1, 16, 16)
    assert labels[4, 4] == 0
    assert (labels[8:12, 8:12] == -2).all()
    assert labels[0, 0] == -1


def test_targets_are_asked_for_in_training():
    with pytest.raises(ValueError, match="expected targets for 1 images in training, got none"):
        tiny().model.train()([torch.rand(3, 32, 32)])


def test_images_are_normalised_and_padded():
    detector = tiny(model__image_mean="[0.5,0.5,0.5]", model__image_std="[2,2,2]", model__pad_multiple=16)
    batch = detector.model.batch([torch.ones(3, 20, 10), torch.zeros(3, 5, 18)])
    assert batch.shape == (2, 3, 32, 32)
    assert (batch[0, :, :20, :10] == 0.25).all()
    assert (batch[1, :, :5, :18] == -0.25).all()
    assert batch.count_nonzero() == 3 * (20 * 10 + 5 * 18)


def test_polarmask_bgr_reverses_the_channels():
    image, mean = torch.rand(3, 8, 8), [0.1, 0.2, 0.3]
    rgb, bgr = (tiny(model__image_mean=mean, model__bgr=bgr).model.batch([image]) for bgr in (False, True))
    assert torch.equal(bgr, rgb.flip(1))
    torch.testing.assert_close(bgr[0, 0, :8, :8], image[2] - 0.3)


@pytest.mark.parametrize(
    ("test_scale", "keep_aspect", "want"), [(None, False, (96, 64)), (48, False, (48, 32)), (48, True, (16, 32))]
)
def test_detector_test_scale_resizes_the_images(test_scale, keep_aspect, want):
    detector = tiny(data__resize=[64, 96], data__test_scale=test_scale, data__keep_aspect=keep_aspect)
    assert detector.prepare(torch.rand(3, 40, 80)).shape[1:] == want


def test_polarmask_centerness_is_of_boxes_or_rays():
    one = target((8, 8, 16))
    polar, fcos = (tiny(model__centerness=kind).model.encode([(8, 8)], [one]) for kind in ("polar", "fcos"))
    assert torch.equal(polar.labels, fcos.labels)
    left, top, right, bottom = fcos.boxes[0][fcos.labels[0] >= 0].unbind(1)
    horizontal, vertical = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom)))
    torch.testing.assert_close(fcos.centerness[fcos.labels >= 0], (horizontal * vertical).sqrt())
    assert (fcos.centerness[fcos.labels < 0] == 0).all()
    assert not torch.equal(fcos.centerness, polar.centerness)


def test_results_are_in_the_images_pixels():
    detector = tiny(data__resize="[64,96]", data__percentiles="null", model__nms_threshold="0.9")
    image = torch.rand(3, 48, 128)
    found = detector(image)
    assert len(found["scores"]) > 0
    assert found["scale"].tolist() == [2.0, 0.5]  # to 128 x 48 from 64 x 96
    to_the_right = found["centers"] + torch.stack([found["rays"][:, 0], torch.zeros(len(found["rays"]))], 1)
    torch.testing.assert_close(found["polygons"][:, 0], to_the_right * found["scale"])
    assert (found["boxes"][:, 2] <= 128).all()
    assert (found["boxes"][:, 3] <= 48).all()
    assert (found["scores"].diff() <= 0).all()


def test_detector_saved_and_loaded_finds_the_same(tmp_path):
    detector = tiny()
    detector.save(tmp_path / "a" / "weights.safetensors")
    again = polarmask.load(tmp_path / "a" / "weights.safetensors")
    assert again.categories == {7: "thing"}
    assert again.config == detector.config
    image = torch.rand(3, 40, 40)
    for name, value in detector(image).items():
        torch.testing.assert_close(again(image)[name], value, rtol=0, atol=0)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["weights.safetensors"]


def test_load_foreign_weights_are_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"about": json.dumps({})})
    with pytest.raises(ValueError, match=FORMAT):
        polarmask.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_resnet_is_frozen_at_the_bottom(tmp_path, suffix):
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    path = str(tmp_path / f"weights{suffix}")
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    backbone = resnet_fpn("resnet18", frozen=True)
    load_pretrained(backbone, "resnet18", path)
    assert (backbone.body.layer4[0].conv1.weight == state["layer4.0.conv1.weight"]).all()
    trained = {name.split(".")[1] for name, weight in backbone.body.named_parameters("body") if weight.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not [name for name, _ in backbone.named_parameters() if "bn" in name]
    levels = backbone(torch.rand(1, 3, 128, 128)).values()
    assert [tuple(level.shape[1:]) for level in levels] == [(256, 128 // s, 128 // s) for s in (8, 16, 32, 64, 128)]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: None, FileNotFoundError, "expected a file of weights"),
        (lambda path: torch.save({"conv1.weight": torch.zeros(1)}, path), ValueError, "are missing and 0 unknown"),
        (lambda path: torch.save([1, 2], path), ValueError, "expected names and tensors in"),
        (lambda path: path.write_bytes(b"no weights"), ValueError, "expected tensors and plain containers"),
    ],
)
def test_other_files_are_no_weights(make, error, words, tmp_path):
    make(tmp_path / "weights.pth")
    with pytest.raises(error, match=words):
        load_pretrained(resnet_fpn("resnet18", frozen=True), "resnet18", str(tmp_path / "weights.pth"))


def test_caffe_strides_in_the_first_convolution():
    pytorch, caffe = (resnet_fpn("resnet50", frozen=True, style=style) for style in ("pytorch", "caffe"))
    assert list(pytorch.state_dict()) == list(caffe.state_dict())
    for stage in ("layer2", "layer3", "layer4"):
        first, *others = caffe.body.get_submodule(stage).children()
        assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
        assert all(block.conv1.stride == block.conv2.stride == (1, 1) for block in others)
    assert caffe.body.layer1[0].conv1.stride == (1, 1)


def test_deformable_backbone_starts_as_the_plain_one():
    torch.manual_seed(0)
    plain, deformable = (resnet_fpn("resnet50", frozen=True, deformable=deformable) for deformable in (False, True))
    deformable.load_state_dict(plain.state_dict(), strict=False)
    places = [name for name, module in deformable.named_modules() if isinstance(module, DeformableConv)]
    assert len(places) == 4 + 6 + 3
    assert all(name.endswith("conv2") for name in places)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, want in zip(deformable(image).values(), plain(image).values(), strict=True):
            torch.testing.assert_close(
                ours, want, rtol=1e-4, atol=1e-4 * float(want.abs().max())
            )  # sums in another order


@pytest.mark.parametrize("change", [{"style": "caffe"}, {"deformable": True}])
def test_without_bottlenecks_there_is_one_style(change):
    with pytest.raises(ValueError, match="expected a network of bottlenecks, such as resnet50, got resnet18"):
        resnet_fpn("resnet18", frozen=True, **change)


def test_resnet_from_scratch_trains_everything():
    backbone = resnet_fpn("resnet18", frozen=False)
    assert all(weight.requires_grad for weight in backbone.parameters())
    assert not [module for module in backbone.modules() if "BatchNorm" in type(module).__name__]


@pytest.mark.parametrize("strides", [[], [2], [8, 4], [4, 4]])
def test_small_backbone_has_three_strides(strides):
    with pytest.raises(ValueError, match="rising strides out of 4, 8 and 16"):
        SmallBackbone(strides)


def test_resnet_fpn_has_five_strides():
    with pytest.raises(ValueError, match="expected 8, 16, 32, 64, 128 with resnet50, got"):
        build_model(polarmask.load_config("r50_1x", model__strides="[4]", model__ranges="[[0,64]]").model, 1)


@pytest.mark.parametrize(
    ("image", "changes", "error", "words"),
    [
        (torch.rand(3, 64, 64), {"labels": torch.tensor([1])}, ValueError, "labels from 0 to 0, got [1]"),
        (torch.rand(3, 64, 64), {"boxes": None}, ValueError, "targets with boxes"),
        (torch.rand(1, 64, 64), {}, ValueError, "images of shape (3, H, W), got (1, 64, 64)"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), {}, TypeError, "floating-point dtype, got torch.uint8"),
    ],
)
def test_what_does_not_fit_is_refused(image, changes, error, words):
    one = {name: value for name, value in {**target((8, 8, 16)), **changes}.items() if value is not None}
    with pytest.raises(error) as raised:
        tiny().model.train()([image], [one])
    assert words in str(raised.value)


def test_polarmask_targets_need_no_ignore():
    one = target((8, 8, 16))
    model, image = tiny().model.train(), torch.rand(3, 64, 64)
    want = model([image], [one])
    del one["ignore"]
    assert model([image], [one]) == want


def test_data_of_other_categories_are_refused():
    with pytest.raises(ValueError, match="expected data of the categories that the detector knows"):
        polarmask.evaluate(tiny(), polarmask.data.Shapes(1, 64))

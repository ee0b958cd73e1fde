from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from polarmask.model import PolarHead
from polarmask.model.loss import polar_losses
from polarmask.model.released import rename
from polarmask_ops import PolarTargets

GOLDEN = Path(__file__).parents[2] / "golden"
RAYS, CLASSES, LEVELS = 36, 8, 5
OURS = (RAYS // 4 - np.arange(RAYS)) % RAYS  # our ray k is the release's ray OURS[k], and the other way round


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def released_head():
    """The released head, converted."""
    state = {key.replace("sd.", "bbox_head."): value for key, value in golden("head_state").items()}
    head = PolarHead(CLASSES, RAYS, in_channels=64, channels=64)
    head.load_state_dict({name.removeprefix("head."): value for name, value in rename(state).items()})
    return head


def rows(maps):
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)


def test_outputs_are_the_released_ones():
    data = golden("head_io")
    with torch.no_grad():
        output = released_head()([data[f"feat{level}"] for level in range(LEVELS)])
    want = {name: rows([data[f"{name}{level}"] for level in range(LEVELS)]) for name in ("cls", "ctr", "bbox", "mask")}
    close = {"rtol": 1e-5, "atol": 1e-5}  # other convolution kernels sum in another order
    torch.testing.assert_close(output.logits, want["cls"], **close)
    torch.testing.assert_close(output.centerness, want["ctr"][..., 0], **close)
    torch.testing.assert_close(output.log_boxes.exp(), want["bbox"], **close)
    torch.testing.assert_close(output.log_rays.exp(), want["mask"][..., OURS], **close)


def test_losses_and_gradients_are_the_released_ones():
    features, data = golden("head_io"), golden("head_loss")
    labels = torch.stack([data["labels0"], data["labels1"]]).long() - 1  # its background is 0
    boxes = torch.stack([data["bbox_targets0"], data["bbox_targets1"]])
    rays = torch.stack([data["mask_targets0"], data["mask_targets1"]])[..., OURS]
    centerness = torch.where(labels >= 0, (rays.amin(-1) / rays.amax(-1)).sqrt(), 0.0)
    head = released_head()
    output = head([features[f"feat{level}"] for level in range(LEVELS)])
    losses = polar_losses(output, PolarTargets(labels, labels, boxes, rays, centerness), box_offset=1.0)
    sum(losses.values()).backward()
    for ours, theirs in (("class", "cls"), ("box", "bbox"), ("mask", "mask"), ("centerness", "centerness")):
        torch.testing.assert_close(losses[ours], data[f"loss_{theirs}"], rtol=1e-5, atol=0)
    grads = {
        "grad.polar_mask.bias": head.rays.bias.grad[OURS],
        "grad.polar_cls.bias": head.classes.bias.grad,
        "grad.polar_reg.bias": head.boxes.bias.grad,
        "grad.polar_centerness.bias": head.centerness.bias.grad,
        "grad.scales_mask.0.scale": head.ray_scales.grad[0],
        "grad.scales_bbox.1.scale": head.box_scales.grad[1],
        "grad.mask_convs.3.gn.weight": head.mask_tower[10].weight.grad,
    }
    for name, grad in grads.items():
        # Sums of terms of both signs: what is left of float32 is relative to the terms.
        torch.testing.assert_close(grad, data[name], rtol=1e-4, atol=1e-5 * float(data[name].abs().max()))


def test_points_lie_in_the_middle_of_their_cells():
    head = PolarHead(1, in_channels=32, channels=32, depth=1, strides=(4, 8), ranges=((-1, 64), (64, 1e8)))
    points = head.points([(1, 2), (1, 1)], torch.device("cpu"))
    assert points.tolist() == [[2, 2], [6, 2], [4, 4]]


@pytest.mark.parametrize(("init_scale", "start"), [(None, 1.0), (3.0, 12.0)])
def test_start(init_scale, start):
    head = PolarHead(2, 8, in_channels=32, channels=32, depth=1, strides=[4], ranges=[(-1, 1e8)], init_scale=init_scale)
    with torch.no_grad():
        output = head([torch.randn(2, 32, 3, 5)])
    assert output.logits.sigmoid().mean() == pytest.approx(0.01, rel=0.1)  # else background drowns the first steps
    for log in (output.log_rays, output.log_boxes):
        assert log.exp().mean() == pytest.approx(start, rel=0.1)


def test_polar_head_without_box_branch_has_no_boxes():
    head = PolarHead(1, in_channels=32, channels=32, depth=1, box_branch=False)
    output = head([torch.randn(1, 32, 2, 2)] * LEVELS)
    assert output.log_boxes is None
    assert output.log_rays.shape == (1, 20, 36)
    assert not [name for name, _ in head.named_parameters() if "box" in name]


def test_deformable_towers_read_at_the_usual_places_first():
    head = PolarHead(1, in_channels=32, channels=32, depth=2, deformable=True)
    tower = head.class_tower
    conv = tower[0]
    x = torch.randn(1, 32, 6, 5)
    want = F.conv2d(x, conv.weight / 2, conv.bias, padding=1)  # the sigmoid of 0 is a half
    torch.testing.assert_close(conv(x), want, rtol=1e-4, atol=1e-5)
    assert tower[3].bias is not None
    assert head([x] * LEVELS).log_rays.shape == (1, 150, 36)


def test_autocast_keeps_distances_in_float32():
    head = PolarHead(1, in_channels=32, channels=32, depth=1)
    with torch.autocast("cpu", torch.bfloat16):
        output = head([torch.randn(1, 32, 2, 2)] * LEVELS)
    assert {tensor.dtype for tensor in output[:4]} == {torch.float32}


def test_polar_head_other_number_of_ranges_is_refused():
    with pytest.raises(ValueError, match="range for each of 1 strides, got 5"):
        PolarHead(1, strides=[8])

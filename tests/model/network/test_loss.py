import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from polarmask.model.head import HeadOutput
from polarmask.model.loss import box_centerness, box_iou_loss, normalizers, polar_losses
from polarmask_ops import PolarTargets

RAYS, CLASSES = 8, 3


def output(points, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, points, CLASSES), (2, points), (2, points, 4), (2, points, RAYS)]
    tensors = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    return HeadOutput(*tensors, level_shapes=[(1, points)])


def targets(labels):
    labels = torch.tensor(labels)
    positive = labels >= 0
    generator = torch.Generator().manual_seed(1)
    rays = torch.rand(*labels.shape, RAYS, generator=generator) + 0.5
    boxes = torch.rand(*labels.shape, 4, generator=generator) + 0.5
    return PolarTargets(labels, labels, boxes, rays * positive[..., None], positive * 0.7)


def backward(losses, given):
    sum(losses.values()).backward()
    return {name: getattr(given, name).grad for name in ("logits", "centerness", "log_boxes", "log_rays")}


def test_polar_losses_computed_by_hand_are_the_same():
    given, want = output(4), targets([[0, -1, -1, 2], [-1, -1, 1, -1]])
    losses = polar_losses(given, want)
    focal = 0.0
    for b, n, c in np.ndindex(2, 4, CLASSES):
        p = given.logits[b, n, c].sigmoid()
        hit = want.labels[b, n] == c
        focal += -0.25 * (1 - p) ** 2 * p.log() if hit else -0.75 * p**2 * (1 - p).log()
    torch.testing.assert_close(losses["class"], focal / (3 + 2))
    positive = want.labels >= 0
    p = given.centerness[positive].sigmoid()
    torch.testing.assert_close(losses["centerness"], -(0.7 * p.log() + 0.3 * (1 - p).log()).mean())
    pred, true = given.log_rays[positive].exp(), want.rays[positive]
    iou = torch.minimum(pred, true).sum(1) / torch.maximum(pred, true).sum(1)
    torch.testing.assert_close(losses["mask"], -iou.log().mean())  # all weights are equal
    corners = [torch.cat([-d[:, :2], d[:, 2:]], 1) for d in (given.log_boxes[positive].exp(), want.boxes[positive])]
    torch.testing.assert_close(losses["box"], -box_iou(*corners).diagonal().log().mean())


def test_normalizers_add_up_over_batches():
    given, want = output(4), targets([[0, -1, -1, 2], [-1, -1, 1, -1]])
    halves = [
        (HeadOutput(*(t[n : n + 1] for t in given[:4]), given[4]), PolarTargets(*(t[n : n + 1] for t in want)))
        for n in (0, 1)
    ]
    total = sum(normalizers(half) for _, half in halves)
    torch.testing.assert_close(total, normalizers(want), rtol=0, atol=0)
    parts = [polar_losses(out, half, divide_by=total) for out, half in halves]
    for name, loss in polar_losses(given, want).items():
        torch.testing.assert_close(sum(part[name] for part in parts), loss)


@pytest.mark.parametrize("label", [-1, -2])
@pytest.mark.parametrize("mask_loss", ["polar_iou", "smooth_l1"])
def test_no_positives_give_zero_with_a_gradient(label, mask_loss):
    given = output(4)
    losses = polar_losses(given, targets([[label] * 4] * 2), mask_loss=mask_loss)
    assert losses["mask"] == losses["box"] == losses["centerness"] == 0
    grads = backward(losses, given)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert (grads["log_rays"] == 0).all()
    assert (grads["logits"] != 0).any() == (label == -1)


def test_polar_losses_ignored_points_cost_nothing():
    given = output(4)
    grads = backward(polar_losses(given, targets([[0, -2, -1, -1], [-2, -1, -1, -1]])), given)
    for grad in grads.values():
        assert (grad[0, 1] == 0).all()
        assert (grad[1, 0] == 0).all()


@pytest.mark.parametrize("mask_loss", ["polar_iou", "smooth_l1"])
def test_background_predictions_may_be_anything(mask_loss):
    given = output(4)
    with torch.no_grad():
        given.log_boxes[0, 1] = 1e4
        given.log_rays[0, 1] = float("inf")
    losses = polar_losses(given, targets([[0, -1, -1, -1], [-1, -1, -1, -1]]), mask_loss=mask_loss)
    grads = backward(losses, given)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_polar_losses_without_box_branch_have_no_box_loss():
    assert set(polar_losses(output(4)._replace(log_boxes=None), targets([[0, -1, -1, -1]] * 2))) == {
        "class",
        "centerness",
        "mask",
    }


def test_box_iou_loss_offset_widens_the_boxes():
    distances = torch.ones(1, 4)
    loss = box_iou_loss(distances.log(), 2 * distances, torch.tensor([True]), offset=1.0)
    torch.testing.assert_close(loss, -torch.tensor([9 / 25]).log())


def test_smooth_l1_computed_by_hand_is_the_same():
    given, want = output(4), targets([[0, -1, -1, 2], [-1, -1, 1, -1]])
    losses = polar_losses(given, want, mask_loss="smooth_l1", mask_weight=0.5)
    positive = want.labels >= 0
    off = (given.log_rays[positive].exp() - want.rays[positive]).abs()
    rows = torch.where(off < 1, off**2 / 2, off - 0.5).mean(1)
    torch.testing.assert_close(losses["mask"], 0.5 * rows.mean())  # all weights are equal
    torch.testing.assert_close(losses["class"], polar_losses(given, want)["class"])


def test_polar_losses_mask_weight_multiplies_the_mask_loss():
    given, want = output(4), targets([[0, -1, -1, 2], [-1, -1, 1, -1]])
    torch.testing.assert_close(
        polar_losses(given, want, mask_weight=0.3)["mask"], 0.3 * polar_losses(given, want)["mask"]
    )


def test_box_centerness_of_known_boxes_is_fcos():
    distances = torch.tensor([[1.0, 2, 4, 2], [3, 3, 3, 3], [0, 1, 0, 1], [0, 1, 2, 1], [0, 0, 0, 0]])
    assert box_centerness(distances).tolist() == [0.5, 1, 0, 0, 0]

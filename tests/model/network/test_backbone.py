import torch
from torchvision.ops import FrozenBatchNorm2d

from polarmask.model.backbone import _FrozenBatchNorm


def test_frozen_batch_norm_is_torchvisions():
    torch.manual_seed(0)
    theirs, ours = FrozenBatchNorm2d(8), _FrozenBatchNorm(8)
    for buffer in theirs.buffers():
        buffer.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8, 5, 6, requires_grad=True)
    want, got = theirs(x), ours.train()(x)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)  # products in another order
    along = torch.randn_like(want)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, along)[0] for y in (got, want)), rtol=1e-6, atol=0)
    assert not list(ours.parameters())
    assert torch.equal(ours.running_mean, theirs.running_mean)

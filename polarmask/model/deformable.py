"""Deformable convolutions that compute their own offsets."""

from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class DeformableConv(DeformConv2d):
    """A deformable 3×3 convolution whose offsets come from a second convolution of the same input.

    The offsets start at 0, so that it begins as an ordinary convolution.

    Parameters
    ----------
    inside, outside : int
        Channels.
    modulated : bool
        Each of the nine samples is multiplied by a weight, the sigmoid of a further channel, which starts at 0.5.
    """

    def __init__(
        self, inside: int, outside: int, *, stride: int = 1, groups: int = 1, bias: bool, modulated: bool = False
    ) -> None:
        super().__init__(inside, outside, 3, stride, 1, groups=groups, bias=bias)
        self.modulated = modulated
        self.offset = nn.Conv2d(inside, 27 if modulated else 18, 3, stride, 1)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outside, H/stride, W/stride) from (B, inside, H, W)."""
        offset, mask = self.offset(x), None
        if self.modulated:
            offset, mask = offset.split([18, 9], 1)
            mask = mask.sigmoid()
        return super().forward(x, offset, mask)

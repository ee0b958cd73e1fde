"""Deformable convolutions with the layer that says where they read."""

from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class DeformableConv(DeformConv2d):
    """A 3×3 convolution that reads its input where another one says, there first at the usual places.

    Parameters
    ----------
    inside, outside : int
        Channels.
    modulated : bool
        Each place read has a weight, the sigmoid of three more groups of nine channels; 0.5 at first.
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

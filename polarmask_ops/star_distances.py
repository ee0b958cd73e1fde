"""Distances from the pixels of a label image to the ends of their objects: StarDist's training targets."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap


def star_distances(label_image: Tensor, num_rays: int = 32, *, rule: str = "stardist") -> Tensor:
    """Distances from every pixel of every object to where the object ends, along rays at equal angles.

    Parameters
    ----------
    label_image : Tensor, shape (H, W), any integer dtype
        Objects by number, 0 is background. Connected or not, neighbours may touch.
    num_rays : int
        R, from 3 to 1024. Ray k points along (cos 2πk/R, sin 2πk/R), y down.
    rule : {"stardist", "exact"}
        ``"stardist"``: steps of one pixel to the nearest pixel until the label changes, as StarDist counts them; halves
        go to the even pixel. ``"exact"``: the length of the ray from the pixel's centre to its first exit from the
        label's pixel squares. A ray through a corner does not enter the squares beside it.

    Returns
    -------
    Tensor, shape (R, H, W), float32
        Pixels; 0 on background. Outside the image counts as outside of every object. Not differentiable.

    Raises
    ------
    TypeError
        If ``label_image`` is not a tensor of integers.
    ValueError
        If its shape, ``num_rays`` or ``rule`` is wrong.

    Notes
    -----
    Time grows with R · H · W and hardly with the sizes of the objects: walks skip what is surely inside. Sides that run
    along a ray are not skipped; the longest walks are those along stripes of less than 48 pixels.

    Source: StarDist (arXiv 1806.03535); its rays have the same order. Equal to its ``star_dist`` up to rounding. Rays
    at multiples of 30° off the axes meet halves at every other step; some of these StarDist's float32 sums decide.

    Examples
    --------
    >>> star_distances(torch.tensor([[5, 5, 0]]), 4)[0]
    tensor([[1.5000, 0.5000, 0.0000]])
    """
    op = "star_distances"
    if not isinstance(label_image, Tensor):
        raise TypeError(f"{op}: expected label_image to be a tensor, got {type(label_image).__name__}")
    if label_image.dtype not in _arguments.INTEGERS:
        raise TypeError(f"{op}: expected label_image of an integer dtype, got {label_image.dtype}")
    _arguments.choice(op, "rule", rule, ("stardist", "exact"))
    distances: Tensor = torch.ops.polarmask.star_distances(label_image, num_rays, rule)
    return distances


@_fakes.register_meta("star_distances")
def _star_distances_fake(label_image: Tensor, num_rays: int, rule: str) -> Tensor:
    return label_image.new_empty(num_rays, *label_image.shape, dtype=torch.float32)


_vmap.register("star_distances")

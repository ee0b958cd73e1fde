"""Run-length encoded masks in COCO's layout, kept as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import _arguments, _fakes, _ragged, _vmap


@dataclass(frozen=True, eq=False)
class RLE:
    """Masks of N instances in one image: lengths of runs, column by column, starting with a run of zeros.

    Ops of this package write each mask in one way only, where no run but the first has length 0. Two RLEs made by them
    are equal (``==``) when their masks are.

    Attributes
    ----------
    counts : Tensor, shape (T,), int32
        Lengths of the runs of all instances.
    offsets : Tensor, shape (N + 1,), int64
        Instance n has ``counts[offsets[n]:offsets[n + 1]]``, which sum to H * W.
    size : tuple of int
        (H, W) of the image.

    Examples
    --------
    >>> rle = RLE.from_masks(torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 0]]], dtype=torch.bool))
    >>> rle.counts, rle.offsets, rle.size
    (tensor([1, 3, 4], dtype=torch.int32), tensor([0, 2, 3]), (2, 2))
    >>> rle.to_coco()
    [{'size': [2, 2], 'counts': b'13'}, {'size': [2, 2], 'counts': b'4'}]
    >>> RLE.from_coco(rle.to_coco()) == rle
    True
    """

    counts: Tensor
    offsets: Tensor
    size: tuple[int, int]

    @staticmethod
    def from_masks(masks: Tensor) -> RLE:
        """Encode bitmaps.

        Parameters
        ----------
        masks : Tensor, shape (N, H, W), bool or uint8
            Pixels other than 0 are inside.

        Returns
        -------
        RLE
            On a GPU the host waits once for its length.

        Raises
        ------
        TypeError
            If ``masks`` is not a bool or uint8 tensor.
        ValueError
            If its shape is not (N, H, W), or H * W is 2**31 or more.

        Examples
        --------
        >>> RLE.from_masks(torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)).counts
        tensor([1, 3], dtype=torch.int32)
        """
        _arguments.dtype("RLE.from_masks", "masks", masks, torch.bool, torch.uint8)
        if masks.dim() != 3:
            raise ValueError(f"RLE.from_masks: expected masks of shape (N, H, W), got {tuple(masks.shape)}")
        size = _arguments.image_size("RLE.from_masks", masks.shape[1:])
        counts, offsets = torch.ops.polarmask.masks_to_rle(masks)
        return RLE(counts, offsets, size)

    @staticmethod
    def from_coco(objects: Sequence[dict[str, Any]], *, size: tuple[int, int] | None = None) -> RLE:
        """Read run lengths as the COCO API writes them: dicts with ``size`` [H, W] and ``counts``.

        Parameters
        ----------
        objects : sequence of dict
            ``counts`` is a compressed string (bytes or str) or a list of run lengths. Runs are kept as they are, so
            that :meth:`to_coco` returns the same string.
        size : (H, W), optional
            Needed when ``objects`` may be empty.

        Returns
        -------
        RLE
            On the CPU.

        Raises
        ------
        TypeError
            If an object is not a dict, or its size or counts are of another type.
        ValueError
            If a key is missing, the sizes differ, there is none, a string is malformed, or counts do not sum to H * W.

        Examples
        --------
        >>> RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}]).areas()
        tensor([3])
        """
        op = "RLE.from_coco"
        objects = list(objects)
        for n, each in enumerate(objects):
            if not isinstance(each, Mapping):
                raise TypeError(f"{op}: expected instance {n} to be a dict, got {type(each).__name__}")
            if not {"size", "counts"} <= each.keys():
                raise ValueError(f"{op}: expected instance {n} to have size and counts, got the keys {list(each)}")
        sizes = {_arguments.image_size(op, each["size"]) for each in objects}
        sizes |= {_arguments.image_size(op, size)} if size is not None else set()
        if len(sizes) != 1:
            raise ValueError(f"{op}: expected one size, got {sorted(sizes) or 'no object and no size'}")
        height, width = sizes.pop()
        strings = [_compressed(op, n, each["counts"], height, width) for n, each in enumerate(objects)]
        text = torch.frombuffer(bytearray(b"".join(strings) or b" "), dtype=torch.uint8)
        offsets = _ragged.from_lengths(torch.tensor([len(each) for each in strings], dtype=torch.int64))
        counts, offsets = torch.ops.polarmask.rle_from_strings(text[: offsets[-1]], offsets, height, width)
        return RLE(counts, offsets, (height, width))

    @staticmethod
    def cat(items: Sequence[RLE]) -> RLE:
        """Concatenate the instances of several RLEs of one image.

        Parameters
        ----------
        items : sequence of RLE
            At least one; of one size and on one device.

        Returns
        -------
        RLE

        Raises
        ------
        TypeError, ValueError
            If there is no item, sizes or devices differ, or an item is not as in :class:`RLE`.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> len(RLE.cat([rle, rle]))
        2
        """
        op = "RLE.cat"
        parts = [checked(op, item) for item in items]
        sizes = {(height, width) for _, _, height, width in parts}
        if len(sizes) != 1:
            raise ValueError(f"{op}: expected items of one size, got {sorted(sizes) or 'no items'}")
        _arguments.same_device(op, **{f"items[{k}]": part[0] for k, part in enumerate(parts)})
        counts = torch.cat([part[0] for part in parts])
        return RLE(counts, _ragged.cat([part[1] for part in parts]), sizes.pop())

    def to_masks(self) -> Tensor:
        """Decode to bitmaps.

        Returns
        -------
        Tensor, shape (N, H, W), bool

        Raises
        ------
        TypeError, ValueError
            If counts or offsets are not as in :class:`RLE`, or counts do not sum to H * W.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> rle.to_masks().int()
        tensor([[[0, 1, 1],
                 [0, 1, 0]]], dtype=torch.int32)
        """
        masks: Tensor = torch.ops.polarmask.rle_to_masks(*checked("RLE.to_masks", self))
        return masks

    def to_coco(self) -> list[dict[str, Any]]:
        """Compress to COCO's strings, as ``pycocotools.mask.encode`` does.

        Returns
        -------
        list of dict
            ``{"size": [H, W], "counts": bytes}`` for each instance. For JSON, ``counts.decode()`` gives text;
            :meth:`from_coco` takes both. On a GPU the host waits for the strings.

        Raises
        ------
        TypeError, ValueError
            If counts or offsets are not as in :class:`RLE`, or counts do not sum to H * W.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> rle.to_coco()
        [{'size': [2, 3], 'counts': b'231'}]
        """
        strings, offsets = torch.ops.polarmask.rle_to_strings(*checked("RLE.to_coco", self))
        text, ends = strings.cpu().numpy().tobytes(), offsets.tolist()
        height, width = self.size
        return [{"size": [height, width], "counts": text[begin:end]} for begin, end in pairwise(ends)]

    def areas(self) -> Tensor:
        """Count the pixels of each instance.

        Returns
        -------
        Tensor, shape (N,), int64

        Raises
        ------
        TypeError, ValueError
            If counts or offsets are not as in :class:`RLE`, or counts do not sum to H * W.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> rle.areas()
        tensor([3])
        """
        areas: Tensor = torch.ops.polarmask.rle_areas(*checked("RLE.areas", self))
        return areas

    def boxes(self) -> Tensor:
        """Compute the boxes around the pixels.

        Returns
        -------
        Tensor, shape (N, 4), float32
            x0, y0, x1, y1, the outer edges of the pixels; zeros for instances without pixels.
            ``pycocotools.mask.toBbox`` gives the same box as (x0, y0, x1 − x0, y1 − y0).

        Raises
        ------
        TypeError, ValueError
            If counts or offsets are not as in :class:`RLE`, or counts do not sum to H * W.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> rle.boxes()
        tensor([[1., 0., 3., 2.]])
        """
        boxes: Tensor = torch.ops.polarmask.rle_boxes(*checked("RLE.boxes", self))
        return boxes

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> RLE:
        """Move counts and offsets to another device.

        Parameters
        ----------
        device : torch.device, str or int
            As for ``Tensor.to``.
        non_blocking : bool
            As for ``Tensor.to``.

        Returns
        -------
        RLE

        Raises
        ------
        RuntimeError
            As ``Tensor.to``.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> rle.to("cpu") == rle
        True
        """
        return RLE(
            self.counts.to(device, non_blocking=non_blocking),
            self.offsets.to(device, non_blocking=non_blocking),
            self.size,
        )

    def cpu(self) -> RLE:
        """Move counts and offsets to the CPU.

        Returns
        -------
        RLE

        Examples
        --------
        >>> len(RLE.from_coco([], size=(2, 3)).cpu())
        0
        """
        return self.to("cpu")

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def __getitem__(self, index: _ragged.Index) -> RLE:
        """Select instances.

        Parameters
        ----------
        index : int, slice, or Tensor of integers or bool
            Which of the N instances; a bool tensor has shape (N,).

        Returns
        -------
        RLE
            On a GPU the host waits once for the length, for a bool tensor twice.

        Raises
        ------
        IndexError
            If ``index`` does not fit N instances.
        TypeError, ValueError
            If counts or offsets are not as in :class:`RLE`.

        Examples
        --------
        >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 3, 1]}])
        >>> len(rle[:0])
        0
        """
        counts, offsets, height, width = checked("RLE", self)
        counts, offsets = _ragged.select("RLE", counts, offsets, index)
        return RLE(counts, offsets, (height, width))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RLE):
            return NotImplemented
        return (
            self.size == other.size
            and torch.equal(self.offsets, other.offsets)
            and torch.equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]


_TENSORS = ("counts", "offsets")
_Size: TypeAlias = tuple[int, int] | None


def _flatten_with_keys(rle: RLE) -> tuple[list[tuple[pytree.KeyEntry, Any]], _Size]:
    leaves: list[tuple[pytree.KeyEntry, Any]] = [(pytree.GetAttrKey(name), getattr(rle, name)) for name in _TENSORS]
    if not any(isinstance(side, torch.SymInt) for side in rle.size):
        return leaves, rle.size
    # An exported program computes a symbolic size at run time, so it is a leaf like the tensors.
    return [*leaves, *((pytree.SequenceKey(k), side) for k, side in enumerate(rle.size))], None


def _flatten(rle: RLE) -> tuple[list[Any], _Size]:
    leaves, size = _flatten_with_keys(rle)
    return [leaf for _, leaf in leaves], size


def _unflatten(leaves: Iterable[Any], size: _Size) -> RLE:
    counts, offsets, *sides = leaves
    return RLE(counts, offsets, size or (sides[0], sides[1]))


# torch.export.register_dataclass would make the size a leaf, and a tree_map over tensors would fail on it. torch has no
# public function that keeps it out of the leaves, hence torch.utils._pytree; test_rle.py covers what is registered.
pytree.register_pytree_node(
    RLE,
    _flatten,
    _unflatten,
    serialized_type_name="polarmask_ops.RLE",
    to_dumpable_context=lambda size: size and list(size),
    from_dumpable_context=lambda size: size and tuple(size),
    flatten_with_keys_fn=_flatten_with_keys,
)


torch.serialization.add_safe_globals([RLE])  # so that torch.load(weights_only=True) accepts them


def checked(op: str, rle: RLE) -> tuple[Tensor, Tensor, int, int]:
    """Check an RLE; return its counts, offsets, height and width, as the ops take them."""
    if not isinstance(rle, RLE):
        raise TypeError(f"{op}: expected an RLE, got {type(rle).__name__}")
    counts = _arguments.dtype(op, "counts", rle.counts, torch.int32)
    offsets = _arguments.dtype(op, "offsets", rle.offsets, torch.int64)
    if counts.dim() != 1:
        raise ValueError(f"{op}: expected counts of shape (T,), got {tuple(counts.shape)}")
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"{op}: expected offsets of shape (N + 1,), got {tuple(offsets.shape)}")
    _arguments.same_device(op, counts=counts, offsets=offsets)
    return counts, offsets, *_arguments.image_size(op, rle.size)


def _compressed(op: str, n: int, counts: Any, height: int, width: int) -> bytes:
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str):
        return counts.encode(errors="surrogatepass")
    if not isinstance(counts, Iterable):
        raise TypeError(
            f"{op}: expected counts of instance {n} to be bytes, str or a list of run lengths, got "
            f"{type(counts).__name__}"
        )
    runs = list(counts)
    if not all(isinstance(count, Integral) and 0 <= int(count) < 2**31 for count in runs):
        raise ValueError(f"{op}: expected counts of instance {n} to be run lengths from 0 to 2**31 - 1")
    if not runs or sum(map(int, runs)) != height * width:
        raise ValueError(
            f"{op}: expected counts of instance {n} to sum to {height} * {width}, got {sum(map(int, runs))}"
        )
    each = torch.tensor([int(count) for count in runs], dtype=torch.int32)
    strings, _ = torch.ops.polarmask.rle_to_strings(each, torch.tensor([0, len(runs)]), height, width)
    return bytes(strings.numpy().tobytes())


@_fakes.register("masks_to_rle")
def _masks_to_rle_fake(masks: Tensor) -> tuple[Tensor, Tensor]:
    return _ragged.fake(masks, masks.shape[0], torch.int32)


@_fakes.register("rle_to_strings")
def _rle_to_strings_fake(counts: Tensor, offsets: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    return _ragged.fake(counts, offsets.shape[0] - 1, torch.uint8)


@_fakes.register("rle_from_strings")
def _rle_from_strings_fake(strings: Tensor, offsets: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    return _ragged.fake(strings, offsets.shape[0] - 1, torch.int32)


@_fakes.register("rle_to_masks")
def _rle_to_masks_fake(counts: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    return counts.new_empty((offsets.shape[0] - 1, height, width), dtype=torch.bool)


@_fakes.register("rle_areas")
def _rle_areas_fake(counts: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    return counts.new_empty(offsets.shape[0] - 1, dtype=torch.int64)


@_fakes.register("rle_boxes")
def _rle_boxes_fake(counts: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    return counts.new_empty((offsets.shape[0] - 1, 4), dtype=torch.float32)


for _name in ("masks_to_rle", "rle_to_strings", "rle_from_strings"):
    _vmap.refuse(_name)

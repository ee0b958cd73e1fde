"""The ranges of a configuration's numbers, and the conditions under which an option has an effect."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from .options import Config


class Range(NamedTuple):
    """The values that an option may have, in words and as a predicate."""

    expected: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Range:
    """A finite number from ``low`` on."""
    return Range(f"a number of at least {low:g}", lambda value: low <= value < math.inf)


def whole(low: int) -> Range:
    """A whole number from ``low`` on."""
    return Range(f"a whole number of at least {low}", lambda value: isinstance(value, int) and low <= value)


def above(low: float) -> Range:
    """A finite number above ``low``."""
    return Range(f"a number above {low:g}", lambda value: low < value < math.inf)


def between(low: float, high: float) -> Range:
    """A number in a range, ends included."""
    return Range(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


def inside(low: float, high: float) -> Range:
    """A number in a range, ends left out."""
    return Range(f"a number above {low:g} and below {high:g}", lambda value: low < value < high)


def optional(of: Range) -> Range:
    """What another range allows, or None."""
    return Range(f"{of.expected}, or null", lambda value: value is None or of.holds(value))


def each(of: Range, what: str) -> Range:
    """A list that is not empty and whose elements are all in a range."""
    return Range(what, lambda values: len(values) > 0 and all(of.holds(value) for value in values))


def rising(of: Range, what: str) -> Range:
    """A list that is not empty, with rising numbers that are all in a range."""
    return Range(what, lambda values: each(of, what).holds(values) and _rises(values))


def pair(of: Range, what: str) -> Range:
    """Two numbers that are in a range, the second no smaller than the first."""
    return Range(what, lambda values: all(of.holds(value) for value in values) and values[0] <= values[1])


def _rises(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _names(channel: int | str) -> bool:
    return bool(channel) if isinstance(channel, str) else _number.holds(channel)


_share = between(0, 1)
_count, _number, _positive = whole(1), whole(0), above(0)
_any_size = at_least(0)
_triple = Range("three finite numbers", lambda values: len(values) == 3 and all(map(math.isfinite, values)))

RANGES: dict[str, Range] = {
    "model.strides": rising(_count, "rising strides of at least 1, one for each level"),
    "model.ranges": Range(
        "pairs of rising numbers, which rise from level to level",
        lambda ranges: (
            len(ranges) > 0 and all(low < high for low, high in ranges) and all(map(_rises, zip(*ranges, strict=True)))
        ),
    ),
    "model.num_rays": whole(3),
    "model.channels": _count,
    "model.depth": _number,
    "model.mask_weight": _any_size,
    "model.init_scale": optional(_positive),
    "model.box_offset": _any_size,
    "model.center_radius": _positive,
    "model.image_mean": _triple,
    "model.image_std": Range("three numbers above 0", lambda values: all(0 < value < math.inf for value in values)),
    "model.pad_multiple": _count,
    "model.score_threshold": _share,
    "model.max_candidates": optional(_count),
    "model.max_detections": optional(_count),
    "model.nms_threshold": _share,
    "data.channels": optional(
        Range(
            "from one to three channels, counted from 0 or by name", lambda v: 1 <= len(v) <= 3 and all(map(_names, v))
        )
    ),
    "data.val_fraction": Range("a number of at least 0 and below 1", lambda value: 0 <= value < 1),
    "data.size": whole(8),
    "data.count": _number,  # the trainer refuses 0 with a better sentence
    "data.min_area": _any_size,
    "data.min_side": _any_size,
    "data.repeat": _count,
    "data.percentiles": optional(
        Range("two rising numbers from 0 to 100", lambda v: 0 <= v[0] < v[1] <= 100),
    ),
    "data.resize": optional(Range("a width and a height of at least 1", lambda v: all(side >= 1 for side in v))),
    "data.train_heights": optional(pair(_count, "two heights of at least 1, the lower one first")),
    "data.test_scale": optional(_count),
    "data.crop": optional(_count),
    "data.scale": pair(_positive, "two factors above 0, the smaller one first"),
    "data.flip": _share,
    "data.jitter": optional(pair(_positive, "two factors above 0, the smaller one first")),
    "data.mosaic": _share,
    "data.copy_paste": _share,
    "data.repeat_rare": _share,
    "data.workers": _number,
    "optim.lr": _positive,
    "optim.weight_decay": _any_size,
    "optim.bias_lr_factor": _any_size,
    "optim.bias_decay_factor": _any_size,
    "optim.clip": Range("a number above 0", lambda value: value > 0),  # infinity does not clip
    "optim.batch_size": _count,
    "optim.accumulate": _count,
    "optim.epochs": _count,
    "optim.warmup_steps": _number,
    "optim.milestones": Range("rising epochs of at least 1", lambda v: all(n >= 1 for n in v) and _rises(v)),
    "optim.ema": optional(inside(0, 1)),
    "eval.max_dets": optional(rising(_count, "rising numbers of at least 1, for AP the last")),
    "eval.boundary": inside(0, 1),
    "eval.score_threshold": _share,
    "seed": Range("a whole number from 0 to 2^63 - 1", lambda v: isinstance(v, int) and 0 <= v < 2**63),
    "checkpoint_every": _number,
    "keep_checkpoints": _count,
    "evaluate_every": _number,
    "stop_after": _number,
    "overfit": _number,
    "log_every": _count,
}


class Needs(NamedTuple):
    """The condition under which some options have an effect, as a predicate and in words."""

    options: tuple[str, ...]
    holds: Callable[["Config"], bool]
    condition: str


NEEDS = (
    Needs(("data.size", "data.count"), lambda c: c.data.dataset == "shapes", "data.dataset shapes"),
    Needs(
        (
            *(f"data.{name}" for name in ("root", "train", "test", "images", "channels", "parts", "invalid", "crowd")),
            *(f"data.{name}" for name in ("boxes", "val_fraction")),
        ),
        lambda c: c.data.dataset == "files",
        "data.dataset files",
    ),
    Needs(("data.rotate", "data.scale"), lambda c: c.data.crop is not None, "data.crop"),
    Needs(
        ("data.train_heights", "data.test_scale", "data.keep_aspect", "data.jitter"),
        lambda c: c.data.resize is not None,
        "data.resize",
    ),
    Needs(("data.train_heights",), lambda c: c.data.jitter is None, "no data.jitter"),
    Needs(("optim.milestones",), lambda c: c.optim.schedule == "step", "optim.schedule step"),
    Needs(
        ("model.style", "model.deformable_backbone", "model.weights"),
        lambda c: c.model.backbone != "small",
        "another model.backbone than small",
    ),
    Needs(("model.box_offset",), lambda c: c.model.box_branch, "model.box_branch true"),
    Needs(("stop_after",), lambda c: c.evaluate_every > 0, "evaluate_every of at least 1"),
)


def check_config(config: "Config", given: Collection[str] = ()) -> None:
    """Checks the numbers of a configuration, and that the options that a user gave have an effect.

    Parameters
    ----------
    config : Config
    given : collection of str
        Names of the options that stand on the command line, such as ``data.crop``. What only a recipe sets may have no
        effect.

    Raises
    ------
    ValueError
        With the option, what was expected and what was got.

    Examples
    --------
    >>> from polarmask import Config
    >>> from polarmask.config import DataConfig
    >>> check_config(Config(data=DataConfig(flip=2)))
    Traceback (most recent call last):
    ValueError: data.flip: expected a number from 0 to 1, got 2
    """
    check_ranges(config)
    for needs in NEEDS:
        for name in needs.options:
            if name in given and not needs.holds(config) and not _is_off(_value(config, name)):
                raise ValueError(
                    f"{name}: has an effect with {needs.condition} only; set that, or leave out --{name} "
                    f"(got {_value(config, name)!r})"
                )


def check_ranges(config: "Config", parts: Collection[str] = ("model", "data", "optim", "eval", "")) -> None:
    """The part of :func:`check_config` that is about numbers; ``""`` stands for the options without a dot."""
    for name, allowed in {**RANGES, **dict(_choices(config))}.items():
        if name.rpartition(".")[0] in parts:
            value = _value(config, name)
            try:
                holds = allowed.holds(value)
            except (TypeError, ValueError, AttributeError, IndexError):  # of another type, from Python
                holds = False
            if not holds:
                raise ValueError(f"{name}: expected {allowed.expected}, got {_shown(value)}")
    model = config.model
    if "model" in parts and len(model.ranges) != len(model.strides):
        raise ValueError(
            f"model.ranges: expected {len(model.strides)}, one for each of model.strides, got {len(model.ranges)}"
        )
    if "optim" in parts and config.optim.accumulate > config.optim.batch_size:
        raise ValueError(
            f"optim.accumulate: expected at most optim.batch_size, {config.optim.batch_size}, got "
            f"{config.optim.accumulate}"
        )


def _choices(config: Any, prefix: str = "") -> Iterator[tuple[str, Range]]:
    """The options that are one of several words."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if is_dataclass(hint):
            yield from _choices(value, f"{prefix}{field.name}.")
        elif get_origin(hint) is Literal:
            words = get_args(hint)
            yield prefix + field.name, Range(f"one of {', '.join(words)}", words.__contains__)


def _value(config: "Config", name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _is_off(value: Any) -> bool:
    """Returns true if a value switches its option off, which is allowed even where the option has no effect."""
    return value is None or value is False or value == 0 or value in ("none", "raise", "error")

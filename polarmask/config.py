"""Configuration: one dataclass, YAML files and the command line."""

import difflib
import json
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from .cli.errors import say
from .config_check import check_config as check_config
from .config_check import check_ranges

CONFIGS = Path(__file__).parent / "configs"
BOOLEANS = {"true", "false", "yes", "no", "on", "off"}  # of YAML
set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help shows what stands below the fields


@dataclass
class ModelConfig:
    """The network, its targets and its detections."""

    backbone: Literal["small", "resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d"] = "resnet50"
    """Small is a GroupNorm network for small machines; the others are torchvision's, with P3-P7."""
    weights: str = "none"
    """What a ResNet starts from: torchvision (downloaded), the path of a state dict, or none, which means GroupNorm
    and no frozen stage."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Which convolution of a ResNet's bottleneck strides: the 3x3, or the first 1x1 as in the released R50 and R101."""
    deformable_backbone: bool = False
    """Deformable 3x3 convolutions in stages 2 to 4 of a ResNet with bottlenecks."""
    deformable_head: bool = False
    """Modulated deformable convolutions in the head's towers."""
    strides: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 128])
    """Strides of the levels; the small backbone has 4, 8 and 16."""
    ranges: list[tuple[float, float]] = field(
        default_factory=lambda: [(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)]
    )
    """Largest box distance, in pixels, that each level answers for, from and to."""
    num_rays: int = 36
    """Rays of a polygon."""
    channels: int = 256
    """Width of the towers and, with the small backbone, of the feature maps."""
    depth: int = 4
    """Convolutions in a tower."""
    box_branch: bool = True
    """Whether boxes are predicted; else they are the polygons' extents."""
    mask_loss: Literal["polar_iou", "smooth_l1"] = "polar_iou"
    """What rays are trained with: Polar IoU, or smooth L1 on lengths in pixels, the mean of the rays."""
    mask_weight: float = 1.0
    """The mask loss is multiplied by it."""
    centerness: Literal["polar", "fcos"] = "polar"
    """Sqrt of the shortest ray over the longest, or FCOS's, from the sides of the box."""
    init_scale: float | None = None
    """Rays start at this many strides; by default at one pixel, as released."""
    box_offset: float = 0.0
    """Added to widths and heights in the box loss; 1 is what the released weights were trained with."""
    center_radius: float = 1.5
    """Points within this many strides of an instance's centre answer for it."""
    bgr: bool = False
    """The network takes blue, green, red, as weights from Caffe do; images are turned round after normalisation."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the image, which is red, green, blue in 0 to 1."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """The image is divided by it."""
    pad_multiple: int = 128
    """Images are padded to a multiple of this."""
    score_threshold: float = 0.05
    """Class score below which nothing is a detection."""
    max_candidates: int | None = 1000
    """Points of each level that are looked at, the best by score; null: all."""
    max_detections: int | None = 100
    """Detections of an image, the best by score; null: all."""
    nms: Literal["box", "polygon"] = "box"
    """What overlap is measured on."""
    nms_threshold: float = 0.5
    """Overlap above which the lower score goes."""


@dataclass
class DataConfig:
    """The images and what is done to them."""

    dataset: Literal["files", "nuclei", "shapes"] = "files"
    """Files are what `root` holds; nuclei is one real microscopy image, fetched when needed; shapes is generated."""
    root: str = "."
    """Of files: a COCO folder or a JSON file of COCO's format, a YOLO data.yaml or its folder, a folder like Pascal
    VOC's, or folders with images and label images."""
    train: str | None = None
    """Of files: the split to train on, or a JSON file of COCO's format, relative to `root` or as given; by default
    train2017 or train, what is there."""
    test: str | None = None
    """Of files: the split or JSON file to evaluate on; by default val2017, val, valid or test, what is there. Without
    one, and without `val_fraction`, nothing is evaluated."""
    val_fraction: float = 0.0
    """Evaluate on this share of the training images, drawn by the seed, and train on the others; 0: on `test`."""
    images: str | None = None
    """Of files: the folder of the images, where COCO's JSON lies elsewhere; as given or below `root`."""
    channels: list[int | str] | None = None
    """Of files: up to three channels of the images that become red, green and blue, counted from 0 or by name where a
    TIFF has names. Images of more than three channels and TIFF stacks need it; by default grey is repeated."""
    parts: Literal["largest", "all", "split"] = "largest"
    """Of files: instances of several parts are trained on by their largest, by all of them, where rays go to the
    farthest, or as an instance for each part."""
    invalid: Literal["raise", "skip"] = "raise"
    """Of files: whether images and annotations that cannot be read stop the program or are logged and left out."""
    crowd: Literal["ignore", "background", "instance"] = "ignore"
    """Of files: crowds are neither objects nor background; or background, as released; or COCO's flag iscrowd is passed
    over and they are instances like others, as tools that export brush masks mean them."""
    boxes: Literal["error", "ignore", "rectangle"] = "error"
    """Of files: annotations that have a box and no outline are errors, or neither objects nor background, or are taken
    for rectangles."""
    size: int = 256
    """Of shapes: height and width of the images."""
    count: int = 1000
    """Of shapes: training images; a tenth as many are evaluated on."""
    min_area: float = 1.0
    """Instances smaller than this, in pixels of the network's input, are not trained on."""
    min_side: float = 0.0
    """Instances whose width and height are both smaller than this, in the same pixels, are not trained on."""
    keep_empty: bool = True
    """Whether images are trained on that show no instance; else another takes the place."""
    repeat: int = 1
    """How often an epoch shows each image, differently augmented."""
    percentiles: tuple[float, float] | None = None
    """The values of each channel at these percentiles become 0 and 1."""
    resize: tuple[int, int] | None = None
    """Width and height that images are resized to, in training and after."""
    train_heights: tuple[int, int] | None = None
    """In training, the height to resize to is drawn from this range, ends included, and the width stays."""
    test_scale: int | None = None
    """After training, images are resized to this height, and to a width in proportion to that of `resize`."""
    keep_aspect: bool = False
    """Whether resizing keeps the aspect ratio and stays within `resize`."""
    crop: int | None = None
    """Train on random squares of this side, in pixels."""
    rotate: bool = False
    """Turn crops by any angle."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Zoom crops by a factor from this range."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: tuple[float, float] | None = None
    """Large-scale jitter: in training an image fits into `resize` times a factor from this range, its aspect kept, and
    is cut or padded to `resize`."""
    mosaic: float = 0.0
    """Probability that four images are joined to one."""
    copy_paste: float = 0.0
    """Probability that instances of another image are pasted onto the image."""
    photometric: bool = False
    """Vary gamma, gain and noise."""
    group_by_aspect: bool = False
    """Make each step of images that are all wider than high, or none."""
    repeat_rare: float = 0.0
    """Show images of a category more often where less than this share of the images has it (LVIS: 0.001)."""
    workers: int = 0
    """Processes that prepare batches; 0: the main one."""


@dataclass
class OptimConfig:
    """The optimizer and its schedule."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD has a momentum of 0.9."""
    lr: float = 0.01
    """Learning rate after the warm-up."""
    weight_decay: float = 1e-4
    """Of everything but the convolutions' biases, with SGD."""
    bias_lr_factor: float = 1.0
    """The biases of convolutions learn this much faster."""
    bias_decay_factor: float = 1.0
    """The biases of convolutions decay by this share of weight_decay."""
    clip: float = 35.0
    """Gradients are scaled down to this norm."""
    batch_size: int = 16
    """Images in a step, of all processes together."""
    accumulate: int = 1
    """Parts that a step is divided into when its images do not fit into memory at once."""
    epochs: int = 12
    """Passes over the data."""
    warmup_steps: int = 500
    """Steps in which the learning rate rises from a third."""
    schedule: Literal["step", "cosine"] = "step"
    """Divide the learning rate by ten after each milestone, or let it fall to 0 along a cosine."""
    milestones: list[int] = field(default_factory=lambda: [8, 11])
    """Epochs of the step schedule."""
    ema: float | None = None
    """Decay of the weights' moving average, which is then what is evaluated and saved."""
    compile: bool = False
    """Compile backbone and head."""


@dataclass
class EvalConfig:
    """How detections are compared with what is there."""

    max_dets: list[int] | None = None
    """Detections of an image that recall is measured with, rising; AP takes the last. By default 1, 10 and
    model.max_detections; where that is null, all detections, and their recall is called ARall."""
    boundary: float = 0.02
    """Width of the boundary in boundary AP, as a share of the image's diagonal."""
    score_threshold: float = 0.3
    """Lowest score of a detection in the one-to-one matching (precision, recall, F1, PQ)."""


@dataclass
class Config:
    """A training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    out: str = "runs/train"
    """Folder of weights, metrics and pictures."""
    seed: int = 0
    """Of the weights, the order and the augmentation."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; no: float32."""
    resume: str | None = None
    """Go on with a run that was stopped: auto (the last checkpoint in `out`, if there is one) or a checkpoint."""
    overwrite: bool = False
    """Begin anew where `out` holds checkpoints of another run."""
    checkpoint_every: int = 0
    """Steps between checkpoints; there is one after each epoch in any case."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    evaluate_every: int = 1
    """Epochs between evaluations; 0: only at the end."""
    stop_after: int = 0
    """Stop when segm/AP has not risen in so many evaluations; 0: never."""
    overfit: int = 0
    """Train and evaluate on this many training images only, to see whether anything is learned; 0: all of them."""
    tracker: str = "tensorboard"
    """Where the metrics go beside metrics.jsonl, and pictures where they can: a tracker that Accelerate knows."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""


def to_dict(config: Config) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings."""
    return asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`to_dict`, also after JSON, which has no tuples.

    Raises
    ------
    ValueError
        If there is another option, or a value is not of its type.
    """
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        config = _instantiate(parser, parser.parse_object(values))
    except ArgumentError as error:
        raise ValueError(f"from_dict: {error}") from error
    check_ranges(config, ["model"])  # of a network that is there; how it was trained is history
    return config


def load_config(name: str, **changes: Any) -> Config:
    """A configuration by its bare name (a file of ``polarmask/configs``) or path.

    Parameters
    ----------
    name : str
    **changes
        Dotted options with ``__`` for the dot, such as ``optim__lr=0.1``.

    Raises
    ------
    ValueError
        If the name, an option or its value does not exist.

    Examples
    --------
    >>> load_config("nuclei", optim__batch_size=2).optim.batch_size
    2
    """
    args = [
        f"--{key.replace('__', '.')}={value if isinstance(value, str | Path) else json.dumps(value)}"
        for key, value in changes.items()
    ]
    try:
        return parse_config(["--config", name, *args], exit_on_error=False)
    except ArgumentError as error:
        raise ValueError(f"load_config: {error}") from error


def parse_config(args: Sequence[str] | None = None, **parser_options: Any) -> Config:
    """A configuration from the command line."""
    parser = Parser(**parser_options)
    parser.add_class_arguments(Config)
    return build_config(parser, parser.parse_args(args))


def build_config(parser: "Parser", parsed: Namespace) -> Config:
    """The configuration in what a parser with the options of ``Config`` found, checked."""
    config = _instantiate(parser, parsed)
    parser.check(config)
    return config


def _instantiate(parser: "Parser", parsed: Namespace) -> Config:
    parts = parser.instantiate(parsed)
    return Config(**{part.name: parts[part.name] for part in fields(Config)})


class Parser(ArgumentParser):
    """The command line of a program.

    Configurations (``--config NAME`` or a path; several may be given) come before every other option, wherever they
    stand. A configuration may stand on others, ``base: NAME`` or a list; one that is reached twice counts once.
    Option names are written out; an unknown one is an error that suggests the nearest. Errors are one sentence.
    A configuration or a command line that sets ``data.root`` without ``data.dataset`` means files.
    An option that is true or false may be given without a value, ``--overwrite``, which means true.

    Attributes
    ----------
    given : set of str
        Names of the options that stood on the command line.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False, epilog="With --traceback, an error also shows where it was raised.", **kwargs
        )
        self.given: set[str] = set()
        self._unused: set[str] = set()
        self.add_argument("--config", action="config", help="Name of a file in polarmask/configs, or a path.")

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        configs: list[str] = []
        others: list[str] = []
        remaining = list(sys.argv[1:] if args is None else args)
        while remaining:
            arg = remaining.pop(0)
            if arg == "--config" or arg.startswith("--config="):
                name = arg.removeprefix("--config=") if "=" in arg else remaining.pop(0) if remaining else ""
                for content in self._with_bases(self._find(name)).values():
                    configs += ["--config", yaml.safe_dump(_as_files(content))]
            else:
                if arg.startswith("--") and arg != "--":
                    name = arg[2:].split("=")[0]
                    self._check_name(name, "--")
                    if name in self._unused:
                        self.error(f"--{name} has no effect on {self._program}; leave it out")
                    self.given.add(name.removesuffix("+"))
                    if self._is_flag(arg, remaining[:1]):
                        arg += "=true"
                others.append(arg)
        if "data.root" in self.given and "data.dataset" not in self.given:
            configs += ["--config", yaml.safe_dump({"data": {"dataset": "files"}})]
        return super().parse_args([*configs, *others], *rest, **kwargs)

    def _is_flag(self, arg: str, following: Sequence[str]) -> bool:
        """Returns true if an argument is an option of type bool without a value; ``following`` is the next argument."""
        if getattr(self._option_string_actions.get(arg), "_typehint", None) is not bool:
            return False
        if not following or following[0].startswith("-"):
            return True
        # Where there are positional arguments, the next one may be one of them.
        return bool(self._get_positional_actions()) and following[0].lower() not in BOOLEANS

    def leave_out(self, names: Iterable[str]) -> None:
        """Options that this program does not use: not shown by --help, and refused on the command line.

        Configurations may set them, since other programs use them.
        """
        for name in names:
            self._option_string_actions[f"--{name}"].help = SUPPRESS
            self._unused.add(name)

    def check(self, config: Config) -> None:
        """Ends with an error where a number is out of its range, or an option that was given has no effect."""
        try:
            check_config(config, self.given)
        except ValueError as error:
            self.error(str(error))
        if config.data.dataset != "files" and config.data.root != DataConfig.root:
            self.error(f"data.root: expected data.dataset files, got {config.data.dataset}; leave one of them out")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one sentence and exits with status 2, or raises an ArgumentError."""
        sentence = self._sentence(message)
        if not self.exit_on_error:
            raise ArgumentError(None, sentence) from ex
        say(f"{self._program}: {sentence}; --help lists the options")
        self.exit(2)

    @property
    def _program(self) -> str:
        """The program's name in errors, such as ``polarmask.train``."""
        return self.prog.replace(" ", ".")

    def _sentence(self, message: str) -> str:
        """What jsonargparse says in several lines of its own words, as option, expected, got."""
        if required := re.search(r'[Kk]ey "(\S+)" is required', message):
            return f"expected {required[1]}, which must be given"
        keys = re.findall(r'Parser key "(\S+)":', message)
        got = re.findall(r"(?:Got|Given) value: (.*)", message)
        if keys and got:
            action = self._option_string_actions.get(f"--{keys[-1]}")
            if hint := getattr(action, "_typehint", None):
                return f"{keys[-1]}: expected {_words(hint)}, got {got[-1]}"
        return " ".join(message.split())

    def _with_bases(self, path: Path, above: tuple[Path, ...] = ()) -> dict[Path, dict[str, Any]]:
        """What stands in a file, after what stands in those that it names as its base."""
        if path in above:
            self.error(f"{path}: is its own base, by way of {', '.join(map(str, above))}")
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.error(f"{path}: expected YAML, got {error}")
        if not isinstance(content, dict):
            self.error(f"{path}: expected options and their values, got {content!r}")
        bases = content.pop("base", [])
        found: dict[Path, dict[str, Any]] = {}
        for base in [bases] if isinstance(bases, str) else bases:
            found |= self._with_bases(self._find(base), (*above, path))  # what was there keeps its place
        for name in _names(content):
            self._check_name(name, f"{path}: ")
        return {**found, path: content}

    def _find(self, name: str) -> Path:
        path = Path(name) if Path(name).is_file() else CONFIGS / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
            self.error(f"--config: expected a file or one of {known}, got {name!r}")
        return path

    def _check_name(self, name: str, where: str) -> None:
        known = [option.removeprefix("--") for option in self._option_string_actions]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            self.error(f"{where}{name} is no option{f'; did you mean {near[0]}?' if near else ''}")


def option_names(config: Any, prefix: str = "") -> set[str]:
    """The options of a configuration or of a part of it, with dots.

    Examples
    --------
    >>> "eval.boundary" in option_names(Config())
    True
    """
    return set(_names(asdict(config), prefix))


def _names(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _as_files(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration's options; those that set data.root mean files where they do not say otherwise."""
    names = set(_names(content))
    if "data.root" in names and "data.dataset" not in names:
        data = content.get("data")
        return {**content, "data": {**(data if isinstance(data, dict) else {}), "dataset": "files"}}
    return content


_PLAIN = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    NoneType: ("null", "null"),
}


def _words(hint: Any, several: bool = False) -> str:
    """A type in words.

    Examples
    --------
    >>> _words(list[tuple[float, float]] | None)
    'a list of lists of 2 numbers, or null'
    """
    if hint in _PLAIN:
        return _PLAIN[hint][several]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return ", or ".join(_words(arg, several) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    lists = "lists of" if several else "a list of"
    if origin is list:
        return f"{lists} {_words(args[0], True)}"
    if origin is tuple:
        return f"{lists} {len(args)} {_words(args[0], True)}"
    return str(hint)

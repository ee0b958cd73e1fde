"""The options of a training run, as dataclasses; ``--help`` shows the texts below the fields."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass
class ModelConfig:
    """The network, its targets and its detections."""

    backbone: Literal["small", "resnet18", "resnet34", "resnet50", "resnet101", "resnext101_64x4d"] = "resnet50"
    """Small is a GroupNorm network for small machines; the others are torchvision's, with P3-P7."""
    weights: str = "none"
    """Weights that a ResNet starts with: torchvision (downloaded), the path of a state dict, or none, which means
    GroupNorm and no frozen stage."""
    style: Literal["pytorch", "caffe"] = "pytorch"
    """Which convolution of a ResNet's bottleneck has the stride: the 3x3, or the first 1x1 as in the released R50 and
    R101."""
    deformable_backbone: bool = False
    """Deformable 3x3 convolutions in stages 2 to 4 of a ResNet with bottlenecks."""
    deformable_head: bool = False
    """Modulated deformable convolutions in the head's towers."""
    strides: list[int] = field(default_factory=lambda: [8, 16, 32, 64, 128])
    """Strides of the levels; the small backbone has 4, 8 and 16."""
    ranges: list[tuple[float, float]] = field(
        default_factory=lambda: [(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)]
    )
    """For each level, the range of the largest box distance, in pixels, of the instances that are assigned to it."""
    num_rays: int = 36
    """Rays of a polygon."""
    channels: int = 256
    """Width of the towers and, with the small backbone, of the feature maps."""
    depth: int = 4
    """Convolutions in a tower."""
    box_branch: bool = True
    """Whether boxes are predicted by a branch of their own; if not, they are the polygons' extents."""
    mask_loss: Literal["polar_iou", "smooth_l1"] = "polar_iou"
    """The loss of the rays: Polar IoU, or smooth L1 of their lengths in pixels, the mean of a point's rays."""
    mask_weight: float = 1.0
    """The mask loss is multiplied by it."""
    centerness: Literal["polar", "fcos"] = "polar"
    """Centerness: the square root of the shortest ray over the longest, or FCOS's, from the distances to the box."""
    init_scale: float | None = None
    """Initial length of the rays, in strides; by default they start at one pixel, as released."""
    box_offset: float = 0.0
    """Added to widths and heights in the box loss; 1 is what the released weights were trained with."""
    center_radius: float = 1.5
    """Points within this many strides of an instance's centre are assigned to it."""
    bgr: bool = False
    """Whether the network takes blue, green, red, as weights from Caffe do; images are reversed after normalisation."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the image, which is red, green, blue in 0 to 1."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """The image is divided by it."""
    pad_multiple: int = 128
    """Images are padded to a multiple of this."""
    score_threshold: float = 0.05
    """Class score below which nothing is a detection."""
    max_candidates: int | None = 1000
    """How many of each level's points, the best by score, become candidates; null: all."""
    max_detections: int | None = 100
    """Detections of an image, the best by score; null: all."""
    nms: Literal["box", "polygon"] = "box"
    """Whether non-maximum suppression measures the overlap of boxes or of polygons."""
    nms_threshold: float = 0.5
    """Overlap (IoU) above which non-maximum suppression drops the detection with the lower score."""


@dataclass
class DataConfig:
    """The images and their preprocessing and augmentation."""

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
    """Of files: crowds are ignored, neither objects nor background; or background, as released; or instances like
    others, for exports of brush masks that set COCO's flag iscrowd."""
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
    """Whether to train on images without instances; if not, another image takes the place of each."""
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
    """Rotate crops by any angle."""
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
    """Weight decay. The convolutions' biases have it times `bias_decay_factor`."""
    bias_lr_factor: float = 1.0
    """Factor on the learning rate of the convolutions' biases."""
    bias_decay_factor: float = 1.0
    """Factor on the weight decay of the convolutions' biases."""
    clip: float = 35.0
    """Gradients are scaled down to this norm."""
    batch_size: int = 16
    """Images in a step, of all processes together."""
    accumulate: int = 1
    """Parts that a step is divided into when its images do not fit into memory at once."""
    epochs: int = 12
    """Passes over the data."""
    warmup_steps: int = 500
    """Steps in which the learning rate rises from a third to `lr`."""
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
    """How detections are compared with the ground truth."""

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
    """Seed of the initial weights, the order of the images and the augmentation."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; no: float32."""
    resume: str | None = None
    """Checkpoint to resume a stopped run from: auto (the last one in `out`, if there is one) or a path."""
    overwrite: bool = False
    """Discard the checkpoints and results of another run that `out` holds."""
    checkpoint_every: int = 0
    """Steps between checkpoints; there is one after each epoch in any case."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
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
    """A configuration as plain dicts, lists, numbers and strings."""
    return asdict(config)


def option_names(config: Any, prefix: str = "") -> set[str]:
    """The options of a configuration or of a part of it, with dots.

    Examples
    --------
    >>> "eval.boundary" in option_names(Config())
    True
    """
    return set(names_of(asdict(config), prefix))


def names_of(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of options in nested dicts, with dots."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from names_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"

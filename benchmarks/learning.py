"""What our model learns in a given time, beside torchvision's Mask R-CNN on the same backbone, images and threads.

    python benchmarks/learning.py --out runs/mask_rcnn --page docs/mask_rcnn.md

Each training is a line of OUT/runs.jsonl; those that are there already are not repeated.
"""

import argparse
import datetime
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import cpuinfo
import torch
import torchvision
from peers import learning as peers
from torch import Tensor, nn

from polarmask.config import Config, ModelConfig, load_config
from polarmask.data import DataSet, build_data
from polarmask.data.batches.loader import training_loader
from polarmask.evaluation import compare
from polarmask.inference.detector import Detector
from polarmask.inference.results import coco_results
from polarmask.model import build_model
from polarmask.training.optim import MovingAverage, build_optimizer, skip_step_if_nonfinite

DATA_SEED = 0  # the seeds are those of weights, order and augmentation
WARM_UP = 0.05  # of the time
AP = "segm/AP", "segm/AP50", "segm/AP75", "bbox/AP"
ABOUT = """\
Alike: the backbone (the small GroupNorm network with its feature pyramid, 64 channels, random weights); the images in
their order and with their augmentation, those of the recipes `shapes` and `nuclei`, as they are, unresized; batches;
AdamW with its decay and clipping; a learning rate that warms up and falls along a cosine over the time; the moving
average of the weights, which is what is evaluated, once and at the end, on the held-out images, by
`polarmask.evaluation`; the most detections of an image (100 on shapes, 1000 on nuclei). Seconds a step include data,
and for Mask R-CNN the bitmaps of the instances; seconds an image include COCO's RLE.

Different: on nuclei ours predicts from the level of stride 4 alone, as its recipe says; Mask R-CNN has the levels of
strides 4, 8 and 16 on both. Its heads are as wide as ours, and 128 regions of an image are trained on: with
torchvision's widths of 256 and 1024 and 512 regions a step on nuclei takes 14 times the processor's time of this one,
and two cores would make a handful of steps. Anchors have 4 and 4·√2 strides on each level. Its learning
rate is the best of 0.0005, 0.001 and 0.002 by the mask AP of the first seed on the held-out images, which favours it;
ours is the recipes'.
"""

Entries = list[dict[str, Any]]  # COCO's result format, without the image


@dataclass(frozen=True)
class Learner:
    """A model as a training and a prediction see it."""

    name: str
    build: Callable[[ModelConfig, int], nn.Module]  # configuration, categories
    targets: Callable[[Tensor, dict[str, Any]], dict[str, Any]]  # image, our targets
    detect: Callable[[Detector, Tensor], Entries]  # of an image as it is
    rates: tuple[float, ...]  # learning rates to choose from


def _ours(detector: Detector, image: Tensor) -> Entries:
    return coco_results(detector(image), (image.shape[1], image.shape[2]), 0, list(detector.categories))


def _theirs(detector: Detector, image: Tensor) -> Entries:
    return peers.detect(detector.model, detector.prepare(image))  # both data sets count their categories from 1


LEARNERS = (
    Learner("PolarMask", build_model, lambda image, target: target, _ours, rates=(2e-3,)),  # the recipes'
    Learner("Mask R-CNN", peers.mask_rcnn, peers.targets_of, _theirs, rates=(5e-4, 1e-3, 2e-3)),
)


def configuration(name: str, lr: float, seed: int) -> Config:
    """The recipe of that name."""
    return load_config(name, optim__lr=lr, seed=seed)


def train(learner: Learner, config: Config, seconds: float) -> tuple[nn.Module, int, float]:
    """-> the moving average of the weights, the number of steps, and how long they took.

    As the trainer does it, but the learning rate follows the time: a cosine that ends with it.
    """
    data = build_data(config.data, "train", DATA_SEED)
    torch.manual_seed(config.seed)
    model = learner.build(config.model, len(data.categories)).train()
    optimizer, average = build_optimizer(model, config.optim), MovingAverage(model, config.optim.ema)
    stream = batches(data, config)
    steps, spent, began = 0, 0.0, time.perf_counter()
    while spent < seconds:
        share = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = config.optim.lr * min(1, (1 + 2 * share / WARM_UP) / 3) * (1 + math.cos(math.pi * share)) / 2
        images, targets = next(stream)
        losses = model(images, [learner.targets(*pair) for pair in zip(images, targets, strict=True)])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        skip_step_if_nonfinite(norm.isfinite(), optimizer)
        optimizer.step()
        average.update_parameters(model)
        steps, spent = steps + 1, time.perf_counter() - began
    return average.module, steps, spent


def batches(data: DataSet, config: Config) -> Iterator[tuple[list[Tensor], list[dict[str, Any]]]]:
    """Epoch after epoch."""
    loader, sampler = training_loader(data, config)
    for epoch in count():
        sampler.epoch = epoch
        for images, targets, _ in loader:
            yield images, targets


def measure(learner: Learner, config: Config, seconds: float) -> dict[str, float]:
    """Trains and evaluates once."""
    model, steps, spent = train(learner, config, seconds)
    data = build_data(config.data, "test", DATA_SEED)
    detector = Detector(model.eval(), config, data.categories)
    learner.detect(detector, data[0].image)  # the first call of a network takes longer
    results: Entries = []
    predicting = 0.0
    for sample in (data[n] for n in range(len(data))):
        began = time.perf_counter()
        found = learner.detect(detector, sample.image)
        predicting += time.perf_counter() - began
        results += [{**entry, "image_id": sample.image_id} for entry in found]
    metrics = compare(data, results, config.eval).metrics
    return {
        "steps": steps,
        "seconds/step": spent / steps,
        "seconds/image": predicting / len(data),
        **{name: metrics[name] for name in AP},
    }


def run(
    path: Path,
    configure: Callable[[str, float, int], Config],
    names: Sequence[str],
    seeds: Sequence[int],
    budget: float,
) -> list[dict[str, Any]]:
    """The records of every data set, model and seed; those that ``path`` lacks are measured and appended to it.

    The first seed chooses the learning rate, where there are several.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def record(name: str, learner: Learner, lr: float, seed: int) -> dict[str, Any]:
        about = {"data": name, "model": learner.name, "lr": lr, "seed": seed}
        about |= {"budget": budget, "threads": torch.get_num_threads()}
        for found in known:
            if about.items() <= found.items():
                return found
        found = about | measure(learner, configure(name, lr, seed), budget)
        with path.open("a") as lines:
            print(json.dumps(found), file=lines)
        print(json.dumps(found), flush=True)
        return found

    records = []
    for name in names:
        for learner in LEARNERS:
            best = max(
                (record(name, learner, lr, seeds[0]) for lr in learner.rates), key=lambda found: found["segm/AP"]
            )
            records += [best, *(record(name, learner, best["lr"], seed) for seed in seeds[1:])]
    return records


def page(records: Sequence[dict[str, Any]], command: str) -> str:
    """What was found, and what is alike and different, as Markdown."""
    first = records[0]
    seeds = sorted({record["seed"] for record in records})
    lines = [
        "# Beside torchvision's Mask R-CNN",
        "",
        "```",
        command,
        "```",
        "",
        f"{cpuinfo.get_cpu_info()['brand_raw']}, {first['threads']} threads, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, {datetime.date.today().isoformat()}. Every training has {first['budget']:g} "
        f"seconds, data included; seeds {', '.join(map(str, seeds))}. In brackets the lowest and the highest of them.",
        "",
        "| data | model | learning rate | mask AP | AP50 | AP75 | box AP | steps | seconds a step | seconds an image |",
        f"|{' --- |' * 10}",
    ]
    for name in dict.fromkeys(record["data"] for record in records):
        for learner in LEARNERS:
            mine = [record for record in records if (record["data"], record["model"]) == (name, learner.name)]
            cells = [_spread([100 * r[key] for r in mine], ".1f") for key in AP]
            cells += [_spread([r["steps"] for r in mine], ".0f")]
            cells += [_spread([r[key] for r in mine], ".3f") for key in ("seconds/step", "seconds/image")]
            lines.append(f"| {name} | {learner.name} | {mine[0]['lr']:g} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *ABOUT.split("\n")])


def _spread(values: Sequence[float], form: str) -> str:
    return f"{mean(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/mask_rcnn"), help="folder of runs.jsonl")
    parser.add_argument("--page", type=Path, help="where the table goes; it is printed in any case")
    parser.add_argument("--seconds", type=float, default=45, help="of one training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["shapes", "nuclei"], help="recipes")
    parsed = parser.parse_args()
    path = parsed.out / "runs.jsonl"
    records = run(path, configuration, parsed.data, parsed.seeds, parsed.seconds)
    text = page(records, f"python {' '.join(sys.argv)}")
    print(text)
    if parsed.page:
        parsed.page.write_text(text)


if __name__ == "__main__":
    main()

"""Compares what polarmask reads with what the slow reader found."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from polarmask.data import DataError

from .slow import BAD, PLAIN, SMALLEST, Reading, Seen

Found = dict[Path, list[tuple[list[float], np.ndarray]]]  # by image: areas of its instances, and its pixels


def read_all(data: Any) -> Found:
    """Every image that the data set gives; those that it cannot read are left out."""
    found: Found = defaultdict(list)
    for index in range(len(data)):
        try:
            sample = data[index]
        except DataError:
            continue
        areas = sample.outlines.clip(sample.size).areas()
        kept = (areas >= SMALLEST) & ~sample.ignore
        found[path_of(data, index)].append((areas[kept].tolist(), sample.image.permute(1, 2, 0).numpy()))
    return found


def path_of(data: Any, index: int) -> Path:
    """The file of an image, also of one in a part of a data set."""
    if hasattr(data, "indices"):
        data, index = data.data, data.indices[index]
    return data.path(index).resolve()


def differences(reading: Reading, found: Found, said: list[str]) -> tuple[list[str], int]:
    """Faults of what was trained on, beside what is there and what was said about it; how much was left out."""
    faults: list[str] = []
    images = instances = 0  # that are left out
    for seen in reading.images:
        samples = found.get(seen.path.resolve(), []) if seen.path else []
        if not samples:
            images += 1
            instances += len(seen.areas) + seen.unclear + seen.bad
            continue
        areas, pixels = samples.pop(0) if len(samples) > 1 else samples[0]
        if seen.status == BAD:
            faults.append(f"{name_of(seen)} is used though it cannot be read plainly: {seen.why}")
            continue
        faults += of_image(seen, areas, pixels)
        instances += max(len(seen.areas) + seen.unclear + seen.bad - len(areas), 0)
    known = {seen.path.resolve() for seen in reading.images if seen.path}
    faults += [f"{path} is used though it is not in the set" for path in found if path not in known]
    lost = images + instances + reading.orphans
    if lost and not mentioned(said, images, instances, reading.orphans):
        counts = f"{images} images, {instances} instances, {reading.orphans} annotations of no image"
        faults.append(f"left out without a word: {counts}")
    if reading.say and not said:
        faults.append(f"not said: {'; '.join(reading.say)}")
    return faults, lost


def of_image(seen: Seen, areas: list[float], pixels: np.ndarray) -> list[str]:
    name = name_of(seen)
    least, most = len(seen.areas), len(seen.areas) + seen.unclear
    if not least <= len(areas) <= most:
        return [f"{name}: {len(areas)} instances are used, {least} to {most} are there, and {seen.bad} that are spoilt"]
    if seen.status != PLAIN:
        return []
    faults = []
    known = [area for area in seen.areas if area is not None]
    if len(known) == len(areas):
        for want, got in zip(sorted(known), sorted(areas), strict=True):
            if abs(want - got) > 2 + 0.03 * want:
                faults.append(f"{name}: an instance of {want:.1f} square pixels is used with {got:.1f}")
                break
    if seen.pixels is not None:
        if seen.pixels.shape != pixels.shape:
            faults.append(f"{name}: pixels of shape {seen.pixels.shape} are used as {pixels.shape}")
        elif np.abs(seen.pixels - pixels).mean() > 0.02 * max(np.abs(seen.pixels).max(), 0.1):
            means = seen.pixels.mean((0, 1)).round(3), pixels.mean((0, 1)).round(3)
            faults.append(f"{name}: pixels of mean {means[0]} are used with {means[1]}")
    return faults


def name_of(seen: Seen) -> str:
    return seen.path.name if seen.path else "an image without name"


def mentioned(said: list[str], images: int, instances: int, orphans: int) -> bool:
    """Whether the messages hold the number of what is left out, or are as many."""
    sums = {sum(map(int, re.findall(r"(?:: |; )(\d+) annotations", line))) for line in said}
    wanted = {n for n in (images, instances, images + instances, images + instances + orphans) if n}
    numbers = [int(number) for line in said for number in re.findall(r"(?<![\w./:-])\d+(?![\w/:-]|\.\w)", line)]
    parts_said = (not images or images in numbers) and (not instances or instances in numbers)
    parts_said &= not orphans or orphans in numbers
    return bool(wanted & {*numbers, *sums}) or parts_said or len(said) >= images + instances + orphans

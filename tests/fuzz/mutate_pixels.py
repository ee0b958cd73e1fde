"""What spoils pictures and label images, and the files of a data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from .made import MadeSet, Rng, save_indexed
from .registry import ALL, JSON, LABELS, choose, mutation


def read(path: Path) -> np.ndarray:
    return tifffile.imread(path) if path.suffix.lower() in (".tif", ".tiff") else np.asarray(Image.open(path))


def grey_of(path: Path) -> np.ndarray | None:
    """The picture in one channel of 8 bits, where it can be read."""
    try:
        pixels = read(path)
    except Exception:
        return None
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    pixels = pixels if pixels.ndim == 2 else pixels[..., 0]
    return pixels if pixels.dtype == np.uint8 and pixels.ndim == 2 else None


@mutation("image modes", ALL)
def other_mode(made: MadeSet, split: str, rng: Rng) -> str | None:
    """Writes a picture again in another mode of Pillow, where its suffix allows it."""
    pictures = made.pictures(split)
    path = choose(rng, pictures) if pictures else None
    grey = grey_of(path) if path else None
    if path is None or grey is None:
        return None
    by_suffix = {".jpg": ["L", "CMYK", "RGB"], ".png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]}
    mode = choose(rng, by_suffix.get(path.suffix, ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "I"]))
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 16)
    elif mode in ("F", "I"):
        image = Image.fromarray(grey.astype({"F": np.float32, "I": np.int32}[mode]))
    elif mode != "L":
        image = (image if mode in ("1", "LA") else image.convert("RGB")).convert(mode)
    image.save(path, format="TIFF" if path.suffix == ".tif" else None)
    return f"{path.name}: mode {mode}"


@mutation("TIFF layouts", (*JSON, *LABELS))
def other_tiff(made: MadeSet, split: str, rng: Rng) -> str | None:
    """Channels, pages, number types and ranges that only TIFF has."""
    pictures = [path for path in made.pictures(split) if path.suffix == ".tif"]
    path = choose(rng, pictures) if pictures else None
    grey = grey_of(path) if path else None
    if path is None or grey is None:
        return None
    real = grey.astype(np.float32)
    nan = real.copy()
    nan[0, 0] = np.nan
    kinds: dict[str, Callable[[], None]] = {
        "floats to 1": lambda: tifffile.imwrite(path, real / 255),
        "floats to 255": lambda: tifffile.imwrite(path, real),
        "floats below 0": lambda: tifffile.imwrite(path, real / 255 - 0.5),
        "half floats": lambda: tifffile.imwrite(path, (real / 255).astype(np.float16)),
        "doubles": lambda: tifffile.imwrite(path, (real / 255).astype(np.float64)),
        "NaN": lambda: tifffile.imwrite(path, nan),
        "12 of 16 bits": lambda: tifffile.imwrite(path, grey.astype(np.uint16) * 16),
        "32 bits": lambda: tifffile.imwrite(path, grey.astype(np.uint32) * 2**24),
        "signed": lambda: tifffile.imwrite(path, grey.astype(np.int16) * 100),
        "complex": lambda: tifffile.imwrite(path, real.astype(np.complex64)),
        "two channels": lambda: tifffile.imwrite(path, np.stack([grey] * 2), photometric="minisblack"),
        "planar colour": lambda: tifffile.imwrite(path, np.stack([grey] * 3), photometric="rgb", planarconfig=2),
        "four samples": lambda: tifffile.imwrite(path, np.stack([grey] * 4, 2), photometric="rgb"),
        "five planes": lambda: tifffile.imwrite(path, np.stack([grey] * 5), photometric="minisblack"),
        "ImageJ channels": lambda: tifffile.imwrite(
            path, np.stack([grey] * 3), imagej=True, metadata={"axes": "CYX"}, photometric="minisblack"
        ),
        "ImageJ slices": lambda: tifffile.imwrite(path, np.stack([grey] * 3), imagej=True, metadata={"axes": "ZYX"}),
        "twenty pages": lambda: tifffile.imwrite(path, np.stack([grey] * 20), photometric="minisblack"),
        "two series": lambda: two_series(path, grey),
        "tiles": lambda: tifffile.imwrite(path, grey, tile=(16, 16), compression="zlib"),
        "big endian": lambda: tifffile.imwrite(path, grey.astype(np.uint16) * 257, byteorder=">"),
        "white is zero": lambda: tifffile.imwrite(path, 255 - grey, photometric="miniswhite"),
        "BigTIFF": lambda: tifffile.imwrite(path, grey, bigtiff=True),
        "one pixel high": lambda: tifffile.imwrite(path, grey[:1]),
    }
    kind = choose(rng, kinds)
    kinds[kind]()
    return f"{path.name}: {kind}"


def two_series(path: Path, grey: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(grey)
        file.write(grey[: len(grey) // 2], metadata=None)


@mutation("files", ALL, last=True)
def other_files(made: MadeSet, split: str, rng: Rng) -> str | None:
    """Of pictures, and, where they are files of their own, of what is annotated."""
    places = [made.images[split]]
    if made.notes[split].is_dir():
        places.append(made.notes[split])
    files = [path for path in sorted(choose(rng, places).rglob("*")) if path.is_file() and path.suffix != ".json"]
    if not files:
        return None
    path = choose(rng, files)
    content = path.read_bytes()
    kinds: dict[str, Callable[[], object]] = {
        "missing": lambda: path.unlink(),
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[: rng.integers(len(content) + 1)]),
        "cut at its end": lambda: path.write_bytes(content[:-4]),
        "garbage": lambda: path.write_bytes(rng.bytes(200)),
        "HTML": lambda: path.write_text("<!DOCTYPE html><html></html>"),
        "hidden": lambda: path.rename(path.with_name(f".{path.name}")),
        "a hidden one more": lambda: path.with_name(f".{path.name}").write_bytes(content),
        "an AppleDouble file more": lambda: path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" * 20),
        "one more": lambda: path.with_name(f"more{path.suffix}").write_bytes(content),
        "a GIF more": lambda: Image.new("L", (40, 40)).save(path.with_name("more.gif")),
        "a text more": lambda: path.with_name("notes.md").write_text("# Notes"),
        "Thumbs.db": lambda: path.with_name("Thumbs.db").write_bytes(content),
        "upper case": lambda: path.rename(path.with_suffix(path.suffix.upper())),
        "another suffix": lambda: path.rename(path.with_suffix(choose(rng, [".jpeg", ".PNG", ".bmp", ".dat", ".gif"]))),
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "a sub-folder": lambda: into(path, path.parent / "day 1"),
        "a backup": lambda: path.with_name(f"{path.name}.bak").write_bytes(content),
        "two suffixes": lambda: path.with_suffix(".png" if path.suffix != ".png" else ".jpg").write_bytes(content),
        "a broken link": lambda: (path.unlink(), path.symlink_to(path.with_name("gone"))),
        "a link": lambda: linked(path, made.folder / f"elsewhere{path.suffix}"),
        "an empty folder more": lambda: path.with_name("empty").mkdir(),
    }
    kind = choose(rng, kinds)
    try:
        kinds[kind]()
    except FileExistsError:
        return None
    return f"{path.relative_to(made.folder)}: {kind}"


def into(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path.rename(folder / path.name)


def linked(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def label_file(made: MadeSet, split: str, rng: Rng) -> Path | None:
    pattern = "*_masks.*" if made.format == "labels beside" else "*.*"
    found = [path for path in sorted(made.notes[split].rglob(pattern)) if path.is_file()]
    return choose(rng, found) if found else None


@mutation("label images", LABELS)
def other_labels(made: MadeSet, split: str, rng: Rng) -> str | None:
    path = label_file(made, split, rng)
    try:
        labels = read(path) if path else None
    except Exception:
        return None
    if path is None or labels is None or labels.ndim != 2 or labels.dtype != np.uint16:
        return None
    found = labels > 0
    minus, shares = labels.astype(np.int32), labels.astype(np.float32)
    minus[:4, :4] = -1
    shares[found] += 0.5
    tiff = path.suffix == ".tif"
    low = labels.astype(np.uint8)

    def save(pixels: np.ndarray) -> None:
        if tiff:
            tifffile.imwrite(path, pixels)
        else:
            Image.fromarray(pixels).save(path)

    kinds: dict[str, Callable[[], object]] = {
        "one value": lambda: save(found.astype(np.uint8) * 255),
        "zero and one": lambda: save(found.astype(np.uint8)),
        "nothing": lambda: save(np.zeros_like(labels)),
        "everything": lambda: save(np.full_like(labels, 7)),
        "large values": lambda: save(np.where(found, labels + np.uint16(60000), 0).astype(np.uint16)),
        "colour": lambda: save(np.stack([low] * 3, 2)),
        "transposed": lambda: save(labels.T.copy()),
        "one row less": lambda: save(labels[1:]),
        "half the size": lambda: save(labels[::2, ::2].copy()),
        "two parts": lambda: save(with_second_part(labels)),
        "8 bits": lambda: save(low),
        "JPEG": lambda: (path.unlink(), Image.fromarray(low).save(path.with_suffix(".jpg"))),
        "JPEG inside": lambda: Image.fromarray(low).save(path, format="JPEG"),
        "NPY": lambda: (path.unlink(), np.save(path.with_suffix(".npy"), labels)),
        "Cellpose's NPY": lambda: (path.unlink(), np.save(renamed(path, "_seg").with_suffix(".npy"), labels)),
        "name _mask": lambda: path.rename(renamed(path, "_mask")),
        "name _cp_masks": lambda: path.rename(renamed(path, "_cp_masks")),
        "name _label": lambda: path.rename(renamed(path, "_label")),
        "name _labels": lambda: path.rename(renamed(path, "_labels")),
        "name _masks": lambda: path.rename(renamed(path, "_masks")),
    }
    if tiff:
        kinds |= {
            "minus one": lambda: save(minus),
            "floats": lambda: save(labels.astype(np.float32)),
            "halves": lambda: save(shares),
            "NaN": lambda: save(np.where(found, np.nan, 0).astype(np.float32)),
            "32 bits": lambda: save(labels.astype(np.uint32) * 100_000),
            "64 bits": lambda: save(labels.astype(np.int64)),
            "a stack": lambda: save(np.stack([labels, labels])),
            "bool": lambda: save(found),
        }
    else:
        kinds |= {
            "palette": lambda: save_indexed(path, low),
            "grey and alpha": lambda: Image.fromarray(low).convert("LA").save(path),
            "RGBA": lambda: Image.fromarray(low).convert("RGBA").save(path),
            "one bit": lambda: Image.fromarray(found).save(path),
        }
    kind = choose(rng, kinds)
    kinds[kind]()
    return f"{path.relative_to(made.folder)}: {kind}"


def renamed(path: Path, ending: str) -> Path:
    """The label image's name with another ending behind the image's."""
    return path.with_stem(path.stem.removesuffix("_masks") + ending)


def with_second_part(labels: np.ndarray) -> np.ndarray:
    """Some pixels of the ground at the right border get the largest value."""
    changed = labels.copy()
    changed[:3, -3:] = labels.max()
    return changed


@mutation("label images", ("voc",))
def other_voc_labels(made: MadeSet, split: str, rng: Rng) -> str | None:
    kind_of = choose(rng, ["SegmentationObject", "SegmentationClass"])
    files = sorted((made.folder / kind_of).glob(f"{split}_*.png"))
    path = choose(rng, files) if files else None
    try:
        labels = read(path) if path else None
    except Exception:
        return None
    if path is None or labels is None or labels.ndim != 2:
        return None
    labels = labels.astype(np.uint8)
    border = labels.copy()
    border[0] = 255
    kinds: dict[str, Callable[[], object]] = {
        "nothing": lambda: save_indexed(path, np.zeros_like(labels)),
        "a void border": lambda: save_indexed(path, border),
        "unknown values": lambda: save_indexed(path, np.where(labels > 0, labels + 20, 0).astype(np.uint8)),
        "one value": lambda: save_indexed(path, (labels > 0).astype(np.uint8)),
        "transposed": lambda: save_indexed(path, labels.T.copy()),
        "colour": lambda: Image.fromarray(labels, "P").convert("RGB").save(path),
        "grey": lambda: Image.fromarray(labels).save(path),
        "16 bits": lambda: Image.fromarray(labels.astype(np.uint16)).save(path),
        "JPEG": lambda: (path.unlink(), Image.fromarray(labels).save(path.with_suffix(".jpg"))),
        "missing": lambda: path.unlink(),
        "cut": lambda: path.write_bytes(path.read_bytes()[:-20]),
        "upper case": lambda: path.rename(path.with_suffix(".PNG")),
    }
    kind = choose(rng, kinds)
    kinds[kind]()
    return f"{kind_of}/{path.name}: {kind}"

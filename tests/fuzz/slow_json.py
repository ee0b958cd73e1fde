"""What a careful reader finds in COCO's JSON; see ``slow.py``."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from .made import MadeSet
from .slow import BAD, PLAIN, SMALLEST, UNCLEAR, Reading, Seen, areas_of_mask, areas_of_rings, finite, look, split_of

WORST = {PLAIN: 0, UNCLEAR: 1, BAD: 2}
IGNORED = "ignored"  # a box without an outline, where such are neither objects nor background
Judged = tuple[str, list[float | None]]  # status, areas


def place_of(made: MadeSet, part: str) -> tuple[Path, Path]:
    """The file, and the folder of the images."""
    split = split_of(made, part)
    if made.format == "json":
        return made.root, made.folder
    if made.format == "json pair":
        return made.folder / f"{split}.json", made.folder / "images"
    if made.format == "roboflow":
        return made.folder / split / "_annotations.coco.json", made.folder / split
    return made.folder / "annotations" / f"instances_{split}.json", made.folder / split


def read_json(made: MadeSet, part: str) -> Reading:
    reading = Reading()
    file, folder = place_of(made, part)
    try:
        raw = file.read_bytes()
        content = json.loads(raw)
        raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return reading.spoil(UNCLEAR if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw else BAD, "encoding")
    except (OSError, ValueError, RecursionError) as error:
        return reading.spoil(BAD, f"{file.name}: {type(error).__name__}")
    if b"\0" in raw:
        reading.spoil(UNCLEAR, "encoding")
    if not isinstance(content, dict):
        return reading.spoil(BAD, "no object at the top")
    lists = {}
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            return reading.spoil(BAD, f"no list of {name}")
        lists[name] = content[name]
    reading.categories = categories = _categories(lists["categories"], reading)
    if not lists["images"] or not categories:
        return reading.spoil(BAD, "nothing there")
    owners: dict[Any, Seen] = {}
    for image in lists["images"]:
        seen, id = _image(image, folder, made.options)
        reading.images.append(seen)
        if id in owners:
            for each in (seen, owners[id]):
                each.spoil(UNCLEAR if seen.path == owners[id].path else BAD, "two images of one id")
        owners[id] = seen
    ids = [entry.get("id") for entry in lists["annotations"] if isinstance(entry, dict)]
    for entry in lists["annotations"]:
        _annotation(entry, owners, categories, made.options, reading)
    if len({repr(id) for id in ids}) < len(ids):
        reading.spoil(UNCLEAR, "annotations of one id, or without")
    return reading


def _key(id: Any) -> tuple[str, Any] | None:
    """What ids are compared by: 1.0 is 1, "1" is not."""
    if isinstance(id, str):
        return "text", id
    if finite(id):
        return "number", id
    return None


def _categories(found: list[Any], reading: Reading) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for each in found:
        key = _key(each.get("id")) if isinstance(each, dict) else None
        if key is None or key in names:
            reading.spoil(BAD, "categories")
            continue
        if key[0] == "text" or key[1] != int(key[1]) or not isinstance(key[1], int):
            reading.spoil(UNCLEAR, "ids of categories")
        if not isinstance(each.get("name"), str) or not each["name"].strip():
            reading.spoil(UNCLEAR, "names of categories")
        if not isinstance(each.get("supercategory", ""), str):
            reading.spoil(UNCLEAR, "supercategories")  # which tell the root of Roboflow's from the others
        names[key] = str(each.get("name"))
    if len(set(names.values())) < len(names):
        reading.spoil(UNCLEAR, "categories of one name")
    return names


def _image(image: Any, folder: Path, options: dict[str, Any]) -> tuple[Seen, Any]:
    if not isinstance(image, dict):
        return Seen(None, BAD, "an image that is no object"), None
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        return Seen(None, BAD, "no file name"), _key(image.get("id"))
    straight = Path(name)
    seen = None
    if not straight.is_absolute() and ".." not in straight.parts and (folder / name).is_file():
        seen = look(folder / name, options)
    else:
        guesses = [unquote(name), name.replace("\\", "/"), Path(name.replace("\\", "/")).name, name.strip()]
        guesses += [f"../{folder.name}/{guess}" for guess in guesses]
        guesses += [path.name for path in folder.glob("*") if path.name.lower() == name.lower()]
        guesses += [str(path.relative_to(folder)) for path in folder.rglob(straight.name or "?")]
        for guess in guesses:
            if (folder / guess).is_file() and guess:
                seen = look((folder / guess).resolve(), options)
                seen.spoil(UNCLEAR, f"name {name!r}")
                break
    if seen is None:
        return Seen(folder / Path(name).name, BAD, f"no file {name!r}"), _key(image.get("id"))
    key = _key(image.get("id"))
    if key is None or (key[0] == "number" and key[1] != int(key[1])):
        seen.spoil(UNCLEAR if image.get("id") is not None else BAD, f"id {image.get('id')!r}")
    stated = [image.get(side, "missing") for side in ("height", "width")]
    if stated != ["missing", "missing"] and seen.status != BAD:
        if all(finite(side) for side in stated):
            if tuple(stated) != seen.size:
                seen.spoil(BAD, f"size {stated} for {seen.size}")
        else:
            seen.spoil(UNCLEAR, f"size {stated}")
    return seen, key


def _annotation(
    entry: Any, owners: dict[Any, Seen], categories: dict[Any, str], options: dict[str, Any], reading: Reading
) -> None:
    if not isinstance(entry, dict):
        reading.orphans += 1
        return
    key = _key(entry.get("image_id"))
    if key is None or key not in owners:
        alike = [owner for id, owner in owners.items() if id and key and str(id[1]) == str(key[1])]
        if alike:
            alike[0].unclear += 1
        else:
            reading.orphans += 1
        return
    seen = owners[key]
    if seen.status == BAD:
        seen.bad += 1
        return
    status = PLAIN
    category = _key(entry.get("category_id"))
    if category not in categories:
        alike = [id for id in categories if category and str(id[1]) == str(category[1])]
        status = UNCLEAR if alike else BAD
    shape, areas = _shape(entry, seen, options)
    if shape == IGNORED:
        seen.crowds += status != BAD
        seen.bad += status == BAD
        return
    status = max(status, shape, key=WORST.__getitem__)
    crowd = entry.get("iscrowd", 0)
    is_crowd = crowd in (1, True) and not isinstance(crowd, str)
    if not is_crowd and crowd is not None and not (finite(crowd) and crowd == 0) and crowd is not False:
        status = max(status, UNCLEAR, key=WORST.__getitem__)
    if status == BAD:
        seen.bad += 1
    elif status == UNCLEAR:
        seen.unclear += max(len(areas), 1)
    elif is_crowd and options.get("crowd", "ignore") != "instance":
        seen.crowds += 1
    else:
        seen.add(areas)


def _shape(entry: dict[str, Any], seen: Seen, options: dict[str, Any]) -> Judged:
    found = entry.get("segmentation")
    parts = options.get("parts", "largest")
    if isinstance(found, dict) and found:
        return _runs(found, seen.size, parts)
    if not isinstance(found, list) and found not in (None, "", {}):
        return BAD, []
    if not found or found == [[]]:
        if options.get("boxes", "error") == "error" or not _is_box(entry.get("bbox")):
            return BAD, []
        if options["boxes"] == "ignore":
            return IGNORED, []
        left, top, width, height = entry["bbox"]
        ring = [left, top, left + width, top, left + width, top + height, left, top + height]
        return (UNCLEAR if found == [[]] else PLAIN), areas_of_rings(
            [np.array(ring, float).reshape(-1, 2)], seen.size, parts
        )
    if all(finite(value) for value in found):
        return UNCLEAR, [None]  # a ring without the list around it
    if all(isinstance(each, list) and len(each) == 2 and all(map(finite, each)) for each in found) and len(found) > 2:
        return UNCLEAR, [None]  # a list of points
    rings, odd = [], False
    for ring in found:
        if isinstance(ring, list) and ring and all(isinstance(each, list) for each in ring):
            odd = True  # nested once more
        elif not isinstance(ring, list) or not all(finite(value) for value in ring) or len(ring) % 2:
            return (UNCLEAR if isinstance(ring, list) and all(map(_number, ring)) else BAD), []
        elif len(ring) < 6:
            odd = True
        else:
            rings.append(np.array(ring, float).reshape(-1, 2))
    if not rings:
        return (UNCLEAR if odd and any(each and isinstance(each[0], list) for each in found) else BAD), []
    areas = areas_of_rings(rings, seen.size, parts)
    return (UNCLEAR if odd else PLAIN), areas


def _number(value: Any) -> bool:
    """Digits in quotes, true and false: not JSON's numbers, but what some read as one."""
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(finite, value)) and value[2] > 0 and value[3] > 0


def _runs(found: dict[str, Any], size: tuple[int, int], parts: str) -> Judged:
    stated, counts = found.get("size"), found.get("counts")
    if not isinstance(stated, list) or len(stated) != 2 or not all(map(finite, stated)) or tuple(stated) != size:
        return BAD, []
    status = PLAIN if all(isinstance(side, int) for side in stated) else UNCLEAR
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or not all(finite(n) and n == int(n) and n >= 0 for n in counts):
        return BAD, []
    if sum(counts) != size[0] * size[1]:
        return BAD, []
    if not all(isinstance(n, int) for n in counts):
        status = UNCLEAR
    values = np.repeat(np.arange(len(counts)) % 2, np.array(counts, int))
    areas = areas_of_mask(values.reshape(size[::-1]).T > 0, parts)
    return (status if max(areas) >= SMALLEST else BAD), areas


def _decompressed(text: str) -> list[int] | None:
    """COCO's string of counts: six bits a character from "0", the fifth bit goes on, from the third on differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts if not shift else None

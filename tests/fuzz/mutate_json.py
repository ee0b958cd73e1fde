"""What spoils COCO's JSON."""

import json
from collections.abc import Callable
from typing import Any

from .made import MadeSet, Rng
from .registry import JSON, choose, mutation, strange

LISTS = ("images", "annotations", "categories")


def edited(made: MadeSet, split: str, change: Callable[[dict[str, Any]], str | None]) -> str | None:
    """Reads the JSON of a split, lets ``change`` work on it, and writes it again."""
    try:
        content = json.loads(made.notes[split].read_text())
        what = change(content)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None  # another mutation was here
    if what:
        made.notes[split].write_text(json.dumps(content))
    return what and f"{made.notes[split].name}: {what}"


def entry_of(content: dict[str, Any], name: str, rng: Rng) -> dict[str, Any]:
    entry = choose(rng, content[name])
    if not isinstance(entry, dict):
        raise TypeError("another mutation was here")
    return entry


@mutation("types", JSON)
def value_of_another_type(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        name = choose(rng, LISTS)
        entry = entry_of(content, name, rng)
        key = choose(rng, entry)
        entry[key] = strange(rng, entry[key])
        return f"{name}.{key} = {entry[key]!r}"

    return edited(made, split, change)


@mutation("types", JSON)
def one_type_for_all(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        name, key = choose(
            rng, [("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "iscrowd")]
        )
        make = choose(rng, [float, str, bool, lambda value: [value], lambda value: None])
        for entry in content[name]:
            entry[key] = make(entry[key])
        return f"all {name}.{key} = {content[name][0][key]!r}"

    return edited(made, split, change)


@mutation("nesting", JSON)
def nested(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        kind = rng.integers(5)
        entry = entry_of(content, "annotations", rng)
        if kind == 0:
            entry["segmentation"] = [entry["segmentation"]]
            return "segmentation in another list"
        if kind == 1:
            entry["segmentation"] = entry["segmentation"][0]
            return "segmentation as a flat list"
        if kind == 2:
            name = choose(rng, LISTS)
            content[name] = {str(n): each for n, each in enumerate(content[name])}
            return f"{name} as an object"
        if kind == 3:
            name = choose(rng, LISTS)
            content[name] = [content[name]]
            return f"{name} in another list"
        copied = dict(content)
        content.clear()
        content["data"] = copied
        return "all below data"

    return edited(made, split, change)


@mutation("missing keys", JSON)
def without_key(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        if rng.integers(4) == 0:
            name = choose(rng, LISTS)
            del content[name]
            return f"no {name}"
        name = choose(rng, LISTS)
        key = choose(rng, entry_of(content, name, rng))
        for entry in content[name] if rng.integers(2) else [entry_of(content, name, rng)]:
            entry.pop(key, None)
        return f"no {name}.{key}"

    return edited(made, split, change)


@mutation("extra keys", JSON)
def with_more(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        name = choose(rng, LISTS)
        if rng.integers(2):
            value = choose(rng, [None, 5, "text", [], {}])
            content[name].insert(int(rng.integers(len(content[name]) + 1)), value)
            return f"{value!r} among {name}"
        entry_of(content, name, rng)["attributes"] = {"occluded": False, "": [1, {"a": None}]}
        content["licenses"] = choose(rng, [None, [], [{"id": 1}], "none", 5])
        return f"attributes in {name}"

    return edited(made, split, change)


@mutation("duplicates", JSON)
def twice(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        name = choose(rng, LISTS)
        entry = dict(entry_of(content, name, rng))
        kind = choose(rng, ["same id", "another id", "one id for two"])
        if kind == "another id":
            entry["id"] = 1000
        if kind == "one id for two":
            if len(content[name]) < 2:
                raise IndexError("only one")
            content[name][1]["id"] = content[name][0]["id"]
        else:
            content[name].append(entry)
        return f"{name} twice: {kind}"

    return edited(made, split, change)


@mutation("ids", JSON)
def other_ids(made: MadeSet, split: str, rng: Rng) -> str | None:
    kinds: dict[str, Callable[[Any], Any]] = {
        "text": lambda id: f"frame_{id}",
        "digits": str,
        "floats": float,
        "halves": lambda id: id + 0.5,
        "negative": lambda id: -1 - id,
        "huge": lambda id: 2**62 + id,
        "beyond 64 bits": lambda id: 10**30 + id,
        "unicode": lambda id: f"bild ä/{id}",
    }

    def change(content: dict[str, Any]) -> str:
        kind = choose(rng, kinds)
        which = choose(rng, ["images", "annotations", "both", "categories", "own"])
        for image in content["images"] if which in ("images", "both") else []:
            image["id"] = kinds[kind](image["id"])
        for entry in content["annotations"]:
            if which in ("annotations", "both"):
                entry["image_id"] = kinds[kind](entry["image_id"])
            if which == "categories":
                entry["category_id"] = kinds[kind](entry["category_id"])
            if which == "own":
                entry["id"] = kinds[kind](entry["id"])
        for category in content["categories"] if which == "categories" else []:
            category["id"] = kinds[kind](category["id"])
        return f"ids of {which}: {kind}"

    return edited(made, split, change)


def polygon_entry(content: dict[str, Any], rng: Rng) -> dict[str, Any]:
    return choose(rng, [entry for entry in content["annotations"] if isinstance(entry["segmentation"], list)])


@mutation("coordinates", JSON)
def other_coordinates(made: MadeSet, split: str, rng: Rng) -> str | None:
    kinds: dict[str, Callable[[list[float]], Any]] = {
        "beside the image": lambda ring: [[value + 500 for value in ring]],
        "partly out": lambda ring: [[value - 8.0 for value in ring]],
        "negative": lambda ring: [[-value for value in ring]],
        "shares": lambda ring: [[value / 100 for value in ring]],
        "huge": lambda ring: [[value * 1e7 for value in ring]],
        "points": lambda ring: [[x, y] for x, y in zip(ring[::2], ring[1::2], strict=True)],
        "one vertex": lambda ring: [ring[:2]],
        "two vertices": lambda ring: [ring[:4]],
        "an odd number": lambda ring: [ring[:-1]],
        "closed": lambda ring: [[*ring, *ring[:2]]],
        "repeated vertices": lambda ring: [[*ring[:2], *ring]],
        "backwards": lambda ring: [[value for k in range(len(ring) - 2, -1, -2) for value in ring[k : k + 2]]],
        "NaN": lambda ring: [[float("nan"), *ring[1:]]],
        "infinite": lambda ring: [[*ring[:-1], float("inf")]],
        "text": lambda ring: [[str(value) for value in ring]],
        "null": lambda ring: [[None, *ring[1:]]],
        "booleans": lambda ring: [[True, *ring[1:]]],
        "without area": lambda ring: [[*ring[:2], *ring[:2], *ring[:2]]],
        "a line": lambda ring: [[5, 5, 20, 5, 10, 5]],
        "an empty ring more": lambda ring: [ring, []],
        "a point more": lambda ring: [ring, ring[:2]],
        "two parts": lambda ring: [ring, [1, 1, 4, 1, 4, 4, 1, 4]],
        "a box": lambda ring: [[ring[0], ring[1], 9.0, 9.0]],
    }

    def change(content: dict[str, Any]) -> str:
        kind = choose(rng, kinds)
        every = [entry for entry in content["annotations"] if isinstance(entry["segmentation"], list)]
        for entry in every if rng.integers(4) == 0 else [choose(rng, every)]:
            entry["segmentation"] = kinds[kind](entry["segmentation"][0])
        return f"coordinates: {kind}"

    return edited(made, split, change)


@mutation("crowds", JSON)
def crowds(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        value = choose(rng, [1, 1, 1, True, 1.0, 2, "1", "0", "no", None, [], float("nan")])
        every = rng.integers(2)
        for entry in content["annotations"] if every else [entry_of(content, "annotations", rng)]:
            entry["iscrowd"] = value
        return f"iscrowd {value!r} of {'all' if every else 'one'}"

    return edited(made, split, change)


@mutation("no mask", JSON)
def without_mask(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        value = choose(rng, [[], None, "missing", {}, "", [[]]])
        box = choose(rng, ["as it is", "as it is", [], None, [1, 2, 3], [1, 1, 0, 0], "missing", [5, 5, -9, 9]])
        every = rng.integers(3) == 0
        for entry in content["annotations"] if every else [entry_of(content, "annotations", rng)]:
            for key, new in (("segmentation", value), ("bbox", box)):
                if isinstance(new, str) and new == "missing":
                    entry.pop(key, None)
                elif not (isinstance(new, str) and new == "as it is"):
                    entry[key] = new
        return f"segmentation {value!r} and box {box!r} of {'all' if every else 'one'}"

    return edited(made, split, change)


@mutation("boxes", JSON)
def other_boxes(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        key = choose(rng, ["bbox", "area"])
        value = choose(
            rng, [[], None, [1, 2, 3], "text", [1, 1, 5, float("nan")], 0, [[1, 1, 5, 5]], {}, -5, "missing"]
        )
        for entry in content["annotations"] if rng.integers(2) else [entry_of(content, "annotations", rng)]:
            entry[key] = value
            if value == "missing":
                del entry[key]
        return f"{key} {value!r}"

    return edited(made, split, change)


@mutation("run lengths", JSON)
def other_runs(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        entry = choose(rng, [entry for entry in content["annotations"] if isinstance(entry["segmentation"], dict)])
        rle = entry["segmentation"]
        height, width = rle["size"]
        counts = rle["counts"]
        sizes = [[width, height], [height + 1, width], [height], [float(height), float(width)], ["a", "b"], None]
        if rng.integers(2):
            rle["size"] = choose(rng, sizes)
            return f"size {rle['size']} for {[height, width]}"
        if isinstance(counts, str):
            rle["counts"] = choose(
                rng, [counts[:-1], counts[1:], "", "~~~~", counts * 2, counts.encode().hex(), "ä", 5]
            )
        else:
            negative = [counts[0] + 5, -5, *counts[1:]]
            floats = [float(count) for count in counts]
            others = [counts[:-1], [*counts, 7], [], negative, [str(n) for n in counts], floats, [height * width], None]
            rle["counts"] = choose(rng, [*others, [n + 0.5 for n in counts], [counts], [2**40, *counts]])
        return f"counts {rle['counts']!r:.60}"

    return edited(made, split, change)


@mutation("categories", JSON)
def other_categories(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        kind = choose(
            rng, ["missing", "extra", "one name", "no name", "null name", "zero", "empty", "order", "name type"]
        )
        found = content["categories"]
        if kind == "missing":
            found.pop()
        elif kind == "extra":
            found.append({"id": 77, "name": "other"})
        elif kind == "one name":
            found[-1]["name"] = found[0]["name"]
        elif kind == "no name":
            del found[-1]["name"]
        elif kind == "null name":
            found[-1]["name"] = None
        elif kind == "name type":
            found[-1]["name"] = choose(rng, [5, 1.5, ["a"], "", " ", "ä", "<b>$x", True, "a\nb"])
        elif kind == "zero":
            content["annotations"][0]["category_id"] = 0
        elif kind == "empty":
            found.clear()
        else:
            found.reverse()
        return f"categories: {kind}"

    return edited(made, split, change)


@mutation("sizes", JSON)
def other_sizes(made: MadeSet, split: str, rng: Rng) -> str | None:
    def change(content: dict[str, Any]) -> str:
        kind = choose(rng, ["float", "swapped", "wrong", "text", "missing", "one missing", "null", "zero", "negative"])
        for image in content["images"] if rng.integers(2) else [entry_of(content, "images", rng)]:
            height, width = image["height"], image["width"]
            if kind in ("missing", "one missing"):
                del image["height"]
                if kind == "missing":
                    del image["width"]
                continue
            image["height"], image["width"] = {
                "float": (float(height), float(width)),
                "swapped": (width, height),
                "wrong": (height + 3, width),
                "text": (str(height), str(width)),
                "null": (None, None),
                "zero": (0, 0),
                "negative": (-height, -width),
            }[kind]
        return f"sizes: {kind}"

    return edited(made, split, change)


@mutation("names", JSON)
def other_names(made: MadeSet, split: str, rng: Rng) -> str | None:
    """The picture moves to where its name says, or only the JSON changes."""
    on_disk = [
        "a b.png",
        "a%20b.png",
        "b%c.png",
        "bild_ä.png",
        "sub/one.png",
        "sub/day 1/one.png",
        "A.PNG",
        "x.y.z.png",
    ]
    on_disk += ["-x.png", "$x.png", "#1.png", "名.png", "one.tar.png"]

    def change(content: dict[str, Any]) -> str:
        image = entry_of(content, "images", rng)
        old = made.images[split] / image["file_name"]
        if rng.integers(2):
            name = choose(rng, on_disk).replace(".png", old.suffix).replace(".PNG", old.suffix.upper())
            new = made.images[split] / name
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
            image["file_name"] = name
            return f"picture and name {name!r}"
        given = image["file_name"]
        names = [f"./{given}", f"{split}/{given}", f"images\\{given}", str(old), f"../{split}/{given}", f"/{given}"]
        names += [given.upper(), given + " ", given.split(".")[0], f"http://host/{given}", "", f"..\\..\\up\\{given}"]
        image["file_name"] = choose(rng, names)
        return f"name {image['file_name']!r} of {given}"

    return edited(made, split, change)

"""What spoils text: YOLO's lines, lists and data.yaml, VOC's lists, and how any of them is encoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .made import MadeSet, Rng
from .registry import ALL, JSON, YOLO, choose, mutation, strange


def label_files(made: MadeSet, split: str) -> list[Path]:
    return [path for path in sorted(made.notes[split].rglob("*.txt")) if path.stat().st_size]


def edited_line(made: MadeSet, split: str, rng: Rng, change: Callable[[list[str]], str]) -> str | None:
    """Lets ``change`` work on the words of a line of a label file, and of all lines of all files now and then."""
    try:
        files = {path: [line.split(" ") for line in path.read_text().splitlines()] for path in label_files(made, split)}
    except UnicodeDecodeError:
        return None
    lines = [line for file in files.values() for line in file if len(line) > 2]
    if not lines:
        return None
    what = ""
    for line in lines if rng.integers(4) == 0 else [choose(rng, lines)]:
        what = change(line)
    for path, words in files.items():
        path.write_text("".join(f"{' '.join(line)}\n" for line in words))
    return f"{what} ({len(lines)} lines)"


@mutation("coordinates", YOLO)
def other_coordinates(made: MadeSet, split: str, rng: Rng) -> str | None:
    kinds: dict[str, Callable[[list[str]], list[str]]] = {
        "pixels": lambda words: [str(float(word) * 50) for word in words],
        "a little out": lambda words: ["-0.004", *words[1:]],
        "half out": lambda words: [str(float(word) + 0.5) for word in words],
        "beside the image": lambda words: [str(float(word) + 5) for word in words],
        "percent": lambda words: [str(float(word) * 100) for word in words],
        "NaN": lambda words: ["nan", *words[1:]],
        "infinite": lambda words: [*words[:-1], "inf"],
        "text": lambda words: ["x", *words[1:]],
        "an odd number": lambda words: words[:-1],
        "a score behind": lambda words: [*words, "0.93"],
        "two vertices": lambda words: words[:4],
        "a box": lambda words: ["0.5", "0.5", "0.2", "0.25"],
        "one vertex": lambda words: words[:2],
        "nothing": lambda words: [],
        "closed": lambda words: [*words, *words[:2]],
        "without area": lambda words: words[:2] * 4,
        "commas": lambda words: [f"{word}," for word in words],
        "decimal commas": lambda words: [word.replace(".", ",") for word in words],
        "exponents": lambda words: [f"{float(word):e}" for word in words],
    }
    kind = choose(rng, kinds)

    def change(words: list[str]) -> str:
        try:
            words[1:] = kinds[kind](words[1:])
        except ValueError:  # an earlier mutation has left no numbers there
            return "coordinates: none"
        return f"coordinates: {kind}"

    return edited_line(made, split, rng, change)


@mutation("categories", YOLO)
def other_classes(made: MadeSet, split: str, rng: Rng) -> str | None:
    value = choose(rng, ["0.0", "1.5", "-1", "7", "nan", "cell", "", "1e0", "01", "99999999999999999999", "True", "٣"])

    def change(words: list[str]) -> str:
        words[0] = value
        return f"class {value!r}"

    return edited_line(made, split, rng, change)


@mutation("duplicates", YOLO)
def lines_twice(made: MadeSet, split: str, rng: Rng) -> str | None:
    files = label_files(made, split)
    if not files:
        return None
    path = choose(rng, files)
    content = path.read_bytes()
    path.write_bytes(content + choose(rng, [content, b"\n\n", b"   \n", b"\t\n", b"# a remark\n", b"\x00\n"]))
    return f"{path.name}: more lines"


@mutation("nesting", YOLO)
@mutation("missing keys", YOLO)
@mutation("types", YOLO)
def other_yaml(made: MadeSet, split: str, rng: Rng) -> str | None:
    path = made.folder / "data.yaml"
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(content, dict) or split not in content:
        return None
    kind = choose(rng, ["type", "type", "names", "path", "missing", "place", "quotes", "nested", "extra"])
    given = content[split]
    if not isinstance(given, str):
        return None
    if kind == "type":
        key = choose(rng, content)
        content[key] = strange(rng, content[key])
    elif kind == "names":
        others: list[Any] = [["cell", "cell"], {0: "cell"}, {"0": "cell", "1": "debris"}, {1: "cell", 2: "debris"}]
        others += [["cell"], [1, 2], [None, "a"], {0: "a", 5: "b"}, {0: "cell", 1: None}, [["a"], ["b"]], "cell", {}]
        content["names"] = choose(rng, others)
    elif kind == "path":
        folder = made.folder
        content["path"] = choose(rng, [str(folder), folder.name, "nowhere", "..", f"../{folder.name}", "", "./", "/x"])
    elif kind == "missing":
        del content[choose(rng, content)]
    elif kind == "place":
        others = [[given], [given, given], f"./{given}", f"../{given}", str(made.folder / given), [], f"{given}/", "."]
        content[split] = choose(rng, [*others, f"images\\{split}", f"{given} ", [[given]], f"images/{split}/*.png"])
    elif kind == "nested":
        content = choose(rng, [{"data": content}, {**content, split: {"images": given}}, {**content, "names": [["a"]]}])
    elif kind == "extra":
        content |= {"roboflow": {"url": None}, "download": "https://nowhere", "kpt_shape": [1, 2], 5: 6}
    if kind == "quotes":
        path.write_text("".join(f'"{key}": {value!r}\n' for key, value in content.items()))
    else:
        path.write_text(yaml.safe_dump(content))
    return f"data.yaml: {kind}: {content!r:.300}"


@mutation("lists", ("yolo lists", "voc"))
def other_lists(made: MadeSet, split: str, rng: Rng) -> str | None:
    voc = made.format == "voc"
    path = made.folder / ("ImageSets/Segmentation" if voc else "") / f"{split}.txt"
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if not lines:
        return None
    one = int(rng.integers(len(lines)))
    kinds: dict[str, Callable[[str], list[str]]] = {
        "blank": lambda line: [line, "", "  "],
        "twice": lambda line: [line, line],
        "missing": lambda line: [line, line.replace("im", "gone").replace(split, "gone")],
        "absolute": lambda line: [str(made.images[split] / Path(line).name)],
        "without ./": lambda line: [line.removeprefix("./")],
        "spaces": lambda line: [f"  {line}  "],
        "second column": lambda line: [f"{line} 1"],
        "suffix": lambda line: [f"{line}.jpg"],
        "no suffix": lambda line: [str(Path(line).with_suffix(""))],
        "remark": lambda line: ["# images", line],
        "above": lambda line: [f"../{line}"],
        "backslashes": lambda line: [line.replace("/", "\\")],
        "quotes": lambda line: [f'"{line}"'],
        "nothing": lambda line: [],
        "a folder": lambda line: [f"images/{split}" if not voc else "."],
        "upper case": lambda line: [line.upper()],
    }
    kind = choose(rng, kinds)
    every = rng.integers(2)
    changed = [new for n, line in enumerate(lines) for new in (kinds[kind](line) if every or n == one else [line])]
    path.write_text("".join(f"{line}\n" for line in changed))
    return f"{path.name}: {kind}"


@mutation("categories", ("voc",))
def other_labelmap(made: MadeSet, split: str, rng: Rng) -> str | None:
    path = made.folder / "labelmap.txt"
    kind = choose(rng, ["missing", "empty", "one", "remarks", "more", "names alone", "latin-1", "a folder"])
    path.unlink(missing_ok=True)
    if kind == "a folder":
        path.mkdir(exist_ok=True)
    elif kind != "missing":
        lines = ["background:0,0,0::", "cell:1,2,3::", "debris:1,2,3::"]
        lines = lines[:2] if kind == "one" else ["# label:color", *lines] if kind == "remarks" else lines
        lines = [*lines, "other:::", ""] if kind == "more" else [] if kind == "empty" else lines
        lines = ["background", "zellkern ä", "b"] if kind in ("names alone", "latin-1") else lines
        path.write_bytes("\n".join(lines).encode("latin-1" if kind == "latin-1" else "utf-8"))
    return f"labelmap.txt: {kind}"


def texts(made: MadeSet, split: str) -> list[Path]:
    """The files of a set that hold text."""
    if made.format in JSON:
        return [made.notes[split]]
    if made.format in YOLO:
        listed = [made.folder / f"{split}.txt"] if made.format == "yolo lists" else []
        return [made.folder / "data.yaml", *listed, *label_files(made, split)]
    if made.format == "voc":
        return [made.folder / "labelmap.txt", made.folder / "ImageSets" / "Segmentation" / f"{split}.txt"]
    return []


@mutation("encodings", (*JSON, *YOLO, "voc"), last=True)
def other_encoding(made: MadeSet, split: str, rng: Rng) -> str | None:
    path = choose(rng, texts(made, split))
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    kind = choose(rng, ["BOM", "UTF-16", "UTF-16 without BOM", "UTF-32", "CRLF", "CR", "latin-1", "spaces", "no end"])
    changed = {
        "BOM": b"\xef\xbb\xbf" + content,
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without BOM": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "CRLF": content.replace(b"\n", b"\r\n") if b"\n" in content else content.replace(b", ", b",\r\n"),
        "CR": content.replace(b"\n", b"\r"),
        "latin-1": text.replace("cell", "zellkörper").encode("latin-1", "replace"),
        "spaces": b"  \n" + content + b" \n\n ",
        "no end": content.rstrip(b"\n"),
    }
    path.write_bytes(changed[kind])
    return f"{path.name}: {kind}"


@mutation("truncated text", (*JSON, *YOLO, "voc"), last=True)
def cut(made: MadeSet, split: str, rng: Rng) -> str | None:
    path = choose(rng, texts(made, split))
    if not path.is_file():
        return None
    content = path.read_bytes()
    kind = choose(rng, ["cut", "empty", "zeros", "a byte", "missing", "a folder", "behind it"])
    if kind == "missing":
        path.unlink()
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    elif kind == "a byte":
        place = int(rng.integers(max(len(content), 1)))
        path.write_bytes(content[:place] + bytes([int(rng.integers(256))]) + content[place + 1 :])
    else:
        cut_off = content[: rng.integers(len(content) + 1)]
        path.write_bytes(
            {"cut": cut_off, "empty": b"", "zeros": bytes(len(content)), "behind it": content + b"]}x"}[kind]
        )
    return f"{path.name}: {kind}"


@mutation("options", ALL)
def other_options(made: MadeSet, split: str, rng: Rng) -> str | None:
    given = {
        "boxes": ["error", "ignore", "rectangle"],
        "crowd": ["ignore", "background", "instance"],
        "parts": ["largest", "all", "split"],
        "invalid": ["skip", "skip", "skip", "raise"],
        "val_fraction": [0.5, 0.1, 1.0, -0.1, 0.99],
        "channels": [[0], [0, 1, 2], [2, 1, 0], [1], [5], [], [0, 0], [-1], [0, 1, 2, 3]],
        "train": [split, "nowhere", "train", ".."],
        "keep_empty": [False],
    }
    name = choose(rng, given)
    made.options[name] = choose(rng, given[name])
    return f"data.{name} = {made.options[name]!r}"

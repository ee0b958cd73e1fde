"""The kinds of problems of a data set, and their counts."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

EXAMPLES = 5  # of a kind of problem, that messages and the report show

ERRORS = {  # these stop training
    "unreadable image": "images that are missing or broken",
    "unreadable annotations": "images whose annotations are missing, broken or of another size",
    "duplicate image id": "images with the same id",
    "other image id": "annotations with text for a number as their image's id, or a number for text",
    "no image": "files without an annotation of their images",
    "broken": "annotations that cannot be parsed",
    "not finite": "annotations with NaN or infinity",
    "wrong size": "masks of another size than their image",
    "no segmentation": "annotations without a segmentation",
    "unknown category": "annotations of a category that is not declared",
}
WARNINGS = {
    "unknown image": "annotations of images that are not there",
    "duplicate annotation id": "annotations with the same id",
    "duplicate": "annotations that repeat another one of their image",
    "empty": "annotations without area",
    "outside": "annotations that lie beside their image",
    "out of image": "annotations that reach out of their image",
    "self-crossing": "polygons whose sides cross",
    "not checked": "polygons too large to look for crossings",
    "box differs": "annotations whose box is none, or not that of their segmentation",
    "area unsound": "annotations whose area is no positive number and is computed",
    "no label file": "images without a file of labels, taken for images without objects",
    "no label image": "images without a label image, which are left out",
    "no image of labels": "files of labels without an image",
    "not read": "files of formats that are not read",
    "other place": "files that are not where the data set says, but were found elsewhere",
    "several parts": "label images whose values have several parts",
    "interpolated labels": "label images that seem to be interpolated",
    "value range": "images whose values a network cannot use as they are",
    "transparency": "images whose transparency is left out",
    "reduced depth": "images of which only the upper 8 of 16 bits are read",
    "stack of planes": "stacks whose planes are taken as channels",
    "too small": "instances that min_area or min_side leave out",
    "no point": "instances that no point of the feature maps is assigned to",
}

# What changes in these words for a single one, beside the noun that they begin with.
SINGULAR = (
    (r"\bof images that are\b", "of an image that is"),
    (r"\bof formats that are\b", "of a format that is"),
    (r"\b(that|which) are\b", r"\1 is"),
    (r"\bthat (lie|repeat|seem)\b", r"that \1s"),
    (r"\bthat reach\b", "that reaches"),
    (r"\bbut were\b", "but was"),
    (r"\btheir images?\b", "its image"),
    (r"\btaken for images\b", "taken for an image"),
)

Note: TypeAlias = Callable[[str, str], None]  # takes a kind of problem, and a sentence that names the place


@dataclass
class Problems:
    """Counts of each kind of problem, and some places."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, where: str) -> None:
        """Counts a problem, and keeps its place if it is one of the first."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(where)

    def of(self, kinds: dict[str, str]) -> list[str]:
        """Counts and words of those kinds that there are."""
        return [counted(self.counts[kind], about) for kind, about in kinds.items() if self.counts[kind]]

    def summary(self, kinds: dict[str, str]) -> str:
        """:meth:`of`, and the first place of each kind."""
        return "; ".join(
            f"{counted(self.counts[kind], about)}, such as {self.examples[kind][0]}"
            for kind, about in kinds.items()
            if self.counts[kind]
        )


def counted(count: int, about: str) -> str:
    """A number and the words of :data:`ERRORS` or :data:`WARNINGS`, in the singular for one.

    Examples
    --------
    >>> counted(2, WARNINGS["outside"]), counted(1, WARNINGS["outside"])
    ('2 annotations that lie beside their image', '1 annotation that lies beside its image')
    """
    if count == 1:
        about = re.sub(r"^(label )?(\w+)s\b", r"\1\2", about)
        for plural, singular in SINGULAR:
            about = re.sub(plural, singular, about)
    return f"{count} {about}"

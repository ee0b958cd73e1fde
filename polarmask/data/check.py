"""What is wrong with a data set: seen before the first step, by the audit and by training alike."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from .files import Files, logger
from .images import DataError, image_size, read_image
from .instances import Instances
from .subset import Subset

if TYPE_CHECKING:
    from . import DataSet

EXAMPLES = 5  # of a kind of problem, that messages and the report show
ERRORS = {  # what stops training
    "unreadable image": "images that are missing or broken",
    "unreadable annotations": "files of annotations that are missing or broken",
    "broken": "annotations that cannot be parsed",
    "not finite": "annotations with NaN or infinity",
    "wrong size": "masks of another size than their image",
    "no segmentation": "annotations without a segmentation",
    "unknown category": "annotations of a category that is not declared",
    "duplicate image id": "images with the same id",
}

Note: TypeAlias = Callable[[str, str], None]  # takes a kind of problem, and a sentence that names the place


@dataclass
class Problems:
    """Counts of each kind of problem, and some places."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, where: str) -> None:
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append(where)

    def errors(self) -> list[str]:
        """Counts and words of what stops training."""
        return [f"{self.counts[kind]} {about}" for kind, about in ERRORS.items() if self.counts[kind]]


def check_image(data: Files, index: int, note: Note, *, decode: bool = False) -> Instances | None:
    """What is annotated in an image, or None where that cannot be read; notes what stops training.

    Parameters
    ----------
    data : Files
    index : int
    note : callable
        Is given a key of ERRORS and a sentence that names the file, for each problem.
    decode : bool
        Whether the image is read as a whole, or only its header.
    """
    try:
        path = data.path(index)
        if decode:
            image = read_image(path, data.config.channels)
            size = (image.shape[1], image.shape[2])
        else:
            size = image_size(path)
    except DataError as error:
        note("unreadable image", str(error))
        return None
    try:
        found = data.instances(index, size)
    except DataError as error:
        note("unreadable annotations", str(error))
        return None
    for id, problem in found.problems:
        note(problem.kind, f"{path}: annotation {id}: {problem}")
    return found


def check_data(data: "DataSet", part: Literal["train", "test"]) -> None:
    """Looks at the header of every image and at every annotation, before anything is trained on or evaluated.

    Parameters
    ----------
    data : DataSet
        What is generated, and not read from files, is in order.
    part : {"train", "test"}
        What the data are for. There must be something to train on.

    Raises
    ------
    DataError
        With every kind of problem that stops training (``ERRORS``), how often and where; unless ``data.invalid`` is
        skip: then one warning says the same.
    """
    if len(data) == 0:
        raise DataError(f"{part}: expected images, got none")
    whole, indices = (data.data, data.indices) if isinstance(data, Subset) else (data, range(len(data)))
    if not isinstance(whole, Files):
        return
    problems = Problems()
    for kind, where in whole.problems():
        problems.note(kind, where)
    for index in indices:
        check_image(whole, index, problems.note)
    if errors := problems.errors():
        places = "; ".join(where for kind in ERRORS for where in problems.examples.get(kind, [])[:1])
        message = f"{part} data: {'; '.join(errors)} ({places})"
        if whole.config.invalid == "raise":
            raise DataError(message)
        logger.warning("%s; left out", message)


def check_categories(train: "DataSet", test: "DataSet") -> None:
    """Raises a DataError where ``test`` has a category, by id and name, that ``train`` has not."""
    unknown = dict(sorted(set(test.categories.items()) - set(train.categories.items())))
    if unknown:
        raise DataError(
            f"test data: expected the categories of the training data, {train.categories}, got also {unknown}"
        )

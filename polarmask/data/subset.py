"""The first images of a data set, to see whether a network can learn anything at all."""

from typing import TYPE_CHECKING, Any

from .sample import Sample

if TYPE_CHECKING:
    from . import DataSet


class Subset:
    """The first ``count`` images of ``data``, or all where there are fewer."""

    def __init__(self, data: "DataSet", count: int) -> None:
        self.data, self.count, self.categories = data, min(count, len(data)), data.categories

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"Subset: expected an index below {self.count}, got {index}")
        return self.data[index]

    def ground_truth(self) -> dict[str, Any]:
        truth = self.data.ground_truth()
        images = truth["images"][: self.count]
        ids = {image["id"] for image in images}
        return {
            **truth,
            "images": images,
            "annotations": [entry for entry in truth["annotations"] if entry["image_id"] in ids],
        }

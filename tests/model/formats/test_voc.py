"""What a VOC set's lists and its labelmap.txt must hold."""

import made_sets
import pytest

from polarmask.config import DataConfig
from polarmask.data import DataError, Voc


@pytest.mark.parametrize("text", ["", "background:0,0,0::", "# label:color"])
def test_labelmap_without_classes_is_refused(tmp_path, text):
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(DataError, match=r"labelmap\.txt: expected a line for the background and one for each class"):
        Voc(tmp_path, "train")


@pytest.mark.parametrize("line", ["../elsewhere", "/elsewhere", ".", "./"])
@pytest.mark.parametrize("invalid", ["raise", "skip"])
def test_list_that_leads_out_of_the_folder_is_refused(tmp_path, invalid, line):
    made_sets.voc(tmp_path)
    (listed,) = tmp_path.glob("ImageSets/Segmentation/train.txt")
    listed.write_text(f"{listed.read_text()}\n{line}\n")
    with pytest.raises(DataError, match=r"expected the name of a file in this folder, got '[./]"):
        Voc(tmp_path, "train", DataConfig(invalid=invalid))

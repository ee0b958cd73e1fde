"""What a VOC set's labelmap.txt must hold."""

import pytest

from polarmask.data import DataError, Voc


@pytest.mark.parametrize("text", ["", "background:0,0,0::", "# label:color"])
def test_labelmap_without_classes_is_refused(tmp_path, text):
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(DataError, match=r"labelmap\.txt: expected a line for the background and one for each class"):
        Voc(tmp_path, "train")

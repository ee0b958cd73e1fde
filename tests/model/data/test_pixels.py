"""Images whose header is in order and whose pixels are not: no look at headers finds them."""

import numpy as np
import pytest
from PIL import Image

from polarmask.config import Config, DataConfig
from polarmask.data import DataError, check_data, open_data, readable
from polarmask.data.batches.loader import Augmented


@pytest.fixture
def root(tmp_path):
    """Two images with label images; the first one is cut off."""
    labels = np.zeros((64, 64), np.uint16)
    labels[10:40, 10:40] = 1
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    for name in ("cut", "whole"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / f"{name}_masks.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:800])
    return tmp_path


def test_cut_pixels_stop_with_the_name_of_the_file(root):
    data = open_data(root)
    with pytest.raises(DataError, match=r"cut\.png: cannot be read"):
        check_data(data, "train")
    with pytest.raises(DataError, match=r"cut\.png: cannot be read"):
        data[0]


def test_cut_pixels_are_said_to_be_left_out_after_the_check(root, caplog):
    data = open_data(root, config=DataConfig(invalid="skip"))
    check_data(data, "train")
    caplog.clear()
    assert [index for index, _ in readable(data, "skip")] == [1]
    assert "cut.png: cannot be read" in caplog.text
    caplog.clear()
    sample = Augmented(data, Config(data=DataConfig(invalid="skip")))[0, 0]
    assert len(sample.labels) == 1
    assert "cut.png: cannot be read" in caplog.text
    assert "another image takes its place" in caplog.text

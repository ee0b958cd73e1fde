"""Which files of a folder are images, and what their pixels are."""

import os

import numpy as np
import pytest
from PIL import Image

from polarmask.data import DataError
from polarmask.data.files import list_images


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_list_images_finds_sub_folders_and_says_what_is_left_out(tmp_path):
    for name in (
        *("b.png", "a.JPG", "day1/c.tif", "day1/plate 2/ö.TIFF", "e.jfif", "f.jp2", "g.lsm", "h.GIF"),
        *(
            "._b.png",
            ".hidden/x.png",
            "Thumbs.db",
            ".DS_Store",
            "__MACOSX/day1/c.tif",
            "@eaDir/b.png",
            "day1/desktop.ini",
        ),
        *("labels.txt", "notes.json", "x.heic", "day1/y.nd2", "README"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images, left_out = list_images(tmp_path)
    want = ["a.JPG", "b.png", "day1/c.tif", "day1/plate 2/ö.TIFF", "e.jfif", "f.jp2", "g.lsm", "h.GIF"]
    assert names(tmp_path, images) == want
    assert names(tmp_path, left_out) == ["README", "day1/y.nd2", "x.heic"]


def test_list_images_follows_links_to_folders_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data" / "sub").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "real" / "a.png")
    (tmp_path / "data" / "sub" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "sub" / "twice").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "sub" / "again").symlink_to(tmp_path / "data")
    assert names(tmp_path, list_images(tmp_path / "data").images) == ["data/sub/linked/a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_list_images_of_a_folder_that_cannot_be_read_names_it(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="closed: expected a folder that can be read"):
        list_images(tmp_path)


def test_list_images_of_nothing_names_the_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere: expected a folder that can be read"):
        list_images(tmp_path / "nowhere")

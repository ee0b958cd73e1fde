"""Which files of a folder are images, and what their pixels are."""

import importlib.util
import os
import struct
import zlib

import made_sets
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import polarmask
from polarmask.config import DataConfig
from polarmask.data import DataError, check_data, open_data
from polarmask.data.formats.files import list_images
from polarmask.data.images import LargeTiff, check_channels, image_remarks, image_size, read_image, read_labels

GREY = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
PLANES = np.random.default_rng(1).integers(0, 65536, (5, 6, 8), np.uint16)  # channels, height, width


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
    assert names(tmp_path, list_images(tmp_path, depth=1).images) == [name for name in want if "plate" not in name]
    assert names(tmp_path, list_images(tmp_path, {".lsm"}, depth=0).images) == ["g.lsm"]


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


# Channels and planes.


def as_planes(path, axes, **options):
    tifffile.imwrite(path, PLANES, metadata={"axes": axes, **options}, photometric="minisblack")
    return path


@pytest.mark.parametrize("axes", ["QYX", "IYX", "ZYX", "TYX"])
def test_read_image_of_a_stack_needs_channels(tmp_path, axes):
    path = as_planes(tmp_path / "stack.tif", axes)
    for read in (read_image, LargeTiff, check_channels):
        with pytest.raises(DataError, match=r"stack\.tif: expected one image, got a stack.*data\.channels"):
            read(path)
    want = torch.from_numpy(PLANES[[2, 0, 4]].astype(np.float32) / 65535)
    assert torch.equal(read_image(path, [2, 0, 4]), want)
    assert torch.equal(LargeTiff(path, [2, 0, 4])[:, :], want)
    check_channels(path, [2, 0, 4])
    assert image_size(path) == (6, 8)
    assert image_remarks(path, [2, 0, 4], stretched=True)[0][0] == "stack of planes"
    with pytest.raises(DataError, match="expected a label image of shape"):
        read_labels(path)


def test_read_image_of_more_than_three_channels_needs_channels(tmp_path):
    path = as_planes(tmp_path / "image.tif", "CYX")
    for read in (read_image, LargeTiff, check_channels):
        with pytest.raises(DataError, match=r"image\.tif: expected at most 3 channels, got 5; data\.channels .* says"):
            read(path)
    assert read_image(path, [4, 3, 2]).shape == (3, 6, 8)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_read_image_takes_channels_by_name(tmp_path, kind):
    path = tmp_path / f"image{'.ome' if kind == 'ome' else ''}.tif"
    names = ["DAPI", "GFP", "RFP", "Cy5", "DIC"]
    if kind == "ome":
        tifffile.imwrite(path, PLANES, metadata={"axes": "CYX", "Channel": {"Name": names}}, photometric="minisblack")
    else:
        tifffile.imwrite(path, PLANES, imagej=True, metadata={"axes": "CYX", "Labels": names})
    for read in (read_image, lambda *args: LargeTiff(*args)[:, :]):
        assert torch.equal(read(path, ["Cy5", 0, "GFP"]), read_image(path, [3, 0, 1]))
    with pytest.raises(DataError, match=r"one channel called 'dapi', got channels DAPI, GFP, RFP, Cy5, DIC"):
        read_image(path, ["dapi"])
    with pytest.raises(DataError, match=r"at most 3 channels, got 5 \(DAPI, GFP, RFP, Cy5, DIC\)"):
        read_image(path)
    Image.fromarray(GREY).save(tmp_path / "image.png")
    with pytest.raises(DataError, match=r"called 'DAPI', got a file without names of channels"):
        read_image(tmp_path / "image.png", ["DAPI"])


def test_config_takes_channels_by_number_and_name():
    assert polarmask.load_config("nuclei", data__dataset="files", data__channels=[0, "DAPI"]).data.channels == [
        0,
        "DAPI",
    ]
    assert polarmask.load_config("nuclei", data__dataset="files", data__channels=[2, 1]).data.channels == [2, 1]


@pytest.mark.parametrize("shape", [(6, 8, 2), (6, 8, 4)])
def test_transparency_of_a_tiff_is_left_out_and_said_where_it_varies(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    kind = {"photometric": "rgb" if shape[2] == 4 else "minisblack", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", pixels, planarconfig="contig", **kind)
    want = torch.from_numpy(pixels[..., :-1].astype(np.float32) / 255).permute(2, 0, 1).expand(3, -1, -1)
    assert torch.equal(read_image(tmp_path / "a.tif"), want)
    assert torch.equal(LargeTiff(tmp_path / "a.tif")[:, :], want)
    assert image_remarks(tmp_path / "a.tif") == [
        ("transparency", f"{tmp_path / 'a.tif'}: the transparency of its pixels is left out")
    ]
    pixels[..., -1] = 255
    tifffile.imwrite(tmp_path / "b.tif", pixels, planarconfig="contig", **kind)
    assert image_remarks(tmp_path / "b.tif") == []


def test_transparency_of_a_png_is_left_out_and_said_where_it_varies(tmp_path):
    rgba = np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)], 2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert image_remarks(tmp_path / "a.png") == []
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert [kind for kind, _ in image_remarks(tmp_path / "a.png")] == ["transparency"]
    assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(GREY.astype(np.float32) / 255).expand(3, 6, 8))


# Values.


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (GREY.astype(np.float32), "expected values from 0 to 1, got"),
        (GREY.astype(np.float32) / -255, "expected values from 0 to 1, got -0.9"),
        (GREY.astype(np.uint16) * 16, "its values reach 0.061 of the range"),
    ],
)
def test_image_remarks_name_values_that_a_network_cannot_use(tmp_path, pixels, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    ((kind, sentence),) = image_remarks(tmp_path / "a.tif")
    assert kind == "value range"
    assert sentence.startswith(f"{tmp_path / 'a.tif'}: {words}")
    assert "data.percentiles" in sentence
    assert image_remarks(tmp_path / "a.tif", stretched=True) == []


@pytest.mark.parametrize("pixels", [GREY, GREY / np.float32(255), np.zeros((4, 5), np.uint16), PLANES[0]])
def test_image_remarks_are_silent_about_ordinary_images(tmp_path, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert image_remarks(tmp_path / "a.tif") == []


@pytest.mark.parametrize(("bits", "kinds"), [(8, []), (16, ["reduced depth"])])
def test_image_remarks_name_colour_pngs_of_16_bits_alone(tmp_path, bits, kinds):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = (b"\0" + b"\x90" * (16 * 3 * bits // 8)) * 16  # a side of 16 pixels says nothing of the depth
    header = struct.pack(">IIBBBBB", 16, 16, bits, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert [kind for kind, _ in image_remarks(tmp_path / "a.png")] == kinds


def test_training_and_audit_say_that_values_leave_0_to_1(tmp_path, caplog):
    root = made_sets.stardist(tmp_path / "set")
    for path in (root / "train" / "images").iterdir():
        tifffile.imwrite(path, tifffile.imread(path) // 32)  # 11 bits in 16
    assert made_sets.audited(root).problems["value range"] == made_sets.COUNT
    check_data(open_data(root), "train")
    (record,) = caplog.records
    assert "3 images whose values a network cannot use as they are, such as" in record.message
    assert "0.tif: its values reach 0.029 of the range of their type; data.percentiles" in record.message
    caplog.clear()
    check_data(open_data(root, config=DataConfig(percentiles=(1, 99.8))), "train")
    assert not caplog.records
    assert not made_sets.audited(root, percentiles=(1, 99.8)).problems


def test_check_data_refuses_channels_that_are_not_there_before_training(tmp_path):
    root = made_sets.stardist(tmp_path / "set")
    with pytest.raises(
        DataError, match=r"3 images that are missing or broken, such as .*0\.tif: expected up to 3 chan"
    ):
        check_data(open_data(root, config=DataConfig(channels=[1])), "train")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_read_image_of_a_tiff_where_0_is_white_is_inverted(tmp_path, dtype):
    pixels = GREY > 100 if dtype is bool else GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    want = 1 - torch.from_numpy(pixels.astype(np.float32)) / (1 if dtype is bool else np.iinfo(dtype).max)
    torch.testing.assert_close(read_image(tmp_path / "a.tif")[0], want)
    torch.testing.assert_close(LargeTiff(tmp_path / "a.tif")[:, :][0], want)


def test_read_labels_of_a_mask_of_bool_are_what_was_written(tmp_path):
    mask = GREY > 100
    tifffile.imwrite(tmp_path / "tifffile.tif", mask)  # which says that 0 is white
    Image.fromarray(mask).save(tmp_path / "pillow.tif")
    for path in tmp_path.iterdir():
        assert (read_labels(path) == mask).all()


def test_read_image_of_a_palette_tiff_shows_its_colours(tmp_path):
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.tif")
    want = torch.stack([torch.from_numpy(n == GREY % 3) for n in range(3)]).float()
    assert torch.equal(read_image(tmp_path / "a.tif"), want)
    assert torch.equal(LargeTiff(tmp_path / "a.tif")[:, :], want)
    assert read_labels(tmp_path / "a.tif").tolist() == (GREY % 3).tolist()
    check_channels(tmp_path / "a.tif", [2])


# Files of other kinds, and files that are not what they seem.


def test_the_format_is_that_of_the_content(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "png.tif")
    tifffile.imwrite(tmp_path / "tiff.png", GREY)
    for name in ("png.tif", "tiff.png"):
        assert torch.equal(read_image(tmp_path / name)[0], torch.from_numpy(GREY.astype(np.float32) / 255))
        assert read_labels(tmp_path / name).tolist() == GREY.tolist()
        assert image_size(tmp_path / name) == (6, 8)


@pytest.mark.parametrize("name", ["a.gif", "a.jp2", "a.jfif", "a.pgm", "a.TIF", "a.dib", "a.PNG"])
def test_read_image_of_other_formats_gives_their_pixels(tmp_path, name):
    Image.fromarray(GREY).save(tmp_path / name, format={"jfif": "jpeg", "jp2": "jpeg2000"}.get(name[2:]))
    assert read_image(tmp_path / name).shape == (3, *image_size(tmp_path / name)) == (3, 6, 8)


def test_read_image_of_a_16_bit_pgm_keeps_its_range(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 8 6 65535\n" + PLANES[0].astype(">u2").tobytes())
    assert torch.equal(read_image(tmp_path / "a.pgm")[0], torch.from_numpy(PLANES[0].astype(np.float32) / 65535))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_read_image_of_several_frames_is_refused(tmp_path, name):
    frames = [Image.fromarray(each) for each in (GREY, 255 - GREY, GREY)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="expected one image, got 3 frames"):
        read_image(tmp_path / name)


def test_an_empty_file_is_named(tmp_path):
    for name in ("a.png", "a.tif"):
        (tmp_path / name).touch()
        for read in (read_image, read_labels, image_size):
            with pytest.raises(DataError, match=rf"{name}: expected an image file, got an empty one"):
                read(tmp_path / name)


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="the codec is there")
def test_a_tiff_that_lacks_its_codec_says_what_to_install(tmp_path):
    """Pillow alone would read the first of three pages."""
    path = tmp_path / "a.tif"
    first, *others = (Image.fromarray(each) for each in PLANES[:3])
    first.save(path, compression="tiff_lzw", save_all=True, append_images=others)
    for read in (read_image, LargeTiff):
        with pytest.raises(DataError, match=r"a\.tif: uint16 of shape \(3, 6, 8\).*LZW.*pip install imagecodecs$"):
            read(path, [0, 1, 2])

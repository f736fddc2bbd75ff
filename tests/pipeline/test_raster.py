"""Pictures are opened in full: 16 bits, transparency, orientation, by the piece."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.files import NoSpaceError
from pipeline.picture_files import MAX_PIXELS, PictureError
from pipeline.raster import Raster, open_raster, vips


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def opened(path: Path) -> Raster:
    return open_raster(path, max_pixels=MAX_PIXELS)


def values(path: Path) -> np.ndarray:
    """The whole picture as ``(h, w, channels)`` integers."""
    raster = opened(path)
    height, width = raster.size
    whole = raster.read(slice(0, height), slice(0, width))
    assert whole.dtype == torch.float32
    levels = 65535 if raster.depth == 16 else 255
    return (whole[0].permute(1, 2, 0) * levels).round().int().numpy()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_rgb_is_read_as_it_is(tmp_path, pixels, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    raster = opened(tmp_path / f"a.{suffix}")
    assert (raster.size, raster.colours, raster.alpha) == ((12, 17), 3, False)
    assert (raster.depth, raster.frames) == (8, 1)
    assert (values(tmp_path / f"a.{suffix}") == pixels).all()
    piece = raster.read(slice(3, 8), slice(4, 6))
    assert (piece[0].permute(1, 2, 0).mul(255).round().numpy() == pixels[3:8, 4:6]).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "jpg"])
def test_grey_stays_one_channel(tmp_path, pixels, suffix):
    grey = np.full((8, 9), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    assert (values(tmp_path / f"a.{suffix}") == grey[..., None]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", ["grey16", "rgb16"])
def test_sixteen_bits_are_read_as_sixteen(tmp_path, suffix, kind):
    shape = (5, 6) if kind == "grey16" else (5, 6, 3)
    deep = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    vips().Image.new_from_array(deep, interpretation=kind).write_to_file(
        str(tmp_path / f"a.{suffix}")
    )
    assert opened(tmp_path / f"a.{suffix}").depth == 16
    assert (values(tmp_path / f"a.{suffix}") == deep.reshape(5, 6, -1)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_the_last_channel(tmp_path, pixels, mode):
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    raster = opened(tmp_path / "a.png")
    assert raster.alpha
    assert raster.image.bands == raster.colours + 1
    assert (values(tmp_path / "a.png")[..., -1] == 255).all()


def test_invisible_colours_give_way_to_the_visible_ones_around(tmp_path, pixels):
    visible = np.zeros((12, 17), np.uint8)
    visible[:, :8] = 200
    rgba = np.dstack([np.full_like(pixels, 90), visible])
    rgba[visible == 0, :3] = 0  # black, as most programs leave it
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = values(tmp_path / "a.png")
    assert (read[..., 3] == visible).all()
    assert (read[:, :12, :3] == 90).all()  # four columns on, as far as an edge can reach
    assert (read[:, 14:, :3] == 0).all()


def test_half_visible_colours_stay_as_they_are(tmp_path, pixels):
    alpha = np.random.default_rng(1).integers(1, 256, (12, 17, 1), dtype=np.uint8)
    rgba = np.dstack([pixels, alpha])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert (values(tmp_path / "a.png") == rgba).all()


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_looked_up(tmp_path, pixels, transparent):
    indexed = Image.fromarray(pixels).quantize(200)
    options = {"transparency": 5} if transparent else {}
    indexed.save(tmp_path / "a.png", **options)
    with Image.open(tmp_path / "a.png") as again:
        expected = np.asarray(again.convert("RGBA" if transparent else "RGB"))
    read = values(tmp_path / "a.png")
    assert read.shape == expected.shape
    seen = expected[..., -1] > 0 if transparent else np.ones((12, 17), bool)
    assert (read[seen] == expected[seen]).all()


@pytest.mark.parametrize("mode", ["1", "CMYK", "LAB"])
def test_other_kinds_become_grey_or_rgb_of_eight_bits(tmp_path, mode):
    colour = {"1": 1, "CMYK": (0, 255, 255, 0), "LAB": (255, 128, 128)}[mode]
    Image.new(mode, (9, 8), colour).save(tmp_path / "a.tif")
    read = values(tmp_path / "a.tif")[0, 0]
    assert len(read) == (1 if mode == "1" else 3)
    assert read[0] > 200
    assert mode != "CMYK" or read[1:].max() < 60  # red


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation, suffix):
    picture = Image.fromarray(np.arange(0, 240, 40, np.uint8).reshape(2, 3).repeat(16, 0))
    picture = picture.resize((48, 32), Image.Resampling.NEAREST).convert("RGB")
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    from PIL import ImageOps

    with Image.open(tmp_path / f"a.{suffix}") as again:
        expected = np.asarray(ImageOps.exif_transpose(again).convert("RGB")).astype(int)
    assert np.abs(values(tmp_path / f"a.{suffix}") - expected).max() <= 3


def test_several_frames_are_counted_and_the_first_is_read(tmp_path, pixels):
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture.rotate(180)] * 2)
    assert opened(tmp_path / "a.tif").frames == 3
    assert (values(tmp_path / "a.tif") == pixels).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_a_known_range_are_refused(tmp_path, mode):
    Image.new(mode, (3, 3), 0).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=r"a\.tif holds .*`srdet levels` maps"):
        opened(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_a_truncated_picture_is_named_at_the_latest_when_it_is_decoded(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PictureError, match=rf"cut\.{suffix} is damaged .*replace or remove it"):
        opened(path).decode()


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'],
    ids=["empty", "text", "drawing"],
)
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match=r"a\.png is not a picture"):
        opened(tmp_path / "a.png")


def test_the_limit_of_pixels_holds_before_decoding(tmp_path, pixels):
    for suffix in ("png", "bmp"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
        with pytest.raises(PictureError, match=r"17 x 12 .*--max_pixels"):
            open_raster(tmp_path / f"a.{suffix}", max_pixels=203)


def test_a_picture_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PictureError, match=r"a\.png may not be read; change its permissions"):
        opened(tmp_path / "a.png")


def test_a_file_with_brackets_in_its_name_is_a_file(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a[page=1].png")
    assert (values(tmp_path / "a[page=1].png") == pixels).all()


def test_a_file_that_changed_is_read_anew(tmp_path, pixels):
    for picture in (pixels, 255 - pixels):
        Image.fromarray(picture).save(tmp_path / "a.png")
        assert (values(tmp_path / "a.png") == picture).all()


def test_no_room_for_decoding_names_the_folder_and_the_cure(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raster = opened(tmp_path / "a.png")

    def fill(*_):
        raise vips().Error("write failed: No space left on device")

    monkeypatch.setattr(vips().Image, "write_to_memory", fill)
    with pytest.raises(NoSpaceError, match=r"no room to decode .*a\.png.*TMPDIR"):
        raster.decode()

"""Rows in, a whole file out: pixels, depth, transparency, and what the source says of itself."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.encode import RowWriter, keeps_alpha, keeps_depth, too_large_for
from pipeline.files import NoSpaceError
from pipeline.picture_files import MAX_PIXELS
from pipeline.raster import Raster, open_raster, vips


def source(folder: Path, pixels: np.ndarray, name: str = "source.png", **options) -> Raster:
    folder.mkdir(exist_ok=True)
    if pixels.dtype == np.uint16:
        kind = "rgb16" if pixels.shape[-1] > 2 else "grey16"
        image = vips().Image.new_from_array(pixels, interpretation=kind)
        image.write_to_file(str(folder / name))
    else:
        Image.fromarray(pixels.squeeze()).save(folder / name, **options)
    return open_raster(folder / name, max_pixels=MAX_PIXELS)


def write(place: Path, pixels: np.ndarray, like: Raster, step: int = 5) -> None:
    """Writes the picture in bands of ``step`` rows."""
    height, width, channels = pixels.shape
    with ThreadPoolExecutor(1) as encoder:
        with RowWriter(place, (height, width), channels, like, encoder) as writer:
            for row in range(0, height, step):
                writer.put(np.ascontiguousarray(pixels[row : row + step].astype(writer.dtype)))
        writer.written.result()


def read(path: Path) -> np.ndarray:
    image = vips().Image.new_from_file(str(path))
    return np.asarray(image.numpy()).reshape(image.height, image.width, image.bands)


@pytest.fixture
def make():
    """Noise of a number of channels and a kind."""
    return lambda channels, kind=np.uint8: (
        np.random.default_rng(0)
        .integers(0, np.iinfo(kind).max, (23, 31, channels), endpoint=True)
        .astype(kind)
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF"])
def test_lossless_formats_hold_every_kind_exactly(tmp_path, make, channels, kind, suffix):
    pixels = make(channels, kind)
    write(tmp_path / f"a.{suffix}", pixels, source(tmp_path / "in", pixels))
    assert read(tmp_path / f"a.{suffix}").dtype == kind
    assert (read(tmp_path / f"a.{suffix}") == pixels).all()


def test_webp_is_lossless_and_keeps_transparency(tmp_path, make):
    pixels = make(4)
    pixels[..., 3] |= 1  # of what is fully transparent WebP drops the colour
    write(tmp_path / "a.webp", pixels, source(tmp_path / "in", pixels))
    assert (read(tmp_path / "a.webp") == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_holds_grey_and_rgb(tmp_path, make, channels):
    pixels = make(channels)
    write(tmp_path / "a.bmp", pixels, source(tmp_path / "in", pixels))
    with Image.open(tmp_path / "a.bmp") as made:
        assert (np.asarray(made).reshape(pixels.shape) == pixels).all()


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_where_there_is_no_transparency_the_ground_is_white(tmp_path, suffix):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:, 3] = 255
    write(tmp_path / f"a.{suffix}", pixels, source(tmp_path / "in", pixels))
    with Image.open(tmp_path / f"a.{suffix}") as made:
        assert made.mode == "RGB"
        assert np.asarray(made)[8, 2].min() > 245
        assert np.asarray(made)[8, 13].max() < 10
    assert not keeps_alpha(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp"])
def test_formats_of_eight_bits_get_eight(tmp_path, make, suffix):
    like = source(tmp_path / "in", make(3, np.uint16))
    write(tmp_path / f"a.{suffix}", np.full((8, 8, 3), 120, np.uint8), like)
    with Image.open(tmp_path / f"a.{suffix}") as made:
        assert np.abs(np.asarray(made).astype(int) - 120).max() <= 1
    assert not keeps_depth(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_profile_exif_and_resolution_are_taken_over_and_the_orientation_is_spent(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274], exif[271], exif[270] = 6, "a camera", "a description"
    pixels = np.full((16, 24, 3), 99, np.uint8)
    said = {"exif": exif, "icc_profile": profile, "dpi": (300, 300)}
    like = source(tmp_path / "in", pixels, "source.jpg", **said)
    write(tmp_path / f"a.{suffix}", pixels, like)
    with Image.open(tmp_path / f"a.{suffix}") as made:
        told = made.getexif()
        assert (told[274], told[271], told[270]) == (1, "a camera", "a description")
        assert float(told[282]) == pytest.approx(300)
        assert made.info["icc_profile"] == profile
        assert suffix == "webp" or made.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp"])
def test_a_resolution_without_exif_is_kept_too(tmp_path, suffix):
    pixels = np.full((16, 24, 3), 99, np.uint8)
    like = source(tmp_path / "in", pixels, f"source.{suffix}", dpi=(300, 300))
    write(tmp_path / f"a.{suffix}", pixels, like)
    with Image.open(tmp_path / f"a.{suffix}") as made:
        assert made.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_file_without_exif_data_gets_none(tmp_path, suffix):
    pixels = np.full((16, 24, 3), 99, np.uint8)
    write(tmp_path / f"a.{suffix}", pixels, source(tmp_path / "in", pixels))
    with Image.open(tmp_path / f"a.{suffix}") as made:
        assert not made.getexif()
        assert "exif" not in made.info


def test_an_embedded_thumbnail_is_left_behind(tmp_path):
    image = vips().Image.black(64, 48, bands=3).copy(interpretation="srgb")
    thumbnail = image.resize(0.5).jpegsave_buffer()
    told = image.copy()
    told.set_type(vips().GValue.blob_type, "jpeg-thumbnail-data", thumbnail)
    (tmp_path / "in").mkdir()
    told.jpegsave(str(tmp_path / "in" / "a.jpg"))
    like = open_raster(tmp_path / "in" / "a.jpg", max_pixels=MAX_PIXELS)
    assert "jpeg-thumbnail-data" in like.image.get_fields()
    write(tmp_path / "a.jpg", image.numpy(), like)
    made = vips().Image.new_from_file(str(tmp_path / "a.jpg"))
    assert "jpeg-thumbnail-data" not in made.get_fields()


def test_an_error_meanwhile_leaves_what_stood_there(tmp_path, make):
    pixels = make(3)
    like = source(tmp_path / "in", pixels)
    write(tmp_path / "a.png", pixels, like)
    with ThreadPoolExecutor(1) as encoder:
        writer = RowWriter(tmp_path / "a.png", (23, 31), 3, like, encoder)
        writer.put(pixels[:5])
        writer.__exit__(RuntimeError, RuntimeError("stop"), None)
        with pytest.raises(OSError, match=r"a\.png"):
            writer.written.result()
    assert (read(tmp_path / "a.png") == pixels).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "in"]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "bmp"])
def test_a_full_disk_is_named_and_blocks_nobody(small_disk, tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    like = source(tmp_path / "in", noise)
    with pytest.raises(NoSpaceError, match=rf"no room on disk while writing .*a\.{suffix}"):
        write(small_disk / f"a.{suffix}", noise, like)
    assert list(small_disk.iterdir()) == []
    gc.collect()  # the error's frames hold the file open, and the disk cannot be taken away


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("a.jpg", (65_501, 10), "JPEG holds at most 65500 pixels a side"),
        ("a.webp", (10, 16_384), "WebP holds at most 16383 pixels a side"),
        ("a.bmp", (40_000, 40_000), "BMP holds at most 4 GiB"),
        ("a.jpeg", (65_500, 65_500), ""),
        ("a.webp", (16_383, 16_383), ""),
        ("a.png", (200_000, 200_000), ""),
        ("a.tiff", (200_000, 200_000), ""),
    ],
)
def test_formats_have_their_limits(name, size, why):
    assert too_large_for(Path(name), *size) == why

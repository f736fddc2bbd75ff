"""Every kind of picture is read as upright 8-bit RGB, or refused with its name and the cure."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from pipeline.files import NoSpaceError
from pipeline.picture_files import PictureError, find_pictures, upright_size
from pipeline.pictures import read_grey_or_rgb, read_picture, to_float, to_uint8, write_picture
from pipeline.raster import vips


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def _saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def _chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0\0\0\0")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_rgb_is_read_as_it_is(tmp_path, pixels):
    read = read_picture(_saved(Image.fromarray(pixels), tmp_path / "a.png"))
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    assert torch.equal(read, _chw(pixels))


def test_grey_is_replicated(tmp_path, pixels):
    read = read_picture(_saved(Image.fromarray(pixels[..., 0]), tmp_path / "a.png"))
    assert torch.equal(read, _chw(pixels[..., :1]).expand(3, -1, -1))


def test_an_alpha_channel_is_dropped(tmp_path, pixels):
    rgba = np.dstack([pixels, np.zeros((6, 9), np.uint8)])
    assert torch.equal(
        read_picture(_saved(Image.fromarray(rgba), tmp_path / "a.png")), _chw(pixels)
    )


def test_a_palette_is_looked_up(tmp_path, pixels):
    indexed = Image.fromarray(pixels).quantize(200)
    read = read_picture(_saved(indexed, tmp_path / "a.png"))
    assert torch.equal(read, _chw(np.asarray(indexed.convert("RGB"))))
    assert len(set(read.flatten().tolist())) > 20


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    deep = np.array([[0, 128, 257, 25700, 65535]], dtype=np.uint16)
    read = read_picture(_saved(Image.fromarray(deep), tmp_path / f"a.{suffix}"))
    assert read[:, 0].tolist() == [[0, 0, 1, 100, 255]] * 3


def test_a_dark_sixteen_bit_picture_is_not_taken_for_eight_bits(tmp_path):
    deep = np.full((2, 2), 200, dtype=np.uint16)
    assert int(read_picture(_saved(Image.fromarray(deep), tmp_path / "a.png")).max()) == 1


def thermal(shape=(40, 50), low=28_000, high=31_000) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high + 1, shape).astype(np.uint16)


def saved_deep(values: np.ndarray, path, **options):
    kind = "rgb16" if values.ndim == 3 else "grey16"
    image = vips().Image.new_from_array(values, interpretation=kind)
    image.write_to_file(str(path), **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize(("low", "high"), [(28_000, 31_000), (0, 4095), (0, 2047)])
def test_sixteen_bits_of_which_eight_keep_hardly_any_are_refused(
    tmp_path, suffix, shape, low, high
):
    path = saved_deep(thermal(shape, low, high), tmp_path / f"a.{suffix}")
    with pytest.raises(PictureError, match=r"a\.\w+ has 16-bit values from .* `srdet levels"):
        read_picture(path)
    with pytest.raises(PictureError, match="would keep"):
        read_picture(path.read_bytes())


def test_two_dead_pixels_do_not_make_a_narrow_range_wide(tmp_path):
    values = thermal()
    values[0, :2] = 0, 65535
    with pytest.raises(PictureError, match="would keep 13 levels"):
        read_picture(saved_deep(values, tmp_path / "a.tif"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colours_are_scaled_and_not_cut(tmp_path, suffix):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    read = read_picture(saved_deep(deep, tmp_path / f"a.{suffix}"))
    assert torch.equal(read, _chw(np.rint(deep / 257).astype(np.uint8)))


def test_eight_bits_kept_as_sixteen_are_read_however_few_they_are(tmp_path):
    few = (np.arange(60).reshape(6, 10) % 9 + 100).astype(np.uint8)
    read = read_picture(saved_deep(few.astype(np.uint16) * 257, tmp_path / "a.png"))
    assert torch.equal(read, _chw(few[..., None]).expand(3, -1, -1))


def test_bands_that_say_nothing_of_colours_are_refused_with_the_command_that_chooses(tmp_path):
    for kind in (np.uint8, np.uint16):
        bands = np.random.default_rng(0).integers(0, 250, (9, 7, 4)).astype(kind)
        image = vips().Image.new_from_array(bands).copy(interpretation="b-w")
        image.tiffsave(str(tmp_path / "a.tif"))
        with pytest.raises(PictureError, match=r"a\.tif has 4 bands.*srdet levels --bands 3 2 1"):
            read_picture(tmp_path / "a.tif")


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_picture(_saved(image, tmp_path / "a.png"))[:, 0].tolist() == [[0, 255]] * 3


def test_cmyk_is_converted(tmp_path):
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))  # no cyan: red
    read = read_picture(_saved(image, tmp_path / "a.jpg", quality=100))
    assert read[:, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, pixels, orientation):
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }
    exif = Image.Exif()
    exif[274] = orientation
    path = _saved(Image.fromarray(pixels), tmp_path / "a.png", exif=exif)
    assert torch.equal(read_picture(path), _chw(turned[orientation]))
    grey = _saved(Image.fromarray(pixels[..., 0]), tmp_path / "a.tif", exif=exif)
    assert torch.equal(read_picture(grey)[0], _chw(turned[orientation])[0])
    for file in (path, grey):
        assert upright_size(file) == turned[orientation].shape[:2]


@pytest.mark.parametrize(
    "image",
    [Image.new("F", (3, 3), 0.5), Image.new("I", (3, 3), 70_000)],
    ids=["floating point", "32 bits"],
)
def test_values_without_a_known_range_are_refused(tmp_path, image):
    path = _saved(image, tmp_path / "a.tif")
    with pytest.raises(PictureError, match=r"a\.tif .*`srdet levels` maps the range"):
        read_picture(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_truncated_picture_is_named(tmp_path, pixels, suffix):
    path = _saved(Image.fromarray(pixels), tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(PictureError, match=rf"cut\.{suffix} is .*replace or remove it"):
        read_picture(path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match=r"a\.png"):
        read_picture(tmp_path / "a.png")


def test_a_missing_picture_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_picture(tmp_path / "none.png")


def test_a_picture_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PictureError, match=r"a\.png may not be read; change its permissions"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("side", [15_000, 60_000, 2_000_000_000])
def test_a_small_file_that_claims_an_enormous_picture_is_refused_undecoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(_png_that_claims(side, side))
    with pytest.raises(PictureError, match=rf"bomb\.png has {side} x {side} .*cut it into pieces$"):
        read_picture(tmp_path / "bomb.png")
    with pytest.raises(
        PictureError, match=r"limit of 100; cut it into pieces or raise --max_pixels$"
    ):
        read_picture(tmp_path / "bomb.png", max_pixels=100_000_000)


def test_the_limit_of_pixels_is_the_callers(tmp_path, pixels):
    path = _saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert read_picture(path, max_pixels=54).shape == (3, 6, 9)
    with pytest.raises(PictureError, match="limit"):
        read_picture(path, max_pixels=53)


def test_large_pictures_below_the_limit_are_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match="damaged"):
            read_picture(_png_that_claims(100, 900_000))  # above the size at which Pillow warns


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on the damage
@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "webp"])
def test_damaged_files_raise_nothing_but_picture_errors(pixels, suffix):
    rng = random.Random(suffix)
    exif = Image.Exif()
    exif[274], exif[270] = 6, "text"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix, exif=exif)
    refused = 0
    for _ in range(300):
        damaged = bytearray(file.getvalue())
        for _ in range(3):
            damaged[rng.randrange(min(len(damaged), 150))] = rng.randrange(256)
        try:
            read_picture(bytes(damaged), max_pixels=10_000)
        except PictureError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("tag", [b"\x01\x00", b"\x01\x1a"], ids=["width", "resolution"])
def test_exif_data_that_make_no_sense_are_damage(pixels, tag):
    exif = Image.Exif()
    exif[274], exif[270] = 6, "text"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", exif=exif)
    content = file.getvalue()
    assert content.count(b"\x01\x0e\0\2") == 1  # the description, which becomes a number in words
    with pytest.raises(PictureError, match=r"x\.jpg is damaged"):
        read_picture(content.replace(b"\x01\x0e\0\2", tag + b"\0\2"), name="x.jpg")


def test_grey_files_stay_one_channel_where_that_is_asked(tmp_path, pixels):
    grey = _saved(Image.fromarray(pixels[..., 0]), tmp_path / "grey.png")
    deep = _saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), tmp_path / "deep.png")
    colour = _saved(Image.fromarray(pixels), tmp_path / "colour.png")
    assert torch.equal(read_grey_or_rgb(grey), _chw(pixels[..., :1]))
    assert torch.equal(read_grey_or_rgb(deep), _chw(pixels[..., :1]))
    assert torch.equal(read_grey_or_rgb(colour), _chw(pixels))


def test_pictures_are_found_in_all_levels_once_and_sorted(tmp_path, paint_noise):
    for name in ("b.PNG", "deep/a.jpg", "deep/._a.jpg", ".thumbnails/a.png", "note.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            paint_noise(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    found = find_pictures([tmp_path, tmp_path / "deep", tmp_path / "b.PNG"])
    assert found == [tmp_path / "b.PNG", tmp_path / "deep" / "a.jpg"]


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no pictures in {tmp_path}; pictures end"):
        find_pictures([tmp_path])
    with pytest.raises(FileNotFoundError, match=f"no such file or folder: {tmp_path}/none"):
        find_pictures([tmp_path / "none"])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "PNG"])
def test_lossless_formats_give_back_what_was_written(tmp_path, pixels, suffix):
    write_picture(_chw(pixels), tmp_path / "deep" / f"a.{suffix}")
    assert torch.equal(read_picture(tmp_path / "deep" / f"a.{suffix}"), _chw(pixels))


def test_jpeg_is_near_what_was_written(tmp_path):
    smooth = torch.linspace(0, 1, 64).expand(3, 64, 64)
    write_picture(smooth, tmp_path / "a.jpg")
    assert float((to_float(read_picture(tmp_path / "a.jpg")) - smooth).abs().max()) < 0.03


def test_floats_are_rounded_and_clamped():
    assert to_uint8(torch.tensor([-1.0, 0.5 / 255 + 1e-4, 0.999, 2.0])).tolist() == [0, 1, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_an_unknown_suffix_is_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match=r"a\.gif: unknown picture suffix; choose from \.png"):
        write_picture(_chw(pixels), tmp_path / "a.gif")


def test_a_full_disk_leaves_the_old_picture(tmp_path, pixels, monkeypatch):
    write_picture(_chw(pixels), tmp_path / "a.png")

    def fill(self, path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill)
    with pytest.raises(NoSpaceError, match=r"a\.png"):
        write_picture(_chw(255 - pixels), tmp_path / "a.png")
    assert torch.equal(read_picture(tmp_path / "a.png"), _chw(pixels))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def damaged_exif(path: Path) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageDescription] = "a long description" * 9
    Image.new("RGB", (40, 30)).save(path, exif=exif.tobytes()[:60])
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("read", [lambda path: read_picture(path).shape[1:], upright_size])
def test_damaged_exif_data_are_told_in_one_line_that_names_the_file(
    tmp_path: Path, caplog, recwarn, suffix, read
):
    path = damaged_exif(tmp_path / f"turned{suffix}")
    for _ in range(2):  # and once
        assert tuple(read(path)) == (40, 30)  # what can be read of them still turns it
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith(f"{path}: its EXIF data are damaged (")
    assert "\n" not in caplog.messages[0]
    assert not [str(each.message) for each in recwarn.list if "PIL" in each.filename]


def test_other_warnings_of_pillow_are_not_taken_for_damaged_exif_data(tmp_path: Path, caplog):
    path = tmp_path / "palette.png"
    picture = Image.new("P", (8, 8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(path, transparency=b"\x00\x80")
    with pytest.warns(UserWarning, match="Palette images with Transparency"):
        read_picture(path)
    assert not caplog.records

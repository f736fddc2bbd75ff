"""What a camera said of a picture survives the way into TIFF files and out of them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational

from pipeline.raster import open_raster, vips
from pipeline.tiff_exif import ExifError, add_exif, exif_of_tiff
from pipeline.upscale import upscale

TOLD = {
    Base.Make: "a maker",
    Base.Model: "a model",
    Base.Artist: "an artist",
    Base.DateTime: "2026:01:02 03:04:05",
}
EXPOSED = {
    Base.ExposureTime: IFDRational(1, 125),
    Base.ISOSpeedRatings: 200,
    Base.DateTimeOriginal: "2026:01:01 00:00:00",
    Base.ExifImageWidth: 24,
    Base.ExifImageHeight: 16,
}
PLACE = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (48.0, 8.0, 12.34),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (11.0, 34.0, 30.5),
}


def camera(endian: str = "<") -> Image.Exif:
    exif, written = Image.Exif(), Image.Exif()
    exif.endian = endian
    for tag, value in {**TOLD, IFD.Exif: dict(EXPOSED), IFD.GPSInfo: dict(PLACE)}.items():
        exif[tag] = value
    written.load(exif.tobytes())
    return written


def assert_told(exif: Image.Exif, size: tuple[int, int] = (16, 24)) -> None:
    assert {tag: exif.get(tag) for tag in TOLD} == TOLD
    height, width = size
    exposed = EXPOSED | {Base.ExifImageWidth: width, Base.ExifImageHeight: height}
    inside = exif.get_ifd(IFD.Exif)
    assert {tag: inside.get(tag) for tag in exposed} == pytest.approx(exposed)
    place = exif.get_ifd(IFD.GPSInfo)
    assert {tag: place.get(tag) for tag in PLACE} == PLACE


def save(folder: Path, suffix: str, exif: Image.Exif | None = None, **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"a.{suffix}"
    said = {} if exif is None else {"exif": exif}
    Image.fromarray(np.full((16, 24, 3), 99, np.uint8)).save(path, **said, **options)
    return path


@pytest.mark.parametrize("big_tiff", [False, True])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_a_tiff_tells_what_was_added_in_either_order_of_bytes_and_still_shows_its_picture(
    tmp_path, big_tiff, endian
):
    path = save(tmp_path, "tif", big_tiff=big_tiff)
    before = vips().Image.new_from_file(str(path)).numpy()
    add_exif(path, camera(endian).tobytes(), (16, 24))
    with Image.open(path) as made:
        assert_told(made.getexif())
        assert (np.asarray(made) == 99).all()
    assert (vips().Image.new_from_file(str(path)).numpy() == before).all()
    read = Image.Exif()
    read.load(exif_of_tiff(path))
    assert_told(read)


def test_a_big_endian_tiff_is_added_to_and_read(tmp_path):
    # one strip of one grey pixel, by hand: Pillow and libvips write little-endian files
    entries = [
        (256, 3, 1, 1 << 16),
        (257, 3, 1, 1 << 16),
        (258, 3, 1, 8 << 16),
        (259, 3, 1, 1 << 16),
    ]
    entries += [(262, 3, 1, 1 << 16), (273, 4, 1, 8), (277, 3, 1, 1 << 16), (279, 4, 1, 1)]
    directory = b"".join(struct.pack(">HHLL", *entry) for entry in entries)
    path = tmp_path / "a.tif"
    start = struct.pack(">2sHL", b"MM", 42, 10) + b"\x63\0" + struct.pack(">H", len(entries))
    path.write_bytes(start + directory + bytes(4))
    assert exif_of_tiff(path) == b""
    add_exif(path, camera().tobytes(), (16, 24))
    with Image.open(path) as made:
        assert np.asarray(made) == 99
        assert_told(made.getexif())
    read = Image.Exif()
    read.load(exif_of_tiff(path))
    assert_told(read)


def test_what_a_tiff_says_of_itself_stands(tmp_path):
    path = save(tmp_path, "tif", description="its own", dpi=(300, 300))
    exif = camera()
    exif[Base.ImageDescription], exif[Base.XResolution] = "another", 72.0
    add_exif(path, exif.tobytes(), (16, 24))
    with Image.open(path) as made:
        assert made.getexif()[Base.ImageDescription] == "its own"
        assert made.info["dpi"] == (300, 300)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_file_of_another_format_and_one_that_says_nothing_have_no_exif(tmp_path, suffix):
    assert exif_of_tiff(save(tmp_path, suffix)) == b""


def test_a_description_alone_is_carried(tmp_path):
    read = Image.Exif()
    read.load(exif_of_tiff(save(tmp_path, "tif", description="a ship")))
    assert dict(read) == {Base.ImageDescription: "a ship"}


def test_damaged_exif_data_are_refused_and_the_file_stays_as_it_was(tmp_path):
    path = save(tmp_path, "tif")
    before = path.read_bytes()
    with pytest.raises(ExifError):
        add_exif(path, b"Exif\0\0II", (16, 24))
    assert path.read_bytes() == before


def test_a_damaged_directory_costs_what_it_told_and_not_the_picture(tmp_path):
    path = save(tmp_path, "tif")
    add_exif(path, camera().tobytes(), (16, 24))
    data = bytearray(path.read_bytes())
    entry = data.rindex(struct.pack("<HH", IFD.GPSInfo, 4))
    data[entry + 8 : entry + 12] = struct.pack("<L", 2**31)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        raster = open_raster(path, max_pixels=10**6)
    told = Image.Exif()
    told.load(raster.image.get("exif-data"))
    assert told[Base.Make] == "a maker"
    assert not told.get_ifd(IFD.GPSInfo)


@pytest.mark.parametrize("result", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tif"])
def test_an_enlarged_picture_tells_what_its_source_told(tmp_path, source, result):
    path = save(tmp_path / "in", source, camera())
    upscale("bicubic", [path], tmp_path / "out", scale=2, suffix=result)
    with Image.open(tmp_path / "out" / f"a.{result}") as made:
        made.load()
        assert_told(made.getexif(), size=made.size[::-1])
        assert made.size == (48, 32)


def test_an_enlarged_tiff_of_sixteen_bits_tells_it_too(tmp_path):
    """Pillow cannot open such a file."""
    pixels = np.full((16, 24, 3), 30_000, np.uint16)
    path = tmp_path / "a.tif"
    vips().Image.new_from_array(pixels, interpretation="rgb16").write_to_file(str(path))
    add_exif(path, camera().tobytes(), (16, 24))
    upscale("bicubic", [path], tmp_path / "out", scale=2)
    read = Image.Exif()
    read.load(exif_of_tiff(tmp_path / "out" / "a.tif"))
    assert_told(read, size=(32, 48))
    assert vips().Image.new_from_file(str(tmp_path / "out" / "a.tif")).format == "ushort"


def test_a_turned_tiff_comes_out_upright_with_its_camera(tmp_path):
    exif = camera()
    exif[Base.Orientation] = 6
    path = save(tmp_path / "in", "tif", exif)
    upscale("bicubic", [path], tmp_path / "out", scale=2, suffix="jpg")
    with Image.open(tmp_path / "out" / "a.jpg") as made:
        assert made.size == (32, 48)
        assert made.getexif()[Base.Orientation] == 1
        assert_told(made.getexif(), size=(48, 32))

"""Deep pictures become 8-bit ones by one range for all, under their names."""

import numpy as np
import pytest

from pipeline import cli
from pipeline.levels import levels
from pipeline.picture_files import PictureError
from pipeline.pictures import read_picture
from pipeline.raster import vips


@pytest.fixture
def frames(tmp_path):
    """Two thermal frames, the second ten times as warm above the first's coldest value."""
    folder = tmp_path / "frames"
    (folder / "b").mkdir(parents=True)
    ramp = np.tile(np.arange(1000, dtype=np.uint16), (4, 1))
    save(28_000 + ramp, folder / "a.tif")
    save(28_000 + 3 * ramp, folder / "b" / "c.png")
    return folder


def save(values, path, interpretation="grey16", **options):
    image = vips().Image.new_from_array(values).copy(interpretation=interpretation)
    image.write_to_file(str(path), **options)


def mapped(path):
    image = vips().Image.new_from_file(str(path))
    assert image.format == "uchar"
    return image.numpy()


def test_all_pictures_are_mapped_by_one_range_under_their_names(tmp_path, frames):
    assert levels([frames], tmp_path / "out", between=[28_000, 31_000]) == (28_000, 31_000)
    ramp = np.arange(1000)
    assert (mapped(tmp_path / "out" / "a.tif")[0] == np.rint(ramp * 255 / 3000)).all()
    assert (mapped(tmp_path / "out" / "b" / "c.png")[0] == np.rint(ramp * 255 / 1000)).all()
    assert len(read_picture(tmp_path / "out" / "b" / "c.png").unique()) == 256


def test_without_a_range_all_values_of_all_pictures_have_their_place_and_it_is_told(
    tmp_path, frames, capsys
):
    words = ["levels", "--pictures", str(frames), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "black is 28000, white 30997" in said
    assert "--between 28000 30997" in said


def test_a_small_hot_object_keeps_its_values_and_dead_pixels_take_no_range(tmp_path):
    frame = np.full((300, 300), 29_000, np.uint16)
    frame[100:200] = 29_500
    frame[10:13, 10:13] = 30_900, 30_950, 31_000  # 9 of 90,000 pixels
    frame[50, 50], frame[150, 150] = 0, 65_535
    save(frame, tmp_path / "a.tif")
    low, high = levels([tmp_path / "a.tif"], tmp_path / "out")
    assert low == 29_000
    assert high >= 30_900


def test_kelvin_with_places_without_a_number_has_a_range(tmp_path):
    kelvin = np.full((20, 20), 280, np.float32)
    kelvin[5:9, 5:9] = 310
    kelvin[12:, :] = np.nan
    save(kelvin, tmp_path / "a.tif", "b-w")
    assert levels([tmp_path / "a.tif"], tmp_path / "out") == (280, 310)


def test_what_lies_outside_the_range_is_cut_and_not_wrapped(tmp_path, frames):
    levels([frames / "a.tif"], tmp_path / "out", between=[28_400, 28_600])
    row = mapped(tmp_path / "out" / "a.tif")[0]
    assert (row[:400] == 0).all()
    assert (row[600:] == 255).all()
    assert len(np.unique(row)) == 201


def test_kelvin_as_floating_point_is_mapped_and_what_is_no_number_is_black(tmp_path):
    kelvin = np.linspace(280, 310, 256, dtype=np.float32)[None].repeat(3, 0)
    kelvin[2] = np.nan
    save(kelvin, tmp_path / "a.tif", "b-w")
    levels([tmp_path / "a.tif"], tmp_path / "out", between=[280, 310])
    assert (mapped(tmp_path / "out" / "a.tif")[:2] == np.arange(256)).all()
    assert (mapped(tmp_path / "out" / "a.tif")[2] == 0).all()


def test_bands_are_chosen_in_the_order_that_is_said(tmp_path):
    bands = np.zeros((5, 6, 4), np.uint16) + np.array([100, 200, 300, 400], np.uint16)
    save(bands, tmp_path / "a.tif")
    with pytest.raises(PictureError, match=r"a\.tif has 4 bands; say which are red, green"):
        levels([tmp_path / "a.tif"], tmp_path / "out", between=[0, 510])
    levels([tmp_path / "a.tif"], tmp_path / "out", between=[0, 510], bands=[3, 2, 1])
    read = read_picture(tmp_path / "out" / "a.tif")
    assert read[:, 0, 0].tolist() == [150, 100, 50]
    levels([tmp_path / "a.tif"], tmp_path / "grey", between=[0, 510], bands=[4])
    assert mapped(tmp_path / "grey" / "a.tif").shape == (5, 6)
    with pytest.raises(ValueError, match="one or three of the bands 1 to 4"):
        levels([tmp_path / "a.tif"], tmp_path / "more", bands=[5])


@pytest.mark.parametrize("between", [[5], [5, 5], [7, 5], [1, 2, 3]])
def test_a_range_is_two_values_the_lower_first(tmp_path, frames, between):
    with pytest.raises(ValueError, match="--between takes two values, the lower first"):
        levels([frames], tmp_path / "out", between=between)


def test_a_set_of_one_value_has_no_range(tmp_path):
    save(np.full((4, 4), 7, np.uint16), tmp_path / "a.png")
    with pytest.raises(ValueError, match="all values are 7; give the range with --between"):
        levels([tmp_path / "a.png"], tmp_path / "out")


def test_formats_of_eight_bits_are_refused(tmp_path, paint_noise):
    paint_noise(tmp_path / "in" / "a.jpg")
    with pytest.raises(PictureError, match=r"a\.jpg: TIFF and PNG alone hold more than 8 bits"):
        levels([tmp_path / "in"], tmp_path / "out")

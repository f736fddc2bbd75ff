"""Sets get the names that tables print, and every file finds the picture it was made for."""

from pathlib import Path

import pytest
import torch

from pipeline.pictures import read_picture, to_float
from pipeline.truth import belonging, open_sets, split_name, truth_reader
from sr_module.resize import imresize


@pytest.fixture
def folder(tmp_path, paint_noise) -> Path:
    for name in ("img1", "img10", "img1_b"):
        paint_noise(tmp_path / "Set5" / "HR" / f"{name}.png", width=42, height=49)
    return tmp_path / "Set5" / "HR"


def test_a_name_is_what_stands_before_the_equals_sign_unless_that_is_a_path(tmp_path):
    assert split_name("Set5=a/b=c") == ("Set5", "a/b=c")
    assert split_name("a/x=1/b") == ("", "a/x=1/b")
    assert split_name("a/b") == ("", "a/b")
    (tmp_path / "a=b").mkdir()
    assert split_name(str(tmp_path / "a=b")) == ("", str(tmp_path / "a=b"))


def test_a_folder_called_after_what_it_holds_has_the_name_of_the_one_above(folder):
    assert [each.name for each in open_sets([str(folder)])] == ["Set5"]
    assert [each.name for each in open_sets([str(folder.parent)])] == ["Set5"]
    assert [each.name for each in open_sets([f"mine={folder}"])] == ["mine"]


def test_pictures_are_called_by_their_path_below_the_folder(folder):
    (found,) = open_sets([str(folder.parent)])
    assert list(found.pictures) == ["HR/img1", "HR/img10", "HR/img1_b"]


def test_files_of_one_folder_are_one_set(folder):
    (found,) = open_sets([str(folder / "img10.png"), str(folder / "img1.png")])
    assert (found.name, list(found.pictures)) == ("Set5", ["img10", "img1"])


def test_two_folders_of_one_name_are_refused(folder, tmp_path, paint_noise):
    paint_noise(tmp_path / "other" / "Set5" / "a.png")
    with pytest.raises(ValueError, match=r"are both called 'Set5'; give each .* --hr first="):
        open_sets([str(folder), str(tmp_path / "other" / "Set5")])


def test_two_pictures_of_one_name_are_refused(folder, paint_noise):
    paint_noise(folder / "img1.bmp")
    with pytest.raises(ValueError, match=r"img1\.bmp and .*img1\.png would both be called 'img1'"):
        open_sets([str(folder)])


def test_a_file_belongs_to_the_longest_name_it_begins_with(folder, tmp_path, paint_noise):
    for name in ("img1_x4", "img1_b_x4", "img10x4"):
        paint_noise(tmp_path / "sr" / f"{name}.png")
    (data_set,) = open_sets([str(folder)])
    found = {a.stem: b.stem for a, b in belonging(data_set, tmp_path / "sr").items()}
    assert found == {"img1": "img1_x4", "img1_b": "img1_b_x4", "img10": "img10x4"}
    paint_noise(tmp_path / "sr" / "Set5" / "img1.png")
    with pytest.raises(FileNotFoundError, match=r"0 pictures in .*Set5 belong to img10\.png"):
        belonging(data_set, tmp_path / "sr")


def test_of_several_files_the_one_of_exactly_that_name_is_taken(folder, tmp_path, paint_noise):
    for name in ("img1", "img1_x4", "img10", "img1_b"):
        paint_noise(tmp_path / "sr" / f"{name}.png")
    (data_set,) = open_sets([str(folder)])
    assert belonging(data_set, tmp_path / "sr")[folder / "img1.png"].stem == "img1"
    (tmp_path / "sr" / "img1.png").rename(tmp_path / "sr" / "img1_other.png")
    with pytest.raises(FileNotFoundError, match=r"2 pictures in .*sr belong to img1\.png"):
        belonging(data_set, tmp_path / "sr")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_truth_is_cropped_and_its_low_resolution_is_matlabs(folder, scale):
    (data_set,) = open_sets([str(folder)])
    truth = truth_reader(data_set, scale)("img10")
    height, width = 49 - 49 % scale, 42 - 42 % scale
    picture = read_picture(folder / "img10.png")[:, :height, :width]
    assert torch.equal(truth.hr[0], to_float(picture))
    assert truth.lr.shape == (1, 3, height // scale, width // scale)
    exact = imresize(picture, 1 / scale)
    assert (truth.lr[0] * 255 - exact).abs().max() <= 1.001  # a tie may fall to the next level
    corner = truth.corner(5)
    assert (corner.hr.shape[-2:], corner.lr.shape[-2:]) == ((5 * scale, 5 * scale), (5, 5))

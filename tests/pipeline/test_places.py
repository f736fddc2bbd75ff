"""Where results go is settled before the work."""

import os
from pathlib import Path

import pytest

from pipeline.places import make_folder, places_for, without_existing


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "deep/b.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_names_and_sub_folders_are_kept(photos, tmp_path):
    out = tmp_path / "out"
    made = places_for([photos], out, "same")
    assert made == {photos / "a.png": out / "a.png", photos / "deep/b.jpg": out / "deep/b.jpg"}
    made = places_for([photos / "deep/b.jpg"], out, "tiff")
    assert made == {photos / "deep/b.jpg": out / "b.tiff"}


def test_what_cannot_be_written_is_said_before_the_work(photos, tmp_path):
    (photos / "film.gif").touch()
    with pytest.raises(ValueError, match=r"film\.gif: results are written as .*--suffix png"):
        places_for([photos / "film.gif"], tmp_path / "out", "same")
    assert places_for([photos / "film.gif"], tmp_path / "out", "png")


def test_standing_results_stop_are_kept_or_are_replaced(photos, tmp_path):
    out = tmp_path / "out"
    places = places_for([photos], out, "same")
    assert without_existing(places, "error") == places
    out.mkdir()
    (out / "a.png").touch()
    with pytest.raises(FileExistsError, match=r"1 of 2 results exist.*out/a\.png.*--existing skip"):
        without_existing(places, "error")
    assert list(without_existing(places, "skip")) == [photos / "deep/b.jpg"]
    assert without_existing(places, "overwrite") == places


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="cannot be a folder"):
            make_folder(out)


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"nothing may be written to .*choose another --out"):
        make_folder(tmp_path / "out")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match="cannot be made"):
        make_folder(tmp_path / "other")

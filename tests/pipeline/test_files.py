"""Nothing half-written takes the place of a good file or folder."""

import errno
import json
import math
import shutil

import pytest

from pipeline import files
from pipeline.files import NoSpaceError, atomic_file, atomic_folder, full_disk_named, json_text


def _names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert _names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_stop_in_the_middle_leaves_the_old_file(tmp_path, stop):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(stop):  # noqa: PT012, SIM117 (the stop comes in the middle)
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise stop
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("writing", [atomic_file, atomic_folder])
def test_a_full_disk_is_named_with_the_file_and_the_cure(tmp_path, writing):
    with (
        pytest.raises(NoSpaceError, match=r"^no room on disk while writing .*thing .*free some"),
        writing(tmp_path / "thing"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert _names(tmp_path) == []


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), atomic_file(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


def test_a_file_that_outgrows_a_real_disk_leaves_the_old_one(small_disk):
    path = small_disk / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(NoSpaceError, match=r"a\.bin"), atomic_file(path) as temporary:
        temporary.write_bytes(bytes(100_000))
    assert path.read_bytes() == b"old"
    assert _names(small_disk) == ["a.bin"]


def test_a_folder_that_outgrows_a_real_disk_leaves_the_old_one(small_disk):
    place = small_disk / "set"
    place.mkdir()
    (place / "old").write_text("old")
    with pytest.raises(NoSpaceError), atomic_folder(place, overwrite=True) as folder:
        (folder / "new").write_bytes(bytes(100_000))
    assert (place / "old").read_text() == "old"
    assert _names(small_disk) == ["set"]


def test_a_copy_of_a_folder_that_outgrows_a_real_disk_is_told_as_a_full_disk(small_disk, tmp_path):
    """The copy says it in words of its own, and a library may hide those in an error of its own."""
    (tmp_path / "set" / "part").mkdir(parents=True)
    (tmp_path / "set" / "part" / "a").write_bytes(bytes(100_000))
    with pytest.raises(NoSpaceError, match="copy"), full_disk_named(small_disk / "copy"):
        shutil.copytree(tmp_path / "set", small_disk / "copy")
    with (
        pytest.raises(NoSpaceError, match="again"),
        full_disk_named(small_disk / "again", hidden_in=(LookupError,)),
    ):
        _copy_hiding_errors(tmp_path / "set", small_disk / "again")


def _copy_hiding_errors(folder, place):
    try:
        shutil.copytree(folder, place)
    except OSError as error:
        raise LookupError("the library could not copy it") from error


def test_a_copy_that_fails_otherwise_is_no_full_disk(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(shutil.Error), full_disk_named(tmp_path / "copy"):
        shutil.copytree(tmp_path / "set", tmp_path / "copy")


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
    place = tmp_path / "deep" / "set"
    with atomic_folder(place) as folder:
        (folder / "a").write_text("a")
        assert not place.exists()
    assert (place / "a").read_text() == "a"
    assert _names(place.parent) == ["set"]
    assert place.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_may_stand_there(tmp_path):
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "a").write_text("a")
    (tmp_path / "set" / "a").unlink()
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "b").write_text("b")
    assert _names(tmp_path / "set") == ["b"]


def test_a_folder_with_content_is_refused_before_the_work(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileExistsError, match="--overwrite true"), atomic_folder(tmp_path):
        pytest.fail("the work began")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_folders_place_is_refused(tmp_path, overwrite):
    place = tmp_path / "set"
    place.write_text("mine")
    with (
        pytest.raises(FileExistsError, match="set is a file"),
        atomic_folder(place, overwrite=overwrite),
    ):
        pytest.fail("the work began")
    assert place.read_text() == "mine"


def test_overwrite_replaces_the_whole_folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    (place / "old").write_text("old")
    with atomic_folder(place, overwrite=True) as folder:
        (folder / "new").write_text("new")
        assert _names(place) == ["old"]
    assert _names(place) == ["new"]
    assert _names(tmp_path) == ["set"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_stop_in_the_middle_leaves_the_old_folder(tmp_path, stop):
    place = tmp_path / "set"
    place.mkdir()
    (place / "old").write_text("old")
    with pytest.raises(stop):  # noqa: PT012, SIM117 (the stop comes in the middle)
        with atomic_folder(place, overwrite=True) as folder:
            (folder / "new").write_text("new")
            raise stop
    assert _names(place) == ["old"]
    assert _names(tmp_path) == ["set"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    place = tmp_path / "set"
    place.mkdir()
    (place / "old").write_text("old")
    rename = files.Path.rename

    def fail_once(path, target):
        if path.suffix == ".partial":
            raise OSError(errno.EIO, "cable")
        return rename(path, target)

    monkeypatch.setattr(files.Path, "rename", fail_once)
    with pytest.raises(OSError, match="cable"), atomic_folder(place, overwrite=True):
        pass
    assert _names(place) == ["old"]
    assert _names(tmp_path) == ["set"]


def test_behind_a_link_the_folder_that_it_points_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    with atomic_folder(link, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert link.is_symlink()
    assert _names(tmp_path / "real") == ["new"]
    assert _names(tmp_path) == ["link", "real"]


def test_the_current_folder_can_be_the_place(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(files.Path()) as folder:
        (folder / "a").write_text("a")
    assert _names(tmp_path / "here") == ["a"]


def test_a_mount_point_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(files.Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(ValueError, match="write to a folder in it"), atomic_folder(tmp_path):
        pytest.fail("the work began")


def test_what_json_does_not_know_is_null_at_any_depth():
    value = {"a": [1.5, math.inf, (math.nan, "NaN")], "b": {"c": -math.inf}, "d": 3, "e": None}
    for indent in (None, 1):
        read = json.loads(json_text(value, indent=indent))
        assert read == {"a": [1.5, None, [None, "NaN"]], "b": {"c": None}, "d": 3, "e": None}

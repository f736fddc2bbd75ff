"""Clips: which frames stand together, and what is said of footage that cannot be used."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.clips import check_sizes, find_footage, frame_files, read_frames, runs, windows
from pipeline.picture_files import PictureError
from pipeline.video import Frame


def frames(count: int, *, missing_before: tuple[int, ...] = ()) -> list[Frame]:
    """Frames that are known by their value."""
    return [
        Frame(torch.full((3, 2, 2), n, dtype=torch.uint8), n, n, n not in missing_before)
        for n in range(count)
    ]


def numbers(clip: torch.Tensor) -> list[int]:
    return clip[:, 0, 0, 0].tolist()


def paint(path: Path, value: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_every_frame_has_a_window_and_the_ends_are_repeated():
    given = list(windows(frames(4), 3, name="clip"))
    assert [frame.number for frame, _ in given] == [0, 1, 2, 3]
    assert [numbers(clip) for _, clip in given] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    short = list(windows(frames(2), 5, name="clip", repeat_still=True))
    assert [numbers(clip) for _, clip in short] == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(("count", "length"), [(1, 1), (5, 1), (1, 5), (2, 5), (3, 5), (9, 5)])
def test_windows_are_as_many_as_frames_and_hold_them_in_their_middle(count: int, length: int):
    given = list(windows(frames(count), length, name="clip", repeat_still=True))
    assert [numbers(clip)[length // 2] for _, clip in given] == list(range(count))
    assert all(len(clip) == length for _, clip in given)


def test_a_clip_shorter_than_the_window_is_named_with_the_way_out():
    given = windows(frames(4), 5, name="walk")
    with pytest.raises(PictureError, match=r"walk has 4 frames, .* reads 5 .*repeat_still"):
        next(given)  # before any of it is used


def test_runs_begin_a_step_apart_and_none_reaches_across_missing_frames():
    starts = [start for start, _ in runs(frames(10), 3, step=2)]
    assert starts == [0, 2, 4, 6]
    given = [numbers(clip) for _, clip in runs(frames(9, missing_before=(4,)), 3, step=3)]
    assert given == [[0, 1, 2], [4, 5, 6]]


def test_only_a_window_of_a_long_clip_is_held_at_a_time():
    alive = 0
    most = 0

    class Counted(torch.Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def coming():
        nonlocal alive, most
        for n in range(100):
            picture = torch.zeros(3, 2, 2, dtype=torch.uint8).as_subclass(Counted)
            alive += 1
            most = max(most, alive)
            yield Frame(picture, n, n)

    for _ in windows(coming(), 5, name="long"):
        pass
    assert most <= 14  # of 100: a window, and what has not been let go yet


def test_folders_count_their_frames_as_people_do(tmp_path: Path):
    for name in ("f10.png", "f9.png", "f1.png", ".hidden.png", "notes.txt"):
        paint(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("")
    assert [path.name for path in frame_files(tmp_path)] == ["f1.png", "f9.png", "f10.png"]


def test_footage_is_every_video_and_every_folder_of_frames(tmp_path: Path):
    paint(tmp_path / "a" / "0.png")
    paint(tmp_path / "a" / "inner" / "0.png")
    paint(tmp_path / ".thumbs" / "0.png")
    (tmp_path / "b.mp4").write_bytes(b"")
    assert find_footage([tmp_path]) == [
        tmp_path / "a",
        tmp_path / "a" / "inner",
        tmp_path / "b.mp4",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos and no frames in"):
        find_footage([tmp_path / "empty"])


@pytest.mark.parametrize("odd", [0, 1, 3])
def test_a_frame_of_another_size_is_named_with_the_size_of_the_others(tmp_path: Path, odd: int):
    for n in range(4):
        paint(tmp_path / f"{n}.png", size=(9, 6) if n == odd else (8, 6))
    said = rf"{odd}.png is 9 x 6 pixels, not 8 x 6 as 3 of the 4 frames .* remove it"
    with pytest.raises(PictureError, match=said):
        check_sizes(tmp_path)
    with pytest.raises(PictureError, match=said):
        list(read_frames(tmp_path))


def test_frames_that_lie_on_their_side_have_the_size_that_they_are_shown_in(tmp_path: Path):
    paint(tmp_path / "0.png")
    turned = Image.new("RGB", (6, 8))
    turned.getexif()[0x0112] = 6  # to be turned by a quarter
    turned.save(tmp_path / "1.png", exif=turned.getexif())
    check_sizes(tmp_path)
    assert {tuple(frame.picture.shape) for frame in read_frames(tmp_path)} == {(3, 6, 8)}


def test_a_frame_that_is_not_what_its_header_says_is_refused(tmp_path: Path):
    """Its orientation stands behind its pixels, where a look at the header does not find it."""
    paint(tmp_path / "0.png")
    turned = Image.new("RGB", (8, 6))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "1.png", exif=turned.getexif())
    whole = (tmp_path / "1.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    last = whole.index(b"IEND") - 4
    (tmp_path / "1.png").write_bytes(
        whole[:start] + whole[end:last] + whole[start:end] + whole[last:]
    )
    check_sizes(tmp_path)
    with pytest.raises(PictureError, match=r"1.png is 6 x 8 pixels, .* 8 x 6, and its header says"):
        list(read_frames(tmp_path))

import itertools
import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.checkpoints import check_space, damage, newest, restore, state_bytes, sweep, write
from pipeline.files import NoSpaceError


def save(folder: Path, *steps: int, keep: int = 3) -> None:
    for step in steps:
        write({"step": step, "weights": torch.full((64,), step)}, folder / "last.ckpt", keep=keep)


def steps(folder: Path) -> dict[str, int]:
    paths = sorted(folder.glob("*.ckpt"))
    return {path.name: torch.load(path, weights_only=True)["step"] for path in paths}


def spoil(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 0xFF
    path.unlink()  # an older name of the same file stays whole
    path.write_bytes(content)


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_the_last_few_are_kept_newest_first(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("none")))
    save(tmp_path, 1, 2)
    assert steps(tmp_path) == {"last.ckpt": 2, "last-1.ckpt": 1}
    save(tmp_path, 3, 4, 5)
    assert steps(tmp_path) == {"last.ckpt": 5, "last-1.ckpt": 4, "last-2.ckpt": 3}
    save(tmp_path, 6, keep=1)
    assert steps(tmp_path) == {"last.ckpt": 6}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_whose_last_was_taken_away_holds_no_run(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "last.ckpt").unlink()
    assert newest(tmp_path).path is None
    save(tmp_path, 7)
    assert steps(tmp_path) == {"last.ckpt": 7}


def test_a_checkpoint_of_another_name_has_no_older_ones(tmp_path):
    save(tmp_path, 1, 2)
    write({"step": 3}, tmp_path / "hpc_ckpt_1.ckpt", keep=3)
    assert steps(tmp_path) == {"last.ckpt": 2, "last-1.ckpt": 1, "hpc_ckpt_1.ckpt": 3}


def test_the_newest_whole_one_is_found_and_the_damaged_are_named(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert newest(tmp_path).path == tmp_path / "last.ckpt"
    assert not newest(tmp_path).damaged
    spoil(tmp_path / "last.ckpt")
    (tmp_path / "last-1.ckpt").write_bytes(b"PK")
    found = newest(tmp_path)
    assert found.path == tmp_path / "last-2.ckpt"
    assert [path.name for path in found.damaged] == ["last.ckpt", "last-1.ckpt"]
    assert "checksum" in found.damaged[tmp_path / "last.ckpt"]
    restore(found.path)
    assert steps(tmp_path) == {"last.ckpt": 1}


def test_when_all_are_damaged_one_error_names_each_and_the_cure(tmp_path):
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"every checkpoint .* damaged \(last.ckpt: .*last-1") as e:
        newest(tmp_path)
    assert "begin anew" in str(e.value)


def test_restoring_the_newest_changes_nothing(tmp_path):
    save(tmp_path, 1, 2)
    restore(tmp_path / "last.ckpt")
    assert steps(tmp_path) == {"last.ckpt": 2, "last-1.ckpt": 1}


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "last.ckpt"
    save(tmp_path, 1)
    assert not damage(path)
    whole, found = path.read_bytes(), 0
    for place in draw.sample(range(len(whole)), 300):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        )
        found += bool(damage(path))
    assert found == 300


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, share):
    save(tmp_path, 1)
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert damage(path)


def test_a_full_disk_leaves_the_last_one_whole(small_disk):
    save(small_disk, 1, 2)
    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*last\.ckpt"):
        write({"step": 3, "weights": torch.zeros(20_000)}, small_disk / "last.ckpt", keep=3)
    assert steps(small_disk) == {"last.ckpt": 2, "last-1.ckpt": 1}
    assert len(list(small_disk.iterdir())) == 2


def test_a_disk_too_small_is_refused_before_the_run_with_what_is_needed_and_free(small_disk):
    model = nn.Linear(50, 100)  # 20 KiB of weights: 60 KiB a checkpoint
    assert state_bytes(model) == 3 * 4 * (50 * 100 + 100)
    check_space(small_disk / "runs" / "new", nn.Linear(5, 10), keep=2)
    with pytest.raises(NoSpaceError, match=r"0\.1 MiB are free, .* about 0\.2 MiB") as caught:
        check_space(small_disk / "runs" / "new", model, keep=2)
    for cure in ("free some space", "--run.out", "--run.keep_last"):
        assert cure in str(caught.value)


def test_checkpoints_that_are_there_need_no_room_a_second_time(small_disk):
    model = nn.Linear(30, 100)
    with pytest.raises(NoSpaceError):
        check_space(small_disk, model, keep=2)
    save(small_disk, 1, 2)
    check_space(small_disk, model, keep=2)


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".last.ckpt.99.partial").write_bytes(b"half")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def _write_until_killed(folder: Path, place: int) -> None:
    """Dies at the ``place``-th call that may change the folder."""
    calls = itertools.count()

    def kill(event: str, arguments: tuple) -> None:
        opens = event == "open" and str(folder) in str(arguments[0]) and arguments[1] != "r"
        changes = event in ("os.rename", "os.remove", "os.link") and str(folder) in str(arguments)
        if (opens or changes) and next(calls) == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    save(folder, 3)


def test_a_writer_killed_before_any_change_of_the_folder_leaves_a_whole_last_one(tmp_path):
    ends = []
    for place in range(20):
        folder = tmp_path / str(place)
        folder.mkdir()
        save(folder, 1, 2)
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_write_until_killed, args=(folder, place))
        process.start()
        process.join()
        found = newest(folder)
        assert found.path == folder / "last.ckpt"
        assert not found.damaged
        ends.append(steps(folder))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert ends[-1]["last.ckpt"] in (2, 3)
        assert {1, 2} <= set(ends[-1].values())
        save(folder, 5)
        assert newest(folder).path == folder / "last.ckpt"
    assert len(ends) > 5, "opening, renames, a link, a removal, and undisturbed at last"
    assert ends[0] == {"last.ckpt": 2, "last-1.ckpt": 1}
    assert ends[-1] == {"last.ckpt": 3, "last-1.ckpt": 2, "last-2.ckpt": 1}

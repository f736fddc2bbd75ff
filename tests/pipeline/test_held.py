import errno
import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from pipeline import cli, train
from pipeline.held import held

Words = Callable[..., list[str]]
Starter = Callable[..., multiprocessing.Process]
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts processes that are killed when the test ends."""
    started: list[Any] = []

    def process(work: Callable[..., None], *arguments: Any) -> Any:
        started.append(FORK.Process(target=work, args=arguments))
        started[-1].start()
        return started[-1]

    yield process
    for each in started:
        each.kill()
        each.join()


def hold(folder: Path, reached: Any) -> None:
    """For ever, and a child of it, such as a data reader, lives on after it."""
    with held(folder, "trains"):
        child = os.fork()
        if child:
            reached.send(child)
        signal.pause()


def test_a_held_folder_is_refused_with_who_holds_it_and_free_when_that_one_is_killed(
    tmp_path: Path, start: Starter
):
    mine, theirs = FORK.Pipe()
    holder = start(hold, tmp_path, theirs)
    child = mine.recv()
    try:
        with (
            pytest.raises(BlockingIOError, match=rf"another process \({holder.pid} on .*\) trains"),
            held(tmp_path, "trains", wait_s=0),
        ):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        with held(tmp_path, "trains"):  # in time, the kernel lets go
            os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def hold_until_told(folder: Path, reached: Any) -> None:
    with held(folder, "trains"):
        reached.send("held")
        reached.recv()


def test_a_process_that_is_about_to_end_is_waited_for(
    tmp_path: Path, start: Starter, caplog: pytest.LogCaptureFixture, monkeypatch: Any
):
    mine, theirs = FORK.Pipe()
    start(hold_until_told, tmp_path, theirs)
    mine.recv()
    waited: list[float] = []

    def tell_it_to_end(seconds: float) -> None:
        if not waited:
            mine.send("end")
        waited.append(seconds)
        os.sched_yield()

    monkeypatch.setattr(time, "sleep", tell_it_to_end)
    with held(tmp_path, "trains"):
        assert waited
    assert "waiting 20 s for it to end" in caplog.text


def test_on_a_disk_without_locks_the_work_goes_on_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with held(tmp_path / "new", "trains"):
        assert (tmp_path / "new").is_dir()
    assert "cannot be locked (No locks available): take care that no other" in caplog.text


class WaitAt(pl.Callback):
    """Stops in the middle of a run, and says so."""

    def __init__(self, step: int, reached: Any) -> None:
        self.step, self.reached = step, reached

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.strategy.checkpoint_io.wait()
            self.reached.send("there")
            signal.pause()


def train_until(words: list[str], reached: Any) -> None:
    train.fit(train.configured(words), watching=[WaitAt(4, reached)])


def test_two_starts_in_one_folder_do_not_mix_and_after_a_kill_the_second_goes_on(
    tiny: Words, tmp_path: Path, store: str, start: Starter, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.setattr(train, "held", partial(held, wait_s=0))
    mine, theirs = FORK.Pipe()
    first = start(train_until, tiny(), theirs)
    mine.recv()
    folder = tmp_path / "run"
    (folder / ".last.ckpt.1.partial").touch()  # as if its next checkpoint were being written
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cli.main(["train", *tiny()]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "".join(said).startswith(f"srdet train: error: another process ({first.pid} on ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    first.kill()
    first.join()
    assert cli.main(["train", *tiny()]) == 0
    assert "goes on from step 3" in capsys.readouterr().err

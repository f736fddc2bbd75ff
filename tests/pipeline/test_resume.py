import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline import checkpoints
from pipeline.files import NoSpaceError
from pipeline.resume import WholeFiles, fit_or_stop
from pipeline.train import configured, fit

Words = Callable[..., list[str]]


class Stopped:
    """A trainer whose training ends by an exception."""

    received_sigterm = False

    def __init__(self, *, by_keyboard: bool) -> None:
        self.by_keyboard = by_keyboard

    def fit(self, *_: object, **__: object) -> None:
        if not self.by_keyboard:
            raise SystemExit(0)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 (as Lightning does)


def test_a_sweeps_wish_to_stop_a_trial_is_passed_on():
    with pytest.raises(SystemExit):
        fit_or_stop(Stopped(by_keyboard=False), None, None, checkpoint=None)


def test_the_keyboard_stays_the_keyboard():
    with pytest.raises(KeyboardInterrupt):
        fit_or_stop(Stopped(by_keyboard=True), None, None, checkpoint=None)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillInStep(pl.Callback):
    """kill -9 between the gradients and the step of the ``step``-th step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.step - 1:
            trainer.strategy.checkpoint_io.wait()  # or nobody knew which checkpoint is the last
            kill()


class KillInWriting(pl.Callback):
    """kill -9 when a checkpoint is written, but has not taken its place."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            sys.addaudithook(self._watch)

    @staticmethod
    def _watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith("last.ckpt"):
            kill()


def train(words: list[str], *watching: pl.Callback) -> None:
    fit(configured(words), watching=watching)


def train_until_killed(words: list[str], watching: pl.Callback) -> None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=train, args=(words, watching))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def state(out: Path) -> dict[str, Any]:
    saved = torch.load(out / "last.ckpt", weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {key: saved[key] for key in kept}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every leaf of a nested state by its path."""
    if not isinstance(value, dict | list):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {key: leaf for k, v in items for key, leaf in flat(v, f"{name}/{k}").items()}


def assert_same(found: Any, expected: Any) -> None:
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, Tensor) else found[key] == value
        assert same, key


@pytest.mark.slow
@pytest.mark.parametrize("gan", [False, True], ids=["regression", "adversarial"])
def test_a_run_killed_again_and_again_ends_bit_for_bit_like_an_undisturbed_one(
    tiny: Words, tmp_path: Path, store: str, gan: bool
):
    """In a step and while a checkpoint is written, before the first one and after."""
    more = ["--data.workers", "2"]
    words = tiny(*more, gan=gan, out="killed")
    out = tmp_path / "killed"
    train_until_killed(words, KillInStep(2))
    train_until_killed(words, KillInWriting(3))
    assert not (out / "last.ckpt").exists()
    assert list(out.glob(".last.ckpt.*.partial"))
    train_until_killed(words, KillInStep(5))
    assert state(out)["global_step"] == 3
    assert not list(out.glob(".last.ckpt.*.partial"))
    train_until_killed(words, KillInWriting(6))
    assert state(out)["global_step"] == 3
    train(words)
    train(tiny(*more, gan=gan, out="whole"))
    assert_same(state(out), state(tmp_path / "whole"))
    for name in ("net", "best"):
        whole = tmp_path / "whole" / f"{name}.safetensors"
        found = (out / f"{name}.safetensors").read_bytes()
        assert found[-2000:] == whole.read_bytes()[-2000:]  # tensors; the header names the run


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_leads_to_the_same_end(
    tiny: Words, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
):
    words = tiny("--trainer.max_steps", "5")
    train(words)
    expected = state(tmp_path / "run")
    last = tmp_path / "run" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.unlink()
    last.write_bytes(content)
    train(words)
    assert "last.ckpt is damaged: its checksum does not fit; the one before is used" in caplog.text
    assert_same(state(tmp_path / "run"), expected)
    before = torch.load(tmp_path / "run" / "last-1.ckpt", weights_only=True)
    assert before["global_step"] == 3


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is opened, no checkpoint is written."""
    opened, write = threading.Event(), checkpoints.write

    def wait_and_write(*args: Any, **kwargs: Any) -> None:
        opened.wait(60)
        write(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "write", wait_and_write)
    yield opened
    opened.set()


def test_a_checkpoint_holds_the_step_it_was_asked_at_whatever_training_does_while_it_is_written(
    gate: threading.Event, tmp_path: Path
):
    files, last = WholeFiles(2), tmp_path / "last.ckpt"
    state = {"weights": torch.zeros(4), "loops": {"step": 1}}
    files.save_checkpoint(state, last)
    state["weights"] += 1
    state["loops"]["step"] = 2
    assert not last.exists()
    gate.set()
    files.wait()
    saved = torch.load(last, weights_only=True)
    assert saved["loops"] == {"step": 1}
    assert torch.equal(saved["weights"], torch.zeros(4))


def test_a_full_disk_is_told_when_the_next_checkpoint_is_due_and_at_the_end(small_disk: Path):
    files, state = WholeFiles(2), {"weights": torch.zeros(100_000)}
    files.save_checkpoint(state, small_disk / "last.ckpt")
    with pytest.raises(NoSpaceError, match="no room on disk"):
        files.save_checkpoint(state, small_disk / "last.ckpt")
    files.save_checkpoint(state, small_disk / "last.ckpt")
    with pytest.raises(NoSpaceError, match="no room on disk"):
        files.teardown()
    assert not list(small_disk.iterdir())


class OpenAtTheEnd(pl.Callback):
    """Lets checkpoints be written only when the last step is done."""

    def __init__(self, gate: threading.Event, last: Path) -> None:
        self.gate, self.last = gate, last
        self.written_before: bool | None = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.written_before = self.last.exists()
        self.gate.set()


def test_a_run_ends_when_its_last_checkpoint_is_written(
    gate: threading.Event, tiny: Words, tmp_path: Path, store: str
):
    opens = OpenAtTheEnd(gate, tmp_path / "run" / "last.ckpt")
    train(tiny("--run.checkpoint_every", "100"), opens)
    assert opens.written_before is False
    assert state(tmp_path / "run")["global_step"] == 7

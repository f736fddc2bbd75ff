"""What a run keeps while it goes, so that nothing is lost by a stop."""

import copy
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pipeline import checkpoints
from pipeline.agreement import AnyRank
from pipeline.checkpoints import LAST
from pipeline.going_on import NOTED, Note

TERMINATED = 143  # as the shell says of a process that SIGTERM ended


class Send(Protocol):
    """What takes a copy of a checkpoint."""

    def __call__(self, path: Path, *, step: int) -> None:
        """Takes the file as it is now."""


class WholeFiles(TorchCheckpointIO):
    """Writes every checkpoint of a trainer whole or not at all, and keeps the last few.

    Training goes on while a file is written: the state is copied first, on the device where it is,
    which the next step waits for by itself. A copy is in memory until its file has taken its place;
    the next one waits for that, and so does the end of ``fit``, however it comes. What goes wrong
    in writing is raised then, and by ``check``, which the trainer's next step calls.

    Args:
        keep: files to keep.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.send: Send | None = None
        """Called with each file and its step when it is whole: a copy may go elsewhere."""
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Called on rank zero alone.

        Raises:
            NoSpaceError: the disk was full for the checkpoint before this one.
        """
        self.wait()
        state = copy.deepcopy(checkpoint)
        self._writing = self._writer.submit(self._write, state, Path(path))

    def _write(self, state: dict[str, Any], path: Path) -> None:
        checkpoints.write(state, path, keep=self.keep)
        if self.send:
            self.send(path, step=state["global_step"])

    def wait(self) -> None:
        """Until the last checkpoint's file has taken its place.

        Raises:
            NoSpaceError: the disk is full.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Says what went wrong in writing as soon as it is known; waits for nothing.

        Raises:
            NoSpaceError: the disk is full.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def teardown(self) -> None:
        """Called by the trainer when it ends, by itself, by an error or by a signal."""
        self.wait()


class KeepLast(Checkpoint):
    """Writes the state of the run to ``last.ckpt``, every so many steps and after the last one.

    It is written inside the step's end, where the loops' counters say exactly which batch comes
    next: a later place, such as the end of ``fit``, would count an unfinished epoch as finished.
    SIGTERM, by which clusters take a machine back, is waited for there too: where one rank got it,
    all ranks write what they have and end. One that comes while a validation runs waits for its end
    and one more step: a run that goes on does not come back to a validation, whose scores would be
    missing in the curve, and ranks, whose shares differ by a picture, have no place in between at
    which all could agree.

    Args:
        folder: of the run.
        every: steps between two checkpoints.
        files: the trainer's; a full disk ends the run with the next step, not with the next
            checkpoint, so that no more work is lost than need be.
        note: of the run, which every checkpoint carries.
        resumed: the checkpoint that the run goes on from.
        asked: a file that stands for SIGTERM, where processes get no signals.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        *,
        files: WholeFiles,
        note: Note,
        resumed: Path | None = None,
        asked: Path | None = None,
    ) -> None:
        self.path, self.every, self.files = folder / LAST, every, files
        self._note = note
        self._resumed, self._asked = resumed, asked
        self._step = self._written = -1
        self._asked_to_end = False
        self._any_rank = AnyRank()

    @property
    def state_key(self) -> str:
        """Where ``going_on`` looks for the note."""
        return NOTED

    def state_dict(self) -> dict[str, Any]:
        """What ``going_on`` reads before the run goes on."""
        return asdict(self._note)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Looks whether all ranks go on from the same file, before any of them reads it.

        Raises:
            ValueError: they do not: the nodes do not share the run's folder.
        """
        if stage != "fit":
            return
        mine = checkpoints.seal(self._resumed) if self._resumed else ""
        first = trainer.strategy.broadcast(mine)
        if trainer.strategy.reduce_boolean_decision(mine != first, all=False):
            raise ValueError(
                f"rank {trainer.global_rank} of {trainer.world_size} goes on from "
                f"{self._resumed or 'the beginning'}, others from another checkpoint; "
                f"{self.path.parent.absolute()} (run.out) must lie on a disk that all nodes share"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes SIGTERM over from Lightning.

        Its handler talks to the other ranks from wherever they happen to be, which may be between
        two halves of another talk. It brings the handler of before back when ``fit`` ends.
        """
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note_signal)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Writes where it is due; batches between two steps (accumulation) are no place to stop.

        Raises:
            SystemExit: SIGTERM came, with status 143.
            NoSpaceError: the disk was full for the last checkpoint.
        """
        self.files.check()
        step, before = trainer.global_step, self._step
        if step == before and not ends(trainer):
            return  # gradients of this batch wait for those of the next
        self._step = step
        if self._asked is not None and trainer.is_global_zero:
            self._asked_to_end = self._asked.exists()
        asked = self._any_rank(self._asked_to_end)
        due = asked or step % self.every == 0 or ends(trainer)
        if due and step != self._written:
            self._write(trainer)
        if asked:
            self.files.wait()  # rank zero's
            # Where one process ends, launchers kill the others, a file in the making or not.
            trainer.strategy.barrier("the last checkpoint is whole")
            raise SystemExit(TERMINATED)

    def _write(self, trainer: pl.Trainer) -> None:
        if self._resumed and trainer.is_global_zero:
            checkpoints.restore(self._resumed)  # by now every rank has read it
        self._resumed = None
        trainer.save_checkpoint(self.path)
        self._written = trainer.global_step


def ends(trainer: pl.Trainer) -> bool:
    """Whether the run ends with this batch, by steps, by epochs or by another callback's wish."""
    last_epoch = trainer.max_epochs == trainer.current_epoch + 1
    steps = trainer.global_step >= trainer.max_steps >= 0
    return steps or trainer.should_stop or (last_epoch and trainer.is_last_batch)


def stop_file(folder: Path) -> Path:
    """What asks the run in ``folder`` to save and end, where it looks for it."""
    return folder / "stop"


def fit_or_stop(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: pl.LightningDataModule,
    *,
    checkpoint: Path | None,
) -> None:
    """``trainer.fit``, where a stop from outside looks like one.

    Raises:
        KeyboardInterrupt: Ctrl-C; Lightning would end the process as if by a mistake of ours.
        SystemExit: SIGTERM, with status 143; Lightning's own would claim success.
    """
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    except SystemExit as stop:
        if trainer.received_sigterm:  # before the first step
            raise SystemExit(TERMINATED) from stop
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise  # SIGTERM, or somebody else's wish, such as a sweep's that stops a laggard
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning switched it off
        raise KeyboardInterrupt from stop

"""The files of a run's whole state: written whole or not at all, the last few kept, damage found.

``last.ckpt`` is the newest, ``last-1.ckpt`` the one before, and so on. At every moment there is a
whole ``last.ckpt`` once there was one, whatever kills the process: taking it away is how one begins
anew.
"""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.files import NoSpaceError, atomic_file, link

LAST = "last.ckpt"
MIB = 2**20
_COMMENT = (64).to_bytes(2, "little")  # length of a SHA-256 in hexadecimal digits
_TAIL = 2 + 64


@dataclass(frozen=True)
class Found:
    """Where a run can go on.

    Attributes:
        path: the newest whole checkpoint; None in a folder that holds no run.
        damaged: what is wrong with the newer ones, by their file.
    """

    path: Path | None
    damaged: Mapping[Path, str] = field(default_factory=dict)


def newest(folder: Path) -> Found:
    """The newest whole checkpoint of the run in ``folder``; every byte is read.

    Raises:
        ValueError: all of them are damaged.
        OSError: one cannot be read.
    """
    if not (folder / LAST).exists():
        return Found(None)
    damaged: dict[Path, str] = {}
    for path in (folder / LAST, *_previous(folder)):
        said = damage(path)
        if not said:
            return Found(path, damaged)
        damaged[path] = said
    said = "; ".join(f"{path.name}: {said}" for path, said in damaged.items())
    raise ValueError(
        f"every checkpoint in {folder} is damaged ({said}); bring one back from a copy, remove "
        f"{LAST} to begin anew, or choose another --run.out"
    )


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; empty if nothing is, down to the last byte."""
    content = memoryview(path.read_bytes())
    if len(content) < _TAIL or content[-_TAIL : 2 - _TAIL] != _COMMENT:
        return "it is no checkpoint of this program, or was cut off"
    fits = content[2 - _TAIL :] == _digest(content[:-_TAIL])
    return "" if fits else "its checksum does not fit"


def seal(path: Path) -> str:
    """The checksum that a whole checkpoint carries; equal ones are the same state of a run."""
    with path.open("rb") as file:
        file.seek(2 - _TAIL, os.SEEK_END)
        return file.read().decode()


def _seal_of(archive: memoryview) -> bytes:
    """What follows torch's zip archive, but for its last two bytes: its SHA-256 as a comment.

    A zip archive ends with the length of its comment and the comment. So the checksum travels
    within the one file, takes its place with it, and torch reads the file as any other.
    """
    return _COMMENT + _digest(archive)


def _digest(content: memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def write(state: Mapping[str, Any], path: Path, *, keep: int) -> None:
    """Writes ``state`` to ``path``, whose former content becomes the first of the older ones.

    Args:
        state: of the run.
        path: ``last.ckpt``, or any other file, which then has older ones of its own.
        keep: files to keep, the new one included.

    Raises:
        NoSpaceError: the disk is full; ``path`` is as it was.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)  # straight to a file, a full disk is no OSError
    # Views are let go of on a full disk, too: Python 3.12.1 crashes when it collects those that the
    # frames of an error still hold.
    with content.getbuffer() as whole, whole[:-2] as archive, atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(archive)
            file.write(_seal_of(archive))
            os.fsync(file.fileno())
        _step_aside(path, keep=keep)


def restore(path: Path) -> None:
    """Has ``last-N.ckpt``, from which a run went on, take the place of the damaged newer ones."""
    number = _number(path)
    if not number:
        return
    last = path.with_name(LAST)
    for newer in _previous(path.parent):
        if _number(newer) < number:
            newer.unlink()
    path.replace(last)


def sweep(folder: Path) -> None:
    """Removes what a killed process left half-written in the folder of a run."""
    for path in folder.glob(".*.partial"):
        if path.is_file():
            path.unlink()


def check_space(folder: Path, model: nn.Module, *, keep: int) -> None:
    """Looks before the run whether its checkpoints will fit on the disk.

    Args:
        folder: of the run; it need not exist.
        model: whose weights, with Adam's two moments of each, are the bulk of the state.
        keep: checkpoints to keep; one more is there while it is written.

    Raises:
        NoSpaceError: they will not.
    """
    size = state_bytes(model)
    there = [path for path in (folder / LAST, *_previous(folder)) if path.exists()]
    needed = max(1, keep + 1 - len(there)) * size
    standing = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    free = shutil.disk_usage(standing).free
    if needed > free:
        raise NoSpaceError(
            errno.ENOSPC,
            f"not enough room in {folder}: {free / MIB:.1f} MiB are free, and the run needs about "
            f"{needed / MIB:.1f} MiB for checkpoints of {size / MIB:.1f} MiB ({keep} kept, one more"
            " while it is written); free some space, choose another disk with --run.out, or keep "
            "fewer with --run.keep_last",
        )


def state_bytes(model: nn.Module) -> int:
    """About how large a checkpoint of ``model`` is: its state, and Adam's."""
    state: int = sum(value.nbytes for value in model.state_dict().values())
    return state + 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)


def _previous(folder: Path) -> list[Path]:
    """The older ones, newest first."""
    return sorted((p for p in folder.glob("last-*.ckpt") if _number(p)), key=_number)


def _number(path: Path) -> int:
    """N of ``last-N.ckpt``; 0 of any other file."""
    number = path.stem.rpartition("-")[2]
    return int(number) if path.name == f"last-{number}.ckpt" and number.isdecimal() else 0


def _step_aside(last: Path, *, keep: int) -> None:
    """``last-1`` becomes ``last-2``, and ``last`` is also called ``last-1``; the oldest go."""
    older = _previous(last.parent) if last.name == LAST else []
    if not last.exists() or last.name != LAST:
        keep = 1  # older ones are of another run
    for path in reversed(older):
        if _number(path) >= keep - 1:
            path.unlink()
        else:
            path.replace(_numbered(last, _number(path) + 1))
    if keep > 1:
        link(last, _numbered(last, 1))


def _numbered(last: Path, number: int) -> Path:
    return last.with_name(f"last-{number}.ckpt")

"""Writing files so that nothing half-written ever takes the place of a good one."""

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class NoSpaceError(OSError):
    """The disk filled up while something was written; what stood there before is untouched."""

    def __str__(self) -> str:
        return str(self.strerror)  # without the number, which says nothing to people


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Hands out a temporary path beside ``path`` that takes its place when the block ends well.

    The block writes the whole file; on any error the temporary file goes and ``path`` stays as it
    was.

    Raises:
        NoSpaceError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with full_disk_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(value: object, *, indent: int | None = 1) -> str:
    """JSON for people and their programs.

    What is infinite or not a number becomes null: JSON has neither, and most readers refuse what
    Python would write for them.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def link(path: Path, name: Path) -> None:
    """A second name for a file, which stays when the first is replaced.

    Where the disk knows no second names, or the name is taken, a copy takes its place whole.
    """
    try:
        name.hardlink_to(path.resolve())
    except OSError:
        with atomic_file(name) as temporary:
            shutil.copyfile(path, temporary)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Hands out a temporary folder beside ``path`` that takes its place when the block ends well.

    Args:
        path: the folder to make; an existing one is only replaced with ``overwrite``.
        overwrite: replace what is there, after the new folder is complete.

    Raises:
        FileExistsError: ``path`` has content and ``overwrite`` is off, or is no folder.
        ValueError: ``path`` is a mount point, which no folder can take the place of.
        NoSpaceError: the disk is full.
    """
    _check_place(path, overwrite=overwrite)
    place = path.resolve()  # of a link, the folder that it points to is replaced
    with full_disk_named(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent)
    temporary = Path(made)
    temporary.chmod(0o755)
    try:
        with full_disk_named(path):
            yield temporary
        _swap(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_place(path: Path, *, overwrite: bool) -> None:
    """Says before the work what would stop its result from taking its place after it."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another name for the folder")
    if path.exists() and not overwrite and any(path.iterdir()):
        raise FileExistsError(
            f"{path} exists and is not empty; choose another folder, or replace it with "
            "--overwrite true"
        )
    if path.resolve().is_mount():
        raise ValueError(f"{path} is a mount point; write to a folder in it, such as {path}/new")


def _swap(new: Path, place: Path) -> None:
    """Moves the old folder aside before the new one comes in: a crash between leaves both whole."""
    if not place.exists():
        new.rename(place)
        return
    aside = place.with_name(f".{place.name}.{os.getpid()}.old")
    place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def full_disk_named(path: Path, *, hidden_in: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Says in words that the disk filled up while ``path`` was written.

    Args:
        path: that is written.
        hidden_in: errors by which a library tells of the system's.

    Raises:
        NoSpaceError: it did.
    """
    telling: tuple[type[Exception], ...] = (OSError, *hidden_in)
    try:
        yield
    except telling as error:
        if isinstance(error, NoSpaceError) or not _tells_full_disk(error):
            raise
        raise NoSpaceError(
            errno.ENOSPC,
            f"no room on disk while writing {path}{_free(path)}; what was there before is "
            "unchanged: free some space, or write to another disk, and run the command again",
        ) from error


def _tells_full_disk(error: BaseException | None) -> bool:
    """Whether an error is the system's refusal to write more, or came of it."""
    if error is None:
        return False
    if isinstance(error, shutil.Error):  # a folder's copy has collected what was wrong, as words
        return any(f"[Errno {number}]" in str(error) for number in FULL)
    full = isinstance(error, OSError) and error.errno in FULL
    return full or _tells_full_disk(error.__cause__ or error.__context__)


def _free(path: Path) -> str:
    standing = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if standing is None:
        return ""
    return f" ({shutil.disk_usage(standing).free / 2**20:.0f} MiB free there)"

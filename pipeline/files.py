"""Writing files so that nothing half-written ever takes the place of a good one."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class NoSpaceError(OSError):
    """The disk filled up while something was written; what stood there before is untouched."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Hands out a temporary path beside ``path`` that takes its place when the block ends well.

    The block writes the whole file; on any error the temporary file goes and ``path`` stays as it was.

    Raises:
        NoSpaceError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _full_disk_named(path):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Hands out a temporary folder beside ``path`` that takes its place when the block ends well.

    Args:
        path: the folder to make; an existing one is only replaced with ``overwrite``.
        overwrite: replace what is there, after the new folder is complete.

    Raises:
        FileExistsError: ``path`` has content and ``overwrite`` is off.
        NoSpaceError: the disk is full.
    """
    if path.exists() and not overwrite and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(
            f"{path} exists and is not empty; choose another folder, or replace it with --overwrite true"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    temporary.chmod(0o755)
    try:
        with _full_disk_named(path):
            yield temporary
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Moves the old folder aside before the new one comes in: a crash between leaves both whole."""
    aside = place.with_name(f".{place.name}.{os.getpid()}.old")
    if place.exists():
        place.rename(aside)
    new.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise NoSpaceError(
            error.errno,
            f"no room on disk while writing {path} ({free / 2**20:.0f} MiB free there); what was there "
            "before is unchanged: free some space, or write to another disk, and run the command again",
        ) from error

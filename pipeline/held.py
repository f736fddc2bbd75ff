"""Folders that one process at a time works in.

The lock is the kernel's: it ends with the process that held it, however that ended, and processes
forked from it lack it.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

LOCK = ".lock"
WAIT_S = 20.0
"""For a process of the same run to end: one that was killed may live on for seconds."""
TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def held(folder: Path, work: str, *, wait_s: float = WAIT_S) -> Iterator[None]:
    """Holds a folder, which is made where it is missing, as long as the block runs.

    Args:
        folder: to work in.
        work: what is done there, such as "trains", for people.
        wait_s: seconds for another process to end.

    Raises:
        BlockingIOError: another process holds it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, f"{work} in {folder}", wait_s=wait_s):
        yield


def locked(path: Path, work: str, *, wait_s: float) -> IO[bytes]:
    """The lock on a file, held until that is closed.

    On a disk that knows no locks the work goes on without, and it is said.

    Raises:
        BlockingIOError: another process has it.
    """
    file = path.open("a+b", buffering=0)
    deadline, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN:
                logger.warning(
                    "%s cannot be locked (%s): take care that no other process %s",
                    path, error.strerror, work,
                )  # fmt: skip
                return file
            if time.monotonic() >= deadline:
                holder = _holder(file)
                file.close()
                raise BlockingIOError(
                    f"another process{holder} {work}; wait for it to end, or choose another folder"
                ) from None
            if not told:
                logger.warning(
                    "another process%s %s; waiting %.0f s for it to end",
                    _holder(file), work, wait_s,
                )  # fmt: skip
            told = True
            time.sleep(0.1)
        else:
            _sign(file)
            return file


def _sign(file: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}".encode())


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    signed = file.read(200).decode(errors="replace")
    return f" ({signed})" if signed else ""

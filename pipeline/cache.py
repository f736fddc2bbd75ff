"""Shards from the network, kept on disk within a bound, shared by all processes of a machine.

A shard is kept under the sha256 of its content, so it is found again whatever its address, and a
shard that was written anew is another one. Who downloads a shard holds a lock on the unfinished
file; others that want it wait. Locks are the kernel's: they end with the process that held them.
"""

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.files import FULL
from pipeline.index import Opener, Shard
from pipeline.transfer import CHUNK, is_remote

logger = logging.getLogger(__name__)

GIB = 2**30


class Cache:
    """Opens shards; those from the network through copies on disk.

    Args:
        folder: made where it is missing.
        limit: bytes that all copies together may take, unfinished ones included.
        fetch: opens what is not in the folder.
    """

    def __init__(self, folder: Path, *, limit: int, fetch: Opener) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.limit, self.fetch = folder, limit, fetch
        self._checked: dict[str, tuple[int, int, int]] = {}
        self._said_full = False

    def open(self, place: str, shard: Shard) -> IO[bytes]:
        """The shard, from its copy where there is a good one.

        Where no room can be made for a copy, it is read from the network alone.

        Raises:
            ValueError: what the place holds is not what the index says.
            OSError: as ``fetch``.
        """
        if not is_remote(place):
            return self.fetch(place, shard)
        copy = self.folder / f"{shard.sha256}.tar"
        return self._kept(copy, shard) or self._fetched(place, shard, copy)

    def _kept(self, copy: Path, shard: Shard) -> IO[bytes] | None:
        try:
            opened = copy.open("rb")
        except FileNotFoundError:
            return None
        if not self._is_whole(opened, shard):
            logger.warning("the copy %s is damaged; it is fetched again", copy)
            opened.close()
            copy.unlink(missing_ok=True)
            return None
        # The time of access says what was used last; a disk mounted noatime does not keep it.
        os.utime(opened.fileno(), ns=(time.time_ns(), os.fstat(opened.fileno()).st_mtime_ns))
        return opened

    def _is_whole(self, opened: io.BufferedReader, shard: Shard) -> bool:
        """Whether a copy has its checksum; computed once per process and file."""
        stat = os.fstat(opened.fileno())
        identity = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._checked.get(shard.sha256) == identity:
            return True
        if stat.st_size != shard.bytes:
            return False
        whole = hashlib.file_digest(opened, "sha256").hexdigest() == shard.sha256
        opened.seek(0)
        if whole:
            self._checked[shard.sha256] = identity
        return whole

    def _fetched(self, place: str, shard: Shard, copy: Path) -> IO[bytes]:
        unfinished = copy.with_suffix(".partial")
        with _locked(unfinished) as file:
            try:
                # Another process may have finished it while this one waited.
                return self._kept(copy, shard) or self._filled(place, shard, file, copy)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                self._say_full(str(error))
                return self.fetch(place, shard)
            finally:
                if _is_at(file, unfinished):  # it was not finished
                    unfinished.unlink()

    def _filled(self, place: str, shard: Shard, file: IO[bytes], copy: Path) -> IO[bytes]:
        if not self._reserve(file, shard.bytes):
            return self.fetch(place, shard)
        self._download(place, shard, file)
        unfinished = copy.with_suffix(".partial")
        opened = unfinished.open("rb")  # before others see it, and may delete it to make room
        unfinished.replace(copy)
        return opened

    def _download(self, place: str, shard: Shard, file: IO[bytes]) -> None:
        digest = hashlib.sha256()
        with self.fetch(place, shard) as source:
            while got := source.read(CHUNK):
                digest.update(got)
                file.write(got)
        file.flush()
        if digest.hexdigest() != shard.sha256:
            raise ValueError(
                f"{place} has not the checksum of its index.json; copy shards and index there again"
            )

    def _reserve(self, file: IO[bytes], size: int) -> bool:
        """Makes room for ``size`` bytes and takes it at once, so that no other process does."""
        with _locked(self.folder / "lock"):
            own = os.fstat(file.fileno()).st_ino
            self._drop_abandoned(own)
            files = [stat for stat in _stats(self.folder) if stat[0].st_ino != own]
            used = sum(stat.st_size for stat, _ in files)
            copies = [(stat, path) for stat, path in files if path.suffix == ".tar"]
            for stat, path in sorted(copies, key=lambda found: found[0].st_atime_ns):
                if used + size <= self.limit:
                    break
                path.unlink(missing_ok=True)  # who reads it keeps it until it is closed
                used -= stat.st_size
            if used + size > self.limit:
                self._say_full(f"{self.limit / GIB:.3g} GiB are taken by unfinished copies")
                return False
            file.truncate(size)
            return True

    def _drop_abandoned(self, own: int) -> None:
        """Unfinished copies that nobody holds are left from processes that were killed."""
        for stat, path in _stats(self.folder):
            if path.suffix != ".partial" or stat.st_ino == own:
                continue
            with contextlib.suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def _say_full(self, why: str) -> None:
        if not self._said_full:
            logger.warning("no room in %s (%s); reading from the network", self.folder, why)
        self._said_full = True


def _stats(folder: Path) -> list[tuple[os.stat_result, Path]]:
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # other processes delete here too
            found.append((path.stat(), path))
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that no other process holds; waits for one that does."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                yield file
                return


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the file is still the one at ``path``: who held it may have renamed or deleted it."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False

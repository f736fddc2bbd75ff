"""The journal of a run: everything it tells, appended to a file before anything is sent.

    FOLDER/run.json        which run this is, and its id once the store knows it
    FOLDER/records.jsonl   one entry a line, only ever appended to
    FOLDER/sent.json       how far the store has it, and the last step of every metric
    FOLDER/files/          pictures and files on their way

A process that is killed leaves a journal that another one sends: nothing is only in memory.
"""

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pipeline.files import NoSpaceError, atomic_file, full_disk_named, link
from pipeline.held import LOCK, WAIT_S, locked

HEAD, RECORDS, SENT, FILES = "run.json", "records.jsonl", "sent.json", "files"
CHUNK = 2**20
"""Bytes of entries that are read at once."""
LONG = 64 * 2**20
"""Bytes from which on a journal that was sent whole begins again at nothing."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """Which run a journal is of.

    Attributes:
        uri: of the store, without credentials.
        experiment: by name.
        name: what people see.
        tags: set when the run is made.
        parent: id of the run above it; of one that the store does not know yet, its ``offline`` id.
        started: milliseconds since 1970.
        key: tells the run apart before the store has given it an id.
        experiment_id: given by the store; empty until then.
        run_id: likewise.
    """

    uri: str
    experiment: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    started: int = field(default_factory=lambda: int(time.time() * 1000))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    experiment_id: str = ""
    run_id: str = ""


class Journal:
    """An open journal; one process at a time has it.

    Args:
        folder: of the journal, which exists.

    Raises:
        BlockingIOError: another process records there.
        ValueError: ``folder`` holds no journal.
    """

    def __init__(self, folder: Path, *, wait_s: float = WAIT_S) -> None:
        self.folder = folder
        self.head = _read_head(folder)
        self._lock = locked(folder / LOCK, f"records the run in {folder}", wait_s=wait_s)
        self._mutex = threading.Lock()
        sent = _read_sent(folder)
        self._offset: int = sent["offset"]
        self.steps: dict[str, int] = sent["steps"]
        """The last step of every metric."""
        self.ended: str = sent["ended"]
        """How the run ended, if the last entry says that it is over."""
        self._file = (folder / RECORDS).open("ab", buffering=0)
        self._file.truncate(_whole(folder / RECORDS))
        self._size = self._file.seek(0, os.SEEK_END)
        self._files = max((int(p.name) for p in (folder / FILES).iterdir()), default=0)
        for entry, _ in self._entries(self._offset, self._size):
            self._note(entry)
        self.before = dict(self.steps)
        """The last step of every metric before this process took over."""

    @classmethod
    def create(cls, folder: Path, head: Head) -> Self:
        """Begins the journal of a new run; one that stands there must have been sent."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in (RECORDS, SENT):
            (folder / old).unlink(missing_ok=True)
        shutil.rmtree(folder / FILES, ignore_errors=True)
        (folder / FILES).mkdir()
        (folder / RECORDS).touch()
        _write_json(folder / HEAD, asdict(head))
        return cls(folder)

    @property
    def waiting(self) -> int:
        """Bytes that the store does not have."""
        return self._size - self._offset

    def name_run(self, experiment_id: str, run_id: str) -> None:
        """Notes the ids that the store has given; a full disk leaves them to be asked for again."""
        self.head = replace(self.head, experiment_id=experiment_id, run_id=run_id)
        with contextlib.suppress(NoSpaceError):
            _write_json(self.folder / HEAD, asdict(self.head))

    def append(self, entry: Mapping[str, Any], *, in_life: bool = False) -> None:
        """Adds one entry; it is on disk when this returns, whatever becomes of the process.

        Args:
            entry: to add.
            in_life: of a run that has ended it is none of the business, and is left out.

        Raises:
            NoSpaceError: the disk is full; nothing was added.
        """
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._mutex:
            if in_life and self.ended:
                return
            with full_disk_named(self.folder / RECORDS):
                self._write_line(line)
            self._size += len(line)
            self._note(entry)

    def _write_line(self, line: bytes) -> None:
        """All of it or nothing: where a disk fills up, a write may take the first half only."""
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._size)
            raise

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """A path of that name in a new folder of its own, to write a file that is to be sent.

        Raises:
            NoSpaceError: the disk is full; the folder is gone.
        """
        with self._mutex:
            self._files += 1
            folder = self.folder / FILES / str(self._files)
        try:
            with full_disk_named(folder / name):
                folder.mkdir()
                yield folder / name
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def keep(self, path: Path) -> str:
        """Takes a file, or folder, as it is now; returns what ``file`` finds it by."""
        with self.place(path.name) as kept:
            if path.is_dir():
                shutil.copytree(path, kept, copy_function=_linked)
            else:
                link(path, kept)
        return self.ticket(kept)

    def ticket(self, path: Path) -> str:
        """What ``file`` finds a path below the journal by."""
        return path.relative_to(self.folder).as_posix()

    def file(self, ticket: str) -> Path:
        """The file that an entry speaks of."""
        return self.folder / ticket

    def unsent(self) -> list[tuple[Entry, int]]:
        """The next entries, about a mebibyte of them, and where in the file each ends."""
        return list(self._entries(self._offset, min(self._size, self._offset + CHUNK)))

    def acknowledge(self, end: int, entries: list[Entry]) -> None:
        """Notes that the store has everything up to ``end``, and removes the files sent."""
        with self._mutex:
            self._offset = end
            begin_anew = end == self._size >= LONG
            if not self._write_sent(0 if begin_anew else end):
                return
            if begin_anew:
                self._file.truncate(0)
                self._offset = self._size = 0
        for ticket in (entry["file"] for entry in entries if "file" in entry):
            shutil.rmtree(self.file(ticket).parent, ignore_errors=True)

    def close(self) -> None:
        """Gives the journal back."""
        self._file.close()
        self._lock.close()

    def discard(self) -> None:
        """Removes the journal of a run that ended and that the store has whole.

        Journals of runs nested in it, which may still wait, stay.
        """
        self.close()
        shutil.rmtree(self.folder / FILES, ignore_errors=True)
        for name in (RECORDS, SENT, LOCK, HEAD):
            (self.folder / name).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write_sent(self, offset: int) -> bool:
        """False where the disk is full: like after a power cut, a later process sends it again."""
        sent = {"offset": offset, "steps": self.steps, "ended": self.ended}
        try:
            with full_disk_named(self.folder / SENT):
                _write_json(self.folder / SENT, sent, durable=False)
        except NoSpaceError:
            return False
        return True

    def _note(self, entry: Mapping[str, Any]) -> None:
        self.ended = entry.get("end", "")
        step = entry.get("step", 0)
        for key in entry.get("metrics", ()):
            self.steps[key] = max(step, self.steps.get(key, step))

    def _entries(self, start: int, end: int) -> Iterator[tuple[Entry, int]]:
        with (self.folder / RECORDS).open("rb") as file:
            file.seek(start)
            while start < end:
                line = file.readline()
                start += len(line)
                yield json.loads(line), start


def find_journals(folders: list[Path]) -> list[Path]:
    """Folders of journals at or below ``folders``, parents before what is nested in them."""
    found = {
        head.parent.resolve()
        for folder in folders
        for head in folder.rglob(HEAD)
        if (head.parent / RECORDS).exists()
    }
    return sorted(found, key=lambda folder: (_read_head(folder).started, folder))


def has_journal(folder: Path) -> bool:
    """Whether a run has its journal in ``folder``."""
    return (folder / HEAD).exists() and (folder / RECORDS).exists()


def _read_head(folder: Path) -> Head:
    try:
        return Head(**json.loads((folder / HEAD).read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds no journal of a run ({error})") from error


def _read_sent(folder: Path) -> dict[str, Any]:
    path = folder / SENT
    sent: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    offset = min(sent.get("offset", 0), (folder / RECORDS).stat().st_size)
    return {"offset": offset, "steps": sent.get("steps", {}), "ended": sent.get("ended", "")}


def _whole(path: Path) -> int:
    """Length up to the last whole line: a killed process may have written half of one."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - CHUNK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _linked(path: str, name: str) -> None:
    link(Path(path), Path(name))


def _write_json(path: Path, value: object, *, durable: bool = True) -> None:
    if durable:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(value))
        return
    # Lost in a power cut, it costs sending some entries again; waiting for the disk costs more.
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)

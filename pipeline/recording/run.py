"""A run as the rest of the project sees it: what it tells goes to its journal at once."""

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from torch import Tensor

from pipeline.addresses import public_uri, without_credentials
from pipeline.files import NoSpaceError, link
from pipeline.pictures import to_uint8, write_picture
from pipeline.recording import store
from pipeline.recording.delivery import THIS_RUN
from pipeline.recording.journal import Journal
from pipeline.recording.registry import Card
from pipeline.recording.sender import Sender
from pipeline.recording.store import AwayError, RefusedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Value = str | int | float | bool | None
MAX_PARAM = 6000  # characters; the stores refuse longer values
DESCRIPTION = "mlflow.note.content"
TRANSIENT = ("srdet-unsent", "below")
"""Folders of journals that go when all is sent: of runs without a folder, and of those nested."""


@dataclass(frozen=True)
class Data:
    """Pictures that a run takes in.

    Attributes:
        name: for people.
        digest: of what they are; at most 36 characters are kept.
        source: folder or address.
        context: "training", "validation" or "evaluation".
        profile: what else is known, such as counts.
    """

    name: str
    digest: str
    source: str
    context: str
    profile: str = ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as flat dotted parameters."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = without_credentials(str(value))[:MAX_PARAM]
    return flat


@dataclass(frozen=True)
class Run:
    """An MLflow run. In the process that opened it, every method writes to its journal at once.

    A copy in another process, such as a sweep's trial has of its parent, names it and no more.
    """

    uri: str = field(repr=False)  # may hold a password
    _experiment: str
    _id: str
    _sender: Sender | None = field(default=None, repr=False, compare=False)

    @property
    def experiment_id(self) -> str:
        """In MLflow's numbering."""
        return (self._sender.journal.head.experiment_id if self._sender else "") or self._experiment

    @property
    def run_id(self) -> str:
        """In the store; begins with ``offline-`` as long as that has not made the run."""
        return (self._sender.journal.head.run_id if self._sender else "") or self._id

    def __reduce__(self) -> tuple[type["Run"], tuple[str, str, str]]:
        return Run, (self.uri, self.experiment_id, self.run_id)

    @property
    def journal(self) -> Journal:
        """Where the run is written down."""
        assert self._sender is not None, "only the process that opened a run writes to it"
        return self._sender.journal

    @property
    def client(self) -> Any:  # noqa: ANN401 (mlflow is imported on first use)
        """The MLflow client of this run's store."""
        return store.client(self.uri)

    def params(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as flat parameters; what a resumed run already has stays."""
        self._write({"params": flatten(settings)})

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Logs one point of each metric.

        A resumed run passes through steps that it had reached before it was stopped: what is
        written down of a step stays, so that no curve turns back.
        """
        before = self.journal.before
        told = {_plain(key): float(value) for key, value in values.items()}
        new = {key: value for key, value in told.items() if step > before.get(key, step - 1)}
        if new:
            self._write({"metrics": new, "step": step, "time": now()})

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        self._write({"tags": clean(tags)})

    def describe(self, markdown: str) -> None:
        """Sets the text shown on the run's page; ``shown`` puts pictures into it."""
        self.tags({DESCRIPTION: markdown})

    def picture(self, key: str, picture: Tensor, *, step: int) -> None:
        """Logs a ``(3, H, W)`` picture that the UI's image grid shows along the steps."""
        with self.journal.place("picture.npy") as place:
            np.save(place, to_uint8(picture).permute(1, 2, 0).cpu().numpy())
        told = {"picture": key, "step": step, "time": now(), "file": self.journal.ticket(place)}
        self._write(told)

    def sheet(self, picture: Tensor, name: str) -> None:
        """Stores a ``(3, H, W)`` picture as a PNG artifact; one of that name gives way to it."""
        with self._artifact(name) as place:
            write_picture(picture, place)

    def figure(self, figure: "Figure", name: str) -> None:
        """Logs a plot as a PNG artifact."""
        with self._artifact(name) as place:
            figure.savefig(place)

    def table(self, rows: Sequence[Mapping[str, Value]], name: str) -> None:
        """Logs rows of equal keys as a table that the UI shows."""
        columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        self._write({"table": name, "rows": columns})

    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copies a file, or what is in a folder, into the run."""
        self._write({"artifact": folder or "", "file": self.journal.keep(path)})

    def text(self, text: str, name: str) -> None:
        """Stores a text as an artifact, without the passwords of addresses in it."""
        with self._artifact(name) as place:
            place.write_text(without_credentials(text))

    @contextlib.contextmanager
    def _artifact(self, name: str) -> Iterator[Path]:
        """Where to write a file that becomes the artifact of that name, in its folders."""
        folder, _, file = name.rpartition("/")
        with self.journal.place(file) as place:
            yield place
        self._write({"artifact": folder, "file": self.journal.ticket(place)})

    def inputs(self, data: Sequence[Data]) -> None:
        """Names the pictures that the run takes in."""
        self._write({"inputs": [_input(each) for each in data]})

    def checkpoint(self, path: Path, *, step: int, keep: int) -> None:
        """Copies a checkpoint into the run, whose artifacts keep the last ``keep`` of them."""
        for folder in list(self.journal.folder.glob("files/*")):
            with contextlib.suppress(FileNotFoundError):  # sent just now, and removed
                for older in folder.glob(f"step-*{path.suffix}"):
                    older.unlink(missing_ok=True)  # it has waited too long to be worth sending
        with self.journal.place(f"step-{step:09d}{path.suffix}") as place:
            link(path, place)
        told = {"checkpoint": "checkpoints", "keep": keep, "file": self.journal.ticket(place)}
        self._write(told)

    def model(self, packed: Path, card: Card) -> None:
        """Stores a packed model (``packing.py``) as one of the run's, and registers it."""
        self._write({"model": asdict(card), "file": self.journal.keep(packed)})

    def history(self, metric: str) -> list[tuple[int, float]]:
        """All points of a metric as step and value, by step; of several at a step the last one.

        Empty where the store does not answer.
        """
        if self._sender is not None:
            self._sender.drain()
        try:
            with store.explained(self.uri, f"the points of {metric}"):
                points = self.client.get_metric_history(self.stored_id, metric)
        except AwayError as error:
            logger.warning("%s", error)
            return []
        last = {p.step: p.value for p in sorted(points, key=lambda p: p.timestamp)}
        return sorted(last.items())

    @property
    def stored_id(self) -> str:
        """``run_id``, for which a store that answers is waited for."""
        if self._sender is not None:
            self._sender.until_made()
        return self.run_id

    def close(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED; waits for the store, if it answers."""
        assert self._sender is not None
        journal = self.journal
        with contextlib.suppress(NoSpaceError):  # which has ended the run already
            journal.append({"end": status, "time": now()})
        sent = self._sender.drain()
        self._sender.stop()
        if self._sender.refused is not None:  # as it was told when the run was to be made
            journal.discard()
            return
        if sent and not journal.ended:
            self._end(status)
        if not sent:
            logger.warning(
                "MLflow at %s has not got all of run '%s'; the rest waits in %s and is sent with: "
                "srdet tracking sync --folders %s",
                public_uri(self.uri), journal.head.name, journal.folder, journal.folder,
            )  # fmt: skip
        leave(journal)

    def _end(self, status: str) -> None:
        """Tells the store itself how the run ended, for which the journal had no room."""
        with contextlib.suppress(AwayError, RefusedError), store.explained(self.uri, "the end"):
            self.client.set_terminated(self.stored_id, status)

    def _write(self, entry: Mapping[str, Any]) -> None:
        """Puts it into the journal.

        Raises:
            RefusedError: the store has said no to the run itself, when that was to be made.
        """
        if self._sender is not None and self._sender.refused is not None:
            raise self._sender.refused
        self.journal.append(entry)


def shown(name: str) -> str:
    """Markdown that shows a picture of the run's artifacts, for its own ``describe``."""
    return f"![{name}](get-artifact?path={quote(name)}&run_uuid={THIS_RUN})"


def _plain(metric: str) -> str:
    """A name without the signs that MLflow refuses in one."""
    return re.sub(r"[^\w\-. :/]", "_", metric)


def now() -> int:
    """Milliseconds since 1970, MLflow's time."""
    return int(time.time() * 1000)


def clean(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags whose addresses have lost their passwords."""
    return {key: without_credentials(value) for key, value in tags.items()}


def _input(data: Data) -> dict[str, str]:
    """As MLflow describes a dataset."""
    source = without_credentials(data.source)
    kind, key = ("http", "url") if re.match("https?:", source) else ("local", "uri")
    if match := re.match(r"(s3|gs)://", source):
        kind, key = match[1], "uri"
    if kind == "local":
        source = str(Path(source).resolve())
    told = {"name": data.name, "digest": data.digest[:36], "source_type": kind}
    where = {"source": json.dumps({key: source}), "profile": data.profile}
    return {**told, **where, "context": data.context}


def leave(journal: Journal) -> None:
    """Closes a journal; one that is of no more use goes."""
    if journal.waiting or journal.folder.parent.name not in TRANSIENT:
        journal.close()
        return
    journal.discard()
    folder = journal.folder
    while folder.parent.name in TRANSIENT and not folder.exists():
        if any(folder.parent.iterdir()):
            break
        folder.parent.rmdir()
        folder = folder.parents[1]  # whose own journal may have gone before this one
        if folder.parent.name in TRANSIENT and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

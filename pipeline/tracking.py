"""MLflow as the rest of the project sees it: runs, and what they tell.

    srdet tracking sync --folders runs/          sends what a server that was away has not got
    srdet tracking promote --model srdet-esrgan --version 3

The store is ``MLFLOW_TRACKING_URI`` where it is set, else a sqlite file ``mlflow.db`` in the
working folder. Runs are addressed by their id, never through MLflow's global "active run", so that
several may be open at once and nest as the work does.

Everything that a run tells goes to its journal on disk first and from there, by a thread, to the
store (``recording/``): a store that is slow, away or full costs the run nothing, and gets it all
later.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.addresses import (
    answers,
    default_uri,
    open_command,
    public_uri,
    without_credentials,
)
from pipeline.options import run_function
from pipeline.origin import origin
from pipeline.progress import console
from pipeline.recording import store
from pipeline.recording.delivery import OFFLINE, Delivery, store_of
from pipeline.recording.journal import Head, Journal, has_journal
from pipeline.recording.registry import Card
from pipeline.recording.registry import promote as make_champion
from pipeline.recording.resend import resend, sync
from pipeline.recording.run import DESCRIPTION, TRANSIENT, Data, Run, clean, flatten, shown
from pipeline.recording.sender import HEAD_START_S, Sender
from pipeline.recording.store import AwayError, RefusedError

__all__ = [
    "Card", "Data", "Run", "check_store", "close_children", "default_uri", "ending", "flatten",
    "open_command", "public_uri", "shown", "start", "start_in", "sync",
]  # fmt: skip

logger = logging.getLogger(__name__)

CLOSING_S = 10.0
"""For processes that are about to end to close their own runs."""
RECORD = "record"
"""Folder of a run's journal, in the run's folder."""


@contextlib.contextmanager
def start(
    experiment: str,
    name: str,
    *,
    uri: str | None = None,
    parent: Run | None = None,
    tags: Mapping[str, str] | None = None,
    description: str = "",
) -> Iterator[Run]:
    """Opens a run and closes it as FINISHED, FAILED or KILLED, whichever came.

    Args:
        experiment: made where it does not exist.
        name: what people see in the list.
        uri: the store; the default one where it is None.
        parent: the run under which this one is shown; it goes on without the store if need be.
        tags: besides commit, host and user, which every run has.
        description: Markdown shown on the run's page.

    Raises:
        ConnectionError: the server does not answer, there is no parent, and nobody chose to go on
            offline.
        ValueError: the experiment was deleted.
    """
    uri = uri or store_under(parent)
    head = _head(experiment, name, uri, parent=parent, tags=tags, description=description)
    place = Path(TRANSIENT[0]).resolve() / head.key
    if parent is not None and parent._sender is not None:
        place = parent.journal.folder / TRANSIENT[1] / head.key
    with _closing(_begin(place, head, uri, alone=parent is None)) as run:
        yield run


@contextlib.contextmanager
def start_in(
    folder: Path,
    experiment: str,
    name: str,
    *,
    parent: Run | None,
    tags: Mapping[str, str],
    resumed: bool,
    at_once: bool = True,
) -> Iterator[Run]:
    """``start`` for work that lives in ``folder``: a resumed one goes on in the run it began in.

    Without ``at_once``, a store in a file makes the run while the work goes on already, and where
    it refuses to, the run says so when it is next told something.

    Raises:
        ConnectionError: as ``start``; a resumed run never needs the store.
        BlockingIOError: another process is at work in ``folder``.
    """
    place = folder.resolve() / RECORD
    run = _go_on(place) if resumed and has_journal(place) else None
    if run is None:
        uri = store_under(parent)
        tags = {**tags, "folder": str(folder.resolve())}
        head = _head(experiment, name, uri, parent=parent, tags=tags)
        _keep_unsent(place)
        if at_once or not uri.startswith(store.SQLITE):
            run = _begin(place, head, uri, alone=parent is None)
        else:
            run = _begin_beside(place, head, uri)
    with _closing(run):
        yield run


def ending(folder: Path) -> str:
    """How the run that lives in ``folder`` ended, in MLflow's word; empty where it has not.

    Raises:
        BlockingIOError: another process is at work in ``folder``.
    """
    place = folder.resolve() / RECORD
    if not has_journal(place):
        return ""
    with contextlib.closing(Journal(place)) as journal:
        return journal.ended


def store_under(parent: Run | None) -> str:
    """The address of the store that a run under ``parent`` is in."""
    return parent.uri if parent else default_uri()


def _head(
    experiment: str,
    name: str,
    uri: str,
    *,
    parent: Run | None,
    tags: Mapping[str, str] | None,
    description: str = "",
) -> Head:
    told = {**origin(), **(tags or {})} | ({DESCRIPTION: description} if description else {})
    above = parent.stored_id if parent else None
    return Head(without_credentials(uri), experiment, name, clean(told), above)


def _begin(place: Path, head: Head, uri: str, *, alone: bool) -> Run:
    """A new run, which the store makes now, or later where that was chosen or a parent goes on."""
    journal = Journal.create(place, head)
    try:
        _make(Delivery(journal, uri), alone=alone)
    except (AwayError, RefusedError):
        journal.discard()
        raise
    head = journal.head
    return Run(uri, head.experiment_id, head.run_id or OFFLINE + head.key, Sender(journal, uri))


def check_store(uri: str) -> None:
    """Whether a store is there, unless it was chosen to go on without it.

    Raises:
        ConnectionError: it is not.
    """
    if not os.environ.get("SRDET_OFFLINE") and not answers(uri):
        raise AwayError(f"{_away(uri)}. {_CHOICE}")


_CHOICE = (
    "Start it; or go on offline with SRDET_OFFLINE=1, and send the records later with `srdet "
    "tracking sync`; or unset MLFLOW_TRACKING_URI to record into a file mlflow.db here"
)


def _away(uri: str) -> str:
    return f"the MLflow server {public_uri(uri)} does not answer"


def _begin_beside(place: Path, head: Head, uri: str) -> Run:
    """A new run that the store makes later: nothing is further away than the disk."""
    journal = Journal.create(place, head)
    return Run(uri, "", OFFLINE + head.key, Sender(journal, uri, head_start_s=HEAD_START_S))


def _make(delivery: Delivery, *, alone: bool) -> None:
    if os.environ.get("SRDET_OFFLINE"):
        return
    try:
        if not answers(delivery.uri):
            raise AwayError(_away(delivery.uri))
        delivery.open_run()
    except AwayError as error:
        if alone:
            raise type(error)(f"{error}. {_CHOICE}") from None
        logger.warning("%s; '%s' goes on without it", error, delivery.journal.head.name)


def _go_on(place: Path) -> Run | None:
    """The run of a journal, open again; None where its store has lost it."""
    journal = Journal(place)
    uri = store_of(journal)
    try:
        if not answers(uri):
            raise AwayError(_away(uri))
        Delivery(journal, uri).open_run(resumed=True)
    except AwayError as error:
        logger.warning("%s; the run goes on, its records wait in %s", error, place)
    except RefusedError as error:
        logger.warning("%s; starting a new one", error)
        journal.close()
        return None
    head = journal.head
    return Run(uri, head.experiment_id, head.run_id or OFFLINE + head.key, Sender(journal, uri))


def _keep_unsent(place: Path) -> None:
    """Moves the journal of a former run aside if its store lacks a part of it."""
    if has_journal(place):
        old = Journal(place)
        old.close()
        if old.waiting:
            place.rename(place.with_name(f"{RECORD}-{old.head.key[:8]}"))


@contextlib.contextmanager
def _closing(run: Run) -> Iterator[Run]:
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.close(status)


def close_children(run: Run) -> int:
    """Closes what is still open below ``run`` as KILLED, and says how many runs that were.

    A process that is ended from outside, as a sweep ends its laggards, cannot close its own run,
    nor send the last second of it.
    """
    below = f"tags.`mlflow.parentRunId` = '{run.stored_id}' and attributes.status = 'RUNNING'"
    until = time.monotonic() + CLOSING_S
    try:
        with store.explained(run.uri, "the runs below"):
            left = run.client.search_runs([run.experiment_id], below)
            for child in left:
                place = Path(child.data.tags.get("folder", "")) / RECORD
                if has_journal(place):
                    left_s = max(0.0, until - time.monotonic())
                    sent = resend(place, run.uri, wait_s=left_s, tell=logger.info)
                    if sent is not None:
                        continue
                run.client.set_terminated(child.info.run_id, "KILLED")
    except AwayError as error:
        logger.warning("%s; runs below '%s' may stay open", error, run.run_id)
        return 0
    return len(left)


def main(words: list[str]) -> int:
    """The command: ``sync`` or ``promote``; 1 where something still waits."""
    verbs: dict[str, Callable[..., int | None]] = {"sync": sync, "promote": promote}
    if words[:1] and words[0] in verbs:
        left = run_function(verbs[words[0]], words[1:], name=f"tracking {words[0]}")
        return 1 if left else 0
    if words and words[0] not in ("-h", "--help"):
        raise ValueError(f"tracking '{words[0]}' is unknown; choose from {', '.join(verbs)}")
    sys.stdout.write((__doc__ or "").split("The store is")[0].rstrip() + "\n")
    return 0


def promote(model: str, version: str) -> None:
    """Makes a version of a registered model its champion.

    Args:
        model: its name, such as srdet-esrgan.
        version: its number.
    """
    make_champion(default_uri(), model, version)
    console.print(f"models:/{model}@champion is version {version}", highlight=False)

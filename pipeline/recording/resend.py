"""Sending what a run could not send itself: the server was away, or the run was killed."""

from collections.abc import Callable
from pathlib import Path

from pipeline.progress import console
from pipeline.recording.delivery import Delivery, store_of
from pipeline.recording.journal import Journal, find_journals
from pipeline.recording.run import leave, now
from pipeline.recording.store import AwayError, RefusedError


def sync(folders: list[Path] = [Path()], *, uri: str | None = None) -> int:  # noqa: B006
    """Sends what a server that was away has not got of the runs in these folders.

    Args:
        folders: of runs, or folders above them.
        uri: where to, of runs that were begun offline; MLFLOW_TRACKING_URI without it.

    Returns:
        How many runs still wait.
    """
    places = find_journals(folders)
    if not places:
        console.print(f"no runs in {', '.join(map(str, folders))}", highlight=False)
    waiting = 0
    for place in places:
        sent = resend(place, uri)
        waiting += sent is None
    if places and not waiting:
        console.print(f"every record of {len(places)} runs is where it belongs", highlight=False)
    return waiting


def say(line: str) -> None:
    """One line to the person."""
    console.print(line, highlight=False, soft_wrap=True)


def resend(
    place: Path, uri: str | None, *, wait_s: float = 0.0, tell: Callable[[str], None] = say
) -> int | None:
    """Sends a journal that no process writes; how many entries, or None if some still wait.

    Args:
        place: the journal's folder.
        uri: where to, of a run that was begun offline.
        wait_s: seconds for a process that still writes it to end.
        tell: is given a line for people.
    """
    try:
        journal = Journal(place, wait_s=wait_s)
    except BlockingIOError:
        tell(f"{place}: in use; its own run sends it")
        return 0
    name, sent = journal.head.name, 0
    begun = bool(journal.head.run_id)
    delivery = Delivery(journal, store_of(journal) if begun or uri is None else uri)
    try:
        if not journal.ended:
            journal.append({"end": "KILLED", "time": now()})
        while count := delivery.pass_on():
            sent += count
    except (AwayError, RefusedError) as error:
        tell(f"{name}: {error}")
        journal.close()
        return None
    if sent:
        tell(f"{name}: {sent} records sent")
    leave(journal)
    return sent

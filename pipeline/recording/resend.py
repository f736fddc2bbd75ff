"""Sending what a run could not send itself: the server was away, or the run was killed."""

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


def resend(place: Path, uri: str | None) -> int | None:
    """Sends a journal that no process writes; how many entries, or None if some still wait."""
    try:
        journal = Journal(place, wait_s=0)
    except BlockingIOError:
        console.print(f"{place}: in use; its own run sends it", highlight=False, soft_wrap=True)
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
        console.print(f"{name}: {error}", highlight=False, soft_wrap=True)
        journal.close()
        return None
    if sent:
        console.print(f"{name}: {sent} records sent", highlight=False)
    leave(journal)
    return sent

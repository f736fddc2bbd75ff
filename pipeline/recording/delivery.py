"""Passing a journal on to MLflow, in order, so that a repeated entry changes nothing.

A point of a metric carries the time at which it was measured, and the store keeps one of equal
points: what was sent, but not noted as sent before a crash, is sent again without harm.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.addresses import default_uri, without_credentials
from pipeline.recording.journal import Entry, Journal
from pipeline.recording.registry import pass_model_on
from pipeline.recording.store import (
    AwayError,
    LoginError,
    RefusedError,
    client,
    experiment,
    explained,
)

logger = logging.getLogger(__name__)

OFFLINE = "offline-"
"""Begins the id of a run, or of the run above it, that the store has not made yet."""
KEY = "srdet.key"
"""Tag by which a run is found that was begun without the store."""
THIS_RUN = "{this run}"
"""Stands for the run's id in a tag that is written before the store has given one."""
POINTS, PAIRS = 1000, 100
"""Metrics, and parameters or tags, that MLflow takes in one call."""
TRIES = 6
"""Of a file, while the store answers otherwise; then the rest goes on without it."""


class Delivery:
    """Sends the entries of one journal.

    Args:
        journal: of the run.
        uri: of the store, with credentials.
    """

    def __init__(self, journal: Journal, uri: str) -> None:
        self.journal, self.uri = journal, uri
        self._failed: tuple[int, int] = (0, 0)  # end of the entry that could not be sent, times

    def open_run(self, *, resumed: bool = False) -> None:
        """Has the store make the run, or mark it as running again.

        Raises:
            AwayError: the store does not answer.
            RefusedError: it does not know the run, or refuses its experiment.
        """
        head = self.journal.head
        if head.run_id:
            if resumed:
                with explained(self.uri, f"run '{head.name}'"):
                    client(self.uri).update_run(head.run_id, status="RUNNING")
            return
        experiment_id = experiment(self.uri, head.experiment)
        with explained(self.uri, f"run '{head.name}'"):
            tags = {**head.tags, KEY: head.key, **self._parent_tag()}
            known = self._find(head.key, [experiment_id])  # made before a crash, not noted
            run_id = known or client(self.uri).create_run(
                experiment_id, start_time=head.started, tags=tags, run_name=head.name
            ).info.run_id  # fmt: skip
        self.journal.name_run(experiment_id, run_id)

    def _parent_tag(self) -> dict[str, str]:
        parent = self.journal.head.parent
        if not parent:
            return {}
        if parent.startswith(OFFLINE):
            everywhere = [e.experiment_id for e in client(self.uri).search_experiments()]
            found = self._find(parent.removeprefix(OFFLINE), everywhere)
            if found is None:
                raise AwayError(f"the run above '{self.journal.head.name}' has not been sent yet")
            parent = found
        return {"mlflow.parentRunId": parent}

    def _find(self, key: str, experiments: Sequence[str]) -> str | None:
        runs = client(self.uri).search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def pass_on(self) -> int:
        """Sends the next entries, about a mebibyte; how many there were.

        Raises:
            AwayError: the store does not answer; what it took before is noted.
        """
        if not self.journal.waiting:
            return 0
        self.open_run()
        unsent = self.journal.unsent()
        for entries, end in batches(unsent):
            try:
                with explained(self.uri, _name(entries)):
                    self._send(entries)
            except RefusedError as error:
                logger.error("not recorded: %s", error)
            except AwayError as error:
                self._give_up_or_raise(entries, end, error)
            self.journal.acknowledge(end, entries)
        return len(unsent)

    def _give_up_or_raise(self, entries: list[Entry], end: int, error: AwayError) -> None:
        """A file store that is broken does not keep metrics from a database that is not."""
        place, times = self._failed
        self._failed = (end, times + 1 if place == end else 1)
        beside = "file" in entries[0] and not isinstance(error, LoginError)
        if not beside or self._failed[1] < TRIES:
            raise error
        self._touch()
        logger.error("not recorded after %d tries: %s", TRIES, error)

    def _touch(self) -> None:
        with explained(self.uri, "a question"):
            client(self.uri).get_run(self.journal.head.run_id)

    def _send(self, entries: list[Entry]) -> None:
        if "metrics" in entries[0]:
            self._metrics(entries)
            return
        (entry,) = entries
        kind = next(kind for kind in _KINDS if kind in entry)
        getattr(self, f"_{kind}")(entry)

    def _metrics(self, entries: list[Entry]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(key, value, entry["time"], entry["step"])
            for entry in entries
            for key, value in entry["metrics"].items()
        ]
        for start in range(0, len(points), POINTS):
            self._batch(metrics=points[start : start + POINTS])

    def _params(self, entry: Entry) -> None:
        from mlflow.entities import Param

        # A value cannot be changed: what a resumed run was begun with stays.
        known = client(self.uri).get_run(self._run_id).data.params
        new = [Param(key, value) for key, value in entry["params"].items() if key not in known]
        for start in range(0, len(new), PAIRS):
            self._batch(params=new[start : start + PAIRS])

    def _tags(self, entry: Entry) -> None:
        from mlflow.entities import RunTag

        named = {key: value.replace(THIS_RUN, self._run_id) for key, value in entry["tags"].items()}
        tags = [RunTag(key, value) for key, value in named.items()]
        for start in range(0, len(tags), PAIRS):
            self._batch(tags=tags[start : start + PAIRS])

    def _picture(self, entry: Entry) -> None:
        array = np.load(self.journal.file(entry["file"]))
        client(self.uri).log_image(
            self._run_id, array, key=entry["picture"], step=entry["step"], timestamp=entry["time"]
        )

    def _artifact(self, entry: Entry) -> None:
        path, folder = self.journal.file(entry["file"]), entry["artifact"] or None
        store = client(self.uri)
        if path.is_dir():
            store.log_artifacts(self._run_id, str(path), folder)
        else:
            store.log_artifact(self._run_id, str(path), folder)

    def _checkpoint(self, entry: Entry) -> None:
        """Uploads a checkpoint, and removes those before the last few."""
        path = self.journal.file(entry["file"])
        if not path.exists():
            return  # a newer one came before this was sent
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        store = client(self.uri)
        folder: str = entry["checkpoint"]
        store.log_artifact(self._run_id, str(path), folder)
        there = sorted(store.list_artifacts(self._run_id, folder), key=lambda item: item.path)
        uri = store.get_run(self._run_id).info.artifact_uri
        artifacts = get_artifact_repository(uri, tracking_uri=self.uri)
        for item in there[: -entry["keep"]]:
            artifacts.delete_artifacts(item.path)

    def _table(self, entry: Entry) -> None:
        client(self.uri).log_table(self._run_id, entry["rows"], entry["table"])

    def _inputs(self, entry: Entry) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(**{key: value for key, value in told.items() if key != "context"}),
                [InputTag("mlflow.data.context", told["context"])],
            )
            for told in entry["inputs"]
        ]
        client(self.uri).log_inputs(self._run_id, inputs)

    def _model(self, entry: Entry) -> None:
        folder = self.journal.file(entry["file"])
        pass_model_on(client(self.uri), self.journal.head, folder, entry["model"])

    def _end(self, entry: Entry) -> None:
        client(self.uri).set_terminated(self._run_id, entry["end"], entry["time"])

    def _batch(self, **what: Any) -> None:  # noqa: ANN401
        client(self.uri).log_batch(self._run_id, **what)

    @property
    def _run_id(self) -> str:
        return self.journal.head.run_id


_KINDS = ("params", "tags", "picture", "artifact", "checkpoint", "table", "inputs", "model", "end")


def batches(entries: Sequence[tuple[Entry, int]]) -> Iterator[tuple[list[Entry], int]]:
    """Metrics that follow one another together, everything else alone; and where each ends."""
    for together, group in groupby(entries, key=lambda pair: "metrics" in pair[0]):
        if together:
            found = list(group)
            yield [entry for entry, _ in found], found[-1][1]
        else:
            yield from (([entry], end) for entry, end in group)


def _name(entries: list[Entry]) -> str:
    """What an error calls it."""
    entry = entries[0]
    if "metrics" in entry:
        return f"metrics of step {entry['step']}"
    kind = next(kind for kind in _KINDS if kind in entry)
    detail = entry[kind] if isinstance(entry[kind], str) else ""
    if "file" in entry:
        detail = entry["file"].rpartition("/")[2]
    return f"{kind} {detail}".strip()


def store_of(journal: Journal) -> str:
    """The address of a journal's store, with what the environment knows of its credentials."""
    named = default_uri()
    return named if without_credentials(named) == journal.head.uri else journal.head.uri

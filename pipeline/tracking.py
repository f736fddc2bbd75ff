"""MLflow, and the only door to it: runs, parameters, metrics, pictures, tables, files.

The store is ``MLFLOW_TRACKING_URI`` where it is set, else a sqlite file ``mlflow.db`` in the
working folder. Runs are addressed by their id, never through MLflow's global "active run", so that
several may be open at once and nest as the work does. A server that stops answering costs the
record, never the run: what it does not take is dropped with a warning.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pipeline.addresses import (
    answers,
    default_uri,
    is_server,
    open_command,
    public_uri,
    without_credentials,
)
from pipeline.files import atomic_file
from pipeline.origin import origin
from pipeline.pictures import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Run", "default_uri", "open_command", "public_uri", "start", "start_in"]

logger = logging.getLogger(__name__)

Value = str | int | float | bool | None
NOTE = "run.json"
MAX_PARAM = 6000  # characters; the stores refuse longer values
PAUSE_S = 60.0  # how long a server that did not answer is left alone
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # some seconds; MLflow's own 7 hold a run for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print passwords
}

_silent_until: dict[str, float] = {}
"""When to try again a server that did not answer, in seconds of the monotonic clock."""


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
    """An open MLflow run; every method writes to the store."""

    uri: str = field(repr=False)  # may hold a password
    experiment_id: str
    run_id: str

    @property
    def client(self) -> Any:  # noqa: ANN401 (mlflow is imported on first use)
        """The MLflow client of this run's store."""
        return _client(self.uri)

    def params(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as flat parameters; what a resumed run already has stays."""
        self._send("parameters", lambda: self._log_params(flatten(settings)))

    def _log_params(self, flat: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in flat.items() if key not in known]
        for start in range(0, len(new), 100):  # the store takes at most 100 a call
            self.client.log_batch(self.run_id, params=new[start : start + 100])

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Logs metrics in one call."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._send("metrics", lambda: self.client.log_batch(self.run_id, metrics=entities))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags in one call."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in tags.items()]
        self._send("tags", lambda: self.client.log_batch(self.run_id, tags=entities))

    def picture(self, key: str, picture: Tensor, *, step: int) -> None:
        """Logs a ``(3, H, W)`` picture that the UI's image grid shows along the steps."""
        array = to_uint8(picture).permute(1, 2, 0).cpu().numpy()
        self._send(key, lambda: self.client.log_image(self.run_id, array, key=key, step=step))

    def figure(self, figure: "Figure", name: str) -> None:
        """Logs a plot as a PNG artifact."""
        self._send(name, lambda: self.client.log_figure(self.run_id, figure, name))

    def table(self, rows: Sequence[Mapping[str, Value]], name: str) -> None:
        """Logs rows of equal keys as a table that the UI shows."""
        columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        self._send(name, lambda: self.client.log_table(self.run_id, columns, name))

    def history(self, metric: str) -> list[tuple[int, float]]:
        """All points of a metric as step and value, by step; of several at a step the last one."""
        points = self.client.get_metric_history(self.run_id, metric)
        last = {p.step: p.value for p in sorted(points, key=lambda p: p.timestamp)}
        return sorted(last.items())

    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copies a file into the run."""
        self._send(path.name, lambda: self.client.log_artifact(self.run_id, str(path), folder))

    def text(self, text: str, name: str) -> None:
        """Stores a text as an artifact."""
        self._send(name, lambda: self.client.log_text(self.run_id, text, name))

    def close(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED."""
        _silent_until.pop(self.uri, None)  # once more, or it would seem to run for ever
        self._send("the end", lambda: self.client.set_terminated(self.run_id, status))

    def _send(self, what: str, call: Callable[[], object]) -> None:
        """Calls the store; one that does not answer is told, and left alone for a while."""
        if time.monotonic() < _silent_until.get(self.uri, 0):
            return
        try:
            call()
        except (_mlflow_error(), OSError) as error:
            if not _silence(self.uri, error):
                raise
            _silent_until[self.uri] = time.monotonic() + PAUSE_S
            logger.warning(
                "MLflow at %s does not answer, %s is not recorded; the run goes on and tries again "
                "after %.0f s", public_uri(self.uri), what, PAUSE_S,
            )  # fmt: skip


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
        parent: the run under which this one is shown.
        tags: besides commit, host and user, which every run has.
        description: Markdown shown on the run's page.

    Raises:
        ConnectionError: the server does not answer.
    """
    uri = uri or (parent.uri if parent else default_uri())
    if not answers(uri):
        raise ConnectionError(
            f"the MLflow server {public_uri(uri)} does not answer; start it, or unset "
            "MLFLOW_TRACKING_URI to record into a file mlflow.db here"
        )
    run = _create(uri, experiment, name, parent=parent, tags={**origin(), **(tags or {})})
    if description:
        run.tags({"mlflow.note.content": description})
    with _closing(run):
        yield run


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

    A process that is ended from outside, as a sweep ends its laggards, cannot close its own run.
    """
    below = f"tags.`mlflow.parentRunId` = '{run.run_id}' and attributes.status = 'RUNNING'"
    left = run.client.search_runs([run.experiment_id], below)
    for child in left:
        run.client.set_terminated(child.info.run_id, "KILLED")
    return len(left)


def _create(
    uri: str, experiment: str, name: str, *, parent: Run | None, tags: Mapping[str, str]
) -> Run:
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else _new_experiment(uri, experiment)
    nested = {"mlflow.parentRunId": parent.run_id} if parent else {}
    created = client.create_run(experiment_id, tags={**tags, **nested}, run_name=name)
    return Run(uri, experiment_id, created.info.run_id)


def _new_experiment(uri: str, name: str) -> str:
    """A sqlite store keeps its artifacts beside itself, wherever the command was started."""
    place = None
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).resolve().parent
        place = (folder / "mlartifacts").as_uri()
    experiment_id: str = _client(uri).create_experiment(name, artifact_location=place)
    return experiment_id


def _client(uri: str) -> Any:  # noqa: ANN401
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # The first sqlite store is made by some sixty migrations, each a log line.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _mlflow_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    error: type[Exception] = MlflowException
    return error


def _silence(uri: str, error: Exception) -> bool:
    """Whether an error means that a server does not answer, rather than that it refuses."""
    from mlflow.exceptions import RestException

    return is_server(uri) and not isinstance(error, RestException | FileNotFoundError)


@contextlib.contextmanager
def start_in(
    folder: Path,
    experiment: str,
    name: str,
    *,
    parent: Run | None,
    tags: Mapping[str, str],
    resumed: bool,
) -> Iterator[Run]:
    """``start`` for work that lives in ``folder``: a resumed one goes on in the run it began in.

    Where the server does not answer, the work is recorded in ``folder`` instead.
    """
    noted = folder / NOTE
    known = _known(noted) if resumed and noted.exists() else None
    if known is not None:
        with _closing(known) as run:
            yield run
        return
    uri = parent.uri if parent else default_uri()
    if not answers(uri):
        logger.warning("MLflow at %s does not answer; recording in %s", public_uri(uri), folder)
        uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    with start(experiment, name, uri=uri, parent=parent, tags=tags) as run:
        with atomic_file(noted) as temporary:
            note = {"uri": without_credentials(uri), "experiment_id": run.experiment_id}
            temporary.write_text(json.dumps({**note, "run_id": run.run_id}))
        yield run


def _known(noted: Path) -> Run | None:
    """The noted run, open again; None where its store has lost it or does not answer."""
    note = json.loads(noted.read_text())
    named = default_uri()  # the note leaves the password to the environment
    same = without_credentials(named) == note["uri"]
    run = Run(**{**note, "uri": named if same else note["uri"]})
    if not answers(run.uri):
        return None
    try:
        run.client.update_run(run.run_id, status="RUNNING")
    except _mlflow_error() as error:
        logger.warning(
            "run %s is not in %s (%s); starting a new one", run.run_id, note["uri"], error
        )
        return None
    return run

"""MLflow, and the only door to it: runs, parameters, metrics, pictures, tables, files.

The store is ``MLFLOW_TRACKING_URI`` where it is set, else a sqlite file ``mlflow.db`` in the working
folder. Runs are addressed by their id, never through MLflow's global "active run", so that several may be
open at once and nest as the work does.
"""

import contextlib
import getpass
import json
import logging
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from torch import Tensor

from pipeline.files import atomic_file
from pipeline.pictures import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = str | int | float | bool | None
MAX_PARAM = 6000  # characters; the stores refuse longer values


def default_uri(folder: Path | None = None) -> str:
    """The store of this process: the environment's, else a sqlite file in ``folder``."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{(folder or Path.cwd()).resolve() / 'mlflow.db'}"


def public_uri(uri: str) -> str:
    """The address without user and password, fit to be printed and logged."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))


def open_command(uri: str) -> str:
    """The one command, or address, that shows the store in a browser."""
    if uri.startswith(("http://", "https://")):
        return f"open {public_uri(uri)} in a browser"
    return f"mlflow ui --backend-store-uri {uri} --port 5000"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as flat dotted parameters."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)[:MAX_PARAM]
    return flat


@dataclass(frozen=True)
class Run:
    """An open MLflow run; every method writes to the store."""

    uri: str
    experiment_id: str
    run_id: str

    @property
    def client(self) -> Any:  # noqa: ANN401 (mlflow is imported on first use)
        """The MLflow client of this run's store."""
        return _client(self.uri)

    def params(self, settings: Mapping[str, Any]) -> None:
        """Logs nested settings as flat parameters; what a resumed run already has stays."""
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        new = [Param(k, v) for k, v in flatten(settings).items() if k not in known]
        for start in range(0, len(new), 100):  # the store takes at most 100 a call
            self.client.log_batch(self.run_id, params=new[start : start + 100])

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Logs metrics in one call."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(key, float(value), now, step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=entities)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags in one call."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def picture(self, key: str, picture: Tensor, *, step: int) -> None:
        """Logs a ``(3, H, W)`` picture that the UI's image grid shows along the steps."""
        array = to_uint8(picture).permute(1, 2, 0).cpu().numpy()
        self.client.log_image(self.run_id, array, key=key, step=step)

    def figure(self, figure: "Figure", name: str) -> None:
        """Logs a plot as a PNG artifact."""
        self.client.log_figure(self.run_id, figure, name)

    def table(self, rows: Sequence[Mapping[str, Value]], name: str) -> None:
        """Logs rows of equal keys as a table that the UI shows."""
        columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
        self.client.log_table(self.run_id, columns, name)

    def history(self, metric: str) -> list[tuple[int, float]]:
        """All points of a metric as step and value, by step; the last one where a step has several."""
        points = self.client.get_metric_history(self.run_id, metric)
        last = {p.step: p.value for p in sorted(points, key=lambda p: p.timestamp)}
        return sorted(last.items())

    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copies a file into the run."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Stores a text as an artifact."""
        self.client.log_text(self.run_id, text, name)


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
    """
    uri = uri or (parent.uri if parent else default_uri())
    run = _create(uri, experiment, name, parent=parent, tags={**_origin(), **(tags or {})})
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
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.client.set_terminated(run.run_id, status)


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
    # The first sqlite store is made by some sixty migrations, each a log line.
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _origin() -> dict[str, str]:
    """Which code, which machine, who."""
    origin = {"host": socket.gethostname(), "mlflow.user": getpass.getuser()}
    here = Path(__file__).parent
    commit = _git("rev-parse", "HEAD", folder=here)
    if commit:
        origin["git.commit"] = commit
        origin["git.dirty"] = str(bool(_git("status", "--porcelain", folder=here))).lower()
    return origin


def _git(*words: str, folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


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
    """``start`` for work that lives in ``folder``: a resumed one goes on in the run it began in."""
    noted = folder / "run.json"
    if resumed and noted.exists():
        known = Run(**json.loads(noted.read_text()))
        known.client.update_run(known.run_id, status="RUNNING")
        with _closing(known) as run:
            yield run
        return
    with start(experiment, name, parent=parent, tags=tags) as run:
        with atomic_file(noted) as temporary:
            temporary.write_text(json.dumps(asdict(run)))
        yield run

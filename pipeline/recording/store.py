"""MLflow's stores: a client for each, made without races, and what their errors mean."""

import contextlib
import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.addresses import is_server, public_uri, without_credentials

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the journal tries again; MLflow's 7 last for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print passwords
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
SQLITE = "sqlite:///"
BUSY_S = 60
"""How long a writer of a sqlite store waits for the others."""

_AWAY = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED",
         "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "INVALID_STATE")  # fmt: skip
_UNKNOWN_USER = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")
_LATER = (401, 403, 408, 429)
"""HTTP answers of 400 and more after which trying again makes sense."""

_CAUSE = re.compile(
    r"(?<=\] )Connection refused|timed out|Name or service not known|error code \d+"
)
"""What of a page about a failed request people want to know."""

_made: set[str] = set()
"""Stores that this process knows to be complete."""

_importing = threading.RLock()
"""Held while a thread imports MLflow, or what MLflow imports to open a sqlite store: a process that
is forked meanwhile, such as a data reader, would find modules half imported for ever."""
os.register_at_fork(
    before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release
)


class AwayError(ConnectionError):
    """The store does not answer, or is too busy to: what was to be sent can be sent later."""


class LoginError(AwayError, PermissionError):
    """The store does not accept who asks."""


class RefusedError(ValueError):
    """The store has answered, and never will take this."""


def quiet() -> None:
    """Settles how MLflow behaves in this process, before it is imported for the first time."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The first sqlite store is made by some sixty migrations, each a log line; and a database that
    # is busy is no news, as what it did not take is sent again.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def client(uri: str) -> Any:  # noqa: ANN401 (mlflow is imported on first use)
    """The MLflow client of a store; a sqlite file is made by one process, the others wait."""
    quiet()
    with _importing:
        from mlflow import MlflowClient

    patient = _patient(uri)
    if uri.startswith(SQLITE) and uri not in _made:
        with _importing, _alone(sqlite_file(uri)):
            made = MlflowClient(tracking_uri=patient, registry_uri=patient)
            made.search_experiments(max_results=1)
        _made.add(uri)
    return MlflowClient(tracking_uri=patient, registry_uri=patient)


def sqlite_file(uri: str) -> Path:
    """The file of a sqlite store."""
    return Path(uri.removeprefix(SQLITE).split("?")[0]).resolve()


def _patient(uri: str) -> str:
    """Without a word, sqlite gives up after five seconds of other writers."""
    lacks = uri.startswith(SQLITE) and "timeout=" not in uri
    return f"{uri}{'&' if '?' in uri else '?'}timeout={BUSY_S}" if lacks else uri


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time: several that make a new store at once break each other's tables."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def experiment(uri: str, name: str) -> str:
    """The id of an experiment, made where there is none.

    Raises:
        RefusedError: it was deleted, and its name is not free.
    """
    with explained(uri, f"experiment '{name}'"):
        found = client(uri).get_experiment_by_name(name)
        if found is None:
            found = _make_experiment(uri, name)
    if found.lifecycle_stage != "active":
        raise RefusedError(
            f"experiment '{name}' in {public_uri(uri)} was deleted; bring it back with `mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`, or name another one"
        )
    experiment_id: str = found.experiment_id
    return experiment_id


def _make_experiment(uri: str, name: str) -> Any:  # noqa: ANN401
    from mlflow.exceptions import MlflowException

    # A sqlite store keeps its artifacts beside itself, wherever the command was started.
    place = None
    if uri.startswith(SQLITE):
        place = (sqlite_file(uri).parent / "mlartifacts").as_uri()
    store = client(uri)
    # Without a kind, the UI takes an experiment for one of chat agents.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    try:
        store.create_experiment(name, artifact_location=place, tags=tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
            raise
    return store.get_experiment_by_name(name)


@contextlib.contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """Turns whatever a store's client raises into one of three errors without any password.

    Raises:
        AwayError: it does not answer now.
        LoginError: it does not accept the credentials.
        RefusedError: it says no to this.
    """
    try:
        yield
    except (AwayError, RefusedError):
        raise
    # Each artifact store raises what its own client library raises, which has no common class.
    except Exception as error:
        raise _told(uri, what, error) from None  # whose text may hold the address, password and all


def _told(uri: str, what: str, error: Exception) -> Exception:
    said = without_credentials(str(error)).strip()
    cause = _CAUSE.search(said)
    said = cause[0] if cause else said.split("\n")[0][:300]
    where = public_uri(uri)
    code = getattr(error, "error_code", "")
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if code in _UNKNOWN_USER or status in (401, 403):
        return LoginError(
            f"MLflow at {where} does not accept the credentials for {what}; set them in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in MLFLOW_TRACKING_TOKEN"
        )
    refused = code and code not in _AWAY
    refused = refused or (400 <= status < 500 and status not in _LATER)
    if refused or isinstance(error, FileNotFoundError):
        return RefusedError(f"MLflow at {where} refuses {what}: {said}")
    kind = "does not answer" if is_server(uri) else "cannot be used now"
    return AwayError(f"MLflow at {where} {kind}: {said}")

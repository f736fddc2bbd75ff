"""Addresses of MLflow stores: the default one, and how to show one without its password."""

import os
import re
import shlex
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


def default_uri(folder: Path | None = None) -> str:
    """The store of this process: the environment's, else a sqlite file in ``folder``."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{(folder or Path.cwd()).resolve() / 'mlflow.db'}"


def public_uri(uri: str) -> str:
    """The address without user, password and query, fit to be printed and logged."""
    return without_credentials(uri).split("?")[0]


def without_credentials(text: str) -> str:
    """A text whose addresses have lost their ``user:password@`` and the secrets of their query."""
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return _SECRET.sub(r"\1...", text)


_SECRET = re.compile(
    r"([?&;](?:[\w-]*(?:password|passwd|pwd|secret|token|signature|credential|key)|sig)=)[^&\s\"']+",
    re.IGNORECASE,
)
"""A value in the query of an address that lets its reader in, as signed ones have."""


def open_command(uri: str) -> str:
    """The one command, or address, that shows the store in a browser.

    It names this Python, so that it works in a shell in which no environment is active.
    """
    if is_server(uri):
        return f"open {public_uri(uri)} in a browser"
    python = shlex.quote(sys.executable)
    return f"{python} -m mlflow ui --backend-store-uri {shlex.quote(public_uri(uri))} --port 5000"


def runs_page(uri: str, experiment_id: str) -> str:
    """The address of an experiment's runs, once its store is shown.

    Without the word about its kind, MLflow opens every experiment as one of chat agents.
    """
    base = public_uri(uri).rstrip("/") if is_server(uri) else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def run_page(experiment_id: str, run_id: str) -> str:
    """A run's page, as texts link to it that are themselves shown by MLflow."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def is_server(uri: str) -> bool:
    """Whether a store is reached over http(s) rather than in a file."""
    return uri.startswith(("http://", "https://"))


def answers(uri: str) -> bool:
    """Whether a server, or the machine of a database, is there; always true of a file."""
    if not is_server(uri):
        return _reachable(uri)
    try:
        with urllib.request.urlopen(f"{public_uri(uri).rstrip('/')}/health", timeout=10):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _reachable(uri: str) -> bool:
    """Whether something listens where a database is said to be; MLflow itself asks for minutes."""
    parts = urllib.parse.urlsplit(uri)
    if not parts.hostname:
        return True
    port = parts.port or (5432 if parts.scheme.startswith("postgres") else 3306)
    try:
        with socket.create_connection((parts.hostname, port), timeout=5):
            return True
    except OSError:
        return False

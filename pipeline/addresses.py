"""Addresses of MLflow stores: the default one, and how to show one without its password."""

import os
import re
import shlex
import sys
import urllib.error
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
    """A text whose addresses have lost their ``user:password@``."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def open_command(uri: str) -> str:
    """The one command, or address, that shows the store in a browser.

    It names this Python, so that it works in a shell in which no environment is active.
    """
    if is_server(uri):
        return f"open {public_uri(uri)} in a browser"
    python = shlex.quote(sys.executable)
    return f"{python} -m mlflow ui --backend-store-uri {shlex.quote(public_uri(uri))} --port 5000"


def is_server(uri: str) -> bool:
    """Whether a store is reached over http(s) rather than in a file."""
    return uri.startswith(("http://", "https://"))


def answers(uri: str) -> bool:
    """Whether a server is there; always true of a store in a file."""
    if not is_server(uri):
        return True
    try:
        with urllib.request.urlopen(f"{public_uri(uri).rstrip('/')}/health", timeout=10):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False

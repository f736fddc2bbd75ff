"""Where a run comes from: which code, which machine, who."""

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

COMMAND = "SRDET_COMMAND"
"""Environment variable of processes that another program starts for a command, such as Ray's."""


def origin() -> dict[str, str]:
    """Which code, which machine, who."""
    origin = {
        "host": socket.gethostname(),
        "mlflow.user": _user(),
        "mlflow.source.name": command(),
        "mlflow.source.type": "LOCAL",
    }
    here = Path(__file__).parent
    commit = _git("rev-parse", "HEAD", folder=here)
    if commit:
        origin["git.commit"] = origin["mlflow.source.git.commit"] = commit
        origin["git.dirty"] = str(bool(_git("status", "--porcelain", folder=here))).lower()
    return origin


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run as numbers without a name
        return str(os.getuid())


def command() -> str:
    """The command and its first word, such as "srdet train"; of a worker, that which started it."""
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    words = [Path(sys.argv[0]).name or "python"]
    words += [word for word in sys.argv[1:2] if word.isalpha()]
    return " ".join(words)


def _git(*words: str, folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

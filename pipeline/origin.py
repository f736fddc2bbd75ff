"""Where a run comes from: which code, which machine, who."""

import getpass
import socket
import subprocess
from pathlib import Path


def origin() -> dict[str, str]:
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

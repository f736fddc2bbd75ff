"""A way to take a server away for a while, and a real PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Road:
    """The way to a server: it can be closed, or slow. The server itself knows nothing of it.

    Attributes:
        open: while it is not, nobody listens at its port.
        delay_s: of every connection.
    """

    def __init__(self, to: int, port: int) -> None:
        self.to, self.port, self.delay_s = to, port, 0.0
        self._listening: socket.socket | None = None
        self._pairs: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(64)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def close(self) -> None:
        if self._listening is not None:
            # shutdown wakes the thread that waits in accept, which close alone does not
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        time.sleep(self.delay_s)
        far = socket.create_connection(("127.0.0.1", self.to))
        self._pairs += [near, far]
        threading.Thread(target=_pump, args=(far, near), daemon=True).start()
        _pump(near, far)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def road_to(free_port: Callable[[], int]) -> Iterator[Callable[[int], Road]]:
    """Makes roads to ports; all are closed at the end."""
    made: list[Road] = []

    def make(port: int) -> Road:
        made.append(Road(port, free_port()))
        return made[-1]

    yield make
    for road in made:
        road.close()


@pytest.fixture(scope="session")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one server process for the session: starting one takes seconds."""
    with serving(tmp_path_factory.mktemp("server")) as served:
        yield served.port


@pytest.fixture(scope="session")
def postgres(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[str]:
    """The address of a PostgreSQL of our own, which refuses to run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("no PostgreSQL here: apt install postgresql")
    pytest.importorskip("psycopg2", reason="MLflow reaches PostgreSQL through psycopg2")
    programs = found[-1].parent if found else Path(str(on_path)).parent
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    user = _other_user(folder)
    _run([programs / "initdb", "-D", folder / "data", "-U", "mlflow", "-A", "trust"], user)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
    _run([*control, "-o", options, "start"], user)
    try:
        yield f"postgresql+psycopg2://mlflow:secret@127.0.0.1:{port}/postgres"
    finally:
        _run([*control, "-m", "immediate", "stop"], user)


def _other_user(folder: Path) -> str | None:
    """Somebody else than root, who is let into the folder; None where this is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    shutil.chown(folder, name)
    for above in folder.parents:
        if above.stat().st_uid == 0 and len(above.parts) > 2:
            above.chmod(above.stat().st_mode | 0o011)
    return name


def _run(words: list[object], user: str | None) -> None:
    subprocess.run(
        [str(word) for word in words], user=user, check=True, cwd="/", stdout=subprocess.DEVNULL
    )

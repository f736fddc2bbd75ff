"""Small real things that the tests of this room share: shards, a store, the words of a tiny run."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.pictures import write_picture
from pipeline.shards import shards as write_shards


def smooth_picture(seed: int, side: int = 96) -> Image.Image:
    """Soft blobs: between two pixels there is something to learn."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


BoxedPictures = Callable[..., Path]


@pytest.fixture
def boxed_pictures() -> BoxedPictures:
    """Writes ``count`` pictures of noise with one box each, and returns their COCO file."""

    def write(folder: Path, *, count: int, side: int, category: dict, box: list[int]) -> Path:
        generator = torch.Generator().manual_seed(0)
        images, annotations = [], []
        for image in range(1, count + 1):
            picture = torch.randint(0, 255, (3, side, side), generator=generator, dtype=torch.uint8)
            write_picture(picture, folder / "images" / f"{image}.png")
            images.append({"id": image, "file_name": f"{image}.png", "width": side, "height": side})
            annotations.append(
                {"id": image, "image_id": image, "category_id": category["id"], "bbox": box}
            )
        coco = {"images": images, "annotations": annotations, "categories": [category]}
        (folder / "coco.json").write_text(json.dumps(coco))
        return folder / "coco.json"

    return write


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of eight pictures, in 48-pixel pieces: seven to train on, one to validate with."""
    root = tmp_path_factory.mktemp("data")
    pictures = root / "pictures"
    pictures.mkdir()
    for seed in range(8):
        smooth_picture(seed).save(pictures / f"{seed}.png")
    write_shards([pictures], root / "shards", cut=48, step=48, val=0.1, source="made by the tests")
    return root / "shards"


@pytest.fixture(scope="session")
def paint_noise() -> Callable[..., Path]:
    """Writes a picture of noise; with ``number``, its red channel is that number throughout."""

    def paint(path: Path, *, width: int = 40, height: int = 40, number: int | None = None) -> Path:
        rng = np.random.default_rng([width, height, number or 0])
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if number is not None:
            pixels[..., 0] = number
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return paint


@pytest.fixture(scope="session")
def numbered_shards(tmp_path_factory: pytest.TempPathFactory, paint_noise) -> Path:
    """Shards of 24 pictures, 6 of them val, each known by its red value; for reading only."""
    folder = tmp_path_factory.mktemp("numbered")
    for number in range(24):
        paint_noise(folder / "pictures" / f"{number:02d}.png", number=number)
    write_shards([folder / "pictures"], folder / "shards", cut=0, val=0.25, shard_mb=0.001)
    return folder / "shards"


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of the size given, as `disk_of("64k")`."""
    disk = tmp_path / "disk"

    def mount(size: str) -> Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 64 KiB."""
    return disk_of("64k")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives ports of this machine that nobody listens at."""

    def free() -> int:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port: int = bound.getsockname()[1]
            return port

    return free


@pytest.fixture(scope="session")
def _one_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite file for the session: making a store takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def store(_one_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the session's MLflow store, which is also the default one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _one_store)
    return _one_store


@dataclass(frozen=True)
class TrackingServer:
    """A real MLflow server: a process that has started others, all in one session."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def until_healthy(self, log: Path) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert self.process.poll() is None, log.read_text()
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.address}/health", timeout=5),
            ):
                return
            time.sleep(0.2)
        pytest.fail(f"the server did not start:\n{log.read_text()}")

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Ends it by a signal, and by the one that nobody can ignore where that is not enough."""
        for number in (how, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
                return


@pytest.fixture(scope="session")
def serving(
    free_port: Callable[[], int],
) -> Callable[..., AbstractContextManager[TrackingServer]]:
    """``with serving(folder) as served``: an MLflow server over sqlite, or over another store.

    With ``port`` one that was stopped comes back at its address.
    """

    @contextlib.contextmanager
    def serve(folder: Path, backend: str = "", port: int = 0) -> Iterator[TrackingServer]:
        port, log = port or free_port(), folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--workers", "1", "--port", str(port)]
        command += ["--backend-store-uri", backend or f"sqlite:///{folder / 'served.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        # Six more processes that import MLflow, for jobs of chat agents.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with log.open("w") as said:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        served = TrackingServer(process, port)
        try:
            served.until_healthy(log)
            yield served
        finally:
            served.stop()

    return serve


KILLING = """\
import os, signal
from pathlib import Path

import pytorch_lightning as pl


class KillOnce(pl.Callback):
    # kill -9 of rank 1 between the gradients and the step of the fifth step

    def on_after_backward(self, trainer, *_):
        once = Path(os.environ["MARKS"], "killed")
        if trainer.global_rank == 1 and trainer.global_step == 4 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killing(tmp_path: Path) -> dict[str, str]:
    """Of the environment, for processes that shall know the callback ``killing.KillOnce``."""
    (tmp_path / "killing.py").write_text(KILLING)
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)]), "MARKS": str(tmp_path)}


TINY = """\
model:
  class_path: Regression
  init_args:
    arch: msrresnet
    scale: 4
    arch_args: {features: 8, blocks: 1}
    ema_decay: 0.9
trainer: {accelerator: cpu, devices: 1, precision: 32-true, max_steps: 7}
data:
  batch_size: 2
  crop: 32
  steps_per_epoch: 4
  crops_per_picture: 2
  workers: 0
  val_limit: 2
  shuffle_buffer: 4
run: {checkpoint_every: 3, log_every: 1, pictures: 1, experiment: tests}
"""

GAN = """\
model:
  class_path: Adversarial
  init_args:
    arch: msrresnet
    scale: 4
    arch_args: {features: 8, blocks: 1}
    ema_decay: 0.9
    discriminator: unet
    discriminator_args: {features: 4}
"""


@pytest.fixture
def tiny(shards: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a training run of a second: `tiny("--trainer.max_steps", "5", gan=True)`."""
    base = tmp_path / "tiny.yaml"
    base.write_text(TINY)
    (tmp_path / "gan.yaml").write_text(GAN + TINY[TINY.index("trainer:") :])

    def words(*more: str, gan: bool = False, out: str = "run") -> list[str]:
        config = tmp_path / "gan.yaml" if gan else base
        place = ["--data.shards", str(shards), "--run.out", str(tmp_path / out)]
        return ["--config", str(config), *place, *more]

    return words


class WebServer:
    """Serves a folder on this machine, as badly as a test asks for; nothing is faked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refuse: Counter[str] = Counter()
        """How many more requests of a file are answered with ``code``."""
        self.code = 503
        self.cut: Counter[str] = Counter()
        """How many more requests of a file get only a third of what is asked for."""
        self.dies_at = ""
        """The file in whose middle the server goes down."""
        self.ranges, self.chunked = True, False
        self.asked: list[tuple[str, int]] = []
        """File and first byte of each request."""
        self._server: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self.up()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Serves, after a fall at the same address."""
        assert self._server is None
        handler = type("Handler", (_Handler,), {"web": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = self._server.server_port
        serving = {"poll_interval": 0.01}
        thread = threading.Thread(target=self._server.serve_forever, kwargs=serving, daemon=True)
        thread.start()

    def down(self) -> None:
        """Takes no connection any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Handler(http.server.BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.web.folder / self.path.lstrip("/")
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.web.ranges else 0
        self.web.asked.append((path.name, int(asked[1]) if asked else 0))
        self.close_connection = True
        if self._taken(self.web.refuse, path.name):
            return self.send_error(self.web.code)
        if not path.is_file():
            return self.send_error(404)
        return self._send(path, start)

    def _send(self, path: Path, start: int) -> None:
        content = path.read_bytes()[start:]
        self.send_response(206 if start else 200)
        if self.web.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        short = self._taken(self.web.cut, path.name)
        if self.web.dies_at == path.name:
            self.web.dies_at, short = "", True
            self.web.down()
        self.wfile.write(content[: len(content) // 3] if short else content)

    @staticmethod
    def _taken(left: Counter[str], name: str) -> bool:
        left[name] -= 1
        return left[name] >= 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], WebServer]]:
    """Serves folders until the test ends."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder: Path) -> WebServer:
        servers.append(WebServer(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.down()


class Clock:
    """Time that passes only while somebody waits; ``at`` calls something at the n-th pause."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.at: dict[int, Callable[[], None]] = {}

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        self.at.get(len(self.pauses), lambda: None)()


@pytest.fixture
def clock() -> Clock:
    """A clock that a test turns."""
    return Clock()

"""Trainings in which something really fails: a rank, a shard server, a disk, a tracking server."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from pipeline.checkpoints import newest
from pipeline.files import NoSpaceError
from pipeline.train import CONF, configured, fit
from sr_module.checkpoint import read_provenance

pytestmark = pytest.mark.timeout(900)

ROOT = CONF.parent
SCRIPTS = Path(sys.executable).parent
Words = Callable[..., list[str]]


def train(words: list[str], *watching: pl.Callback) -> Any:
    return fit(configured(words), watching=watching)


def state(folder: Path) -> dict[str, Any]:
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return {**saved["state_dict"], "step": torch.tensor(saved["global_step"])}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class At(pl.Callback):
    """Calls something behind the ``step``-th step."""

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step, self.call = step, call

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.call()


KILL = """
import os, signal
from pathlib import Path

import pytorch_lightning as pl


class KillOnce(pl.Callback):
    '''kill -9 of rank 1 between the gradients and the step of the fifth step.'''

    def on_after_backward(self, trainer, *_):
        once = Path(os.environ["MARKS"], "killed")
        if trainer.global_rank == 1 and trainer.global_step == 4 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def lightning_run(words: list[str], folder: Path, store: str, *options: str) -> Any:
    """Two ranks of the training script."""
    (folder / "killing.py").write_text(KILL)
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "MARKS": str(folder)}
    script = str(ROOT / "pipeline" / "train.py")
    return subprocess.run(
        [str(SCRIPTS / "lightning"), "run", "--accelerator", "cpu", "--devices", "2", *options,
         script, "fit", *words, "--trainer.devices", "auto"],
        env={**environment, "MLFLOW_TRACKING_URI": store}, cwd=folder, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_rank_ends_all_and_the_same_command_ends_like_an_undisturbed_one(
    tiny: Words, tmp_path: Path, store: str, free_port: Callable[[], int]
):
    port = ["--main-port", str(free_port())]
    kill = ["--trainer.callbacks+=killing.KillOnce"]
    killed = lightning_run(tiny(*kill, gan=True, out="killed"), tmp_path, store, *port)
    assert killed.returncode == 128 + signal.SIGKILL, killed.stderr
    assert "rank 1 ended by signal 9; the others were ended too" in killed.stderr
    assert int(state(tmp_path / "killed")["step"]) == 3
    for out in ("killed", "whole"):
        done = lightning_run(tiny(gan=True, out=out), tmp_path, store, *port)
        assert done.returncode == 0, done.stderr
    assert same(state(tmp_path / "killed"), state(tmp_path / "whole"))


class BringBack(logging.Handler):
    """Brings a server up again when a reader says that it is away."""

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server, self.falls = server, 0

    def emit(self, record: logging.LogRecord) -> None:
        if "trying again" in record.getMessage():
            self.falls += 1
            self.server.up()


def test_a_shard_server_that_falls_and_comes_back_changes_nothing(
    tiny: Words, shards: Path, tmp_path: Path, serve: Any, store: str
):
    """Once while a shard is read, once between two steps."""
    whole_shard = ["--data.shuffle_buffer", "64"]  # the first batch waits for all of it
    server = serve(shards)
    watch = BringBack(server)
    logging.getLogger("pipeline.transfer").addHandler(watch)
    server.dies_at = next(shards.glob("train-*.tar")).name
    try:
        train(
            tiny("--data.shards", server.address, "--data.retry_s", "60", *whole_shard, out="cut"),
            At(4, server.down),
        )
    finally:
        logging.getLogger("pipeline.transfer").removeHandler(watch)
    assert watch.falls == 2
    train(tiny(*whole_shard, out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


def test_a_shard_server_that_stays_away_ends_the_run_which_goes_on_when_it_is_back(
    tiny: Words, shards: Path, tmp_path: Path, serve: Any, store: str
):
    server = serve(shards)
    words = tiny("--data.shards", server.address, "--data.retry_s", "0.5", out="cut")
    with pytest.raises(ConnectionError, match=r"cannot be reached .*data\.retry_s"):
        train(words, At(4, server.down))
    assert int(state(tmp_path / "cut")["step"]) == 3
    server.up()
    train(words)
    train(tiny(out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


@pytest.fixture
def few_mib(disk_of: Callable[[str], Path]) -> Path:
    """A disk of four MiB."""
    return disk_of("4m")


@pytest.mark.xfail(
    reason="written for checkpoints that the step waits for; they are written beside it now"
)
def test_a_full_disk_ends_the_run_with_its_last_checkpoint_whole_and_it_goes_on_with_room(
    tiny: Words, few_mib: Path, tmp_path: Path, store: str
):
    words = [*tiny(), "--run.out", str(few_mib / "run")]
    litter = few_mib / "litter"

    def fill() -> None:
        litter.write_bytes(bytes(shutil.disk_usage(few_mib).free))

    with pytest.raises(NoSpaceError, match=r"no room on disk while writing .*last\.ckpt"):
        train(words, At(4, fill))
    found = newest(few_mib / "run")
    assert found.path == few_mib / "run" / "last.ckpt"
    assert not found.damaged
    assert int(state(few_mib / "run")["step"]) == 3
    litter.unlink()
    train(words)
    train(tiny(out="whole"))
    assert same(state(few_mib / "run"), state(tmp_path / "whole"))


@pytest.fixture
def tracking_server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Any]:
    """A real MLflow server, as its address and its process."""
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path / 'served.db'}"]
    with log.open("w") as said:
        server = subprocess.Popen(
            command, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address, server
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.slow
def test_a_tracking_server_that_is_stopped_does_not_stop_the_training(
    tiny: Words, tmp_path: Path, tracking_server: Any, monkeypatch: pytest.MonkeyPatch
):
    address, server = tracking_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def stop() -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)

    trained = train(tiny(out="cut"), At(3, stop))
    assert trained.steps == 7
    assert read_provenance(trained.net)["steps"] == 7
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    train(tiny(out="whole"))
    assert same(state(tmp_path / "cut"), state(tmp_path / "whole"))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """The names of two network namespaces with a cable between them: 10.99.N.1 and 10.99.N.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    number = os.getpid() % 250
    names = [f"srdet{number}a", f"srdet{number}b"]
    try:
        _ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        _ip("netns", "add", names[1])
        ends = [f"veth{number}a", f"veth{number}b"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for last, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"10.99.{number}.{last}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_nodes_with_networks_of_their_own_train_one_run(
    tiny: Words, two_nodes: list[str], tmp_path: Path, store: str
):
    """The very command of the README, once on each node, over a cable between them."""
    number = os.getpid() % 250
    script = str(ROOT / "pipeline" / "train.py")
    words = [*tiny(gan=True), "--trainer.devices", "auto"]
    started = []
    for rank, name in enumerate(two_nodes):
        end = f"veth{number}{'ab'[rank]}"
        own = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store, "GLOO_SOCKET_IFNAME": end}
        command = ["ip", "netns", "exec", name, str(SCRIPTS / "lightning"), "run"]
        command += ["--accelerator", "cpu", "--devices", "1", "--num-nodes", "2"]
        command += ["--node-rank", str(rank), "--main-address", f"10.99.{number}.1"]
        started.append(
            subprocess.Popen(
                [*command, script, "fit", *words],
                env={**os.environ, **own},
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said
    whole = lightning_run(tiny(gan=True, out="whole"), tmp_path, store)
    assert whole.returncode == 0, whole.stderr
    assert same(state(tmp_path / "run"), state(tmp_path / "whole"))

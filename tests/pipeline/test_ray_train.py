"""Training on Ray Train, with real Ray processes; what a cluster would do differently is noted."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient

from pipeline import ray_train
from pipeline.parsing import CONF, parse, plain
from pipeline.ray_train import fit_on_ray, work
from pipeline.settings import RaySettings
from pipeline.world import RAY, World, world_of

ROOT = CONF.parent
SCRIPTS = Path(sys.executable).parent
Words = Callable[..., list[str]]

CALLBACKS = """
import os
from pathlib import Path

import pytorch_lightning as pl


class Places(pl.Callback):
    '''Which rank of which node every process was.'''

    def on_train_start(self, trainer, *_):
        names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        told = " ".join(os.environ[name] for name in names)
        Path(os.environ["MARKS"], f"rank{trainer.global_rank}").write_text(told)
"""


@pytest.fixture
def environment(tmp_path: Path, store: str, killing: dict[str, str]) -> dict[str, str]:
    """Of a command whose workers know the callbacks above, and ``killing.KillOnce``."""
    (tmp_path / "marking.py").write_text(CALLBACKS)
    own = {**killing, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": store}
    return {**os.environ, **own}


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `srdet ...` or another command in the test's folder."""

    def start(*words: str, program: str = "srdet") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SCRIPTS / program), *words], env=environment, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def state(folder: Path) -> dict[str, Any]:
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    return {**saved["state_dict"], "step": torch.tensor(saved["global_step"])}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_costs_nothing_and_ray_trains_what_lightning_run_trains(
    tiny: Words, command: Any, tmp_path: Path, store: str, free_port: Callable[[], int]
):
    auto = ["--trainer.devices", "auto"]
    kill = ["--trainer.callbacks+=killing.KillOnce", *auto]
    status, said = ended(command("train", "--ray", "2", *tiny(*kill, gan=True, out="ray")))
    assert status == 0, said
    assert (tmp_path / "killed").exists()
    launcher = ["run", "--accelerator", "cpu", "--devices", "2", "--main-port", str(free_port())]
    script = str(ROOT / "pipeline" / "train.py")
    words = tiny(*auto, gan=True, out="whole")
    status, said = ended(command(*launcher, script, "fit", *words, program="lightning"))
    assert status == 0, said
    assert same(state(tmp_path / "ray"), state(tmp_path / "whole"))
    run_id = json.loads((tmp_path / "ray" / "record" / "run.json").read_text())["run_id"]
    run = MlflowClient(store).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.tags["launcher"], run.data.tags["world_size"]) == ("Ray", "2")
    assert run.data.metrics["train/images_seen"] == 7 * 2 * 2
    assert not (tmp_path / "ray" / "stop").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_terminated_command_has_its_workers_save_and_goes_on_later(
    tiny: Words, command: Any, tmp_path: Path, store: str
):
    words = ["--ray", "2", *tiny("--trainer.devices", "auto", "--trainer.max_steps", "100000")]
    running = command("train", *words)
    last = tmp_path / "run" / "last.ckpt"
    deadline = time.monotonic() + 240
    while not last.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    status, said = ended(running)
    assert status == 143, said
    assert "stopped; the same command goes on from here" in said
    steps = int(state(tmp_path / "run")["step"])
    run_id = json.loads((tmp_path / "run" / "record" / "run.json").read_text())["run_id"]
    assert MlflowClient(store).get_run(run_id).info.status == "KILLED"
    more = ["--trainer.max_steps", str(steps + 2)]
    status, said = ended(command("train", *words, *more))
    assert status == 0, said
    assert int(state(tmp_path / "run")["step"]) == steps + 2


@pytest.fixture
def cluster(environment: dict[str, str], free_port: Callable[[], int]) -> Iterator[str]:
    """The address of two Ray nodes on this machine, each with room for one worker."""
    port = str(free_port())
    head = [str(SCRIPTS / "ray"), "start", "--head", "--port", port, "--num-cpus", "1"]
    head += ["--include-dashboard", "false", "--block", "--object-store-memory", "100000000"]
    node = [str(SCRIPTS / "ray"), "start", "--address", f"127.0.0.1:{port}", "--num-cpus", "1"]
    node += ["--block", "--object-store-memory", "100000000"]
    own = {**environment, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    started = []
    try:
        for words in (head, node):
            started.append(
                subprocess.Popen(
                    words,
                    env=own,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            _until_nodes(port, len(started), own)
        yield f"127.0.0.1:{port}"
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _until_nodes(port: str, count: int, environment: dict[str, str]) -> None:
    asks = f"import ray; ray.init('127.0.0.1:{port}', logging_level='ERROR'); "
    asks += f"raise SystemExit(sum(n['Alive'] for n in ray.nodes()) != {count})"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        asked = subprocess.run(
            [sys.executable, "-c", asks], env=environment, capture_output=True, check=False
        )
        if asked.returncode == 0:
            return
    pytest.fail(f"no {count} Ray nodes at port {port}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_of_two_nodes_trains_one_run(
    tiny: Words, command: Any, cluster: str, environment: dict[str, str], tmp_path: Path
):
    environment["RAY_AUTH_MODE"] = "disabled"
    more = ["--trainer.devices", "auto", "--trainer.callbacks+=marking.Places"]
    status, said = ended(command("train", "--ray", "2", "--ray.address", cluster, *tiny(*more)))
    assert status == 0, said
    assert "2 workers on Ray (2 nodes" in said
    assert int(state(tmp_path / "run")["step"]) == 7
    for rank in range(2):
        assert (tmp_path / f"rank{rank}").read_text().split()[0] == str(rank)


class Threads(pl.Callback):
    """How many threads torch computes with in each step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen.append(torch.get_num_threads())


def test_a_worker_of_ray_leaves_a_core_to_each_reader_of_the_cores_that_it_has(
    tiny: Words, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: str
):
    """What Ray calls in a process of its own, here with what it is given and finds there."""
    given: dict[str, Any] = {}

    def trainer(loop: Any, *, train_loop_config: dict[str, Any], **_: Any) -> Any:
        given.update(train_loop_config)
        return SimpleNamespace(fit=lambda: SimpleNamespace(return_value=pickle.dumps(None)))

    monkeypatch.setattr("ray.train.torch.TorchTrainer", trainer)
    monkeypatch.setattr("ray.cluster_resources", dict)
    words = tiny("--ray.cpus", "4", "--data.workers", "1", "--trainer.max_steps", "2")
    threads = Threads()
    fit_on_ray(plain(parse(words)), watching=lambda setup: [threads])
    rays = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "4"}
    for name, value in {**given["environment"], RAY: "1", **rays}.items():
        monkeypatch.setenv(name, value)  # and taken back at the end
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        work(given)
    finally:
        torch.set_num_threads(before)
    assert threads.seen == [3, 3]


def test_rays_world_is_read_from_its_variables_and_uneven_nodes_are_refused():
    env = {RAY: "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert world_of(env) == World("Ray", 8, 4, 2)
    with pytest.raises(ValueError, match="placed 3 of 8 workers on this node"):
        world_of({**env, "LOCAL_WORLD_SIZE": "3"})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.devices", "2"], "trainer.devices is 2, but on Ray it is ray.workers"),
        (["--trainer.devices", "auto", "--trainer.num_nodes", "2"], "trainer.num_nodes is 2"),
    ],
)
def test_another_world_than_rays_is_refused_before_anything_starts(tiny: Words, more, said):
    with pytest.raises(ValueError, match=said):
        ray_train.main(plain(parse([*tiny(*more), "--ray", "2"])))


def test_ray_under_another_launcher_is_refused(tiny: Words, monkeypatch):
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    words = tiny("--trainer.devices", "auto", "--ray", "2")
    with pytest.raises(ValueError, match="torchrun started this process as one of 2"):
        ray_train.main(plain(parse(words)))


def test_a_ray_that_is_not_there_is_one_sentence(free_port: Callable[[], int]):
    address = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(ConnectionError, match=f"no Ray answers at {address}"),
        ray_train.connected(RaySettings(workers=2, address=address)),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": -1}, "ray.workers -1"),
        ({"failures": -1}, "ray.failures -1"),
        ({"gpus": 2}, "ray.gpus is 2; a worker is one process with 0 or 1 GPU"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RaySettings(**settings)

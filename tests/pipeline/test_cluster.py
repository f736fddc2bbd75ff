"""The files of conf/cluster, run as far as one machine without SLURM and Kubernetes can."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.parsing import CONF, parse

ROOT = CONF.parent


@pytest.fixture
def job() -> dict[str, Any]:
    return yaml.safe_load((CONF / "cluster" / "ray-cluster.yaml").read_text())


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_ray_jobs_command_is_one_that_srdet_takes(job, monkeypatch):
    monkeypatch.chdir(ROOT)  # the image's folder
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["srdet", "train"]
    config = parse(words[2:]).config
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    asked = container["resources"]["requests"]
    assert config["ray"]["workers"] == group["replicas"] * int(asked["nvidia.com/gpu"])
    assert config["ray"]["workers"] * config["ray"]["cpus"] <= group["replicas"] * int(asked["cpu"])
    assert config["data"]["workers"] < config["ray"]["cpus"]
    assert config["run"]["resume"] == "auto"
    with pytest.raises(ValueError, match=r"did you mean 'ray.workers'"):
        parse([*words[2:], "--ray.worker", "8"])


def test_every_pod_of_the_ray_job_sees_the_runs_and_the_tracking_server(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in pins
    out = Path(parse(shlex.split(job["spec"]["entrypoint"])[2:]).config["run"]["out"])
    for pod in pods(job):
        (container,) = pod["containers"]
        assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container["env"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert "persistentVolumeClaim" in volumes[mounted[str(out.parent)]]
        assert set(mounted.values()) == set(volumes)


SRUN = """#!/usr/bin/env python
# Starts the tasks of one node as srun does, and gives the highest of their statuses.
import os, subprocess, sys
tasks = int(os.environ["SLURM_NTASKS"])
words = [word for word in sys.argv[1:]]
while words[0].startswith("-"):
    words.pop(0)
step = {**os.environ, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks)}
started = [
    subprocess.Popen(words, env={**step, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)})
    for n in range(tasks)
]
sys.exit(max(process.wait() for process in started))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> scontrol.log\n'
STOP = """
import os, signal
import pytorch_lightning as pl


class StopOnce(pl.Callback):
    '''SIGTERM to this task, as before the end of its time; once.'''

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4 and not os.path.exists("stopped"):
            if trainer.is_global_zero:
                open("stopped", "w").close()
                os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture
def slurm(tmp_path: Path, free_port: Any) -> dict[str, str]:
    """An environment in which a job of two tasks on one node runs."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    (tmp_path / "stopping.py").write_text(STOP)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    told = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "srdet", "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    paths = {"PATH": f"{bin}:{Path(os.sys.executable).parent}:{os.environ['PATH']}",
             "PYTHONPATH": f"{tmp_path}:{ROOT}"}  # fmt: skip
    return {**os.environ, **told, **paths, "OMP_NUM_THREADS": "1"}


def test_the_slurm_script_is_bash_and_asks_for_what_it_lacks():
    script = str(CONF / "cluster" / "slurm.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "first word: a file of conf/experiment" in done.stderr


@pytest.mark.slow
def test_a_slurm_job_that_is_stopped_saves_queues_again_and_goes_on(
    tmp_path: Path, store: str, tiny: Any, slurm: dict[str, str]
):
    (_, config, _, shards, *_) = tiny()
    words = ["--trainer.accelerator", "cpu", "--trainer.devices", "auto"]
    words += ["--trainer.callbacks+=stopping.StopOnce"]
    command = ["bash", str(CONF / "cluster" / "slurm.sh"), config, shards, *words]
    settings = {"env": slurm, "cwd": tmp_path, "capture_output": True, "text": True}
    first = subprocess.run(command, timeout=280, check=False, **settings)
    assert first.returncode == 143, first.stderr
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    second = subprocess.run(command, timeout=280, check=False, **settings)
    assert second.returncode == 0, second.stderr
    assert "trained: 7 steps, 28 images" in second.stderr + second.stdout  # of two ranks, once each
    run = json.loads((tmp_path / "runs" / "4711" / "record" / "run.json").read_text())
    assert run["uri"] == store

import os

import pytest
import torch

from pipeline import placing
from pipeline.placing import placed
from pipeline.world import SHARE


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs, eight cores, and perhaps Apple's GPU."""

    def of(cuda: int, *, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    return of


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices", "visible", "processes", "gets"),
    [
        (4, "cuda", "2,3", None, 2, "2,3"),
        (4, None, "3,", None, 1, "3"),
        (4, "gpu", "1,0", "4,5,6,7", 2, "5,4"),  # of those that this job may see
        (4, "cuda", "2", None, 2, None),
        (4, "cuda", "auto", None, 4, None),
        (4, None, "auto", None, 4, None),
        (4, "cpu", "auto", None, 1, None),
        (0, None, "auto", None, 1, None),
        (0, None, "3", None, 3, None),
        (4, "cpu", "6", None, 6, None),
    ],
)
def test_devices_become_processes_and_the_gpus_that_were_named(
    machine, gpus, accelerator, devices, visible, processes, gets
):
    machine(gpus)
    env = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    place = placed(accelerator, devices, env)
    assert place.processes == processes
    assert place.environment.get("CUDA_VISIBLE_DEVICES") == gets


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices", "message"),
    [
        (2, "cuda", "4", r"--devices is 4, but torch sees 2 GPUs here; .* --accelerator cpu"),
        (2, None, "4", r"--devices is 4, but torch sees 2 GPUs here"),
        (2, "cuda", "0,3", r"--devices is 0,3, but torch sees 2 GPUs here, 0 to 1"),
        (4, "cuda", "1,1", r"--devices is 1,1, which names a GPU twice"),
        (4, "cpu", "0,3", r"--devices is 0,3, which names GPUs, but .* CPU; give a number"),
        (0, None, "0,3", r"--devices is 0,3, which names GPUs"),
        (0, "cuda", "1", r"--accelerator is cuda, but torch sees no such device here; .*cpu"),
        (0, "gpu", "1", r"--accelerator is gpu, but torch sees no such device here"),
        (4, "mps", "1", r"--accelerator is mps, but torch sees no such device here"),
    ],
)
def test_devices_that_are_not_there_are_refused(machine, gpus, accelerator, devices, message):
    machine(gpus)
    with pytest.raises(ValueError, match=message):
        placed(accelerator, devices, {})


def test_apples_gpu_is_one(machine):
    machine(0, mps=True)
    for accelerator in ("mps", "gpu", None):
        assert placed(accelerator, "auto", {}).processes == 1
    with pytest.raises(ValueError, match="--devices is 2, but torch sees 1 GPU here"):
        placed("mps", "2", {})


@pytest.mark.parametrize(("processes", "cores"), [(1, 8), (2, 4), (3, 2), (20, 1)])
def test_every_process_gets_its_share_of_the_cores(machine, processes, cores):
    machine(0)
    told = placed("cpu", str(processes), {}).environment
    assert told == {"OMP_NUM_THREADS": str(cores), SHARE: str(cores)}


def test_a_number_of_threads_that_the_user_set_stays(machine):
    machine(0)
    assert placed("cpu", "2", {"OMP_NUM_THREADS": "3"}).environment == {}


def test_where_the_system_tells_no_affinity_all_cores_are_shared(machine, monkeypatch):
    machine(0)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(placing.os, "cpu_count", lambda: 6)
    assert placed("cpu", "2", {}).environment["OMP_NUM_THREADS"] == "3"

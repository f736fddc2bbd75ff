"""Where the processes of ``lightning run`` compute: how many there are, which GPUs, which cores."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.world import SHARE, gpus


@dataclass(frozen=True)
class Place:
    """What is started on this node.

    Attributes:
        processes: how many.
        environment: variables that they get besides those that are there.
    """

    processes: int
    environment: dict[str, str]


def placed(accelerator: str | None, devices: str, env: Mapping[str, str] = os.environ) -> Place:
    """What the launcher's ``--accelerator`` and ``--devices`` stand for on this machine.

    The Trainer counts devices from 0, and hears of processes, not of GPUs: GPUs that were named
    become the only ones that the processes see.

    Args:
        accelerator: as typed; None is the script's own, for which this takes GPUs where some are.
        devices: a number, GPUs such as ``0,3``, or ``auto``: all GPUs, or one process on a CPU.
        env: the environment of the launcher.

    Raises:
        ValueError: devices that are not here.
    """
    there = _devices_there(accelerator)
    named = devices.strip(",").split(",") if "," in devices else []
    if named:
        _check_named(devices, [int(name) for name in named], there)
    processes = len(named) or (max(1, there) if devices == "auto" else int(devices))
    if there and processes > there:
        raise ValueError(
            f"--devices is {devices}, but torch sees {_counted(there)} here; choose at most "
            f"{there}, or processes on the CPU with --accelerator cpu"
        )
    return Place(processes, {**_visible(named, env), **_cores(processes, env)})


def _devices_there(accelerator: str | None) -> int:
    """GPUs that the processes may take, 0 where they compute on the CPU."""
    import torch

    found = gpus(str(accelerator))
    if not found and accelerator in (None, "auto", "gpu", "mps"):
        found = int(torch.backends.mps.is_available())
    if not found and accelerator in ("cuda", "gpu", "mps"):
        raise ValueError(
            f"--accelerator is {accelerator}, but torch sees no such device here; choose cpu, or "
            "leave it out"
        )
    return found


def _check_named(given: str, named: list[int], there: int) -> None:
    if not there:
        raise ValueError(
            f"--devices is {given}, which names GPUs, but the processes compute on the CPU; give a "
            "number of processes"
        )
    if len(set(named)) < len(named):
        raise ValueError(f"--devices is {given}, which names a GPU twice; each takes one process")
    if max(named) >= there:
        raise ValueError(
            f"--devices is {given}, but torch sees {_counted(there)} here, 0 to {there - 1}"
        )


def _counted(there: int) -> str:
    return f"{there} GPU" + "s" * (there > 1)


def _visible(named: list[str], env: Mapping[str, str]) -> dict[str, str]:
    """The GPUs named, of those that this process may see itself."""
    if not named:
        return {}
    seen = env.get("CUDA_VISIBLE_DEVICES")
    names = [seen.split(",")[int(name)] for name in named] if seen else named
    return {"CUDA_VISIBLE_DEVICES": ",".join(names)}


def _cores(processes: int, env: Mapping[str, str]) -> dict[str, str]:
    """Each process's share of the cores, where the user has not said otherwise."""
    if "OMP_NUM_THREADS" in env:
        return {}
    bound = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    share = str(max(1, cores // processes))
    return {"OMP_NUM_THREADS": share, SHARE: share}

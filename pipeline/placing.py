"""Where the processes of ``lightning run`` compute: how many there are, which GPUs, which cores."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.world import SHARE, gpus

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps")


@dataclass(frozen=True)
class Place:
    """What is started on this node.

    Attributes:
        processes: how many.
        environment: variables that they get besides those that are there.
    """

    processes: int
    environment: dict[str, str]


def placed(
    accelerator: str | None,
    devices: str,
    env: Mapping[str, str] = os.environ,
    *,
    option: str = "--{}",
) -> Place:
    """What ``--accelerator`` and ``--devices`` stand for on this machine.

    The Trainer counts devices from 0, and hears of processes, not of GPUs: GPUs that were named
    become the only ones that the processes see.

    Args:
        accelerator: as typed; None is the script's own, for which this takes GPUs where some are.
        devices: a number, GPUs such as ``0,3``, or ``auto``: all GPUs, or one process on a CPU.
        env: the environment of the launcher.
        option: how the two are typed, for messages.

    Raises:
        ValueError: no devices, or devices that are not here.
    """
    check_words(devices, option=option)
    given, there = f"{option.format('devices')} is {devices}", devices_there(accelerator, option)
    named = devices.strip(",").split(",") if "," in devices else []
    if named:
        _check_named(given, [int(name) for name in named], there)
    processes = len(named) or (max(1, there) if devices == "auto" else int(devices))
    if there and processes > there:
        raise ValueError(
            f"{given}, but torch sees {_counted(there)} here; choose at most {there}, or processes "
            f"on the CPU with {option.format('accelerator')} cpu"
        )
    return Place(processes, {**_visible(named, env), **_cores(processes, env)})


def check_words(devices: str, *, option: str = "--{}") -> None:
    """Refuses what no machine has.

    Raises:
        ValueError: neither a number of processes nor names of GPUs.
    """
    if devices == "0" or not re.fullmatch(r"auto|\d+(,\d+)*,?", devices):
        raise ValueError(
            f"{option.format('devices')} is '{devices}'; allowed: a number from 1, GPUs such as "
            "0,3, or auto"
        )


def devices_there(accelerator: str | None, option: str = "--{}") -> int:
    """GPUs that the processes may take, 0 where they compute on the CPU.

    Raises:
        ValueError: there are none of the kind that was asked for.
    """
    import torch

    from sr_module.choice import unknown  # torch comes with it

    if accelerator not in (None, *ACCELERATORS):
        raise unknown(f"value of {option.format('accelerator')}", str(accelerator), ACCELERATORS)

    found = gpus(str(accelerator))
    if not found and accelerator in (None, "auto", "gpu", "mps"):
        found = int(torch.backends.mps.is_available())
    if not found and accelerator in ("cuda", "gpu", "mps"):
        raise ValueError(
            f"{option.format('accelerator')} is {accelerator}, but torch sees no such device here; "
            "choose cpu, or leave it out"
        )
    return found


def _check_named(given: str, named: list[int], there: int) -> None:
    if not there:
        raise ValueError(
            f"{given}, which names GPUs, but the processes compute on the CPU; give a "
            "number of processes"
        )
    if len(set(named)) < len(named):
        raise ValueError(f"{given}, which names a GPU twice; each takes one process")
    if max(named) >= there:
        raise ValueError(f"{given}, but torch sees {_counted(there)} here, 0 to {there - 1}")


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

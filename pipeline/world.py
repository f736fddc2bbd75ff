"""The processes that train together: read from the launcher, checked against the settings.

Lightning's Trainer does not ask the launcher: under ``lightning run`` or torchrun it would train N
times alone, without a word.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAY = "SRDET_ON_RAY"
"""Set in the workers of Ray Train, whose other variables torchrun's workers have, too."""
SHARE = "SRDET_CORES"
"""A process's share of the cores, set by our launcher together with OMP_NUM_THREADS."""
SHELLS = ("bash", "interactive")
"""Names of SLURM jobs in which Lightning does not ask SLURM who trains with whom."""
SIZES = (
    "WORLD_SIZE",  # torch's variables, set by other means than torchrun
    "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "PMI_SIZE",  # MPICH, Intel MPI
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "JSM_NAMESPACE_SIZE",  # LSF's jsrun
)
"""How many processes launchers started that the Trainer does not ask."""


@dataclass(frozen=True)
class World:
    """The processes a launcher started."""

    launcher: str
    size: int
    devices: int
    nodes: int


def world_of(env: Mapping[str, str] = os.environ) -> World | None:
    """The world that a launcher's environment describes, or None where nothing launched us.

    torchrun and Lightning's launcher come before SLURM, as inside an allocation one may use either.
    """
    if RAY in env or "TORCHELASTIC_RUN_ID" in env:
        size, local = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
        if RAY in env:
            _check_even(size, local)
            return World("Ray", size, local, size // local)
        launcher = "lightning run" if "LT_CLI_USED" in env else "torchrun"
        return World(launcher, size, local, max(1, size // local))
    tasks = int(env.get("SLURM_NTASKS", 0))
    if tasks == _tasks_of_step(env) and env.get("SLURM_JOB_NAME") not in SHELLS:
        nodes = int(env.get("SLURM_NNODES", 1))
        return World("srun", tasks, int(env.get("SLURM_NTASKS_PER_NODE", tasks // nodes)), nodes)
    return None


def _tasks_of_step(env: Mapping[str, str]) -> int:
    """How many tasks srun started beside this one; 1 where it is the allocation's own shell.

    SLURM_NTASKS is there, too, what the allocation was asked for; only srun sets the step's number.
    """
    return int(env.get("SLURM_STEP_NUM_TASKS", 1))


def _check_even(size: int, local: int) -> None:
    if size % local:
        raise ValueError(
            f"Ray placed {local} of {size} workers on this node and the others elsewhere; every "
            "node must have as many: choose ray.workers as a multiple of what fits a node"
        )


def trainer_world(
    trainer: Mapping[str, Any],
    env: Mapping[str, str] = os.environ,
    *,
    whole_steps: bool = False,
) -> dict[str, Any]:
    """The Trainer arguments that fit the launcher's world.

    Args:
        trainer: the configured Trainer arguments.
        env: the process environment.
        whole_steps: every step gives every parameter a gradient.

    Raises:
        ValueError: the configuration asks for another world than the one that was launched.
    """
    names = {
        "accelerator": "LT_ACCELERATOR",
        "strategy": "LT_STRATEGY",
        "precision": "LT_PRECISION",
    }
    fitted = {**trainer, **{key: env[name] for key, name in names.items() if env.get(name)}}
    if str(fitted.get("devices")) == "-1":  # which Lightning knows on GPUs only
        fitted["devices"] = "auto"
    world = world_of(env)
    if world is None:
        _check_slurm(env)
        check_joined(_processes(fitted), env)
    else:
        _check_even_tasks(world, env)
        _check_asked("devices", fitted.get("devices"), world, world.devices)
        # 1 is what a configuration says of nodes where it says nothing.
        nodes = fitted.get("num_nodes")
        _check_asked("num_nodes", None if nodes == 1 else nodes, world, world.nodes)
        fitted |= {"devices": world.devices, "num_nodes": world.nodes}
    if fitted.get("precision") is None:
        fitted["precision"] = best_precision(str(fitted.get("accelerator", "auto")))
    _check_batchnorm(fitted)
    if _processes(fitted) > 1 and fitted.get("strategy", "auto") in ("auto", "ddp"):
        # The generator's step leaves the discriminator unused and the other way round. Where a step
        # uses all, looking for the unused walks the graph for nothing, and DDP complains of it.
        fitted["strategy"] = "ddp" if whole_steps else "ddp_find_unused_parameters_true"
    return fitted


def _check_slurm(env: Mapping[str, str]) -> None:
    """Refuses what Lightning would train N times alone, or wait for until the job's end."""
    name, step, tasks = env.get("SLURM_JOB_NAME"), _tasks_of_step(env), env.get("SLURM_NTASKS", "1")
    if name in SHELLS and step > 1:
        raise ValueError(
            f"srun started {step} tasks, but in a job called '{name}' Lightning would train each "
            "alone; give another name, as in SLURM_JOB_NAME=srdet srun ..., or start one task"
        )
    if name not in SHELLS and step != int(tasks):
        raise ValueError(
            f"SLURM has {tasks} tasks for this job, but this process is not started as one of "
            "them; start it with `srun ...`, or, to train alone, with SLURM_JOB_NAME=interactive"
        )


def _check_even_tasks(world: World, env: Mapping[str, str]) -> None:
    if world.launcher == "srun" and world.size > 1 and "SLURM_NTASKS_PER_NODE" not in env:
        raise ValueError(
            f"srun started {world.size} tasks without saying how many a node, which Lightning asks "
            f"for; start it with --ntasks-per-node={world.devices}"
        )


def check_joined(processes: int, env: Mapping[str, str] = os.environ) -> None:
    """Refuses to train alone, once for each process, what an unknown launcher started N times.

    Args:
        processes: that the Trainer makes or is one of.
        env: the process environment.

    Raises:
        ValueError: the environment tells of several processes, and nothing would join them.
    """
    for name in SIZES:
        size = int(env.get(name) or 1)
        # Lightning's own processes know their place by LOCAL_RANK, and it joins them.
        if size > 1 and not ("LOCAL_RANK" in env and size == processes):
            raise ValueError(
                f"{name} is {size}, but the launcher that set it is none that srdet knows, and "
                f"{size} processes would train alone; start them with `lightning run --devices "
                f"{size} ...`, torchrun or srun, or take {name} out of the environment"
            )


def _check_asked(key: str, asked: object, world: World, launched: int) -> None:
    if str(asked) not in ("None", "auto", "-1", str(launched)):
        raise ValueError(
            f"trainer.{key} is {asked}, but {world.launcher} started {launched}; leave it out, or "
            "launch with that number"
        )


def _check_batchnorm(trainer: Mapping[str, Any]) -> None:
    on_gpu = gpus(str(trainer.get("accelerator", "auto")))
    if trainer.get("sync_batchnorm") and _processes(trainer) > 1 and not on_gpu:
        raise ValueError(
            "trainer.sync_batchnorm is true, but torch's SyncBatchNorm takes pictures on a GPU "
            "only; leave it out on CPUs"
        )


def _processes(trainer: Mapping[str, Any]) -> int:
    """How many processes a Trainer with these arguments makes."""
    devices, nodes = trainer.get("devices"), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return len(devices) * nodes
    if devices in (None, "auto", -1, "-1"):
        return max(1, gpus(str(trainer.get("accelerator")))) * nodes
    named = str(devices).strip(",").split(",")
    return (int(named[0]) if len(named) == 1 else len(named)) * nodes


def gpus(accelerator: str) -> int:
    """How many GPUs ``accelerator`` may use on this machine."""
    import torch

    return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda", "None") else 0


def best_precision(accelerator: str) -> str:
    """bf16 where the hardware multiplies it natively, 2 to 5 times faster there, else fp32."""
    import torch

    if gpus(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def best_device() -> str:
    """Where a network or detector computes if nobody says: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16: with matrix units (AMX), or with vectors (AVX-512 BF16).

    Vectors do twice the work of fp32, and a training step of SRResNet or RRDB takes half the time.
    """
    cpuinfo = Path("/proc/cpuinfo")
    known = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return bool({"amx_bf16", "avx512_bf16"} & set(known))


def check_alone(env: Mapping[str, str] = os.environ) -> None:
    """Refuses what one process trains where a launcher started several, each to train it alone.

    Raises:
        ValueError: this process is one of several.
    """
    world = world_of(env)
    others = {f"a launcher ({name})": int(env.get(name) or 1) for name in SIZES}
    started = {world.launcher: world.size} if world else {"srun": _tasks_of_step(env), **others}
    for launcher, size in started.items():
        if size > 1:
            raise ValueError(
                f"{launcher} started {size} processes, but this training is one process's, on one "
                "device, and each would train alone; start it without a launcher, or under SLURM "
                "with `srun --ntasks=1 ...`"
            )


def check_world(size: int, env: Mapping[str, str] = os.environ) -> None:
    """Refuses to train in a world other than the launched one.

    Raises:
        ValueError: the Trainer sees ``size`` processes, the launcher started another number.
    """
    world = world_of(env)
    if world is not None and world.size != size:
        raise ValueError(
            f"{world.launcher} started {world.size} processes, the trainer sees {size}"
        )


@contextlib.contextmanager
def cores_shared_with(readers: int, *, processes: int = 1) -> Iterator[None]:
    """Training on a CPU leaves a core to each data reader, but no more than a quarter of them.

    OpenMP's threads wait for each other in every operation: where one of them shares its core with
    a busy reader, all stand still. But readers are idle most of the time where a network takes
    long: on two cores with a reader, two threads are never slower than one, with RRDB a third
    faster. ``OMP_NUM_THREADS`` overrides, unless it is the share that our launcher gave.

    Args:
        readers: processes that read for this one.
        processes: that Lightning will start here, this one included, to share its cores.
    """
    import torch

    given, before = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    ours = given in (None, os.environ.get(SHARE)) and not torch.cuda.is_available()
    if readers and ours:
        share = max(1, before // processes)
        threads = share - min(readers, share // 4)
        torch.set_num_threads(threads)
        # Lightning would take all cores again, and the processes that it starts with it.
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if given is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = given

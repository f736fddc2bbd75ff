"""``lightning run`` (and ``srdet launch``): start a training script on several processes or nodes.

    lightning run --accelerator cpu --devices 2 pipeline/train.py fit --config conf/experiment/srgan.yaml
    torchrun --nproc_per_node 8 pipeline/train.py fit --config conf/experiment/srgan.yaml

Lightning removed its ``lightning run`` with release 2.5.1; the launcher itself still ships inside the
``pytorch-lightning`` wheel, and this is a front to it. The script then learns its world from the launcher's
environment: Lightning's Trainer alone would not, and would train N times alone without a word.
"""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USAGE = """\
usage: lightning run [model] [launcher options] SCRIPT [script options]

launcher options (before SCRIPT): --accelerator --strategy --devices --num-nodes --node-rank
                                  --main-address --main-port --precision
all words after SCRIPT belong to it, for example:
  lightning run --accelerator cpu --devices 2 pipeline/train.py fit --config conf/experiment/srgan.yaml
"""


@dataclass(frozen=True)
class World:
    """The processes a launcher started."""

    launcher: str
    size: int
    devices: int
    nodes: int


def main(words: list[str]) -> int:
    """``srdet launch``: the same as ``lightning run``."""
    words = words[1:] if words[:1] == ["model"] else words
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if not any(Path(word).suffix == ".py" for word in words):
        raise ValueError(f"no script (a .py file) among: {' '.join(words)}\n{USAGE}")
    sys.argv = ["lightning run", *words]
    runpy.run_module("lightning_fabric.cli", run_name="__main__")
    return 0


def lightning_main(argv: Sequence[str] | None = None) -> int:
    """The ``lightning`` command; ``run`` is its one word."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] != ["run"]:
        sys.stderr.write(USAGE)
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    try:
        return main(words[1:])
    except ValueError as error:
        sys.stderr.write(f"lightning run: error: {error}\n")
        return 2


def world_of(env: Mapping[str, str] = os.environ) -> World | None:
    """The world that a launcher's environment describes, or None where nothing launched us.

    torchrun and Lightning's launcher come before SLURM, as inside an allocation one may use either.
    """
    if "TORCHELASTIC_RUN_ID" in env:
        size, local = int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"])
        launcher = "lightning run" if "LT_CLI_USED" in env else "torchrun"
        return World(launcher, size, local, max(1, size // local))
    if "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes, tasks = int(env.get("SLURM_NNODES", 1)), int(env["SLURM_NTASKS"])
        return World("srun", tasks, int(env.get("SLURM_NTASKS_PER_NODE", tasks // nodes)), nodes)
    return None


def trainer_world(
    trainer: Mapping[str, Any], env: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The Trainer arguments that fit the launcher's world.

    Args:
        trainer: the configured Trainer arguments.
        env: the process environment.

    Raises:
        ValueError: the configuration asks for another world than the one that was launched.
    """
    names = {
        "accelerator": "LT_ACCELERATOR",
        "strategy": "LT_STRATEGY",
        "precision": "LT_PRECISION",
    }
    fitted = {**trainer, **{key: env[name] for key, name in names.items() if env.get(name)}}
    world = world_of(env)
    if world is not None:
        for key, launched in (("devices", world.devices), ("num_nodes", world.nodes)):
            asked = fitted.get(key)
            if asked not in (None, "auto", 1, "1", launched, str(launched)):
                raise ValueError(
                    f"trainer.{key} is {asked}, but {world.launcher} started {launched}; leave it out, or "
                    f"launch with that number"
                )
            fitted[key] = launched
    if fitted.get("precision") is None:
        fitted["precision"] = best_precision(str(fitted.get("accelerator", "auto")))
    if _processes(fitted) > 1 and fitted.get("strategy", "auto") in ("auto", "ddp"):
        # The generator's step leaves the discriminator unused and the other way round.
        fitted["strategy"] = "ddp_find_unused_parameters_true"
    return fitted


def _processes(trainer: Mapping[str, Any]) -> int:
    devices = trainer.get("devices")
    count = str(len(devices) if isinstance(devices, list) else devices)
    return (int(count) if count.isdigit() else 1) * int(trainer.get("num_nodes") or 1)


def best_precision(accelerator: str) -> str:
    """bf16 where the hardware multiplies it natively (there it is 2 to 4 times faster), else fp32."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def cpu_has_bf16() -> bool:
    """Whether this CPU has bf16 matrix units (AMX); vector bf16 alone gains nothing here."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()


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

"""``lightning run`` (and ``srdet launch``): start a training script on several processes or nodes.

    lightning run --devices 8 pipeline/train.py fit --config conf/experiment/srgan.yaml
    torchrun --nproc_per_node 8 pipeline/train.py fit --config conf/experiment/srgan.yaml

Lightning removed its ``lightning run`` with release 2.5.1; the launcher itself still ships inside
the ``pytorch-lightning`` wheel, and this is a front to it. The script then learns its world from
the launcher's environment: Lightning's Trainer alone would not, and would train N times alone
without a word.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from pipeline.placing import ACCELERATORS, check_words, placed

USAGE = """\
usage: lightning run [model] [launcher options] SCRIPT [script options]

launcher options, all before SCRIPT (NAME VALUE or NAME=VALUE):
  --devices N        processes on this node, or which GPUs: 8 or 0,3 (3, is the one GPU 3);
                     auto: all GPUs of this machine, one process without any        (default 1)
  --accelerator A    auto, cpu, cuda, gpu, mps                    (default: the script's own)
  --strategy S       ddp, fsdp, ...                               (default: the script's own)
  --precision P      32-true, bf16-mixed, ...                     (default: the script's own)
  --num-nodes N      nodes in all; start the command on each of them               (default 1)
  --node-rank K      which of them this one is, from 0                             (default 0)
  --main-address H   host of node 0                                        (default 127.0.0.1)
  --main-port P      a free port there                                         (default 29400)

all words after SCRIPT belong to it, for example:
  lightning run --devices 2 pipeline/train.py fit --config conf/experiment/srgan.yaml

`srdet launch` is the same under a name that no other package has.
"""
HELP = ("-h", "--help")
DEFAULTS: dict[str, str | None] = {
    "devices": "1",
    "accelerator": None,
    "strategy": None,
    "precision": None,
    "num_nodes": "1",
    "node_rank": "0",
    "main_address": "127.0.0.1",
    "main_port": "29400",
}
LAST_PORT = 65535
CHOICES = {
    "accelerator": ACCELERATORS,
    "precision": (
        "64-true", "64", "32-true", "32", "16-true", "16-mixed", "16", "bf16-true", "bf16-mixed",
        "bf16",
    ),
    # Lightning's that take part in a launch rather than starting processes of their own.
    "strategy": (
        "auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true",
        "fsdp", "fsdp_cpu_offload", "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2",
        "deepspeed_stage_2_offload", "deepspeed_stage_3", "deepspeed_stage_3_offload",
        "deepspeed_stage_3_offload_nvme",
    ),
}  # fmt: skip


def main(words: list[str]) -> int:
    """``srdet launch``: the same as ``lightning run``.

    Raises:
        ValueError: an option or value that is not known, or no script.
    """
    words = words[1:] if words[:1] == ["model"] else words
    if _asks_help(words):
        sys.stdout.write(USAGE)
        return 0
    return _launch(*launcher_words(words))


def _asks_help(words: Sequence[str]) -> bool:
    """Whether help stands among the launcher's options; behind the script it is the script's."""
    left = list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        if word in HELP:
            return True
        if "=" not in word and left and not left[0].startswith("-"):
            left.pop(0)
    return not words


def lightning_main(argv: Sequence[str] | None = None) -> int:
    """The ``lightning`` command; ``run`` is its one word, all others are a foreign command's."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:
        try:
            return main(words[1:])
        except ValueError as error:
            sys.stderr.write(f"lightning run: error: {error}\n")
            return 2
    foreign = foreign_lightning()
    if foreign is not None:
        return _hand_on(foreign, words)
    if words and words[0] not in HELP:
        sys.stderr.write(
            f"lightning: error: unknown word '{words[0]}'; the one word here is `run` (`lightning "
            "run --help`), all others belong to the package lightning-sdk, which is not installed\n"
        )
        return 2
    sys.stderr.write(USAGE)
    return 0 if words else 2


def foreign_lightning() -> EntryPoint | None:
    """Another installed package's ``lightning`` command, such as lightning-sdk's."""
    found = entry_points(group="console_scripts", name="lightning")
    return next((entry for entry in found if entry.module != __name__), None)


def _hand_on(foreign: EntryPoint, words: list[str]) -> int:
    package = foreign.dist.name if foreign.dist else foreign.module.split(".")[0]
    sys.stderr.write(
        f"lightning: `lightning run` is srdet's; all other words go to {package}, which has a "
        "command of this name, too\n"
    )
    sys.argv = ["lightning", *words]
    return int(foreign.load()() or 0)


def launcher_words(words: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The launcher's options with the script's path, and the words that belong to the script.

    Raises:
        ValueError: an option or value that is not known, or no script.
    """
    options, left = dict(DEFAULTS), list(words)
    while left and left[0].startswith("-"):
        given, equals, value = left.pop(0).partition("=")
        name = given.lstrip("-").replace("-", "_")
        if name not in options:
            from sr_module.choice import unknown  # torch comes with it

            known = [f"--{key.replace('_', '-')}" for key in DEFAULTS]
            raise ValueError(f"{unknown('launcher option', given, known)}; options of the script "
                             "stand behind it")  # fmt: skip
        if not equals and not left:
            raise ValueError(f"{given} needs a value, and a script behind it\n{USAGE}")
        options[name] = _checked(name, value if equals else left.pop(0))
    if not left:
        raise ValueError(f"no script among: {' '.join(words)}\n{USAGE}")
    if not Path(left[0]).is_file():
        raise ValueError(f"no script '{left[0]}' in {Path.cwd()}; name a file, such as "
                         "pipeline/train.py, behind the launcher's options")  # fmt: skip
    return _numbered(options, left[0]), left[1:]


def _checked(name: str, value: str) -> str:
    if name == "strategy" and value == "dp":
        raise ValueError("--strategy is dp, one process for several GPUs, which Lightning no "
                         "longer has; choose ddp, one process a GPU")  # fmt: skip
    if name in CHOICES and value not in CHOICES[name]:
        from sr_module.choice import unknown

        raise unknown(f"value of --{name}", value, CHOICES[name])
    if name in ("num_nodes", "node_rank", "main_port") and not value.isdecimal():
        raise ValueError(f"--{name.replace('_', '-')} is '{value}'; it must be a whole number")
    if name == "devices":
        check_words(value)
    return value


def _numbered(options: Mapping[str, str | None], script: str) -> Namespace:
    nodes, rank, port = (int(options[k] or 0) for k in ("num_nodes", "node_rank", "main_port"))
    if nodes < 1:
        raise ValueError(f"--num-nodes is {nodes}; it counts all nodes and must be 1 or more")
    if not 1 <= port <= LAST_PORT:
        raise ValueError(f"--main-port is {port}; ports go from 1 to {LAST_PORT}")
    if rank >= nodes:
        raise ValueError(
            f"--node-rank is {rank}; with --num-nodes {nodes} it goes from 0 to {nodes - 1}"
        )
    numbers = {"num_nodes": nodes, "node_rank": rank, "main_port": port}
    return Namespace(**{**options, **numbers, "script": script})


def _launch(options: Namespace, words: list[str]) -> int:
    """Starts the processes and waits for them; the status of the first that failed."""
    from lightning_fabric import cli
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    place = placed(options.accelerator, options.devices)
    os.environ.update(place.environment)
    try:
        cli.main(Namespace(**{**vars(options), "devices": str(place.processes)}), words)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        status = 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode
        ended = f"by signal {-failure.exitcode}" if failure.exitcode < 0 else f"with {status}"
        sys.stderr.write(f"lightning run: rank {rank} ended {ended}; the others were ended too\n")
        return int(status)
    except SignalException as stop:
        return 128 + int(stop.sigval)
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ValueError(
            f"port {options.main_port} is taken on this machine; choose another with --main-port"
        ) from error
    return 0

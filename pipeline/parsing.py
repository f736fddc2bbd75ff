"""The words of ``srdet train`` and its YAML files -> trainer, model, data, or one clear error."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.strategies import StrategyRegistry
from pytorch_lightning.utilities import exceptions

from pipeline.data import ShardData
from pipeline.options import Parser, UsageError
from pipeline.placing import devices_there, placed
from pipeline.settings import RaySettings, RunSettings
from pipeline.upscalers import network_file
from pipeline.world import trainer_world, world_of

# Short class names in YAML are found among what is imported.
from sr_module.adversarial import Adversarial  # noqa: F401
from sr_module.choice import unknown
from sr_module.closed_form import ClosedForm  # noqa: F401
from sr_module.regression import Regression  # noqa: F401
from sr_module.training import SRTraining

CONF = Path(__file__).resolve().parents[1] / "conf"
SHORT = {"--resume": "--run.resume", "--ray": "--ray.workers"}
"""Words that people type for longer ones."""
TRAINER = "trainer.{}"


class TrainParser(Parser, LightningArgumentParser):
    """LightningCLI's parser with one-sentence errors."""


class TrainCLI(LightningCLI):
    """Parses configs; the trainer is fitted to the world that a launcher started."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's own settings; the data are made for the network's scale."""
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(RaySettings, "ray")
        parser.link_arguments("model.init_args.scale", "data.scale")
        parser.link_arguments("model", "data.frames", compute_fn=_frames, apply_on="instantiate")
        parser.link_arguments("run.log_every", "trainer.log_every_n_steps")
        # Where SLURM stops a job, Lightning leaves its checkpoint there, and later looks for it.
        parser.link_arguments("run.out", "trainer.default_root_dir", compute_fn=str)

    def before_instantiate_classes(self) -> None:
        """What can be said at once; weights to start from may be named as any network is."""
        arguments = self.config.model.init_args
        _check_steps(self.config.trainer, self.config.model)
        _check_strategy(self.config.trainer.get("strategy"))
        if arguments.get("init_from"):  # what is solved in closed form starts from nothing
            arguments.init_from = str(network_file(arguments.init_from))

    def instantiate_classes(self) -> None:
        """Not yet: a process that starts others checks the settings and builds nothing."""

    def build(self) -> None:
        """Makes trainer, model and data.

        Raises:
            ValueError: a setting that does not fit.
            OSError: a file that a setting names is missing or unreadable.
        """
        with _in_their_words():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:  # noqa: ANN401
        """The trainer, in the launcher's world, with neither logger nor callbacks yet."""
        configured = dict(self._get(self.config_init, "trainer", default={}))
        model: SRTraining = self._get(self.config_init, "model")
        if world_of() is None:  # else their number is the launcher's affair
            _check_devices(configured)
        fitted = trainer_world(configured, whole_steps=model.whole_steps)
        devices_there(_accelerator(fitted), TRAINER)
        return super().instantiate_trainer(**{**fitted, **kwargs})


def parse(words: list[str]) -> TrainCLI:
    """Checks ``words`` and their files behind conf/default.yaml; nothing is built yet.

    Raises:
        ValueError: a key or value that does not fit, with the nearest right one.
        OSError: a file that a setting names is missing or unreadable.
    """
    with _in_their_words():
        return _cli(_arguments(words))


@contextlib.contextmanager
def _in_their_words() -> Iterator[None]:
    """Jsonargparse hides a constructor's sentence in a page about types; Lightning has its own."""
    try:
        yield
    except exceptions.MisconfigurationException as error:  # type: ignore[attr-defined]
        raise ValueError(" ".join(str(error).split())) from error
    except ValueError as error:
        said = error.__cause__ if not isinstance(error, UsageError) else None
        raise said if isinstance(said, ValueError | OSError) else error from None


def _check_devices(trainer: Mapping[str, Any]) -> None:
    """Refuses what is no number of devices, and devices that are not here."""
    devices = trainer.get("devices")
    if isinstance(devices, list):
        devices = ",".join(map(str, devices)) + "," * (len(devices) == 1)
    if devices is not None and str(devices) != "-1":
        placed(_accelerator(trainer), str(devices), option=TRAINER)


def _accelerator(trainer: Mapping[str, Any]) -> str:
    return str(trainer.get("accelerator") or "auto")


def _check_strategy(strategy: object) -> None:
    """Lightning would refuse it in every process that trains, and offer four of its names."""
    known = ("auto", *StrategyRegistry.available_strategies())
    if isinstance(strategy, str) and strategy.lower() not in known:
        raise unknown(f"value of {TRAINER.format('strategy')}", strategy, known)


_STEPS = (("gradient_clip_val", "clip_norm", None), ("accumulate_grad_batches", "accumulate", 1))
"""Lightning's settings of a step, our own of an adversarial one, and what changes nothing."""


def _check_steps(trainer: Mapping[str, Any], model: Namespace) -> None:
    """Lightning clips and accumulates for one optimiser; a module may have its own way."""
    if "accumulate" not in model.init_args:
        return
    name = model.class_path.rpartition(".")[2]
    for key, ours, none in _STEPS:
        if trainer.get(key) not in (None, 0, none):
            raise ValueError(
                f"trainer.{key} is {trainer[key]}, but {name} steps its two networks itself; leave "
                f"it out, and give model.init_args.{ours}"
            )


def _arguments(words: list[str]) -> list[str]:
    """``words`` behind the default file, short ones spelt out."""
    if _asks_help(words):
        return words
    parts = (word.partition("=") for word in words)
    return ["--config", str(CONF / "default.yaml")] + [
        SHORT.get(name, name) + equals + value for name, equals, value in parts
    ]


def _cli(arguments: list[str]) -> TrainCLI:
    return TrainCLI(
        SRTraining,
        ShardData,
        subclass_mode_model=True,
        save_config_callback=None,
        run=False,
        parser_class=TrainParser,
        parser_kwargs={
            "prog": "srdet train",
            "description": "Train a super-resolution network from shards.",
        },
        trainer_defaults={
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
        },
        args=arguments,
        seed_everything_default=0,
    )


def _frames(model: SRTraining) -> int:
    return model.net.frames


def _asks_help(words: list[str]) -> bool:
    return any(word == "--help" or word.startswith("--help") or word == "-h" for word in words)


def plain(cli: TrainCLI) -> dict[str, Any]:
    """The resolved config as plain values, as ``--print_config`` shows it."""
    dumped = cli.parser.dump(cli.config, skip_none=False, skip_link_targets=False)
    plain: dict[str, Any] = yaml.safe_load(dumped)
    plain.pop("config", None)
    return plain

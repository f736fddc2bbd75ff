"""What a training run tells MLflow besides its curves: where it comes from, and what it made."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.files import atomic_file, full_disk_named
from pipeline.index import Index
from pipeline.outcome import Best
from pipeline.packing import pack_network
from pipeline.settings import RunSettings
from pipeline.tracking import Card, Data, Run, shown
from pipeline.watch import SHEET
from pipeline.world import world_of
from sr_module.net import SRNet


@dataclass(frozen=True)
class Origins:
    """Where a training run comes from.

    Attributes:
        kind: of training.
        net: in its first state.
        shards: folder or address.
        index: of the shards.
        configs: files of settings that were named.
        processes: that train together.
    """

    kind: str
    net: SRNet
    shards: str
    index: Index
    configs: Sequence[str]
    processes: int

    @property
    def tags(self) -> dict[str, str]:
        """What runs are searched by."""
        world = world_of()
        return {
            "arch": self.net.arch,
            "scale": str(self.net.scale),
            "config": ", ".join(self.configs) or "none",
            "shards": self.shards,
            "shards.digest": self.index.digest(),
            "launcher": world.launcher if world else "none",
            "world_size": str(self.processes),
        }

    @property
    def data(self) -> list[Data]:
        """The shards, by split."""
        contexts = {"train": "training", "val": "validation"}
        return [
            Data(
                f"{Path(self.shards).name or self.shards} {name}",
                self.index.digest(),
                self.shards,
                contexts[name],
                f'{{"pictures": {split.pictures}, "samples": {split.samples}}}',
            )
            for name, split in self.index.splits.items()
            if split.samples
        ]

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(p.numel() for p in self.net.parameters())

    def description(self, scores: Mapping[str, float] | None = None) -> str:
        """Markdown for the run's page."""
        arguments = ", ".join(f"{key} {value}" for key, value in self.net.arch_args.items())
        train = self.index.splits["train"]
        pictures = f"{train.pictures:,} pictures in {train.samples:,} pieces"
        told = ", ".join(f"{name} **{value:.4g}**" for name, value in (scores or {}).items())
        lines = [
            f"**{self.net.arch} x{self.net.scale}** by {self.kind}, {self.parameters:,} parameters"
            + (f" ({arguments})" if arguments else ""),
            *([f"- {told}"] if told else []),
            f"- data: {self.index.source or self.shards}, {pictures}",
            f"- recipe: {', '.join(f'`{config}`' for config in self.configs) or 'no file'}",
        ]
        return "\n".join(lines)


def record_settings(run: Run, config: Mapping[str, Any], origins: Origins, out: Path) -> None:
    """All settings as parameters and as the file they are, here and in the run; and the data."""
    describe(run, origins, pictures=config["run"]["pictures"])
    text = yaml.safe_dump(dict(config), sort_keys=False)
    run.params(config)
    run.text(text, "config.yaml")
    run.inputs(origins.data)
    with atomic_file(out / "config.yaml") as temporary:
        temporary.write_text(text)


def describe(
    run: Run, origins: Origins, scores: Mapping[str, float] | None = None, *, pictures: int
) -> None:
    """What the run is, with its scores and newest validation pictures where it has any."""
    text = origins.description(scores)
    if pictures:
        text += f"\n\nLR, bicubic, SR and HR, as last validated:\n\n{shown(SHEET)}"
    run.describe(text)


def send_networks(
    run: Run,
    net: Path,
    origins: Origins,
    settings: RunSettings,
    *,
    best: Best | None,
    metrics: Mapping[str, float],
    steps: int,
) -> None:
    """Stores a run's networks; the better one as a model of MLflow, registered where asked for.

    Args:
        run: of the training.
        net: the network after the last step.
        origins: of the training.
        settings: of the run.
        best: the best network so far, where one is kept.
        metrics: measured last.
        steps: taken.

    Raises:
        NoSpaceError: the disk is full.
    """
    for path in [net, *([best.net] if best else [])]:
        run.artifact(path, folder="weights")
    metric = best.metric if best else (settings.best or "val/psnr_y")
    value = best.score if best else metrics.get(metric, float("nan"))
    card = Card(
        name="network", kind="network", scale=origins.net.scale, step=best.step if best else steps,
        register=settings.register or "", metric=metric, value=value,
        data=origins.index.digest()[:16], tags={"arch": origins.net.arch},
        description=origins.description({metric: value}),
    )  # fmt: skip
    with full_disk_named(settings.out), tempfile.TemporaryDirectory(dir=settings.out) as folder:
        packed = Path(folder) / "network"
        pack_network(best.net if best else net, packed)
        run.model(packed, card)
    scores = {key: score for key, score in metrics.items() if key.startswith("val/")}
    describe(run, origins, scores, pictures=settings.pictures)

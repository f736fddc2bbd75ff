"""The network for use: all ranks validate the same one, and the best so far is kept."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import distributed

from pipeline.outcome import Best
from sr_module.checkpoint import read_provenance


class KeepBest(pl.Callback):
    """Writes the network for use whenever a validation was the best so far.

    The file itself says how good it is, so that it stays the best over any stop.

    Args:
        path: of the network.
        metric: of the validation; more is better. None keeps no network.
        export: writes the network with the validation's metrics in its provenance.
        resumed: whether the run goes on, so that what is there is its own.
        validation: what it is validated with; scores by another one are not compared.
    """

    def __init__(
        self,
        path: Path,
        metric: str | None,
        *,
        export: Callable[[Path], None],
        resumed: bool,
        validation: Mapping[str, str],
    ) -> None:
        self.path, self.metric, self.export = path, metric, export
        known = metric and resumed and path.exists()
        self.best = _best_of(path, str(metric), validation) if known else None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compares; what is not finite is never the best."""
        if trainer.sanity_checking or self.metric is None:
            return
        score = float(trainer.callback_metrics[self.metric])
        if math.isfinite(score) and (self.best is None or score > self.best.score):
            self.export(self.path)
            self.best = Best(self.metric, score, trainer.global_step, self.path)


def _best_of(path: Path, metric: str, validation: Mapping[str, str]) -> Best | None:
    """What a network that was kept says of itself; None if not by this metric and validation."""
    provenance: Any = read_provenance(path)
    score = provenance["metrics"].get(metric)
    if score is None or provenance.get("validation", validation) != validation:
        return None
    return Best(metric, score, provenance["steps"], path)


class SameBuffers(pl.Callback):
    """Every rank validates the network of rank zero, which is the one that leaves the run.

    Weights are the same on all ranks, but BatchNorm's statistics, and their average, have moved by
    each rank's own batch since the step began.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sends rank zero's buffers to the others."""
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                distributed.broadcast(buffer, src=0)

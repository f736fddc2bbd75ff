"""What a training run leaves, and how it is told at the end."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline.addresses import open_command, runs_page
from pipeline.damage import SKIPPED_SAMPLES, SKIPPED_SHARDS, SMALL_SAMPLES
from pipeline.going_on import Start, listed
from pipeline.progress import console
from pipeline.tracking import Run, ending
from sr_module.checkpoint import read_provenance

NET, BEST_NET = "net.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Best:
    """The best network so far.

    Attributes:
        metric: by which it is the best.
        score: its value.
        step: after which it was that good.
        net: its file.
    """

    metric: str
    score: float
    step: int
    net: Path

    def __str__(self) -> str:
        return f"{self.metric} {self.score:.4g} at step {self.step}"


@dataclass(frozen=True)
class Trained:
    """What a run leaves.

    Attributes:
        net: the averaged network after the last step.
        metrics: all that was measured last.
        run: in MLflow.
        steps: taken in the whole run, resumed parts included.
        images: crops seen by all ranks, likewise.
        seconds: spent training and validating, likewise.
        skipped: batches that were not finite, likewise.
        best: the best network by the run's metric, where one is kept.
    """

    net: Path
    metrics: dict[str, float]
    run: Run | None
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: Best | None = None


def finished(out: Path, start: Start, max_steps: int) -> bool:
    """Whether the run in ``out`` has made its steps, written its network and told all of it.

    One that died in between has nothing left to train, but is not finished.

    Args:
        out: folder of the run.
        start: where it would begin now.
        max_steps: that it is to make.
    """
    net = out / NET
    if not start.ended(max_steps) or not net.is_file() or ending(out) != "FINISHED":
        return False
    return read_provenance(net).get("steps") == start.step


def tell_finished(out: Path, start: Start) -> None:
    """What is said in the place of a training that was made before."""
    told = f"finished: {out} has all its {start.step} steps; nothing is done"
    console.print(told, highlight=False, soft_wrap=True)
    if start.changed:
        console.print(
            f"it was trained under other settings than these: {listed(start.changed)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"network for use: {out / NET}", soft_wrap=True)
    console.print(
        "a higher --trainer.max_steps trains on, `srdet train validate` scores it again",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def tell(trained: Trained) -> None:
    """The summary at the end of a run."""
    time = timedelta(seconds=round(trained.seconds))
    skipped = f", {trained.skipped} batches skipped that were not finite" * bool(trained.skipped)
    console.print(
        f"trained: {trained.steps} steps, {trained.images} images, {time}{skipped}", highlight=False
    )
    names = (SKIPPED_SAMPLES, SKIPPED_SHARDS, SMALL_SAMPLES)
    samples, shards, small = (int(trained.metrics.get(name, 0)) for name in names)
    if samples or small:
        console.print(
            f"data: {samples} samples of {shards} shards were damaged or out of reach, {small} "
            "smaller than the crop; the log says which", highlight=False,
        )  # fmt: skip
    scores = ", ".join(f"{k} {v:.4g}" for k, v in trained.metrics.items() if k.startswith("val/"))
    console.print(f"scores: {scores}", highlight=False)
    console.print(f"network for use: {trained.net}", soft_wrap=True)
    if trained.best:
        best = trained.best
        console.print(f"best by {best}: {best.net}", highlight=False, soft_wrap=True)
    if trained.run:
        console.print(f"MLflow: {open_command(trained.run.uri)}", highlight=False, soft_wrap=True)
        place = runs_page(trained.run.uri, trained.run.experiment_id)
        console.print(f"        and then {place}", highlight=False, soft_wrap=True)

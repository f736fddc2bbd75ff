"""``srdet train --profile``: where a training step's time goes, as a table and a picture.

Lightning tells its profiler whenever something begins or ends; here that becomes one time line a
step, on which every moment belongs to exactly one phase. On an accelerator the line is the
device's own: what the host does meanwhile costs nothing, and is not shown.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.profilers import Profiler
from rich.table import Table

from pipeline.files import atomic_file
from pipeline.progress import console
from pipeline.tracking import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASES = {
    "data wait": "until the readers hand over the next batch",
    "preparing": "to the device, float, low resolution",
    "forward": "networks and losses",
    "backward": "gradients, and their exchange between processes",
    "optimizer": "check, clipping, step, running average",
    "other": "logging, bar, checkpoints",
}
SHORT, STEPS, PICTURE = "--profile", 50, "profile.png"
WARM_UP = 10
"""Steps before the first that counts: kernels are chosen, memory is taken, readers get ahead."""

Phases = dict[str, float]
"""Seconds of each phase in one step."""

_NEXT = "train_dataloader_next"
_OPENED_BY = {
    _NEXT: "data wait",
    "batch_to_device": "preparing",
    "training_step": "forward",
    "optimizer_step": "optimizer",
}


class LoaderClock(Profiler):
    """Counts the seconds in which training waited for its data loader, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        self._asked = 0.0

    def start(self, action_name: str) -> None:
        """Something begins."""
        if action_name.endswith(_NEXT):
            self._asked = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Something ends."""
        if action_name.endswith(_NEXT):
            self.waited += time.perf_counter() - self._asked


class StepProfile(LoaderClock):
    """Divides ``steps`` steps into phases, hands them over once, and is silent afterwards.

    Args:
        steps: that count.
        done: takes the phases of each.
        skip: steps before them.
    """

    def __init__(
        self, steps: int, *, done: Callable[[list[Phases]], object], skip: int = WARM_UP
    ) -> None:
        super().__init__()
        self.steps, self.done, self.skip = steps, done, skip
        self._open = ["other"]
        self._marks: list[tuple[str, Any]] = []  # a phase, and when it began
        self._lines: list[list[tuple[str, Any]]] = []  # a step's marks
        self._disturbed = True  # before the first batch lies no step
        self._finished = False

    def start(self, action_name: str) -> None:
        """Something begins."""
        super().start(action_name)
        if self._finished:
            return
        name = action_name.rpartition(".")[2]
        if name == _NEXT:
            self._next_step()
        if name == "on_validation_start":
            self._disturbed = True
        if name == "on_after_backward" and self._open[-1] == "backward":
            self._close()
        if phase := _phase(name):
            self._begin(phase)

    def stop(self, action_name: str) -> None:
        """Something ends."""
        super().stop(action_name)
        if self._finished:
            return
        name = action_name.rpartition(".")[2]
        if phase := _phase(name):
            self._close()
            # By hand, networks are stepped within the training step; the average follows them.
            if phase == "optimizer" and self._open[-1] == "forward":
                self._open[-1] = "optimizer"
                self._mark()
        if action_name.startswith("[LightningModule]") and name == "on_before_backward":
            self._begin("backward")  # Lightning's own action is missing where it is called by hand

    def _begin(self, phase: str) -> None:
        self._open.append(phase)
        self._mark()

    def _close(self) -> None:
        self._open.pop()
        self._mark()

    def _mark(self) -> None:
        self._marks.append((self._open[-1], _now()))

    def _next_step(self) -> None:
        """Where one step ends and the next begins."""
        self._marks.append(("", _now()))
        if not self._disturbed:
            self._lines.append(self._marks)
        self._marks, self._disturbed = [("data wait", self._marks[-1][1])], False
        if len(self._lines) == self.skip + self.steps:
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        self.done([_divided(line) for line in self._lines[self.skip :]])

    def describe(self) -> None:
        """At the end of a run that was shorter: what there is."""
        if not self._finished and len(self._lines) > self.skip:
            self._finish()


def _phase(name: str) -> str | None:
    return "optimizer" if name.endswith("optimizer_step") else _OPENED_BY.get(name)


def _now() -> Any:  # noqa: ANN401 (a time, or an event that will know it)
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _divided(line: Sequence[tuple[str, Any]]) -> Phases:
    phases = dict.fromkeys(PHASES, 0.0)
    for (phase, began), (_, ended) in itertools.pairwise(line):
        phases[phase] += _between(began, ended)
    return phases


def _between(began: Any, ended: Any) -> float:  # noqa: ANN401
    if isinstance(began, float):
        return float(ended - began)
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


def means(steps: Sequence[Phases]) -> Phases:
    """Seconds of each phase in a step, on average."""
    return {phase: sum(step[phase] for step in steps) / len(steps) for phase in PHASES}


def table(steps: Sequence[Phases]) -> Table:
    """Milliseconds and share of each phase, and what it is."""
    mean = means(steps)
    whole = sum(mean.values())
    title = f"a training step: {whole * 1000:.1f} ms (mean of {len(steps)} steps)"
    made = Table(title=title, title_justify="left")
    made.add_column("phase")
    made.add_column("ms", justify="right")
    made.add_column("share", justify="right")
    made.add_column("what it is", style="dim")
    for phase, seconds in mean.items():
        made.add_row(phase, f"{seconds * 1000:.1f}", f"{seconds / whole:.1%}", PHASES[phase])
    return made


def draw(steps: Sequence[Phases]) -> "Figure":
    """The mean step as one bar above the single steps, phases in the same colours."""
    from matplotlib.figure import Figure

    mean = means(steps)
    whole = sum(mean.values())
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    bar, course = figure.subplots(2, 1, height_ratios=(1, 3))
    left = 0.0
    for number, (phase, seconds) in enumerate(mean.items()):
        ms, colour = seconds * 1000, f"C{number}"
        bar.barh(0, ms, left=left, color=colour, label=f"{phase} {seconds / whole:.0%}")
        left += ms
    bar.set(title=f"a training step: {whole * 1000:.1f} ms", xlim=(0, left), yticks=[])
    rows = [[step[phase] * 1000 for step in steps] for phase in PHASES]
    course.stackplot(range(1, len(steps) + 1), rows, colors=[f"C{n}" for n in range(len(rows))])
    course.set(xlabel="step", ylabel="ms", xlim=(1, max(2, len(steps))), ylim=(0, None))
    figure.legend(*bar.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def tell(steps: Sequence[Phases], *, folder: Path, run: Run) -> None:
    """Prints the table, and puts the picture beside the run and into MLflow."""
    figure, place = draw(steps), folder / PICTURE
    with atomic_file(place) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    run.figure(figure, PICTURE)
    console.print(table(steps))
    console.print(f"drawn: {place}", highlight=False, soft_wrap=True)


def check_long_enough(max_steps: int) -> None:
    """Before a run that is to be profiled.

    Raises:
        ValueError: it ends before the first step that would count.
    """
    if 0 <= max_steps <= WARM_UP + 1:
        raise ValueError(
            f"trainer.max_steps {max_steps} is too few for a profile, which begins after {WARM_UP}"
            " steps; take more, or leave --profile out"
        )


def spelled_out(words: Sequence[str]) -> list[str]:
    """``--profile``, ``--profile STEPS`` and ``--profile=STEPS`` as the setting they stand for."""
    spelled, left = [], list(words)
    while left:
        name, equals, steps = left.pop(0).partition("=")
        if name != SHORT:
            spelled.append(name + equals + steps)
            continue
        if not equals:
            steps = left.pop(0) if left and not left[0].startswith("--") else str(STEPS)
        spelled.append(f"--run.profile={steps}")
    return spelled

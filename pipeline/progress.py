"""One look for every progress bar."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)


@contextlib.contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a bar with count and time left; hands out the function that advances it.

    Where the output is not a terminal, one line says what is done, so that logs stay readable.
    """
    if not sys.stderr.isatty():
        console.print(f"{what} ...", highlight=False)
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda step: progress.advance(task, step)


class _TimeLeft(TimeRemainingColumn):
    """Says which time it is: what is left, or at the end what it took."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(" in all" if task.finished else " left")


class StepsBar(Progress):
    """A bar for training, and below it a line of numbers: the field ``said`` of its task.

    Numbers beside the bar would push it off a narrow terminal.
    """

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            _TimeLeft(elapsed_when_finished=True),
            console=console,
            expand=True,
            speed_estimate_period=300,  # s; of slow steps the usual 30 hold too few
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, then the numbers."""
        yield from super().get_renderables()
        yield from (Text(task.fields["said"], style="dim") for task in self.tasks)

"""What a person sees of a sweep while it goes."""

import io
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from pipeline.sweeps.board import Board

LABELS = {"model.init_args.optimisation.learning_rate": "learning_rate", "data.crop": "crop"}


@dataclass
class Trial:
    """As much of Ray's trial as the board looks at."""

    name: str
    status: str
    config: dict
    last_result: dict = field(default_factory=dict)
    num_failures: int = 0

    def __str__(self):
        return self.name


def trials():
    point = {"model.init_args.optimisation.learning_rate": 0.001234, "data.crop": 48}
    return [
        Trial("trial-001", "TERMINATED", {"point": point}, {"val/psnr_y": 28.5, "validations": 4}),
        Trial("trial-002", "TERMINATED", {"point": point}, {"val/psnr_y": 26.5, "validations": 1}),
        Trial("trial-003", "RUNNING", {"point": point}, {"val/psnr_y": 27.5, "validations": 2}, 1),
        Trial("trial-004", "PENDING", {"point": point}),
    ]


@pytest.fixture
def board():
    return Board({"val/psnr_y": "max"}, LABELS, total=4, validations=4)


def drawn(board, width=100):
    screen = Console(file=io.StringIO(), width=width, height=40)
    screen.print(board)
    return screen.file.getvalue()


def test_the_board_tells_done_stopped_running_and_waiting_trials_apart(board):
    board.look(trials(), now=True)
    text = drawn(board)
    assert "2 of 4 trials" in text
    for line, words in {
        "trial-001": ("done", "0.00123", "48", "4/4", "28.5"), "trial-002": ("stopped", "1/4"),
        "trial-003": ("running, try 2", "2/4"), "trial-004": ("waiting",),
    }.items():  # fmt: skip
        row = next(row for row in text.splitlines() if row.startswith(line))
        assert all(word in row for word in words), row


def test_trials_that_were_stopped_count_as_work_that_is_behind(board):
    board.look(trials(), now=True)
    assert board.done() == pytest.approx((1 + 1 + 0.5 + 0) / 4)


def test_where_there_is_no_terminal_each_end_and_each_new_best_is_a_line(board, capsys):
    board.look(trials(), now=True)
    board.look(trials(), now=True)
    lines = capsys.readouterr().err.splitlines()
    assert sum("the best so far (learning_rate 0.00123, crop 48)" in line for line in lines) == 1
    assert sum(line.startswith("trial-001: done after 4 of 4 validations") for line in lines) == 1
    assert len(lines) == 3

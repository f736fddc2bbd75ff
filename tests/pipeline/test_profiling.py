import re
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient
from torch.utils.data import DataLoader, TensorDataset

from pipeline import profiling
from pipeline.profiling import PHASES, Phases, StepProfile
from pipeline.train import main
from sr_module.adversarial import Adversarial
from sr_module.regression import Regression
from sr_module.resize import imresize
from sr_module.training import SRTraining

SMALL = {"arch_args": {"features": 4, "blocks": 1}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it on."""
    hands = [0.0]
    monkeypatch.setattr(profiling, "_now", lambda: hands[0])
    return hands


def takes(clock: list[float], seconds: float, call: Callable) -> Callable:
    def slow(*args: object, **kwargs: object) -> object:
        clock[0] += seconds
        return call(*args, **kwargs)

    return slow


def profiled(model: SRTraining, clock: list[float], *, steps: int, skip: int) -> list[Phases]:
    """Trains with parts that take 1, 2, 4 ... seconds."""
    found: list[Phases] = []
    hr = torch.rand(12, 3, 32, 32)
    pairs = TensorDataset(imresize(hr, 0.25), hr)
    data = DataLoader(pairs, 2, collate_fn=takes(clock, 1, torch.utils.data.default_collate))
    model.transfer_batch_to_device = takes(clock, 2, model.transfer_batch_to_device)
    model.net.forward = takes(clock, 4, model.net.forward)
    model.backward = takes(clock, 8, model.backward)
    model.move_average = takes(clock, 16, model.move_average)
    profile = StepProfile(steps, done=found.extend, skip=skip)
    trainer = pl.Trainer(
        max_steps=6, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, profiler=profile,
        callbacks=[TakesAWhile(clock)],
    )  # fmt: skip
    trainer.fit(model, data)
    return found


class TakesAWhile(pl.Callback):
    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def on_train_batch_end(self, *_: object) -> None:
        self.clock[0] += 32


def test_every_second_of_a_step_belongs_to_the_phase_in_which_it_passed(clock: list[float]):
    steps = profiled(Regression("msrresnet", **SMALL), clock, steps=3, skip=1)
    expected = {
        "data wait": 1.0, "preparing": 2.0, "forward": 4.0, "backward": 8.0, "optimizer": 16.0,
        "other": 32.0,
    }  # fmt: skip
    assert steps == [expected] * 3


def test_a_step_of_two_networks_is_divided_likewise(clock: list[float]):
    model = Adversarial("msrresnet", **SMALL, discriminator_args={"features": 4})
    steps = profiled(model, clock, steps=2, skip=1)
    expected = {
        "data wait": 1.0, "preparing": 2.0, "forward": 4.0, "backward": 16.0, "optimizer": 16.0,
        "other": 32.0,
    }  # fmt: skip
    assert steps == [expected] * 2


def test_the_table_has_a_row_a_phase_and_their_shares():
    step = {phase: float(number) for number, phase in enumerate(PHASES, 1)}
    made = profiling.table([step, step])
    assert "21000.0 ms (mean of 2 steps)" in str(made.title)
    assert list(made.columns[0].cells) == list(PHASES)
    assert list(made.columns[2].cells)[-1] == "28.6%"


def test_a_profiled_training_prints_its_table_and_keeps_its_picture(
    tiny, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
):
    words = tiny("--trainer.max_steps", "18", "--data.steps_per_epoch", "18")
    main([*words, "--profile", "5"])
    told = capsys.readouterr().err
    assert re.search(r"a training step: [\d.]+ ms \(mean of 5 steps\)", told)
    assert all(phase in told for phase in PHASES)
    assert (tmp_path / "run" / "profile.png").read_bytes().startswith(b"\x89PNG")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tests")
    newest = client.search_runs([experiment.experiment_id], max_results=1)[0]
    assert "profile.png" in [item.path for item in client.list_artifacts(newest.info.run_id)]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--profile"], ["--run.profile=50"]),
        (["--profile", "--seed", "1"], ["--run.profile=50", "--seed", "1"]),
        (["--seed", "1", "--profile", "20"], ["--seed", "1", "--run.profile=20"]),
        (["--profile=20", "--seed", "1"], ["--run.profile=20", "--seed", "1"]),
        (["--profile", "-5"], ["--run.profile=-5"]),
        (["--profile", "many"], ["--run.profile=many"]),
        (["--seed", "1"], ["--seed", "1"]),
    ],
)
def test_the_short_form_stands_for_the_setting(given: list[str], meant: list[str]):
    assert profiling.spelled_out(given) == meant


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "-5"], r"run.profile is -5; it must be 0 steps or more"),
        (["--profile=-5"], r"run.profile is -5; it must be 0 steps or more"),
        (["--profile", "many"], r"run.profile.*many"),
    ],
)
def test_steps_that_are_none_are_refused(tiny, words, message):
    with pytest.raises(ValueError, match=message):
        main([*tiny(), *words])


def test_a_run_too_short_to_be_profiled_is_refused_before_it_starts(tiny):
    with pytest.raises(ValueError, match="is too few for a profile"):
        main([*tiny(), "--profile", "500"])

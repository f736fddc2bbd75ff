from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.parsing import parse
from pipeline.train import configured
from pipeline.world import RAY

Words = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accelerator", "cuda"], r"trainer.accelerator is cuda, but torch sees no such device"),
        (
            ["accelerator", "tpu"],
            r"unknown value of trainer.accelerator 'tpu'; .*choose from: auto",
        ),
        (["devices", "0"], r"trainer.devices is '0'; allowed: a number from 1, GPUs such as 0,3"),
        (["devices", "many"], r"trainer.devices is 'many'; allowed: a number from 1"),
        (["devices", "0,1"], r"trainer.devices is 0,1, which names GPUs, but the processes"),
        (["devices", "[0,1]"], r"trainer.devices is 0,1, which names GPUs, but the processes"),
        (["limit_val_batches", "-2"], r"limit_val_batches"),  # found by Lightning alone
    ],
)
def test_what_the_trainer_cannot_be_is_one_sentence(
    tiny: Words, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    given = [f"--trainer.{words[0]}", words[1]]
    with pytest.raises(ValueError, match=message):
        configured(tiny(*given))
    assert cli.main(["train", *tiny(*given)]) == 2
    assert capsys.readouterr().err.startswith("srdet train: error: ")


@pytest.mark.parametrize("more", [[], ["--ray", "2"]])
def test_a_misspelt_strategy_is_refused_before_any_process_starts(tiny: Words, more: list[str]):
    said = r"unknown value of trainer\.strategy 'dpp'; did you mean 'ddp'\? choose from: auto, ddp"
    with pytest.raises(ValueError, match=said):
        parse(tiny("--trainer.strategy", "dpp", *more))
    assert parse(tiny("--trainer.strategy", "DDP", *more))


def test_gpus_that_are_not_there_are_refused_under_a_launcher_too(
    tiny: Words, monkeypatch: pytest.MonkeyPatch
):
    for name, value in ((RAY, "1"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"trainer.accelerator is cuda, but torch sees no such"):
        configured(tiny("--trainer.accelerator", "cuda", "--trainer.devices", "auto"))


def test_all_devices_of_a_cpu_are_one_process(tiny: Words):
    assert configured(tiny("--trainer.devices", "-1")).trainer.world_size == 1


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [("gradient_clip_val", "1", "clip_norm"), ("accumulate_grad_batches", "2", "accumulate")],
)
def test_lightnings_way_to_change_steps_is_refused_where_the_module_has_its_own(
    tiny: Words, key: str, value: str, ours: str
):
    said = rf"trainer.{key} is {value}.*, but Adversarial .* itself; .* model.init_args.{ours}"
    with pytest.raises(ValueError, match=said):
        configured(tiny(f"--trainer.{key}", value, gan=True))
    assert configured(tiny(f"--model.init_args.{ours}", value, gan=True))
    assert configured(tiny(f"--trainer.{key}", value))


def test_a_run_needs_a_folder_and_no_file(tiny: Words, tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    for place in ("notes.txt", "notes.txt/run"):
        with pytest.raises(
            ValueError, match=r"run.out is .*, but .*notes.txt is a file; name a fo"
        ):
            configured(tiny(out=place))

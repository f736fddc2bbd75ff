from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from pipeline.train import Trained, configured, fit
from sr_module.checkpoint import load_net

Words = Callable[..., list[str]]
NOISE = ["--data.degradation", '{"scale": 4, "noise_sigma": 5.0}']

pytestmark = pytest.mark.usefixtures("store")


class StopAt(pl.Callback):
    """Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def train(words: list[str], **settings: Any) -> Trained:
    trained = fit(configured(words), **settings)
    assert trained is not None
    return trained


def state(out: Path) -> dict[str, Any]:
    """All that a run is: weights, averages, optimisers, schedules."""
    saved = torch.load(out / "last.ckpt", weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {key: saved[key] for key in kept}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("gan", [False, True], ids=["regression", "adversarial"])
def test_a_stopped_and_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(
    tiny: Words, tmp_path: Path, gan: bool, workers: str
) -> None:
    more = ["--data.workers", workers, *NOISE]
    train(tiny(*more, gan=gan, out="whole"))
    words = tiny(*more, gan=gan, out="stopped")
    with pytest.raises(KeyboardInterrupt):  # in the second epoch; the checkpoint is of step 3
        train(words, watching=[StopAt(5)])
    assert state(tmp_path / "stopped")["global_step"] == 3
    train(words)
    assert same(state(tmp_path / "whole"), state(tmp_path / "stopped"))
    whole, stopped = (load_net(tmp_path / n / "net.safetensors") for n in ("whole", "stopped"))
    assert same(whole.state_dict(), stopped.state_dict())


@pytest.mark.parametrize("gan", [False, True], ids=["regression", "adversarial"])
@pytest.mark.parametrize("first", [2, 4, 6])  # inside an epoch, at the end of one, inside the next
def test_a_run_goes_on_exactly_when_max_steps_is_raised(
    tiny: Words, tmp_path: Path, gan: bool, first: int
) -> None:
    train(tiny(*NOISE, gan=gan, out="whole"))
    train(tiny(*NOISE, "--trainer.max_steps", str(first), gan=gan, out="longer"))
    train(tiny(*NOISE, gan=gan, out="longer"))
    assert same(state(tmp_path / "whole"), state(tmp_path / "longer"))


def test_a_run_that_ends_by_epochs_goes_on_exactly(tiny: Words, tmp_path: Path) -> None:
    train(tiny("--trainer.max_steps", "8", out="whole"))
    train(tiny("--trainer.max_steps", "8", "--trainer.max_epochs", "1", out="longer"))
    assert state(tmp_path / "longer")["global_step"] == 4
    train(tiny("--trainer.max_steps", "8", out="longer"))
    assert same(state(tmp_path / "whole"), state(tmp_path / "longer"))

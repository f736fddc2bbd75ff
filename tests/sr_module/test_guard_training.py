"""What is skipped in real trainings, and when they end."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from sr_module.adversarial import Adversarial
from sr_module.guard import DivergenceError
from sr_module.optimisation import Optimisation
from sr_module.regression import Regression
from sr_module.resize import imresize
from sr_module.training import SRTraining

TINY = {"features": 8, "blocks": 1}


def batches(count: int, *, broken: range = range(0), what: str = "hr") -> list[list[Tensor]]:
    """``count`` sound ones in a fixed order, with broken ones at the given places among them."""
    draw = torch.Generator().manual_seed(2)
    found = []
    for _ in range(count):
        hr = F.interpolate(torch.rand(2, 3, 4, 4, generator=draw), scale_factor=4)
        found.append([imresize(hr, 0.25), hr])
    for place in broken:
        lr, hr = (picture.clone() for picture in found[0])
        (lr if what == "lr" else hr)[0, 1, 2, 3] = torch.nan if what == "hr" else torch.inf
        found.insert(place, [lr, hr])
    return found


def regression(**settings) -> Regression:
    torch.manual_seed(0)
    return Regression("srresnet", arch_args=TINY, ema_decay=0.1, **settings)


def adversarial(**settings) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial("srresnet", arch_args=TINY, ema_decay=0.1, gan_weight=0.1, **settings)


MODELS = {
    "adam": lambda: regression(optimisation=Optimisation(learning_rate=1e-3)),
    "sgd": lambda: regression(
        loss="l2", optimisation=Optimisation(learning_rate=1e-2, optimizer="sgd")
    ),
    "clipped": lambda: regression(clip_norm=1e-2),
    "unet": lambda: adversarial(discriminator_args={"features": 4}),
    "srgan": lambda: adversarial(
        discriminator="srgan", discriminator_args={"crop": 16, "features": 4}, gan="hinge"
    ),
}


def trained(
    model: SRTraining,
    data: list[list[Tensor]],
    *callbacks: pl.Callback,
    epochs: int = 1,
    ckpt_path: Path | None = None,
    **settings,
) -> tuple[pl.Trainer, dict[str, Tensor]]:
    """Goes through ``data`` in order; gives everything that training changes besides."""
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        **settings,
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=None), ckpt_path=ckpt_path)
    state = dict(model.state_dict())
    for i, optimizer in enumerate(trainer.optimizers):
        for j, memory in enumerate(optimizer.state.values()):
            state |= {f"optimizer{i}.{j}.{key}": value for key, value in memory.items()}
    return trainer, state


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("place", "what"), [(0, "lr"), (2, "hr")])
def test_a_run_with_a_broken_batch_ends_like_one_that_never_saw_it(name, place, what):
    """Weights, averages, BatchNorm's statistics, spectral norm, optimiser state: bit for bit."""
    broken = range(place, place + 1)
    trainer, found = trained(MODELS[name](), batches(4, broken=broken, what=what))
    _, expected = trained(MODELS[name](), batches(4))
    assert_equal(found, expected)
    assert any(key.endswith("running_var") for key in found)
    assert trainer.callback_metrics["train/skipped"] == 1
    assert trainer.global_step == 5


def test_accumulated_batches_are_skipped_together():
    data = batches(6)
    poisoned = [*data[:2], *batches(1, broken=range(1, 2)), *data[4:]]
    trainer, found = trained(MODELS["adam"](), poisoned, accumulate_grad_batches=2)
    _, expected = trained(MODELS["adam"](), data[:2] + data[4:], accumulate_grad_batches=2)
    assert_equal(found, expected)
    assert trainer.callback_metrics["train/skipped"] == 1


class Keep(pl.Callback):
    """Writes a checkpoint at the end of one step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_ten_broken_batches_in_a_row_are_put_up_with():
    trainer, found = trained(MODELS["adam"](), batches(2, broken=range(1, 11)))
    assert trainer.callback_metrics["train/skipped"] == 10
    assert_equal(found, trained(MODELS["adam"](), batches(2))[1])


@pytest.mark.parametrize("name", ["adam", "unet"])
def test_eleven_end_the_training_and_leave_a_sound_checkpoint(name, tmp_path):
    data = batches(2, broken=range(1, 12))
    message = r"step 12: more than 10 batches in a row .*, 11 in the whole run"
    with pytest.raises(DivergenceError, match=message) as caught:
        trained(MODELS[name](), data, Keep(tmp_path / "last.ckpt", 11))
    for cure in ("learning rate", "32-true", "pictures"):
        assert cure in str(caught.value)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    after_one = MODELS[name]()
    trained(after_one, data[:1])
    assert_equal(kept, after_one.state_dict())


def test_how_many_are_put_up_with_is_a_setting():
    with pytest.raises(DivergenceError, match="step 2: more than 0 batches"):
        trained(regression(max_skipped=0), batches(3, broken=range(1, 2)))


@pytest.mark.parametrize("name", ["adam", "unet"])
def test_a_resumed_run_goes_on_counting_and_ends_bit_for_bit_the_same(name, tmp_path):
    data, middle = batches(2, broken=range(1, 2)), tmp_path / "middle.ckpt"
    whole, expected = trained(MODELS[name](), data, Keep(middle, 3), epochs=2)
    resumed, found = trained(MODELS[name](), data, ckpt_path=middle, epochs=2)
    assert_equal(found, expected)
    for trainer in (whole, resumed):
        assert trainer.global_step == 6
        assert trainer.callback_metrics["train/skipped"] == 2


def test_an_accelerator_is_asked_when_a_point_of_the_curves_is_due():
    def asked(device: str, every: int) -> list[int]:
        steps = []
        for step in range(1, 101):
            module = SimpleNamespace(
                device=torch.device(device), global_step=step, log=lambda *_: None,
                trainer=SimpleNamespace(log_every_n_steps=every),
                guard=SimpleNamespace(
                    skipped=torch.tensor(0), check=lambda step=step: steps.append(step)
                ),
            )  # fmt: skip
            SRTraining.on_train_batch_end(module, None, None, 0)
        return steps

    assert asked("cuda", 40) == [40, 80]
    assert asked("cuda", 0) == [50, 100]
    assert asked("cpu", 40) == list(range(1, 101))


class Halves(IterableDataset):
    """Batches of which each process reads its half; one process reads them whole."""

    def __init__(self, data: list[list[Tensor]]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[list[Tensor]]:
        count = distributed.get_world_size() if distributed.is_initialized() else 1
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        for batch in self.data:
            yield [picture.chunk(count)[rank] for picture in batch]


def _share_a_training(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    data = batches(4, broken=range(2, 3))  # broken in its first half, which rank 0 reads
    _train_and_save(data, folder / f"{rank}.pt", devices=2)


def _train_and_save(data: list[list[Tensor]], path: Path, *, devices: int) -> None:
    sgd = Optimisation(learning_rate=0.1, optimizer="sgd")
    torch.manual_seed(0)
    model = Adversarial(
        "msrresnet", arch_args=TINY, ema_decay=0.1, pixel_weight=1.0, gan_weight=0.1,
        discriminator_args={"features": 4}, optimisation=sgd, discriminator_optimisation=sgd,
    )  # fmt: skip
    start = {key: value.clone() for key, value in model.state_dict().items()}
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=devices, logger=False, enable_checkpointing=False,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(Halves(data), batch_size=None))
    torch.save((start, model.state_dict(), int(model.guard.skipped)), path)


@pytest.mark.slow
def test_two_processes_skip_what_is_broken_for_one_and_learn_like_one(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_share_a_training, (port, tmp_path), nprocs=2)
    _train_and_save(batches(4), tmp_path / "alone.pt", devices=1)
    start, alone, _ = torch.load(tmp_path / "alone.pt")
    for part in ("net.", "discriminator."):
        moves = [(alone[key] - start[key]).abs().max() for key in start if key.startswith(part)]
        assert max(moves) > 1e-3
    for rank in (0, 1):
        _, shared, skipped = torch.load(tmp_path / f"{rank}.pt")
        assert skipped == 1
        for key, value in alone.items():
            torch.testing.assert_close(shared[key], value, atol=2e-6, rtol=1e-4)

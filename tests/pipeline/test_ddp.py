"""What several ranks do together, in real processes over gloo."""

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, multiprocessing
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pipeline import checkpoints
from pipeline.best import SameBuffers
from pipeline.data import ShardData
from pipeline.train import configured, fit
from sr_module.adversarial import Adversarial
from sr_module.closed_form import ClosedForm
from sr_module.optimisation import Optimisation
from sr_module.regression import Regression
from sr_module.resize import imresize

TINY = {"features": 8, "blocks": 1}


def _port() -> int:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        port: int = bound.getsockname()[1]
        return port


def _rank(rank: int, port: int, ranks: int, work: Any, *arguments: Any) -> None:
    torch.set_num_threads(1)
    world = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ.update({**world, **places})
    work(rank, ranks, *arguments)


def together(ranks: int, work: Any, *arguments: Any) -> None:
    """Runs ``work(rank, ranks, ...)`` in as many processes."""
    settings = (_port(), ranks, work, *arguments)
    multiprocessing.start_processes(_rank, settings, nprocs=ranks, start_method="fork")


def trainer(ranks: int, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", devices=ranks, logger=False, enable_checkpointing=False,
        strategy="ddp_find_unused_parameters_true" if ranks > 1 else "auto",
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        **settings,
    )  # fmt: skip


class Numbers(pl.Callback):
    """The red values, by which the pictures are known, that a rank validated with."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.seen.append(round(float(batch[1][0, 0].mean()) * 255))


def _validate(rank: int, ranks: int, shards: str, out: Path) -> None:
    torch.manual_seed(0)
    model, numbers = Regression("srresnet", arch_args=TINY), Numbers()
    data = ShardData(shards, crop=32, workers=0, val_limit=5)
    (scores,) = trainer(ranks, numbers).validate(model, data, verbose=False)
    torch.save((scores, numbers.seen), out / f"{ranks}-{rank}.pt")


@pytest.mark.slow
def test_any_number_of_ranks_validates_every_picture_once_with_the_same_scores(
    numbered_shards: Path, tmp_path: Path
):
    found = {}
    for ranks in (1, 2, 3):
        together(ranks, _validate, str(numbered_shards), tmp_path)
        parts = [torch.load(tmp_path / f"{ranks}-{rank}.pt") for rank in range(ranks)]
        assert all(scores == parts[0][0] for scores, _ in parts), "all ranks say the same"
        found[ranks] = parts[0][0], sorted(number for _, seen in parts for number in seen)
    scores, numbers = found[1]
    assert len(set(numbers)) == 5
    for others, seen in found.values():
        assert seen == numbers
        assert others == pytest.approx(scores, abs=1e-6)


class Share(IterableDataset[tuple[Tensor, Tensor]]):
    """A rank's part of fixed global batches of four pictures."""

    def __init__(self, rank: int, ranks: int, *, batches: int = 5) -> None:
        draw = torch.Generator().manual_seed(0)
        whole = [torch.rand(4, 3, 32, 32, generator=draw) for _ in range(batches)]
        self.hr = [hr.chunk(ranks)[rank] for hr in whole]

    def __iter__(self) -> Any:
        return iter([(imresize(hr, 0.25), hr) for hr in self.hr])


def _train(rank: int, ranks: int, arch: str, out: Path) -> None:
    torch.manual_seed(0)
    model = Regression(
        arch, arch_args=TINY, ema_decay=0.5,
        optimisation=Optimisation(learning_rate=0.1, optimizer="sgd"),
    )  # fmt: skip
    start = {key: value.clone() for key, value in model.state_dict().items()}
    data = DataLoader(Share(rank, ranks), batch_size=None)
    trainer(ranks, SameBuffers(), max_epochs=1).fit(model, data, data)
    torch.save((start, dict(model.state_dict())), out / f"{arch}-{ranks}-{rank}.pt")


@pytest.mark.slow
def test_two_ranks_learn_from_halves_what_one_learns_from_the_whole_batch(tmp_path: Path):
    """To 2e-6 of weights that moved by 1e-3 or more, averages included."""
    for ranks in (1, 2):
        together(ranks, _train, "msrresnet", tmp_path)
    start, alone = torch.load(tmp_path / "msrresnet-1-0.pt")
    assert max((alone[key] - start[key]).abs().max() for key in start) > 1e-3
    for rank in (0, 1):
        _, shared = torch.load(tmp_path / f"msrresnet-2-{rank}.pt")
        for key, value in alone.items():
            torch.testing.assert_close(shared[key], value, atol=2e-6, rtol=1e-4)


@pytest.mark.slow
def test_every_rank_has_the_same_average_with_its_statistics_at_a_validation(tmp_path: Path):
    together(2, _train, "srresnet", tmp_path)
    (_, first), (_, second) = (torch.load(tmp_path / f"srresnet-2-{r}.pt") for r in (0, 1))
    assert any(key.startswith("averaged.") and "running_var" in key for key in first)
    for key, value in first.items():
        assert torch.equal(second[key], value), key


def _train_gan(rank: int, ranks: int, out: Path) -> None:
    torch.manual_seed(0)
    sgd = Optimisation(learning_rate=0.1, optimizer="sgd")
    model = Adversarial(
        "msrresnet", arch_args=TINY, ema_decay=0.5, gan="ragan", pixel_weight=1.0, gan_weight=0.1,
        discriminator_args={"features": 4}, clip_norm=0.5, accumulate=2, optimisation=sgd,
        discriminator_optimisation=sgd,
    )  # fmt: skip
    start = {key: value.clone() for key, value in model.state_dict().items()}
    data = DataLoader(Share(rank, ranks, batches=6), batch_size=None)
    trainer(ranks, max_steps=3).fit(model, data)
    torch.save((start, dict(model.state_dict())), out / f"gan-{ranks}-{rank}.pt")


@pytest.mark.slow
def test_a_gan_with_clipping_and_accumulation_learns_on_two_ranks_what_it_learns_on_one(
    tmp_path: Path,
):
    """Relativistic means and clipped norms are those of the whole batch: to 2e-6."""
    for ranks in (1, 2):
        together(ranks, _train_gan, tmp_path)
    start, alone = torch.load(tmp_path / "gan-1-0.pt")
    for part in ("net.", "discriminator.", "averaged."):
        moves = [(alone[key] - start[key]).abs().max() for key in start if key.startswith(part)]
        assert max(moves) > 1e-3
    for rank in (0, 1):
        _, shared = torch.load(tmp_path / f"gan-2-{rank}.pt")
        for key, value in alone.items():
            torch.testing.assert_close(shared[key], value, atol=2e-6, rtol=1e-4)


class Kinds(pl.Callback):
    """What a model's normalisations are when training ends by an error."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        kinds = (type(part).__name__ for part in pl_module.modules())
        self.found = {kind for kind in kinds if "BatchNorm" in kind}


def _normalise(rank: int, ranks: int, out: Path) -> None:
    model = Adversarial(
        "srresnet", arch_args=TINY, discriminator="srgan",
        discriminator_args={"crop": 32, "features": 4},
    )  # fmt: skip
    data = DataLoader(Share(rank, ranks), batch_size=None)
    said, kinds = "", Kinds()
    try:
        trainer(ranks, kinds, max_steps=1, sync_batchnorm=True).fit(model, data)
    except ValueError as error:
        said = str(error)
    torch.save((kinds.found, said), out / f"{rank}.pt")


def test_every_batchnorm_of_both_networks_is_synchronised_on_demand(tmp_path: Path):
    """Its arithmetic needs GPUs: on a CPU torch refuses it, and so do we, before the run."""
    together(2, _normalise, tmp_path)
    for rank in (0, 1):
        kinds, said = torch.load(tmp_path / f"{rank}.pt")
        assert kinds == {"SyncBatchNorm"}
        assert said == "SyncBatchNorm layers only work with GPU modules"


class Begin(pl.Callback):
    """The state that training goes on from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save((trainer.global_step, dict(pl_module.state_dict())), self.path)


def _run(rank: int, ranks: int, words: list[str], out: Path) -> None:
    logging.getLogger("pipeline").addHandler(logging.FileHandler(out / "said.log"))
    setup = configured([*words, "--trainer.devices", str(ranks)])
    setup.trainer.callbacks.append(Begin(out / f"begin{rank}.pt"))
    trained = fit(setup)
    if trained is not None:
        torch.save((trained.steps, trained.images), out / "told.pt")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)], ids=["2to1", "1to2"])
def test_a_run_goes_on_with_another_number_of_ranks_and_says_what_that_changes(
    tiny: Any, tmp_path: Path, store: str, ranks: tuple[int, int]
):
    first, second = ranks
    together(first, _run, tiny("--trainer.max_steps", "3", gan=True), tmp_path)
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert "the run goes on with" not in (tmp_path / "said.log").read_text()
    together(second, _run, tiny("--trainer.max_steps", "5", gan=True), tmp_path)
    for rank in range(second):
        step, state = torch.load(tmp_path / f"begin{rank}.pt")
        assert step == 3
        assert all(torch.equal(state[key], value) for key, value in saved["state_dict"].items())
    assert torch.load(tmp_path / "told.pt") == (5, 3 * 2 * first + 2 * 2 * second)
    said = f"goes on with {second} ranks instead of {first}: steps, weights and optimisers are"
    assert (tmp_path / "said.log").read_text().count(said) == 1


def _disagree(rank: int, ranks: int, words: list[str], out: Path) -> None:
    more = [] if rank == 0 else ["--run.out", str(out / "elsewhere")]
    try:
        _run(rank, ranks, [*words, *more], out)
        said = ""
    except ValueError as error:
        said = str(error)
    torch.save(said, out / f"{rank}.pt")


@pytest.mark.slow
def test_ranks_that_do_not_see_the_same_run_are_refused(tiny: Any, tmp_path: Path, store: str):
    """As on two nodes without a shared disk, where one would go on and the other begin anew."""
    together(1, _run, tiny("--trainer.max_steps", "3"), tmp_path)
    together(2, _disagree, tiny("--trainer.max_steps", "5"), tmp_path)
    for rank, own in ((0, "last.ckpt"), (1, "the beginning")):
        said = torch.load(tmp_path / f"{rank}.pt")
        assert f"rank {rank} of 2 goes on from" in said
        assert own in said
        assert "must lie on a disk that all nodes share" in said


class TerminateAt(pl.Callback):
    """SIGTERM to this process alone, while it makes a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def _terminated(rank: int, ranks: int, words: list[str], out: Path) -> None:
    write = checkpoints.write

    def write_slowly(*arguments: Any, **settings: Any) -> None:
        time.sleep(3)  # as for a large state on a slow disk
        write(*arguments, **settings)

    checkpoints.write = write_slowly
    setup = configured([*words, "--trainer.devices", str(ranks)])
    try:
        fit(setup, watching=[TerminateAt(2)] if rank == 1 else [])
    except SystemExit as stop:
        there = (out / "run" / "last.ckpt").exists()
        torch.save((stop.code, there), out / f"{rank}.pt")


@pytest.mark.slow
def test_no_rank_ends_on_sigterm_before_the_last_checkpoint_is_whole(
    tiny: Any, tmp_path: Path, store: str
):
    """Launchers kill the others when one has ended."""
    together(2, _terminated, tiny("--run.checkpoint_every", "100"), tmp_path)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == (143, True)
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3  # ranks agree one step late


def _solve(rank: int, ranks: int, out: Path) -> None:
    torch.manual_seed(0)
    hr = torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8), scale_factor=4, mode="bicubic")
    lr = imresize(hr, 0.25)
    model = ClosedForm("raisr", arch_args={"patch": 3})
    share = DataLoader(TensorDataset(lr[rank::ranks], hr[rank::ranks]), 2)
    whole = DataLoader(TensorDataset(lr, hr), 1)
    steps = len(lr) // (2 * ranks)
    plain = {"use_distributed_sampler": False, "num_sanity_val_steps": 0, "precision": "32-true"}
    trainer(ranks, max_steps=steps, **plain).fit(model, share, whole)
    torch.save(model.averaged.filters, out / f"{ranks}-{rank}.pt")


def test_filters_are_solved_from_the_pictures_of_all_ranks(tmp_path: Path):
    for ranks in (1, 2):
        together(ranks, _solve, tmp_path)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert alone.abs().sum() > 0
    assert torch.allclose(first, alone, atol=1e-4)
    assert torch.equal(first, second)

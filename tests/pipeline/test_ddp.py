"""What several ranks do together, in real processes over gloo."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, multiprocessing
from torch.utils.data import DataLoader, IterableDataset

from pipeline.data import ShardData
from pipeline.resume import SameBuffers
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

    def __init__(self, rank: int, ranks: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.hr = [torch.rand(4, 3, 32, 32, generator=draw).chunk(ranks)[rank] for _ in range(5)]

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

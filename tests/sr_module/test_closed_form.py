"""Training by sums: a real trainer, its checkpoints, and the same network from two processes."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sr_module.checkpoint import load_net
from sr_module.closed_form import ClosedForm
from sr_module.resize import imresize

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def pictures(count: int) -> TensorDataset:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    hr = ((F.interpolate(coarse, size=(32, 32), mode="bicubic") - 0.5) * 6).sigmoid()
    return TensorDataset(imresize(hr, 0.25), hr)


def trained(steps: int, *, ckpt: Path | None = None, **more) -> tuple[ClosedForm, pl.Trainer]:
    model = ClosedForm("raisr", arch_args={"patch": 3})
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **more,
    )  # fmt: skip
    data = pictures(8)
    trainer.fit(model, DataLoader(data, 2), DataLoader(data, 1), ckpt_path=ckpt)
    return model, trainer


def test_a_trainer_sums_solves_and_validates_better_than_bicubic():
    model, trainer = trained(4)
    assert trainer.global_step == 4
    assert model.net.seen.sum() == 8 * 64
    scores = trainer.callback_metrics
    assert scores["val/psnr_y"] > scores["val/psnr_y_bicubic"] + 0.2
    assert scores["solve/patches"] == 8 * 64
    assert model.averaged.filters.any()


def test_every_picture_counts_once_and_its_network_comes_back_from_its_file(tmp_path: Path):
    model, _ = trained(4)
    other = ClosedForm("raisr", arch_args={"patch": 3})
    lr, hr = pictures(8).tensors
    other.net.accumulate(lr, hr)
    other.net.solve()
    assert torch.allclose(model.averaged.filters, other.net.filters, atol=1e-4)
    model.export(tmp_path / "net.safetensors", provenance={})
    again = load_net(tmp_path / "net.safetensors")
    assert torch.equal(again(lr), model.averaged(lr))


def test_a_resumed_run_goes_on_summing(tmp_path: Path):
    _, trainer = trained(2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = trained(6, ckpt=tmp_path / "half.ckpt")
    assert resumed.net.seen.sum() == 6 * 2 * 64


def test_the_sums_of_two_processes_are_added(monkeypatch: pytest.MonkeyPatch):
    model, trainer = trained(4)

    def twice(tensor: Tensor, *_: object, reduce_op: str = "", **__: object) -> Tensor:
        return tensor * 2 if reduce_op == "sum" else tensor

    monkeypatch.setattr(trainer.strategy, "reduce", twice)
    assert model._total()["seen"].sum() == 2 * model.net.seen.sum()


def test_networks_that_learn_by_gradients_are_refused():
    with pytest.raises(ValueError, match=r"edsr is not solved in closed form.*is for: raisr"):
        ClosedForm("edsr")

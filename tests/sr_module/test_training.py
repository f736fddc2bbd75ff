"""What every training shares, shown with the simplest one: plain tensors, no shards, no record."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sr_module.archs import ARCHS
from sr_module.checkpoint import load_net, read_provenance
from sr_module.metrics import matlab_y, psnr, ssim
from sr_module.net import SRNet
from sr_module.regression import Regression
from sr_module.resize import imresize
from sr_module.training import SRTraining

TINY = {"features": 8, "blocks": 1}


def loader(pictures: int = 4, *, batch_size: int = 2, side: int = 32) -> DataLoader:
    coarse = torch.rand(pictures, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    hr = F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return DataLoader(TensorDataset(imresize(hr, 0.25), hr), batch_size)


def run(model: SRTraining, steps: int, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        num_sanity_val_steps=0, **settings,
    )  # fmt: skip
    trainer.fit(model, loader(), loader(3))
    return trainer


class Follow(pl.Callback):
    """Averages what the network goes through, step by step, by the formula written out."""

    def __init__(self, model: SRTraining) -> None:
        self.average = {k: v.clone().double() for k, v in model.net.state_dict().items()}
        self.training: list[bool] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: SRTraining, *_: object) -> None:
        n = trainer.global_step
        decay = min(pl_module.ema_decay, (1 + n) / (10 + n))
        for key, value in pl_module.net.state_dict().items():
            if value.is_floating_point():
                self.average[key] = decay * self.average[key] + (1 - decay) * value
            else:
                self.average[key] = value.clone()
        self.training.append(any(m.training for m in pl_module.averaged.modules()))


def test_the_average_is_the_hand_computed_one_batchnorm_buffers_included():
    model = Regression("srresnet", arch_args={"features": 8, "blocks": 1}, ema_decay=0.4)
    follow = Follow(model)
    run(model, 6, follow)
    found = model.averaged.state_dict()
    assert any(key.endswith("running_var") for key in found)
    for key, expected in follow.average.items():
        torch.testing.assert_close(found[key].double(), expected.double(), atol=1e-6, rtol=1e-5)
    counts = [v for k, v in found.items() if k.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 6 for count in counts)


def test_the_average_stays_in_evaluation_mode_and_out_of_the_optimiser():
    model = Regression("srresnet", arch_args=TINY)
    follow = Follow(model)
    trainer = run(model, 4, follow)
    assert follow.training == [False] * 4
    model.train()
    assert model.net.training
    assert not model.averaged.training
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.net.parameters()}


def test_without_decay_the_average_is_the_network():
    model = Regression("msrresnet", arch_args=TINY, ema_decay=0)
    run(model, 3)
    for key, value in model.net.state_dict().items():
        assert torch.equal(model.averaged.state_dict()[key], value)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"from 0 .* to below 1"):
        Regression("msrresnet", ema_decay=decay)


def test_the_average_moves_once_a_step_when_gradients_are_accumulated():
    moves = []

    class Count(Regression):
        def move_average(self, step: int) -> None:
            moves.append(step)
            super().move_average(step)

    run(Count("msrresnet", arch_args=TINY), 3, accumulate_grad_batches=2)
    assert moves == [1, 2, 3]


def test_validation_is_the_mean_over_pictures_of_the_average_beside_bicubic():
    model = Regression("msrresnet", arch_args=TINY, ema_decay=0.9)
    trainer = run(model, 2)
    protocol = matlab_y(4)
    rows = []
    for lr, hr in loader(3, batch_size=1):  # what run() validates in batches of two and one
        with torch.no_grad():
            sr = model.averaged(lr).clamp(0, 1)
        bicubic = imresize(lr, 4)
        rows.append([psnr(sr, hr, protocol), ssim(sr, hr, protocol), psnr(bicubic, hr, protocol)])
    expected = Tensor(rows).mean(0).tolist()
    names = ("val/psnr_y", "val/ssim_y", "val/psnr_y_bicubic")
    found = [float(trainer.callback_metrics[name]) for name in names]
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.validated_at == 2


def test_training_starts_from_the_given_weights(tmp_path):
    first = Regression("msrresnet", arch_args=TINY)
    first.export(tmp_path / "net.safetensors", provenance={"steps": 0})
    second = Regression("msrresnet", arch_args=TINY, init_from=str(tmp_path / "net.safetensors"))
    for net in (second.net, second.averaged):
        for key, value in first.averaged.state_dict().items():
            assert torch.equal(net.state_dict()[key], value)


def test_export_writes_the_average_for_use(tmp_path):
    model = Regression("msrresnet", arch_args=TINY, ema_decay=0.9)
    run(model, 2)
    model.export(tmp_path / "net.safetensors", provenance={"steps": 2})
    net = load_net(tmp_path / "net.safetensors")
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(net(lr).clamp(0, 1), model(lr))
    assert read_provenance(tmp_path / "net.safetensors")["steps"] == 2


def test_weights_and_average_lie_in_channels_last_memory_and_stay_so():
    model = Regression("msrresnet", arch_args=TINY)
    run(model, 2)
    for net in (model.net, model.averaged):
        for weight in (p for p in net.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1):
            assert weight.is_contiguous(memory_format=torch.channels_last)


class Dropping(SRNet):
    """A network with something random in each step."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(3, 3 * scale**2, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        return F.pixel_shuffle(F.dropout(self.conv(lr), 0.3, self.training), self.scale)


def test_what_is_random_in_a_step_is_the_same_after_a_resume(tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHS, "dropping", Dropping)

    def train(steps: int, ckpt_path: Path | None = None) -> tuple[Tensor, pl.Trainer]:
        pl.seed_everything(0, verbose=False)
        model = Regression("dropping")
        trainer = pl.Trainer(max_steps=steps, accelerator="cpu", devices=1, barebones=True)
        trainer.fit(model, loader(2), ckpt_path=ckpt_path)  # one batch, the same in every step
        return model.net.conv.weight.detach().clone(), trainer

    whole, _ = train(4)
    _, trainer = train(2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = train(4, tmp_path / "last.ckpt")
    assert torch.equal(resumed, whole)

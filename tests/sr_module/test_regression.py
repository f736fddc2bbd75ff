import subprocess
import sys
import textwrap

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sr_module.losses import l1, total_variation
from sr_module.optimisation import Optimisation
from sr_module.regression import Regression
from sr_module.resize import imresize

# Everything that the other rooms need and this one does not.
FOREIGN = "mlflow ray webdataset pycocotools spandrel jsonargparse"

LEARN = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in set("{foreign}".split()):
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocked())
for name in "{foreign}".split():
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{{name}} is not blocked: the test proves nothing")

import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from sr_module.optimisation import Optimisation
from sr_module.regression import Regression
from sr_module.resize import imresize

torch.set_num_threads(1)
pl.seed_everything(0)
coarse = (torch.rand(8, 3, 8, 8) > 0.5).float()
hr = F.interpolate(coarse, scale_factor=4, mode="nearest")  # edges: bicubic blurs them
lr = imresize(hr, 0.5)
model = Regression(
    "msrresnet", scale=2, arch_args={{"features": 16, "blocks": 2}}, ema_decay=0.8,
    optimisation=Optimisation(learning_rate=4e-3, milestones=[45]),
)
data = TensorDataset(lr, hr)
trainer = pl.Trainer(max_steps=60, accelerator="cpu", devices=1, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    num_sanity_val_steps=0, check_val_every_n_epoch=20)
trainer.fit(model, DataLoader(data, 8), DataLoader(data, 1))
scores = trainer.validate(model, DataLoader(data, 1), verbose=False)[0]
print("SCORES", scores["val/psnr_y"], scores["val/psnr_y_bicubic"])
"""


def test_alone_and_from_tensors_it_learns_in_60_steps_what_bicubic_cannot():
    code = textwrap.dedent(LEARN).format(foreign=FOREIGN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained, bicubic = map(float, done.stdout.split("SCORES")[1].split())
    assert trained > bicubic + 1  # dB


@pytest.mark.parametrize(
    ("loss", "precision"),
    [
        ("l1", "bf16-mixed"),
        ("l1", "32-true"),
        ("l2", "32-true"),
        ("charbonnier", "32-true"),
        ("euclidean", "32-true"),
        ("ssim", "32-true"),
        ("ssim", "bf16-mixed"),
    ],
)
def test_the_loss_falls_and_stays_finite_in_both_precisions(loss, precision):
    losses = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["train/loss"]))

    hr = F.interpolate(torch.rand(2, 3, 6, 6), scale_factor=4)
    model = Regression(
        "msrresnet", arch_args={"features": 8, "blocks": 1}, loss=loss,
        optimisation=Optimisation(learning_rate=3e-3),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_steps=16, accelerator="cpu", devices=1, precision=precision, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Note()],
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(imresize(hr, 0.25), hr), 2))
    assert len(losses) == 16
    assert max(losses[-3:]) < min(losses[:3])
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_the_schedule_advances_with_every_step():
    model = Regression(
        "msrresnet", arch_args={"features": 8, "blocks": 1},
        optimisation=Optimisation(learning_rate=1e-3, milestones=[2], gamma=0.1),
    )  # fmt: skip
    hr = torch.rand(4, 3, 16, 16)
    trainer = pl.Trainer(max_steps=3, accelerator="cpu", devices=1, barebones=True)
    trainer.fit(model, DataLoader(TensorDataset(imresize(hr, 0.25), hr), 1))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)


def test_an_unknown_loss_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown pixel loss 'charbonier'; did you mean"):
        Regression("msrresnet", loss="charbonier")


def fitted(
    steps: int = 2, *, plugins: list[MixedPrecision] | None = None, precision: str | None = None,
    gradient_clip_val: float | None = None, **settings,
) -> Regression:  # fmt: skip
    """After so many steps on one batch."""
    torch.manual_seed(0)
    model = Regression("msrresnet", arch_args={"features": 8, "blocks": 1}, **settings)
    hr = F.interpolate(torch.rand(2, 3, 4, 4), scale_factor=4)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, plugins=plugins,
        precision=precision, gradient_clip_val=gradient_clip_val,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(imresize(hr, 0.25), hr), 2))
    return model


def test_total_variation_joins_the_loss_by_its_weight():
    hr, sr = torch.rand(2, 1, 3, 8, 8)
    plain, regularised = Regression("msrresnet"), Regression("msrresnet", tv_weight=1e-3)
    expected = plain.criterion(sr, hr) + 1e-3 * total_variation(sr)
    assert torch.allclose(regularised.criterion(sr, hr), expected)
    assert plain.criterion is l1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("way", ["module", "trainer"])
def test_clipping_bounds_the_norm_of_the_gradients(monkeypatch, precision: str, way: str):
    norms = []
    step = torch.optim.SGD.step

    def spy(self, closure=None):
        result = step(self, closure)  # Lightning's closure computes the gradients
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in gradients_of(self)])))
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    settings = Optimisation(optimizer="sgd", learning_rate=1e-4)
    fitted(optimisation=settings, precision=precision)
    free = list(norms)
    norms.clear()
    bound = {"clip_norm": 1e-3} if way == "module" else {"gradient_clip_val": 1e-3}
    fitted(optimisation=settings, precision=precision, **bound)
    assert len(free) == len(norms) == 2
    assert min(free) > 1e-3
    assert norms == pytest.approx([1e-3] * 2, rel=1e-3)


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_adjustable_clipping_bounds_every_weights_step_whatever_the_rate():
    moves = []
    for learning_rate in (10.0, 100.0):
        settings = Optimisation(optimizer="sgd", learning_rate=learning_rate, momentum=0)
        before = fitted(0, optimisation=settings).net.state_dict()
        after = fitted(1, optimisation=settings, clip_adjustable=1e-3, loss="euclidean").net
        differences = [(after.state_dict()[key] - was).abs().max() for key, was in before.items()]
        moves.append(max(differences).item())
    assert moves == pytest.approx([1e-3] * 2, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_norm": 1.0, "clip_adjustable": 1.0}, "exclude each other"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, or null"),
        ({"clip_adjustable": -1.0}, "clip_adjustable must be positive, or null"),
        ({"tv_weight": -1.0}, "tv_weight -1.0: 0"),
        ({"max_skipped": -1}, "max_skipped must be 0 batches or more"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Regression("msrresnet", **settings)


@pytest.mark.parametrize("name", ["clip_norm", "clip_adjustable"])
def test_clipping_of_scaled_gradients_is_refused_with_the_cure(name):
    with pytest.raises(ValueError, match="choose bf16-mixed or 32-true"):
        fitted(1, plugins=[half_precision()], **{name: 1e-3})


def test_scaled_gradients_train_and_an_overflow_is_skipped():
    assert int(fitted(2, plugins=[half_precision()]).guard.skipped) == 0
    assert int(fitted(2, plugins=[half_precision(2.0**120)]).guard.skipped) == 2


def half_precision(scale: float = 2.0**10) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_a_layer_learns_at_its_own_rate():
    settings = Optimisation(optimizer="sgd", learning_rate=1e-9, layer_factors={"conv_last": 1e9})
    before = fitted(0, optimisation=settings).net.state_dict()
    after = fitted(1, optimisation=settings).net.state_dict()
    moved = {key for key, was in before.items() if (after[key] - was).abs().max() > 1e-8}
    assert moved == {"conv_last.weight", "conv_last.bias"}

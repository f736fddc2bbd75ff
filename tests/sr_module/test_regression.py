import subprocess
import sys
import textwrap

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

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
    [("l1", "bf16-mixed"), ("l1", "32-true"), ("l2", "32-true"), ("charbonnier", "32-true")],
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

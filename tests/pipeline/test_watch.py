import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from mlflow import MlflowClient
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from pipeline.pictures import read_picture
from pipeline.tracking import Run, shown, start
from pipeline.training_bar import Bar, Lines, show
from pipeline.watch import SHEET, Recorder, Reporter, Throughput, strip
from pipeline.watch import ValidationPictures as Pictures
from sr_module.regression import Regression
from sr_module.resize import imresize


@pytest.fixture
def run(store: str):
    with start("tests watch", "run") as opened:
        yield opened


def model() -> Regression:
    return Regression("msrresnet", arch_args={"features": 8, "blocks": 1})


def data(pictures: int, batch_size: int) -> DataLoader:
    hr = torch.rand(pictures, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(imresize(hr, 0.25), hr), batch_size)


def fit(
    steps: int, *callbacks: pl.Callback, record: Run | None = None, **settings: Any
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        callbacks=list(callbacks), **{"logger": False, "log_every_n_steps": 1, **settings},
    )  # fmt: skip
    if record is not None:
        trainer.logger = Recorder(record, trainer)
    trainer.fit(model(), data(4, 2), data(3, 1))
    return trainer


def test_speed_waiting_and_images_seen_are_logged_every_so_many_steps(run):
    fit(6, Throughput(2), record=run, log_every_n_steps=2)
    assert [step for step, _ in run.history("train/images_per_s")] == [2, 4, 6]
    assert run.history("train/images_seen") == [(2, 4), (4, 8), (6, 12)]
    assert run.history("train/learning_rate")[0][1] == pytest.approx(2e-4)
    assert all(speed > 0 for _, speed in run.history("train/images_per_s"))


class Slow(TensorDataset):
    """Pictures that take their time."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        time.sleep(0.1)
        return super().__getitem__(index)


class SlowToPrepare(Regression):
    """A module that takes its time with a batch that is there."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        time.sleep(0.2)
        return super().on_after_batch_transfer(batch, dataloader_idx)


@pytest.mark.parametrize("slow", ["data", "preparing"])
def test_waiting_for_data_is_the_data_loaders_time_and_nothing_elses(slow):
    kind, pictures = (Regression, Slow) if slow == "data" else (SlowToPrepare, TensorDataset)
    hr = torch.rand(12, 3, 32, 32)
    trainer = pl.Trainer(
        max_steps=6, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Throughput(6)],
    )  # fmt: skip
    module = kind("msrresnet", arch_args={"features": 8, "blocks": 1})
    trainer.fit(module, DataLoader(pictures(imresize(hr, 0.25), hr), 2))
    share = float(trainer.callback_metrics["train/data_wait"])
    assert share > 0.5 if slow == "data" else share < 0.2


def test_a_short_epoch_does_not_hide_the_speed(run):
    fit(6, Throughput(3), record=run, log_every_n_steps=3)  # two steps an epoch
    assert run.history("train/images_seen") == [(3, 6), (6, 12)]


def test_images_seen_survive_a_resume():
    counted = Throughput(1)
    fit(2, counted)
    resumed = Throughput(1)
    resumed.load_state_dict(counted.state_dict())
    trainer = fit(1, resumed)
    assert float(trainer.callback_metrics["train/images_seen"]) == 4 + 2


def test_the_first_validation_pictures_are_logged_at_each_validation(run, store):
    fit(4, Pictures(2), record=run)
    run.history("train/loss")  # all that was told before is in the store then
    names = [item.path for item in MlflowClient(store).list_artifacts(run.run_id, "images")]
    pictures = {tuple(re.findall(r"validation_(\d)\Wstep\W(\d+)", name)[0]) for name in names}
    assert pictures == {("0", "2"), ("1", "2"), ("0", "4"), ("1", "4")}


def test_pictures_stand_at_step_0_too_where_the_image_grid_opens(run, store):
    pairs = list(data(3, 1))
    modes = []

    class Modes(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            modes.append({name for name, module in pl_module.named_modules() if module.training})

    fit(2, Modes())
    fit(2, Pictures(2, lambda count, device: pairs[:count]), Modes(), record=run)
    run.history("train/loss")
    names = [item.path for item in MlflowClient(store).list_artifacts(run.run_id, "images")]
    steps = {re.findall(r"validation_1\Wstep\W(\d+)", name)[0] for name in names if "n_1" in name}
    assert steps == {"0", "2"}
    assert modes[0] == modes[-1]  # drawing left what trains training, and what does not, not


def test_the_newest_strips_stand_below_one_another_on_the_run_s_page(run, store, tmp_path):
    run.describe(f"as last validated:\n\n{shown(SHEET)}")
    trainer = fit(2, Pictures(2), record=run)
    run.history("train/loss")
    text = MlflowClient(store).get_run(run.run_id).data.tags["mlflow.note.content"]
    assert text.endswith(f"](get-artifact?path=validation.png&run_uuid={run.run_id})")
    sheet = MlflowClient(store).download_artifacts(run.run_id, SHEET, str(tmp_path))
    pairs = [batch for _, batch in zip(range(2), data(3, 1), strict=False)]
    net = trainer.lightning_module.eval()
    strips = [strip(net, *pair)[:, ::2, ::2] for pair in pairs]
    height = sum(one.shape[1] for one in strips)
    shown_picture = read_picture(Path(sheet))
    assert shown_picture.shape == (3, height + 8, max(one.shape[2] for one in strips))
    torch.testing.assert_close(
        shown_picture[:, : strips[0].shape[1], : strips[0].shape[2]].float() / 255,
        strips[0], atol=1 / 255, rtol=0,
    )  # fmt: skip


def test_a_strip_shows_the_middle_as_lr_bicubic_sr_and_hr():
    hr = F.interpolate(torch.rand(1, 3, 20, 30), scale_factor=8)  # 160 x 240
    lr, trained = imresize(hr, 0.25), model().eval()
    made = strip(trained, lr, hr)
    assert made.shape == (3, 256, 4 * 256)  # 128 pixels of the middle, twice as large
    small, bicubic, sr, true = made[:, ::2, ::2].split(128, dim=2)
    middle = (slice(16, 144), slice(56, 184))
    torch.testing.assert_close(true, hr[0][:, *middle])
    torch.testing.assert_close(sr, trained(lr).detach()[0][:, *middle])
    torch.testing.assert_close(small[:, ::4, ::4], lr[0, :, 4:36, 14:46])
    torch.testing.assert_close(bicubic[:, 16:-16, 16:-16], imresize(lr, 4)[0][:, 32:128, 72:168])


def test_a_strip_of_a_small_or_narrow_picture_is_as_large_as_the_picture():
    hr = torch.rand(1, 3, 16, 64)
    assert strip(model(), imresize(hr, 0.25), hr).shape == (3, 32, 4 * 32)


def test_points_of_training_and_validation_stand_at_the_steps_made(run):
    trainer = fit(4, Throughput(1), record=run, log_every_n_steps=1)
    assert trainer.global_step == 4
    assert [step for step, _ in run.history("train/loss")] == [1, 2, 3, 4]
    assert [step for step, _ in run.history("val/psnr_y")] == [2, 4]
    assert run.history("epoch") == []


def test_lines_tell_the_scores_of_each_validation_with_its_step(capsys):
    fit(4, Lines())
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 2", "step 4"]
    assert all("val/psnr_y " in line and "train/loss " in line for line in lines)


def test_no_time_is_left_where_more_steps_are_done_than_are_asked_for():
    trainer = SimpleNamespace(global_step=5, max_steps=3)
    assert Lines()._left(trainer) == "no steps left"
    trainer.max_steps = -1
    assert Lines()._left(trainer) == "no end known"


def test_the_bar_counts_the_steps_of_the_run():
    bar = Bar("training")
    fit(4, bar)
    (task,) = bar._progress.tasks
    assert (task.completed, task.total) == (4, 4)
    assert "loss" in task.fields["said"]
    assert "PSNR" in task.fields["said"]
    assert bar._progress.finished


def test_the_bar_looks_at_numbers_only_when_a_point_of_the_curves_is_due_or_a_validation_ends():
    bar, looked = Bar("training", every=3), []
    bar._say = lambda trainer: looked.append(trainer.global_step)
    fit(7, bar)  # two steps an epoch
    assert looked == [2, 3, 4, 6, 6]


def test_the_bar_gives_the_terminal_back_after_an_error():
    class Break(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            raise RuntimeError("broken")

    bar = Bar("training")
    with pytest.raises(RuntimeError, match="broken"):
        fit(4, bar, Break())
    assert not bar._progress.live.is_started


def test_a_terminal_gets_a_bar_and_a_log_gets_lines(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert [type(callback) for callback in show("training")] == [Bar]
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert [type(callback) for callback in show("training")] == [Lines]


def test_every_validation_is_reported_with_its_step_but_not_the_sanity_check():
    reports: list[dict[str, float]] = []
    fit(4, Reporter(reports.append))
    assert [report["step"] for report in reports] == [2, 4]
    assert all("val/psnr_y" in report for report in reports)

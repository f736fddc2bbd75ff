import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipeline.going_on import Note
from pipeline.shards import shards as write_shards
from pipeline.train import Trained, configured, fit, validate
from sr_module.checkpoint import load_net, read_provenance, save_net

Words = Callable[..., list[str]]
RATE = "model.init_args.optimisation.learning_rate"

pytestmark = pytest.mark.usefixtures("store")


def train(words: list[str]) -> Trained:
    trained = fit(configured(words))
    assert trained is not None
    return trained


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.replace("\n", " ")


@pytest.fixture
def other_shards(tmp_path: Path, paint_noise: Callable[..., Path]) -> Path:
    for number in range(3):
        paint_noise(tmp_path / "pictures" / f"{number}.png", width=48, height=48, number=number)
    out = tmp_path / "other shards"
    write_shards([tmp_path / "pictures"], out, cut=48, step=48, val=0.3)
    return out


def test_a_run_that_goes_on_says_from_where_and_one_that_is_finished_says_so(
    tiny: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tiny("--trainer.max_steps", "3"))
    assert "goes on" not in said(capsys)
    train(tiny("--trainer.max_steps", "5"))
    told = said(capsys)
    assert f"goes on from step 3 ({tmp_path / 'run' / 'last.ckpt'}) " in told
    assert "training ..." in told
    train(tiny("--trainer.max_steps", "4"))
    told = said(capsys)
    assert "goes on from step 5" in told
    assert "nothing is left to train, trainer.max_steps is 4" in told
    assert "training ..." not in told


def run_status(folder: Path, store: str) -> str:
    run_id = json.loads((folder / "record" / "run.json").read_text())["run_id"]
    return MlflowClient(store).get_run(run_id).info.status


@pytest.mark.parametrize(
    ("more", "gan", "named"),
    [
        (["--model.init_args.arch_args.features", "4"], False, r"arch_args\.features 8 -> 4"),
        (["--model.init_args.arch", "srresnet"], False, "arch msrresnet -> srresnet"),
        ([], True, "model.class_path Regression -> Adversarial"),
        (["--model.init_args.optimisation.optimizer", "sgd"], False, "optimizer adam -> sgd"),
        (["--data.shards", "OTHER"], False, "the shards' content"),
    ],
    ids=["network", "architecture", "kind", "optimiser", "shards"],
)
def test_another_run_in_the_folder_is_refused_before_anything_is_written(
    tiny: Words, tmp_path: Path, store: str, other_shards: Path, more: list[str], gan: bool,
    named: str,
):  # fmt: skip
    train(tiny("--trainer.max_steps", "3"))
    folder = tmp_path / "run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = [str(other_shards) if word == "OTHER" else word for word in more]
    with pytest.raises(
        ValueError, match=rf"at step 3, is another one \(.*{named}.*another --run\.out, or remove"
    ):
        train(tiny(*words, gan=gan))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert run_status(folder, store) == "FINISHED"


def test_the_scores_of_another_network_than_the_folders_are_refused(tiny: Words):
    train(tiny("--trainer.max_steps", "2"))
    with pytest.raises(ValueError, match=r"arch_args\.features 8 -> 4"):
        validate(configured(tiny("--model.init_args.arch_args.features", "4")))


def test_a_moved_copy_of_the_shards_is_the_same_run(
    tiny: Words, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(tiny("--trainer.max_steps", "2"))
    (tmp_path / "moved").symlink_to(shards)
    train(tiny("--trainer.max_steps", "3", "--data.shards", str(tmp_path / "moved")))
    assert "with other settings than before: trainer.max_steps 2 -> 3 " in said(capsys)


def test_changed_rates_and_losses_hold_from_there_on_and_every_record_says_so(
    tiny: Words, tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
):
    train(tiny("--trainer.max_steps", "3"))
    trained = train(tiny(f"--{RATE}", "0.01", "--model.init_args.loss", "l2"))
    told = said(capsys)
    assert f"{RATE} 0.0002 -> 0.01" in told
    assert "model.init_args.loss l1 -> l2" in told
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["optimisation"]["learning_rate"] == 0.01
    assert trained.run is not None
    rates = dict(trained.run.history("train/learning_rate"))
    assert (rates[3], rates[4]) == pytest.approx((2e-4, 0.01))
    run = MlflowClient(store).get_run(trained.run.run_id)
    assert f"{RATE} 0.0002 -> 0.01" in run.data.tags["settings.from_step_3"]


def test_the_best_network_is_looked_for_anew_under_another_validation(tiny: Words, tmp_path: Path):
    train(tiny("--trainer.max_steps", "4", "--data.val_limit", "1"))
    best = tmp_path / "run" / "best.safetensors"
    _set_score(best, 99.0)  # that of an easier picture
    train(tiny("--trainer.max_steps", "5", "--data.val_limit", "1"))
    assert read_provenance(best)["steps"] == 4
    train(tiny("--trainer.max_steps", "6", "--data.val_limit", "2"))
    assert read_provenance(best)["steps"] == 6


def _set_score(path: Path, score: float) -> None:
    net, provenance = load_net(path), read_provenance(path)
    save_net(net, path, provenance={**provenance, "metrics": {"val/psnr_y": score}})


def test_a_class_may_be_named_with_its_module_and_places_do_not_count():
    short = Note.of({"model": {"class_path": "Regression"}, "run": {"out": "a"}})
    long = Note.of({"model": {"class_path": "a.b.Regression"}, "run": {"out": "b"}})
    assert short.changed(long) == {}

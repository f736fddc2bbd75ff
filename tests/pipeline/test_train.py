import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from mlflow import MlflowClient
from torch import Tensor

from pipeline import cli
from pipeline.fingerprints import learnt_from
from pipeline.index import load_index
from pipeline.outcome import tell
from pipeline.train import Trained, configured, fit, validate
from sr_module.checkpoint import load_net, read_provenance

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
    assert state(tmp_path / "longer")["global_step"] == first
    train(tiny(*NOISE, gan=gan, out="longer"))
    assert same(state(tmp_path / "whole"), state(tmp_path / "longer"))


def test_a_run_that_ends_by_epochs_goes_on_exactly(tiny: Words, tmp_path: Path) -> None:
    train(tiny("--trainer.max_steps", "8", out="whole"))
    train(tiny("--trainer.max_steps", "8", "--trainer.max_epochs", "1", out="longer"))
    assert state(tmp_path / "longer")["global_step"] == 4
    train(tiny("--trainer.max_steps", "8", out="longer"))
    assert same(state(tmp_path / "whole"), state(tmp_path / "longer"))


class Seen(pl.Callback):
    """The hr batches of a run."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch[1].clone())


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_resumed_run_sees_what_the_undisturbed_one_saw_and_no_batch_twice(
    tiny: Words, workers: str
) -> None:
    whole, first, second = Seen(), Seen(), Seen()
    more = ["--data.workers", workers, "--trainer.max_steps", "10"]
    train(tiny(*more, out="whole"), watching=[whole])
    words = tiny(*more, out="stopped")
    with pytest.raises(KeyboardInterrupt):
        train(words, watching=[first, StopAt(6)])
    train(words, watching=[second])
    assert same(first.batches[:3] + second.batches, whole.batches)  # step 3 was kept
    assert len(whole.batches) == 10
    distinct = {bytes((batch * 255).byte().numpy()) for batch in whole.batches}
    assert len(distinct) == 10  # an epoch is another draw than the one before


@pytest.fixture
def client(store: str) -> MlflowClient:
    return MlflowClient(store)


def test_a_run_leaves_network_checkpoint_config_and_a_complete_record(
    tiny: Words, tmp_path: Path, client: MlflowClient
) -> None:
    trained = train(tiny(gan=True))
    assert trained.run is not None
    run = client.get_run(trained.run.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.init_args.arch_args.features"] == "8"
    assert run.data.params["data.batch_size"] == "2"
    assert run.data.params["trainer.max_steps"] == "7"
    assert run.data.tags["world_size"] == "1"
    assert len(run.data.tags["shards.digest"]) == 64
    for metric in ("train/loss", "train/loss_d", "train/gan", "train/learning_rate"):
        assert [step for step, _ in trained.run.history(metric)] == list(range(1, 8)), metric
    scores = trained.run.history("val/psnr_y")
    assert [step for step, _ in scores] == [4, 7]  # the end of the epoch, and of the run
    assert trained.metrics["val/psnr_y"] == pytest.approx(scores[-1][1])
    assert trained.run.history("train/images_seen")[-1] == (7, 14.0)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "weights", "images", "checkpoints", "validation.png"} <= names
    strips = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert {re.findall(r"\Wstep\W(\d+)", path)[0] for path in strips} == {"0", "4", "7"}
    assert run.data.tags["config"].endswith("gan.yaml")
    assert "**msrresnet x4** by Adversarial" in run.data.tags["mlflow.note.content"]
    assert f"validation.png&run_uuid={run.info.run_id})" in run.data.tags["mlflow.note.content"]
    contexts = [each.tags[0].value for each in run.inputs.dataset_inputs]
    assert sorted(contexts) == ["training", "validation"]
    (output,) = run.outputs.model_outputs
    assert (output.step, client.get_logged_model(output.model_id).name) == (7, "network")
    provenance = read_provenance(trained.net)
    assert provenance["steps"] == 7
    assert provenance["mlflow_run"] == run.info.run_id
    named = load_index(run.data.tags["shards"]).fingerprints
    assert named
    assert learnt_from(trained.net) == list(dict.fromkeys(named))
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["crop"] == 32
    assert config["trainer"]["log_every_n_steps"] == 1


def test_the_exported_network_is_the_average(tiny: Words, tmp_path: Path) -> None:
    setup = configured(tiny())
    trained = fit(setup)
    assert trained is not None
    exported = load_net(trained.net).state_dict()
    assert same(dict(exported), dict(setup.model.averaged.state_dict()))
    assert not same(dict(exported), dict(setup.model.net.state_dict()))


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(tiny: Words, client: MlflowClient) -> None:
    first = train(tiny("--trainer.max_steps", "3"))
    second = train(tiny())
    assert first.run is not None
    assert second.run is not None
    assert first.run.run_id == second.run.run_id
    assert [step for step, _ in second.run.history("train/loss")] == list(range(1, 8))
    params = client.get_run(second.run.run_id).data.params
    assert params["trainer.max_steps"] == "3"  # MLflow's parameters cannot change


def test_a_finished_run_started_again_trains_no_more_and_still_tells_its_scores(
    tiny: Words,
) -> None:
    first, again = train(tiny()), train(tiny())
    assert again.metrics["val/psnr_y"] == pytest.approx(first.metrics["val/psnr_y"])
    assert read_provenance(again.net)["steps"] == 7


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """When each was written, but for the journal, which is looked into, and what it holds."""
    return {
        path: (0 if path.parent.name == "record" else path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_started_again_says_so_and_does_nothing_else(
    tiny: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(["train", *tiny()]) == 0
    before = files(out)
    capsys.readouterr()
    assert cli.main(["train", *tiny("--data.crop", "16")]) == 0
    told = "".join(capsys.readouterr().err.split("\n"))
    assert files(out) == before
    assert f"finished: {out} has all its 7 steps" in told
    assert f"network for use: {out / 'net.safetensors'}" in told
    assert "other settings than these: data.crop 32 -> 16" in told
    assert cli.main(["train", *tiny("--trainer.max_steps", "8")]) == 0  # and so it goes on
    assert read_provenance(out / "net.safetensors")["steps"] == 8


def test_a_run_that_died_over_its_last_words_is_not_finished_and_says_them_when_started_again(
    tiny: Words, tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise OSError("the machine goes")

    with monkeypatch.context() as broken:
        broken.setattr("pipeline.train.send_networks", dies)
        assert cli.main(["train", *tiny()]) == 2
    assert (tmp_path / "run" / "net.safetensors").is_file()
    run_id = json.loads((tmp_path / "run" / "record" / "run.json").read_text())["run_id"]
    assert not client.list_artifacts(run_id, "weights")
    assert cli.main(["train", *tiny()]) == 0
    assert client.list_artifacts(run_id, "weights")
    assert client.get_run(run_id).info.status == "FINISHED"


def test_an_interrupted_run_is_killed_and_a_broken_one_failed_in_mlflow(
    tiny: Words, tmp_path: Path, client: MlflowClient
) -> None:
    class Break(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("broken")

    with pytest.raises(KeyboardInterrupt):
        train(tiny(out="killed"), watching=[StopAt(2)])
    with pytest.raises(RuntimeError, match="broken"):
        train(tiny(out="failed"), watching=[Break()])
    for name in ("killed", "failed"):
        run_id = json.loads((tmp_path / name / "record" / "run.json").read_text())["run_id"]
        assert client.get_run(run_id).info.status == name.upper()


@pytest.mark.parametrize("readers", [0, 1])
def test_a_terminated_run_ends_with_its_status_and_goes_on_later(
    tiny: Words, tmp_path: Path, client: MlflowClient, readers: int
) -> None:
    """Launchers send SIGTERM to all processes of a job, readers of data included.

    Ranks agree to stop a step or two later, and need their readers until then.
    """

    class Terminate(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                reading = multiprocessing.active_children()
                assert len(reading) >= readers
                for reader in reading:
                    reader.terminate()
                    reader.join(0.5)  # a reader that dies of it has died
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        train(tiny("--data.workers", str(readers)), watching=[Terminate()])
    assert stop.value.code == 143  # as the shell says of a process that SIGTERM ended
    run_id = json.loads((tmp_path / "run" / "record" / "run.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "KILLED"
    assert state(tmp_path / "run")["global_step"] == 4  # the step was brought to its end and kept
    assert read_provenance(train(tiny()).net)["steps"] == 7


def test_ctrl_c_works_again_after_a_stop(tiny: Words) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), watching=[StopAt(1)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_resume_never_refuses_a_folder_that_holds_a_run(tiny: Words) -> None:
    train(tiny("--trainer.max_steps", "1", "--run.resume", "never"))
    with pytest.raises(FileExistsError, match=r"last\.ckpt exists; go on with --run\.resume auto"):
        train(tiny("--run.resume", "never"))
    for short in (["--resume", "never"], ["--resume=never"]):
        with pytest.raises(FileExistsError, match=r"last\.ckpt exists"):
            train(tiny(*short))
    train(tiny("--resume", "auto", "--trainer.max_steps", "1"))
    with pytest.raises(ValueError, match="'maybe'; choose from auto, never"):
        train(tiny("--run.resume", "maybe"))


def test_validate_scores_every_picture_of_the_last_checkpoint(tiny: Words) -> None:
    trained = train(tiny())
    scores = validate(configured(tiny()))
    assert scores["val/psnr_y"] == pytest.approx(trained.metrics["val/psnr_y"])
    with pytest.raises(FileNotFoundError, match="train first, or name the run's folder"):
        validate(configured(tiny(out="nowhere")))


def test_the_best_network_is_kept_by_the_metric_over_a_resume(tiny: Words, tmp_path: Path) -> None:
    words = ["--run.best", "val/ssim_y", "--data.steps_per_epoch", "1"]
    first = train(tiny(*words, "--trainer.max_steps", "3")).best
    trained = train(tiny(*words))
    assert first is not None
    assert trained.best is not None
    assert trained.run is not None
    step, score = max(trained.run.history("val/ssim_y"), key=lambda point: point[1])
    assert trained.best.score == pytest.approx(score)
    assert trained.best.score >= first.score
    told: Any = read_provenance(tmp_path / "run" / "best.safetensors")
    assert told["steps"] == trained.best.step == step
    assert told["metrics"]["val/ssim_y"] == trained.best.score
    assert (trained.steps, trained.images, trained.skipped) == (7, 14, 0)
    assert trained.seconds > 0


def test_bf16_training_gives_finite_weights(tiny: Words) -> None:
    setup = configured(tiny("--trainer.precision", "bf16-mixed", gan=True))
    fit(setup)
    tensors = setup.model.state_dict().values()
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_settings_come_from_the_default_file_then_each_config_then_the_words(
    tiny: Words, tmp_path: Path
) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("data: {batch_size: 3, crop: 64}")
    setup = configured(tiny("--config", str(later), "--data.crop", "16"))
    assert setup.data.batch_size == 3
    assert setup.data.crop == 16
    assert setup.config["data"]["shuffle_buffer"] == 4
    assert setup.config["trainer"]["benchmark"] is True  # of conf/default.yaml alone
    assert setup.data.scale == setup.model.net.scale == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.batch_sise", "2"], r"did you mean 'data\.batch_size'"),
        (["--trainer.max_step", "2"], r"did you mean 'trainer\.max_steps'"),
        (["--data.batch_size", "many"], r"data\.batch_size.*many"),
        (["--model.init_args.arch", "srresnt"], r"did you mean 'srresnet'"),
        (["--model.init_args.loss", "l3"], "unknown pixel loss 'l3'"),
        (
            ["--model.init_args.init_from", "nowhere.safetensors"],
            "'nowhere.safetensors' is neither a file nor one of",
        ),
        (["--run.best", "val/psnr"], "did you mean 'val/psnr_y'"),
        (["--run.keep_last", "0"], "run.keep_last is 0; it must be 1 or more"),
        (["--data.crop", "30"], "data.crop 30 is not a multiple of the scale 4"),
    ],
)
def test_a_wrong_word_is_one_sentence_with_the_nearest_right_one(
    tiny: Words, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status = cli.main(["train", *tiny(*words)])
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert len(said) == 1
    assert said[0].startswith("srdet train: error: ")
    assert re.search(message, said[0]), said


def test_a_misspelt_key_in_a_file_names_the_nearest_right_one(tiny: Words, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("data: {bach_size: 4}")
    with pytest.raises(ValueError, match=r"did you mean 'data\.batch_size'"):
        configured(tiny("--config", str(wrong)))


def test_the_config_that_a_run_leaves_can_be_trained_on(tiny: Words, tmp_path: Path) -> None:
    first = train(tiny(out="first"))
    config = str(tmp_path / "first" / "config.yaml")
    second = train(["--config", config, "--run.out", str(tmp_path / "second")])
    assert same(load_net(first.net).state_dict(), load_net(second.net).state_dict())


def test_a_shard_folder_that_is_none_is_one_clear_error(
    tiny: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *tiny("--data.shards", str(tmp_path))]) == 2
    assert "write them with: srdet shards" in capsys.readouterr().err


def test_what_could_not_be_used_of_the_shards_is_in_the_record_and_in_the_summary(
    tiny: Words, shards: Path, tmp_path: Path, client: MlflowClient, capsys: Any
) -> None:
    folder = shutil.copytree(shards, tmp_path / "damaged")
    path = next(folder.glob("train-*.tar"))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF  # in the first picture
    path.write_bytes(content)
    # Enough steps that every picture of every shard was wanted.
    words = tiny(
        "--data.shards", str(folder), "--data.max_bad_share", "1", "--trainer.max_steps", "30"
    )
    trained = train(words)
    assert trained.metrics["data/skipped_samples"] == 1
    assert trained.metrics["data/skipped_shards"] == 1
    assert trained.run is not None
    assert trained.run.history("data/skipped_samples")[-1][1] == 1
    tell(trained)
    said = capsys.readouterr().err.replace("\n", "")
    assert "data: 1 samples of 1 shards were damaged or out of reach, 0 smaller" in said


def test_a_missing_and_a_cut_local_shard_are_damage_that_is_counted(
    tiny: Words, numbered_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(numbered_shards, tmp_path / "damaged")
    missing, cut = sorted(folder.glob("train-*.tar"))[:2]
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:600])
    words = tiny("--data.shards", str(folder), "--trainer.max_steps", "30")
    with pytest.raises(ValueError, match=r"lack 4 of 18 samples, more than data\.max_bad_share"):
        train(words)
    trained = train([*words, "--data.max_bad_share", "0.25"])
    assert trained.metrics["data/skipped_samples"] == 4
    assert trained.metrics["data/skipped_shards"] == 2
    assert caplog.text.count(f"shard {missing} is missing") == 1
    assert f"shard {missing}: skipped 2 of its 2 samples" in caplog.text


def test_the_command_trains_and_tells_where_everything_is(
    tiny: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "fit", *tiny("--trainer.max_steps", "1")]) == 0
    said = capsys.readouterr().err.replace("\n", "")
    assert str(tmp_path / "run" / "net.safetensors") in said
    assert "trained: 1 steps, 2 images" in said
    assert re.search(r"best by val/psnr_y [0-9.]+ at step 1: .*/run/best\.safetensors", said)
    assert "mlflow ui --backend-store-uri" in said
    assert cli.main(["train", "validate", *tiny()]) == 0

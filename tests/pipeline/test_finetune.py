"""A detector for every arm, and a network for the detector, as a user makes them."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from detection.detectors import load_model, save_detector
from detection.families import build_model
from pipeline import cli
from pipeline.arm_pictures import ArmPictures, Mixture
from pipeline.arms import identity
from pipeline.finetune import finetuned_file, label_of, origin_of
from pipeline.fingerprints import fingerprint, learnt_from
from pipeline.pictures import read_picture
from sr_module import build, load_net, save_net

SIDE = 64
KINDS = ("arm", "original", "patchwork", "given")


@pytest.fixture
def training(tmp_path, monkeypatch, boxed_pictures) -> Path:
    """Four pictures with a box each, an untrained network x4 and a detector of two classes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    category = {"id": 5, "name": "boat"}
    boxed_pictures(tmp_path, count=4, side=SIDE, category=category, box=[8, 8, 20, 16])
    torch.manual_seed(0)
    save_net(build("msrresnet", 4, features=8, blocks=1), tmp_path / "sr.safetensors",
             provenance={"fingerprints": "f" * 64})  # fmt: skip
    save_detector(
        build_model("small_fcos", num_classes=3), tmp_path / "det.safetensors",
        architecture="small_fcos", categories={1: "plane", 2: "Boat"},
        provenance={"fingerprints": "0" * 64},
    )  # fmt: skip
    return tmp_path


def words(folder: Path, command: str, *more: str) -> list[str]:
    return [
        "detect", command, "--coco", str(folder / "coco.json"), "--images", str(folder / "images"),
        "--detector", str(folder / "det.safetensors"), "--crop", "64", "--batch_size", "2",
        "--workers", "0", *more,
    ]  # fmt: skip


def same(first: Path, second: Path) -> bool:
    ours, theirs = (load_model(path)[0].state_dict() for path in (first, second))
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_arm_gets_a_detector_of_its_own_that_tells_what_it_has_seen(training):
    sr = f"sr={training / 'sr.safetensors'}"
    arms = ("--arms", sr, "none", "larger", "--steps", "2", "--out", str(training / "tuned"))
    assert cli.main(words(training, "finetune", *arms)) == 0
    files = {path.stem: path for path in (training / "tuned").iterdir()}
    assert set(files) == {"sr", "none", "bicubic"}
    assert not same(files["sr"], training / "det.safetensors")
    assert not same(files["sr"], files["bicubic"])
    seen = learnt_from(finetuned_file(training / "tuned", "sr"))
    assert seen[0] == "0" * 64
    assert fingerprint(read_picture(training / "images" / "3.png")) in seen


def test_an_arm_whose_detector_is_there_is_not_trained_again(training, capsys):
    out = training / "tuned"
    arms = ("--arms", "none", "--steps", "2", "--out", str(out))
    assert cli.main(words(training, "finetune", *arms)) == 0
    files = [finetuned_file(out, arm) for arm in ("none", "bicubic")]
    made = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()  # as if it had been stopped before
    assert cli.main(words(training, "finetune", *arms)) == 0
    assert files[0].stat().st_mtime_ns == made[0]
    assert files[1].is_file()
    assert "none.safetensorsisthere" in "".join(capsys.readouterr().err.split())
    assert cli.main(words(training, "finetune", *arms[:2], "--steps", "3", *arms[4:])) == 0
    assert all(a.stat().st_mtime_ns != b for a, b in zip(files, made, strict=True))


def test_a_network_trained_for_a_detector_is_an_arm_like_any_other(training):
    more = ("--init_from", str(training / "sr.safetensors"), "--steps", "3", "--val", "0.25",
            "--warmup_steps", "1", "--out", str(training / "task"))  # fmt: skip
    assert cli.main(words(training, "task-driven", *more)) == 0
    made, start = (load_net(training / name) for name in ("task/net.safetensors", "sr.safetensors"))
    pairs = zip(made.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert len(learnt_from(training / "task" / "net.safetensors")) == 5
    assert not same(training / "task" / "detector.safetensors", training / "det.safetensors")


COMMANDS = {
    "train": ("--architecture", "small_fcos"),
    "finetune": ("--detector", "det.safetensors", "--arms", "none"),
    "task-driven": ("--detector", "det.safetensors", "--init_from", "sr.safetensors"),
}
ALLOCATION = {"SLURM_JOB_NAME": "mine", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}


@pytest.mark.parametrize(
    ("launched", "said"),
    [
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "torchrun"),
        ({**ALLOCATION, "SLURM_STEP_NUM_TASKS": "4"}, "srun"),
        ({**ALLOCATION, "SLURM_STEP_NUM_TASKS": "2"}, "srun"),
        ({"SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "4"}, "srun"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "a launcher (OMPI_COMM_WORLD_SIZE)"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_of_several_processes_trains_no_detector_alone(
    training, monkeypatch, capsys, command, launched, said
):
    monkeypatch.chdir(training)
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    given = ["--coco", "coco.json", "--images", "images", "--out", "out", "--steps", "1",
             "--workers", "0", "--crop", "64", *COMMANDS[command]]  # fmt: skip
    assert cli.main(["detect", command, *given]) == 2
    told = capsys.readouterr().err
    assert f"error: {said} started {max(map(int, _sizes(launched)))} processes, but" in told
    assert "srun --ntasks=1" in told
    assert not (training / "out").exists()


def _sizes(launched):
    return [launched[key] for key in launched if key.endswith(("WORLD_SIZE", "NUM_TASKS"))]


@pytest.mark.parametrize("more", [{}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_an_allocation_of_several_tasks_trains_one_detector_when_asked_once(
    training, monkeypatch, more
):
    for name, value in {**ALLOCATION, **more, "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    arms = ("--arms", "none", "--steps", "1", "--out", str(training / "tuned"))
    assert cli.main(words(training, "finetune", *arms)) == 0
    assert finetuned_file(training / "tuned", "none").is_file()


def test_labels_of_a_stored_detector_are_found_by_name(training):
    assert label_of(training / "det.safetensors", {5: "boat"}) == {5: 2}


ONLY = {kind: Mixture(**{**dict.fromkeys(KINDS, 0.0), kind: 1.0}) for kind in KINDS}
BOX = [[8.0, 8.0, 24.0, 32.0]]


@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        ("original", (64, 64, 64, 16)),
        ("none", (16, 16, 16, 16)),
        ("bicubic", (64, 64, 64, 16)),
    ],
)
def test_boxes_follow_each_kind_of_picture_that_a_crop_becomes(spec, sides):
    given, original = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    targets = [{"boxes": torch.tensor(BOX), "labels": torch.tensor([1])}] * 2
    for kind, side in zip(KINDS, sides, strict=True):
        pictures, moved = ArmPictures(spec, 4, ONLY[kind])(given, original, targets)
        assert [picture.shape for picture in pictures] == [(3, side, side)] * 2
        assert torch.equal(moved[1]["boxes"], torch.tensor(BOX) * (side / 64))
        assert torch.equal(targets[0]["boxes"], torch.tensor(BOX))


def test_a_native_crop_is_enlarged_and_its_boxes_with_it():
    crop = torch.rand(1, 3, 16, 16)
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 8.0, 8.0]]), "labels": torch.tensor([1])}]
    for kind in ("arm", "original", "patchwork"):
        pictures, moved = ArmPictures("bicubic", 2, ONLY[kind])(crop, crop, targets)
        assert pictures[0].shape == (3, 32, 32)
        assert moved[0]["boxes"].tolist() == [[8.0, 8.0, 16.0, 16.0]]
    pictures, moved = ArmPictures("bicubic", 2, ONLY["given"])(crop, crop, targets)
    assert torch.equal(pictures[0], crop[0])
    assert moved[0]["boxes"].tolist() == [[4.0, 4.0, 8.0, 8.0]]


@pytest.mark.parametrize("spec", ["nearest", "original"])
def test_every_kind_of_picture_is_in_the_mixture_in_its_proportion_with_its_boxes(spec):
    """A bright box on black: the arm's picture, the true one, cells of both, the small one."""
    torch.manual_seed(0)
    count, mixture = 2000, Mixture(arm=4, original=3, patchwork=2, given=1)
    original = torch.zeros(count, 3, 64, 64)
    original[..., 8:32, 8:24] = 0.8
    given = torch.zeros(count, 3, 16, 16)
    given[..., 2:8, 2:6] = 0.4
    targets = [{"boxes": torch.tensor(BOX), "labels": torch.tensor([1])}] * count
    pictures, moved = ArmPictures(spec, 4, mixture)(given, original, targets)
    seen = Counter()
    for picture, target in zip(pictures, moved, strict=True):
        ((x0, y0, x1, y1),) = target["boxes"].int().tolist()
        bright = picture[0] > 0.2
        assert bright[y0:y1, x0:x1].all()
        assert bright.sum() == (y1 - y0) * (x1 - x0)
        values = {round(value, 1) for value in picture[0][bright].unique().tolist()}
        seen["given" if picture.shape[-1] == 16 else str(sorted(values))] += 1
    shares = {kind: number / count for kind, number in seen.items()}
    if spec == "original":  # what the arm makes is the true picture, and cells of both are, too
        assert shares == {
            "[0.8]": pytest.approx(0.9, abs=0.03),
            "given": pytest.approx(0.1, abs=0.03),
        }
    else:
        assert shares == {
            "[0.4]": pytest.approx(0.4, abs=0.04), "[0.8]": pytest.approx(0.3, abs=0.04),
            "[0.4, 0.8]": pytest.approx(0.2, abs=0.04), "given": pytest.approx(0.1, abs=0.03),
        }  # fmt: skip


def test_a_detector_learns_from_pictures_of_several_sizes_in_one_batch(training):
    arms = ("--arms", "nearest", "--mixture.arm", "1", "--mixture.given", "1", "--steps", "3",
            "--out", str(training / "tuned"))  # fmt: skip
    assert cli.main(words(training, "finetune", *arms)) == 0
    made = finetuned_file(training / "tuned", "nearest")
    assert not same(made, training / "det.safetensors")
    assert "given=1.0" in origin_of(made)["mixture"]


def test_a_mixture_of_nothing_is_refused(training, capsys):
    with pytest.raises(ValueError, match="not all 0"):
        Mixture(0, 0, 0, 0)
    assert cli.main(words(training, "finetune", "--arms", "none", "--mixture.given", "-1")) == 2
    assert "parts of a mixture are 0 or more" in capsys.readouterr().err


def test_arms_of_other_weights_have_other_identities(training):
    other = training / "other.safetensors"
    save_net(build("msrresnet", 4, features=8, blocks=1), other, provenance={})
    sr = str(training / "sr.safetensors")
    names = [identity(sr), identity(str(other)), identity(f"mix:{sr}+{other}@0.5"),
             identity(f"mix:{sr}+{other}@0.6"), identity("bicubic")]  # fmt: skip
    assert len(set(names)) == 5

"""One trial, without Ray: what it reports, and how it goes on from its own or another's state."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline import tracking
from pipeline.sweeps.reports import BEST_NET, Reports, take_over
from pipeline.sweeps.settings import Lpips
from pipeline.sweeps.trial import Plan, _setup, noted, numbers
from pipeline.train import fit
from sr_module.checkpoint import read_provenance

RATE = "model.init_args.optimisation.learning_rate"
WEIGHT = "model.init_args.gan_weight"


@pytest.fixture
def sweep(tiny, store, tmp_path):
    """Runs a trial to its end: `sweep("trial-001", {RATE: 1e-3})` -> its reports."""

    def run(name, point, *, start=None, steps=7, gan=True):
        words = [w for w in tiny(gan=gan) if not w.startswith(str(tmp_path / "run"))]
        words.remove("--run.out")
        base = [*words, f"--trainer.max_steps={steps}", "--run.best=null"]
        with tracking.start("tests", "sweep") as parent:
            plan = Plan(
                base=base, out=tmp_path / "sweep", objective={"val/psnr_y": "max"},
                labels={RATE: "learning_rate", WEIGHT: "gan_weight"}, workers=1, threads=1,
                gpus=0.0, parent=noted(parent), lpips=Lpips(), study=None,
            )  # fmt: skip
            folder, reported = plan.out / name, []
            take_over(start, folder, name)
            setup = _setup(plan, point, folder)

            def report(metrics, state):
                kept = tmp_path / f"state-{name}-{metrics['step']}"
                shutil.copytree(state, kept, dirs_exist_ok=True)
                reported.append({**metrics, "state": kept})

            reports = Reports(setup, plan.objective, numbers(plan, point), name, report)
            fit(setup, parent=plan.run(), watching=[reports])
            reports.last()
        return setup, reported

    return run


def weights(state: Path) -> dict[str, torch.Tensor]:
    return torch.load(state / "last.ckpt", weights_only=False)["state_dict"]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_each_validation_is_reported_with_its_state_and_the_best_network_is_kept(sweep):
    setup, reported = sweep("trial-001", {RATE: 1e-3})
    assert [(r["step"], r["validations"], r["images"]) for r in reported] == [(4, 1, 8), (7, 2, 14)]
    assert all({"val/psnr_y", "val/ssim_y"} <= r.keys() for r in reported)
    known = read_provenance(setup.settings.out / BEST_NET)
    assert known["metrics"]["val/psnr_y"] == max(r["val/psnr_y"] for r in reported)


def test_a_taken_over_state_goes_on_to_the_same_bits(sweep):
    """Generator, discriminator, both optimisers, average and data: all of it travels."""
    point = {RATE: 1e-3, WEIGHT: 0.01}
    _, whole = sweep("trial-001", point)
    _, taken = sweep("trial-002", point, start=whole[0]["state"])
    assert taken[-1]["step"] == 7
    assert_same(weights(taken[-1]["state"]), weights(whole[-1]["state"]))


def test_settings_that_changed_rule_over_those_in_the_state(sweep):
    _, whole = sweep("trial-001", {RATE: 1e-3, WEIGHT: 0.01})
    setup, taken = sweep("trial-002", {RATE: 5e-4, WEIGHT: 0.02}, start=whole[0]["state"])
    state = torch.load(taken[-1]["state"] / "last.ckpt", weights_only=False)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == 5e-4
    assert state["lr_schedulers"][0]["base_lrs"] == [5e-4]
    assert setup.model.gan_weight == 0.02
    moments = state["optimizer_states"][0]["state"][0]
    assert moments["step"] == 7  # what was learned before the change stayed
    before, after = weights(whole[-1]["state"]), weights(taken[-1]["state"])
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_trial_goes_on_from_its_folder_where_that_is_newer_than_what_ray_knows(sweep, tmp_path):
    point = {RATE: 1e-3}
    _, reported = sweep("trial-001", point)
    _, again = sweep("trial-001", point, start=reported[0]["state"], steps=9)
    newest = tmp_path / "sweep" / "trial-001" / "last.ckpt"
    assert torch.load(newest, weights_only=False)["global_step"] == 9
    assert min(r["step"] for r in again) > 4  # not from step 4 once more


def test_after_a_takeover_the_folders_older_state_is_not_used(sweep):
    _, good = sweep("trial-001", {RATE: 1e-3}, steps=4)
    sweep("trial-002", {RATE: 1e-3, WEIGHT: 0.02}, steps=8)
    _, taken = sweep("trial-002", {RATE: 1e-3}, start=good[-1]["state"], steps=5)
    assert taken[-1]["step"] == 5

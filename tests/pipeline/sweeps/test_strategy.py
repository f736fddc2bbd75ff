"""Hopeless trials, budgets, names: what decides about a sweep besides Ray's schedulers."""

import math
from types import SimpleNamespace

import pytest
from ray import tune

from pipeline.sweeps.cluster import room_for
from pipeline.sweeps.settings import Budget, Hopeless, Resources, Scheduler
from pipeline.sweeps.space import parse_space
from pipeline.sweeps.strategy import Names, Spending, is_hopeless, numbered, points
from pipeline.sweeps.trial import bundles, point_of

UP = {"val/psnr_y": "max"}


@pytest.mark.parametrize(
    ("metrics", "hopeless"),
    [
        ({"val/psnr_y": 20.0, "validations": 1}, False),
        ({"val/psnr_y": 20.0, "validations": 2}, True),
        ({"val/psnr_y": 25.0, "validations": 2}, False),
        ({"val/psnr_y": math.nan, "validations": 1}, True),
    ],
)
def test_a_trial_is_hopeless_below_the_floor_after_its_grace_or_when_not_finite(metrics, hopeless):
    assert is_hopeless(metrics, Hopeless(floor=24.0, after=2), UP) == hopeless


def test_less_is_better_of_an_objective_to_be_minimised():
    rule, down = Hopeless(floor=0.3), {"val/lpips": "min"}
    assert is_hopeless({"val/lpips": 0.4, "validations": 1}, rule, down)
    assert not is_hopeless({"val/lpips": 0.2, "validations": 1}, rule, down)


def test_a_budget_of_images_counts_all_trials_and_goes_on_counting_after_a_resume(tmp_path):
    spending = Spending(tmp_path, Budget(images=100))
    spending.note("a", 40)
    spending.note("b", 50)
    spending.note("a", 45)
    assert not spending.is_spent()
    spending.write()
    again = Spending(tmp_path, Budget(images=100))
    again.note("c", 5)
    assert again.is_spent()


def test_a_budget_of_hours_counts_those_before_a_resume(tmp_path):
    (tmp_path / "spent.json").write_text('{"seconds": 3700, "images": {}}')
    assert Spending(tmp_path, Budget(hours=1.0)).is_spent()
    assert not Spending(tmp_path, Budget(hours=2.0)).is_spent()


def test_a_trial_has_the_same_name_in_every_part_of_a_sweep(tmp_path):
    second = SimpleNamespace(config={"point": numbered([{"a": 1}, {"a": 2}])[1]}, trial_id="x")
    assert Names(tmp_path)(second) == "trial-002"
    assert point_of(second.config) == {"a": 2}
    for number, trial_id in enumerate(["p", "q", "p"]):
        trial = SimpleNamespace(config={"point": {"a": number}}, trial_id=trial_id)
        assert Names(tmp_path)(trial) == {"p": "trial-001", "q": "trial-002"}[trial_id]


def test_random_and_grid_know_their_points_before_and_tpe_does_not():
    space = parse_space({"a": {"choice": [1, 2]}, "b": {"choice": [3, 4]}})
    assert len(points(space, "grid", 8, 0)) == 4
    assert len(points(space, "random", 3, 0)) == 3
    assert points(space, "tpe", 3, 0) is None


@pytest.mark.parametrize(
    ("resources", "there", "gpus", "at_once"),
    [
        (Resources(), {"CPU": 8}, 0, None),
        (Resources(), {"CPU": 8, "GPU": 2}, 1, None),
        (Resources(gpus=0), {"CPU": 8, "GPU": 2}, 0, None),
        (Resources(gpus=0.5), {"CPU": 8, "GPU": 2}, 0.5, None),
        (Resources(workers=2, cpus=3), {"CPU": 16}, 0, 2),
        (Resources(workers=4, cpus=2), {"CPU": 64, "GPU": 9}, 1, 2),
    ],
)
def test_a_trial_gets_what_is_asked_for_and_groups_no_more_than_fit(
    resources, there, gpus, at_once
):
    room = room_for(resources, there)
    assert (room.gpus, room.trials) == (gpus, at_once)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(cpus=9), "asks for 9 CPUs and the cluster has 8 in all"),
        (Resources(workers=3, cpus=3), "asks for 9 CPUs and the cluster has 8 in all"),
        (Resources(gpus=0.5), "asks for 0.5 GPUs and the cluster has 0 in all"),
    ],
)
def test_more_than_the_cluster_has_is_refused_before_a_trial_waits_for_it(resources, said):
    with pytest.raises(ValueError, match=said):
        room_for(resources, {"CPU": 8})


@pytest.mark.parametrize(
    ("workers", "gpus", "bundles_of_it"),
    [
        (1, 0.5, [{"CPU": 4, "GPU": 0.5}]),
        (1, 1.0, [{"CPU": 4, "GPU": 1}]),
        (1, 0.0, [{"CPU": 4}]),
        (2, 1.0, [{"memory": 2**29}]),  # Ray Train reserves for the workers themselves
    ],
)
def test_ray_tune_reserves_a_share_of_a_gpu_a_whole_one_or_only_who_waits_for_a_group(
    workers, gpus, bundles_of_it
):
    plan = SimpleNamespace(workers=workers, threads=4, gpus=gpus)
    trainable = tune.with_resources(lambda config: None, bundles(plan))
    assert trainable._resources.bundles == bundles_of_it


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Scheduler(kind="ahsa"), "unknown scheduler.kind 'ahsa'; did you mean 'asha'"),
        (lambda: Scheduler(grace=0), "at least 1"),
        (lambda: Scheduler(quantile=0.7), "at most 0.5"),
        (lambda: Resources(gpus=2), "choose 1 or a fraction, and more resources.workers"),
        (lambda: Resources(gpus=0.5, workers=2), "need a whole GPU each"),
        (lambda: Resources(cpus=0), "at least 1"),
        (lambda: Budget(hours=0), "budget.hours must be positive"),
        (lambda: points(parse_space({"a": {"grid": [1]}}), "tpe", 1, 0), "make it a choice"),
        (lambda: points(parse_space({"a": {"grid": [1]}}), "bayes", 1, 0), "unknown search"),
        (lambda: points(parse_space({"a": {"grid": [1]}}), "random", 0, 0), "1 or more"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_allowed(make, said):
    with pytest.raises(ValueError, match=said):
        make()

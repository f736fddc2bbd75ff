"""The space as YAML has it: what is drawn, what is left out, what is refused."""

import random

import pytest

from pipeline.sweeps.space import parse_space

SPACE = {
    "model.init_args.gan": {"choice": ["vanilla", "ragan"]},
    "model.init_args.warmup_steps": {
        "randint": [1, 3], "when": {"model.init_args.gan": ["ragan"]},
    },
    "model.init_args.optimisation.learning_rate": {"loguniform": [1e-4, 1e-2]},
}  # fmt: skip


def test_draws_stay_inside_and_conditions_are_kept():
    points = parse_space(SPACE).random(200, seed=0)
    assert len(points) == 200
    rates = [point["model.init_args.optimisation.learning_rate"] for point in points]
    assert 1e-4 <= min(rates) < 3e-4
    assert 3e-3 < max(rates) <= 1e-2
    # Half of the logarithm's range lies below 1e-3, a tenth of the linear one would.
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 200 < 0.6
    for point in points:
        assert ("model.init_args.warmup_steps" in point) == (
            point["model.init_args.gan"] == "ragan"
        )
    warmups = {point.get("model.init_args.warmup_steps") for point in points}
    assert warmups == {None, 1, 2, 3}


def test_the_same_seed_draws_the_same_points_and_no_point_twice():
    space = parse_space({"a": {"choice": [1, 2, 3]}, "b": {"quniform": [0.0, 0.2, 0.1]}})
    points = space.random(6, seed=3)
    assert points == space.random(6, seed=3)
    assert points != space.random(6, seed=4)
    assert len({tuple(point.items()) for point in points}) == 6
    assert len(space.random(100, seed=3)) == 9  # there are no more


def test_a_grid_has_every_combination_once_without_what_does_not_apply():
    space = parse_space({
        "gan": {"grid": ["vanilla", "ragan"]},
        "warmup": {"choice": [0, 500], "when": {"gan": "ragan"}},
        "blocks": {"quniform": [8, 24, 8]},
    })  # fmt: skip
    points = space.grid()
    assert len(points) == 3 * (1 + 2)
    assert {"gan": "vanilla", "blocks": 16} in points
    assert {"gan": "ragan", "warmup": 500, "blocks": 24} in points


def test_settings_that_are_grid_are_crossed_with_random_draws():
    space = parse_space({"rate": {"uniform": [0.0, 1.0]}, "arch": {"grid": ["small", "large"]}})
    points = space.random(3, seed=0)
    assert len(points) == 6
    assert len({point["rate"] for point in points}) == 3


def test_a_setting_may_stand_before_those_that_it_depends_on():
    space = parse_space(dict(reversed(SPACE.items())))
    assert space.keys.index("model.init_args.gan") < space.keys.index(
        "model.init_args.warmup_steps"
    )


def test_labels_are_as_short_as_they_can_be_told_apart():
    space = parse_space({
        "model.init_args.optimisation.learning_rate": {"choice": [1]},
        "model.init_args.discriminator_optimisation.learning_rate": {"choice": [1]},
        "data.crop": {"choice": [48]},
    })  # fmt: skip
    assert list(space.labels().values()) == [
        "optimisation.learning_rate", "discriminator_optimisation.learning_rate", "crop",
    ]  # fmt: skip


def test_clamping_brings_a_changed_value_back_into_its_range():
    by_key = {each.key: each for each in parse_space(SPACE).dimensions}
    assert by_key["model.init_args.optimisation.learning_rate"].clamp(0.5) == 1e-2
    assert by_key["model.init_args.warmup_steps"].clamp(0.4) == 1
    assert by_key["model.init_args.gan"].clamp("vanilla") == "vanilla"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "space is empty"),
        ({"a": {"normal": [0, 1]}}, "unknown sampler of space.a 'normal'"),
        ({"a": {"loguniforn": [1, 2]}}, "did you mean 'loguniform'"),
        ({"a": {}}, "exactly one of"),
        ({"a": {"choice": [1], "grid": [2]}}, "exactly one of"),
        ({"a": {"choice": []}}, "list of values"),
        ({"a": {"uniform": [2.0, 1.0]}}, "low below high"),
        ({"a": {"loguniform": [1.0]}}, "low, high"),
        ({"a": {"loguniform": [0, 1.0]}}, "above 0"),
        ({"a": {"quniform": [0, 1]}}, "low, high, step"),
        ({"a": {"randint": [0.5, 2]}}, "whole numbers"),
        ({"a": {"choice": [1], "when": {"b": [1]}}}, "unknown setting in space.a.when 'b'"),
        (
            {"a": {"choice": [1], "when": {"b": [3]}}, "b": {"choice": [1, 2]}},
            "b is never 3; choose from 1, 2",
        ),
        (
            {
                "a": {"choice": [1], "when": {"b": [1]}},
                "b": {"choice": [1], "when": {"a": [1]}},
            },
            "depend on each other",
        ),
    ],
)
def test_a_wrong_space_is_refused_with_what_is_allowed(space, said):
    with pytest.raises(ValueError, match=said):
        parse_space(space)


def test_a_continuum_has_no_grid():
    with pytest.raises(ValueError, match="is uniform, of which there is no grid"):
        parse_space({"a": {"uniform": [0, 1]}}).grid()


def test_every_extreme_is_checked_with_what_it_needs():
    checks = list(parse_space(SPACE).checks())
    assert {"model.init_args.gan": "ragan", "model.init_args.warmup_steps": 3} in checks
    assert {"model.init_args.optimisation.learning_rate": 1e-2} in checks
    assert len(checks) == 2 + 2 + 2


def test_values_are_drawn_within_the_range_of_every_sampler():
    space = parse_space({
        "u": {"uniform": [1.0, 2.0]}, "q": {"quniform": [1.0, 2.0, 0.5]}, "i": {"randint": [1, 2]},
    })  # fmt: skip
    rng = random.Random(0)
    drawn = [{d.key: d.draw(rng) for d in space.dimensions} for _ in range(50)]
    assert {point["q"] for point in drawn} == {1.0, 1.5, 2.0}
    assert {point["i"] for point in drawn} == {1, 2}
    assert all(1 <= point["u"] <= 2 for point in drawn)

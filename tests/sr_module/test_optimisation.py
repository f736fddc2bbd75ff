import pytest
import torch
from torch import nn

from sr_module.optimisation import Optimisation


def rates(optimisation: Optimisation, steps: int) -> list[float]:
    """Learning rate in force at each step."""
    optimizer, schedule = optimisation.build(nn.Linear(1, 1))
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_steps_multiplies_the_rate_at_each_milestone():
    seen = rates(Optimisation(learning_rate=1.0, milestones=[2, 4], gamma=0.5), 6)
    assert seen == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_without_milestones_the_rate_stays():
    assert rates(Optimisation(learning_rate=0.3), 4) == [0.3] * 4


def test_cosine_falls_to_the_least_rate_in_a_period_and_starts_again():
    seen = rates(
        Optimisation(learning_rate=1.0, schedule="cosine", period=4, learning_rate_min=0.2), 9
    )
    # 0.2 + 0.8 * (1 + cos(pi * step / 4)) / 2
    halves = [1, 0.882843, 0.6, 0.317157]
    assert seen == pytest.approx([*halves, *halves, 1], abs=1e-6)


def test_it_is_adam_with_the_given_betas_and_decay():
    optimizer, _ = Optimisation(betas=(0.5, 0.6), weight_decay=0.1).build(nn.Linear(1, 1))
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer, _ = Optimisation().build(layer)
    assert [p is layer.weight for p in optimizer.param_groups[0]["params"]] == [True]

import pytest
import torch
from torch import nn

from sr_module.archs import build
from sr_module.optimisation import Optimisation, clip_by_rate


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


def test_milestones_may_come_in_any_order():
    seen = rates(Optimisation(learning_rate=1.0, milestones=[4, 2], gamma=0.5), 6)
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


def test_the_least_rate_of_the_cosine_is_a_rate_and_no_share_of_the_first():
    settings = Optimisation(
        learning_rate=0.5, schedule="cosine", period=1000, learning_rate_min=0.2
    )
    assert 0.5 * settings.factor(999) == pytest.approx(0.2, abs=1e-5)


def test_the_rate_warms_up_in_equal_steps_before_its_schedule():
    seen = rates(Optimisation(learning_rate=1.0, warmup=4, milestones=[5], gamma=0.1), 7)
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize("schedule", ["steps", "cosine"])
def test_the_schedule_goes_on_where_its_state_was_saved(schedule: str):
    settings = Optimisation(milestones=[3], schedule=schedule, period=6, warmup=2)
    layer = nn.Linear(1, 1)
    optimizer, first = settings.build(layer)
    for _ in range(4):
        optimizer.step()
        first.step()
    again, second = settings.build(layer)
    again.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    for o, s in ((optimizer, first), (again, second)):
        o.step()
        s.step()
    assert first.get_last_lr() == second.get_last_lr() == [2e-4 * settings.factor(5)]


def test_it_is_adam_with_the_given_betas_and_decay():
    optimizer, _ = Optimisation(betas=(0.5, 0.6), weight_decay=0.1).build(nn.Linear(1, 1))
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_sgd_moves_by_momentum_and_decay_worked_out_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    settings = Optimisation(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.01)
    optimizer, _ = settings.build(layer)
    for gradient in (1.0, 3.0):
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
    # velocity 1 + 0.02 = 1.02, weight 1.898; then 0.51 + 3 + 0.01898, weight 1.898 - 0.352898
    assert layer.weight.item() == pytest.approx(1.545102)


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_refused_first_step_leaves_nothing_behind(name: str, momentum: float):
    def weight(*, refused_first: bool) -> torch.Tensor:
        layer = nn.Linear(3, 3)
        nn.init.constant_(layer.weight, 0.5)
        optimizer, _ = Optimisation(optimizer=name, momentum=momentum).build(layer)
        for refused in [True, False, False][not refused_first :]:
            value = torch.nan if refused else 1.0
            layer.weight.grad = torch.full((3, 3), value)
            optimizer.found_inf = torch.tensor(float(refused))
            optimizer.step()
        return layer.weight

    assert torch.equal(weight(refused_first=True), weight(refused_first=False))


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer, _ = Optimisation().build(layer)
    assert [p is layer.weight for p in optimizer.param_groups[0]["params"]] == [True]


def test_layers_have_their_factor_on_every_rate_of_the_schedule():
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)))
    settings = Optimisation(
        learning_rate=1.0, optimizer="sgd", layer_factors={"1": 0.1, "1.0": 0.5}, milestones=[1],
    )  # fmt: skip
    optimizer, schedule = settings.build(net)
    parts = [net[0], net[1][1], net[1][0]]

    def found() -> list[float]:
        rate = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert len(rate) == len(list(net.parameters()))
        assert all(rate[part.weight] == rate[part.bias] for part in parts)
        return [rate[part.weight] for part in parts]

    assert found() == [1.0, 0.1, 0.5]
    optimizer.step()
    schedule.step()
    assert found() == [0.5, 0.05, 0.25]


def test_a_layer_moves_by_its_own_rate():
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
        parameter.grad = torch.ones_like(parameter)
    settings = Optimisation(learning_rate=1e-2, optimizer="sgd", layer_factors={"1": 0.1})
    optimizer, _schedule = settings.build(net)
    optimizer.step()
    assert [p.item() for p in net.parameters()] == pytest.approx([-1e-2, -1e-2, -1e-3, -1e-3])


def test_cosine_ends_each_layer_at_its_share_of_the_least_rate():
    settings = Optimisation(
        learning_rate=1.0, schedule="cosine", period=1000, learning_rate_min=0.01,
        layer_factors={"0": 0.1},
    )  # fmt: skip
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    optimizer, schedule = settings.build(net)
    schedule.last_epoch = 998
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.01, 0.001], rel=1e-3)


def test_a_layer_that_is_not_there_is_answered_with_those_that_are():
    net = build("msrresnet", 2, features=4, blocks=1)
    with pytest.raises(ValueError, match=r"layer_factors: 'conv_lats'; did you mean 'conv_last'\?"):
        Optimisation(layer_factors={"conv_lats": 0.1}).build(net)
    with pytest.raises(ValueError, match="choose from: conv_first, "):
        Optimisation(layer_factors={"conv_las": 0.1}).build(net)  # half a word is no name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adm"}, "unknown optimizer 'adm'; did you mean 'adam'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"learning_rate": 0}, "learning_rate must be positive, got 0"),
        ({"layer_factors": {"a": -1.0}}, "layer_factors: a must be positive, got -1.0"),
        ({"warmup": -1}, "warmup must be 0 steps or more"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Optimisation(**settings)


def test_adjustable_clipping_bounds_each_element_by_the_rate_now_in_force():
    net = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 1, bias=False))
    settings = Optimisation(
        learning_rate=0.1, optimizer="sgd", momentum=0, milestones=[1], gamma=0.1,
        layer_factors={"1": 0.5},
    )  # fmt: skip
    optimizer, schedule = settings.build(net)

    def clipped() -> list[list[float]]:
        for parameter in net.parameters():
            parameter.grad = torch.tensor([0.05, -30.0, 30.0]).view_as(parameter)
        clip_by_rate(optimizer, 0.01)
        return [parameter.grad.flatten().tolist() for parameter in net.parameters()]

    assert clipped() == [pytest.approx([0.05, -0.1, 0.1]), pytest.approx([0.05, -0.2, 0.2])]
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer.step()
    for was, parameter in zip(before, net.parameters(), strict=True):
        assert (was - parameter).abs().max().item() == pytest.approx(0.01)  # theta, at any rate
    schedule.step()
    assert clipped() == [pytest.approx([0.05, -1, 1]), pytest.approx([0.05, -2, 2])]

"""The guard on plain tensors; ``test_training`` shows it in real trainings."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from sr_module.guard import DivergenceError, Guard, guarded
from sr_module.optimisation import Optimisation


def judged(net: nn.Module, guard: Guard, optimizer: torch.optim.Optimizer, value: float) -> None:
    """One step whose gradients hold ``value`` in one place."""
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    list(net.parameters())[-1].grad.view(-1)[0] = value
    guard.judge(optimizer, step=1)
    optimizer.step()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(value: float):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    optimizer, _ = Optimisation().build(net)
    guard = Guard([net], max_skipped=3)
    before = [p.clone() for p in net.parameters()]
    judged(net, guard, optimizer, value)
    assert all(torch.equal(was, p) for was, p in zip(before, net.parameters(), strict=True))
    assert bool(guard.refused)
    judged(net, guard, optimizer, 1.0)
    assert not any(torch.equal(was, p) for was, p in zip(before, net.parameters(), strict=True))
    assert (bool(guard.refused), int(guard.skipped)) == (False, 1)


def test_a_refused_step_takes_the_buffers_back_to_the_last_sound_step():
    norm = nn.BatchNorm1d(2)
    optimizer, _ = Optimisation().build(norm)
    guard = Guard([norm], max_skipped=3)
    norm(torch.rand(4, 2))
    judged(norm, guard, optimizer, 1.0)
    sound = [buffer.clone() for buffer in norm.buffers()]
    norm(torch.rand(4, 2))  # the first of two accumulated batches
    norm(torch.full((4, 2), torch.nan))
    judged(norm, guard, optimizer, torch.nan)
    assert all(torch.equal(was, b) for was, b in zip(sound, norm.buffers(), strict=True))
    assert int(norm.num_batches_tracked) == 1


def test_one_optimisers_gradient_stops_the_other_also_for_a_gradient_scaler():
    nets = [nn.Linear(2, 2), nn.Linear(2, 2)]
    optimizers = [Optimisation().build(net)[0] for net in nets]
    scaler = torch.amp.GradScaler("cpu")
    guard = Guard(nets, max_skipped=3)
    before = nets[0].weight.clone()
    for net, value in zip(nets, (1.0, torch.nan), strict=True):
        scaler.scale((net.weight * value).sum() + net.bias.sum()).backward()
    guard.judge(*optimizers, step=1)
    scaler.step(optimizers[0])  # looks at this optimiser's gradients, which were finite
    assert torch.equal(nets[0].weight, before)


def test_a_loss_that_is_not_finite_shows_in_the_gradients_though_l1_would_hide_it():
    def gradient(hr: Tensor, *, guard: bool) -> Tensor:
        weight = torch.ones(1, requires_grad=True)
        loss = nn.functional.l1_loss(weight * torch.ones(2), hr)
        (found,) = torch.autograd.grad(guarded(loss) if guard else loss, weight)
        return found

    broken, sound = torch.tensor([0.0, torch.nan]), torch.tensor([0.0, 0.5])
    assert gradient(broken, guard=False).isfinite()
    assert gradient(broken, guard=True).isnan()
    assert torch.equal(gradient(sound, guard=True), gradient(sound, guard=False))


def test_the_row_that_was_too_long_is_remembered_until_it_is_asked_for():
    net = nn.Linear(1, 1)
    optimizer, _ = Optimisation().build(net)
    guard = Guard([net], max_skipped=2, skipped=5)
    verdicts = [1.0, *[torch.nan] * 2, 1.0, *[torch.nan] * 4, 1.0, torch.nan]
    for step, value in enumerate(verdicts, start=1):
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, value)
        guard.judge(optimizer, step=step)
        if step == 6:
            guard.check()  # two in a row, twice
    message = r"step 7: more than 2 batches in a row \(max_skipped\).* 12 in the whole run.*32-true"
    with pytest.raises(DivergenceError, match=message):
        guard.check()


def test_judging_reads_nothing_back_from_the_device_and_checking_does():
    """Fake tensors have no values: reading one is an error."""
    with FakeTensorMode():
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        optimizer, _ = Optimisation().build(net)
        guard = Guard([net], max_skipped=1)
        loss = guarded(net(torch.rand(4, 2)).sum())
        loss.backward()
        guard.judge(optimizer, step=1)
        with pytest.raises(DataDependentOutputException):
            guard.check()

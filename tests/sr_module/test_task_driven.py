"""A network learns from what another network sees: gradients arrive, by turns, after a warm-up."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sr_module.archs import build
from sr_module.checkpoint import save_net
from sr_module.optimisation import Optimisation
from sr_module.task_driven import Task, TaskDriven, by_turns, feature_distance, patchwork


class Judge(nn.Module):
    """A task network: one convolution, whose mean should be what is true of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def features(self, pictures: Tensor) -> list[Tensor]:
        return [self.conv(pictures)]

    def look(self, pictures: Tensor, truth: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.features(pictures)
        return maps, (maps[0].mean(dim=(1, 2, 3)) - truth).square().mean()


def task() -> Task:
    judge = Judge()
    return Task(judge, judge.features, judge.look)


def module(**settings) -> TaskDriven:
    torch.manual_seed(0)
    rates = {"optimisation": Optimisation(learning_rate=1e-3)}
    return TaskDriven(
        "msrresnet", scale=2, arch_args={"features": 4, "blocks": 1}, task=task(),
        **{**rates, **settings},
    )  # fmt: skip


def batches(count: int) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    rows = [
        (torch.rand((3, 12, 12), generator=generator), torch.rand((3, 24, 24), generator=generator),
         torch.tensor(3.0))
        for _ in range(2 * count)
    ]  # fmt: skip
    return DataLoader(rows, batch_size=2)


def trained(model: TaskDriven, steps: int) -> TaskDriven:
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, batches(steps))
    return model


def moved(before: nn.Module, after: nn.Module) -> bool:
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


def only_task(**settings) -> TaskDriven:
    return module(pixel_weight=0.0, feature_weight=0.0, task_weight=1.0, **settings)


def test_the_gradient_of_the_tasks_loss_reaches_every_weight_of_the_network():
    model = only_task()
    model.log_dict = model.log = lambda *_, **__: None
    lr, hr = torch.rand(2, 3, 12, 12) * 0.5 + 0.25, torch.rand(2, 3, 24, 24)
    model.network_loss(model.net(lr), hr, torch.full((2,), 3.0), warm=False).backward()
    for name, weight in model.net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_tasks_loss_alone_changes_the_network_and_what_is_exported_of_it():
    model = only_task()
    net, averaged = copy.deepcopy(model.net), copy.deepcopy(model.averaged)
    trained(model, 3)
    assert moved(net, model.net)
    assert moved(averaged, model.averaged)


def test_training_for_the_task_lowers_the_tasks_loss_of_the_enlarged_pictures():
    model = only_task(optimisation=Optimisation(learning_rate=1e-2), ema_decay=0.0)
    lr, truth = torch.rand(4, 3, 12, 12), torch.full((4,), 3.0)
    before = model.task.look(model(lr), truth)[1]
    trained(model, 12)
    assert model.task.look(model(lr), truth)[1] < before


def test_a_task_network_without_an_optimiser_of_its_own_stays_as_it_is():
    model = only_task()
    before = copy.deepcopy(model.task_network)
    trained(model, 3)
    assert not moved(before, model.task_network)


def test_both_networks_learn_by_turns_and_a_batch_counts_as_one_step():
    model = module(task_optimisation=Optimisation(learning_rate=1e-3))
    net, judge = copy.deepcopy(model.net), copy.deepcopy(model.task_network)
    trained(model, 4)
    assert moved(net, model.net)
    assert moved(judge, model.task_network)
    assert model.global_step == 4


def test_the_warm_up_knows_the_pixel_loss_only_and_leaves_the_task_network_alone():
    settings = {"task_optimisation": Optimisation(learning_rate=1e-3)}
    warm = module(warmup_steps=3, **settings)
    judge = copy.deepcopy(warm.task_network)
    pixels_only = module(feature_weight=0.0, task_weight=0.0)
    trained(warm, 3)
    trained(pixels_only, 3)
    assert not moved(judge, warm.task_network)
    assert not moved(warm.net, pixels_only.net)
    assert moved(judge, trained(module(warmup_steps=2, **settings), 3).task_network)


def test_the_network_begins_from_the_weights_it_is_given(tmp_path):
    net = build("msrresnet", 2, features=4, blocks=1)
    save_net(net, tmp_path / "net.safetensors", provenance={})
    model = module(init_from=str(tmp_path / "net.safetensors"))
    assert not moved(net, model.net)


def test_patchwork_is_of_whole_cells_and_of_both_pictures():
    torch.manual_seed(0)
    mixed = patchwork(torch.zeros(3, 3, 32, 32), torch.ones(3, 3, 32, 32))
    cells = mixed.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, C, 8, 8, 4, 4)
    assert torch.equal(cells.amin((4, 5)), cells.amax((4, 5)))
    assert torch.equal(mixed[:, 0], mixed[:, 2])
    assert 0.2 < mixed.mean() < 0.8


def test_the_three_kinds_of_picture_are_equally_frequent():
    torch.manual_seed(0)
    means = by_turns(torch.zeros(600, 1, 16, 16), torch.ones(600, 1, 16, 16)).mean((1, 2, 3))
    for share in ((means == 0), (means == 1), (means > 0) & (means < 1)):
        assert 0.27 < share.float().mean() < 0.4


def test_features_are_compared_map_by_map_whatever_their_sizes():
    found = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 2, 2)]
    wanted = [torch.ones(1, 2, 8, 8), torch.full((1, 2, 2, 2), 3.0)]
    assert feature_distance(found, wanted) == 2.0


@pytest.mark.parametrize(
    "wrong", [{"task_weight": -1.0}, {"warmup_steps": -1},
              {"pixel_weight": 0.0, "feature_weight": 0.0, "task_weight": 0.0}],
)  # fmt: skip
def test_settings_that_teach_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="0 or more"):
        module(**wrong)

from copy import deepcopy
from pathlib import Path
from urllib.error import URLError

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sr_module.adversarial import Adversarial, Perceptual
from sr_module.degrade import sharpen
from sr_module.optimisation import Optimisation
from sr_module.resize import imresize

TINY = {"features": 8, "blocks": 1}


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights for VGG19's first two convolutions, in torchvision's convention."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for index, inputs in ((0, 3), (2, 64)):
        tensors[f"features.{index}.weight"] = torch.randn(64, inputs, 3, 3, generator=draw) / 20
        tensors[f"features.{index}.bias"] = torch.zeros(64)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file(tensors, path)
    return str(path)


def model(**settings) -> Adversarial:
    return Adversarial(
        "msrresnet", arch_args=TINY, discriminator_args={"features": 4},
        optimisation=Optimisation(learning_rate=1e-3),
        discriminator_optimisation=Optimisation(learning_rate=1e-3),
        **settings,
    )  # fmt: skip


def run(adversarial: Adversarial, steps: int, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    hr = F.interpolate(torch.rand(6, 3, 8, 8), scale_factor=4)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
        **settings,
    )  # fmt: skip
    trainer.fit(adversarial, DataLoader(TensorDataset(imresize(hr, 0.25), hr), 2))
    return trainer


class Watch(pl.Callback):
    """What is logged, step by step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.logged.append({key: float(v) for key, v in trainer.callback_metrics.items()})
        self.steps.append(trainer.global_step)


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


def learned(before: dict[str, Tensor], module: nn.Module) -> bool:
    """Whether any parameter moved; buffers, such as those of spectral norm, may."""
    return any(name in changed(before, module) for name, _ in module.named_parameters())


@pytest.mark.parametrize(
    ("gan", "precision"), [("vanilla", "32-true"), ("ragan", "32-true"), ("ragan", "bf16-mixed")]
)
def test_both_networks_and_the_average_learn_and_stay_finite(gan, precision):
    adversarial = model(gan=gan)
    parts = (adversarial.net, adversarial.averaged, adversarial.discriminator)
    before = [copy_of(part) for part in parts]
    run(adversarial, 2, precision=precision)
    for old, part in zip(before, parts, strict=True):
        # The relativistic loss looks at differences of logits, so their last bias cancels.
        assert changed(old, part) >= {name for name, _ in part.named_parameters()} - {"conv9.bias"}
        assert all(tensor.isfinite().all() for tensor in part.state_dict().values())


def test_batches_are_steps_though_two_optimisers_step():
    watch = Watch()
    trainer = run(model(), 5, watch)
    assert watch.steps == [1, 2, 3, 4, 5]
    assert trainer.global_step == 5
    for optimizer in trainer.optimizers:
        assert {float(s["step"]) for s in optimizer.state.values()} == {5.0}


def test_each_network_counts_its_own_steps_over_a_resume(tmp_path: Path):
    """Batches, Lightning's steps and those of either network are four numbers."""
    watch, path = Watch(), tmp_path / "last.ckpt"
    adversarial = model(accumulate=3)
    run(adversarial, 2, watch).save_checkpoint(path)
    assert adversarial.batches_done() == 6
    assert watch.steps == [0, 0, 1, 1, 1, 2]
    assert (adversarial.generator_steps, adversarial.discriminator_steps) == (2, 2)
    assert watch.logged[-1]["train/generator_steps"] == 2
    assert watch.logged[-1]["train/discriminator_steps"] == 2
    resumed = model(accumulate=3)
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", devices=1, barebones=True)
    trainer.fit(resumed, DataLoader(TensorDataset(torch.zeros(2)), 2), ckpt_path=path)
    assert (resumed.generator_steps, resumed.discriminator_steps) == (2, 2)


class Judge(nn.Module):
    """A discriminator whose logits of a picture do not depend on the others in its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))

    def forward(self, picture: Tensor) -> Tensor:
        return self.body(picture)


@pytest.mark.parametrize("clip_norm", [None, 1e-2])
def test_accumulated_batches_make_the_step_of_one_large_batch(clip_norm):
    hr = F.interpolate(torch.rand(12, 3, 8, 8), scale_factor=4)
    sgd = Optimisation(learning_rate=0.1, optimizer="sgd")

    def trained(batch: int, accumulate: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        adversarial = Adversarial(
            "msrresnet", arch_args=TINY, gan="vanilla", gan_weight=0.1, pixel_weight=1.0,
            ema_decay=0.5, clip_norm=clip_norm, accumulate=accumulate, optimisation=sgd,
            discriminator_optimisation=sgd,
        )  # fmt: skip
        adversarial.discriminator = Judge()
        start = copy_of(adversarial)
        trainer = pl.Trainer(max_steps=3, accelerator="cpu", devices=1, barebones=True)
        trainer.fit(adversarial, DataLoader(TensorDataset(imresize(hr, 0.25), hr), batch))
        assert trainer.global_step == 3
        moved = changed(start, adversarial)
        assert {key.split(".")[0] for key in moved} == {"net", "averaged", "discriminator"}
        return copy_of(adversarial)

    whole, parts = trained(4, 1), trained(2, 2)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, atol=1e-6, rtol=1e-4)


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    pairs = zip(one, other, strict=True)
    return all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)


def test_each_loss_gives_gradients_to_its_own_network_alone():
    seen = []

    class Spy(Adversarial):
        def manual_backward(self, loss, *args, **kwargs):
            parts = (self.net, self.discriminator)
            before = [gradients(part) for part in parts]
            frozen = [not any(p.requires_grad for p in part.parameters()) for part in parts]
            super().manual_backward(loss, *args, **kwargs)
            after = [gradients(part) for part in parts]
            seen.append((frozen, [not same(*pair) for pair in zip(before, after, strict=True)]))

    spy = Spy("msrresnet", arch_args=TINY, discriminator_args={"features": 4})
    run(spy, 2)
    generator, discriminator = ([False, True], [True, False]), ([True, False], [False, True])
    assert seen == [generator, discriminator] * 2
    assert all(p.requires_grad for p in spy.discriminator.parameters())


@pytest.mark.parametrize("gan", ["vanilla", "ragan", "lsgan", "hinge"])
@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=1024.0)])
def test_the_generators_gradient_is_that_of_its_loss_through_the_discriminator(gan, scaler):
    lrs, found = [], []

    class Spy(Adversarial):
        def on_fit_start(self):
            super().on_fit_start()
            if scaler is not None:  # as in 16-mixed, which is for GPUs only
                self.trainer.precision_plugin.scaler = scaler

        def training_step(self, batch, batch_idx):
            lrs.append((batch, deepcopy(self.net), deepcopy(self.discriminator)))
            super().training_step(batch, batch_idx)

        def _step(self, optimizer):
            found.append(gradients(self.net))
            super()._step(optimizer)

    spy = Spy(
        "msrresnet", arch_args=TINY, discriminator_args={"features": 4}, gan=gan, gan_weight=10.0
    )
    run(spy, 1)
    ((lr, hr), net, discriminator) = lrs[0]
    sr, real = net(lr), discriminator(hr).detach()
    loss = 1e-2 * F.l1_loss(sr, hr) + 10 * spy.gan.generator(real, discriminator(sr))
    expected = torch.autograd.grad(loss, list(net.parameters()))
    for exact, grad in zip(expected, found[0], strict=True):
        assert torch.allclose(exact, grad, rtol=1e-4, atol=1e-6 * exact.abs().max())


def test_no_step_logs_a_number_that_lightning_would_copy_to_the_device():
    kinds = set()

    class Spy(Adversarial):
        def log(self, name, value, *args, **kwargs):
            kinds.add(type(value))
            super().log(name, value, *args, **kwargs)

    watch = Watch()
    run(Spy("msrresnet", arch_args=TINY, discriminator_args={"features": 4}), 2, watch)
    assert kinds == {Tensor}
    assert watch.logged[1]["train/generator_steps"] == 2


def test_the_discriminator_judges_every_picture_once():
    shapes = []

    class Spy(Adversarial):
        def on_fit_start(self):
            super().on_fit_start()
            self.discriminator.register_forward_hook(
                lambda module, given, logits: shapes.append(given[0].shape)
            )

    spy = Spy("msrresnet", arch_args=TINY, discriminator_args={"features": 4})
    run(spy, 2)
    assert shapes == [(2, 3, 32, 32)] * 4  # true and made, of each batch


def test_each_optimiser_moves_its_own_network_alone():
    seen = []

    class Spy(Adversarial):
        def _step(self, optimizer):
            before = [copy_of(self.net), copy_of(self.discriminator)]
            super()._step(optimizer)
            seen.append([learned(before[0], self.net), learned(before[1], self.discriminator)])

    run(Spy("msrresnet", arch_args=TINY, discriminator_args={"features": 4}), 2)
    assert seen == [[True, False], [False, True]] * 2


def test_the_discriminator_tells_true_from_made_better_with_every_step():
    watch = Watch()
    adversarial = Adversarial(
        "msrresnet", arch_args=TINY, discriminator_args={"features": 4}, gan="vanilla",
        optimisation=Optimisation(learning_rate=1e-6),  # the generator stands nearly still
        discriminator_optimisation=Optimisation(learning_rate=3e-3),
    )  # fmt: skip
    run(adversarial, 6, watch)
    gaps = [row["train/real"] - row["train/fake"] for row in watch.logged]
    assert gaps[-1] > gaps[0]
    assert watch.logged[-1]["train/loss_d"] < watch.logged[0]["train/loss_d"]


@pytest.mark.parametrize("gan", ["vanilla", "ragan", "lsgan"])
def test_the_generators_loss_is_the_weighted_sum_of_its_parts(vgg, gan):
    watch = Watch()
    perceptual = Perceptual(layers={"conv1_1": 0.5, "conv1_2": 1.0}, weights=vgg)
    weights = {
        "pixel_weight": 0.3, "perceptual_weight": 2.0, "gan_weight": 0.1, "tv_weight": 1e-4,
    }  # fmt: skip
    run(model(gan=gan, perceptual=perceptual, **weights), 2, watch)
    assert len(watch.logged) == 2
    for row in watch.logged:
        parts = 0.3 * row["train/pixel"] + 2 * row["train/perceptual"] + 0.1 * row["train/gan"]
        parts += 1e-4 * row["train/tv"]
        assert row["train/loss"] == pytest.approx(parts, rel=1e-5)
        names = ("train/pixel", "train/perceptual", "train/gan", "train/tv")
        assert min(row[name] for name in names) > 0


def test_pixel_loss_meets_sharpened_targets_and_the_discriminator_those_that_are_true(monkeypatch):
    judged = []
    for sharpened in (False, True):
        adversarial = model(sharpen_targets=sharpened, pixel_weight=1.0)
        monkeypatch.setattr(adversarial, "log", lambda *_, **__: None)
        monkeypatch.setattr(adversarial, "log_dict", lambda parts: judged.append(parts))
        hr = F.interpolate(torch.rand(1, 3, 6, 6), size=(48, 48))  # edges
        adversarial._generator_loss(hr, hr, None)
    assert float(judged[0]["train/pixel"]) == 0
    assert float(judged[1]["train/pixel"]) == pytest.approx(float((sharpen(hr) - hr).abs().mean()))
    assert float(judged[1]["train/pixel"]) > 1e-3


def test_without_a_weight_total_variation_is_not_computed(monkeypatch):
    def never(sr: Tensor) -> Tensor:
        raise AssertionError

    monkeypatch.setattr("sr_module.adversarial.total_variation", never)
    watch = Watch()
    run(model(), 1, watch)
    assert "train/tv" not in watch.logged[0]
    with pytest.raises(AssertionError):
        run(model(tv_weight=1e-8), 1)


def test_the_perceptual_network_is_frozen_and_out_of_checkpoints(vgg):
    adversarial = model(perceptual=Perceptual(layers={"conv1_2": 1.0}, weights=vgg))
    before = {name: p.clone() for name, p in adversarial.perceptual.named_parameters()}
    run(adversarial, 2)
    for name, parameter in adversarial.perceptual.named_parameters():
        assert torch.equal(parameter, before[name])
    assert not [key for key in adversarial.state_dict() if "perceptual" in key]


def test_where_vgg19_cannot_be_downloaded_the_option_for_its_file_is_named(monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    said = (
        r"VGG19.*from https://\S+vgg19\S+ \(no route to host\).*--model\.init_args\.perceptual\.w"
    )
    with pytest.raises(ConnectionError, match=said):
        model(perceptual=Perceptual(layers={"conv1_2": 1.0}, weights=None))


def test_warm_up_leaves_the_gan_term_out_while_the_discriminator_learns():
    watch = Watch()
    adversarial = model(warmup_steps=2)
    before = copy_of(adversarial.discriminator)
    run(adversarial, 2, watch)
    assert all("train/gan" not in row for row in watch.logged)
    assert changed(before, adversarial.discriminator)
    late = Watch()
    run(model(warmup_steps=2), 3, late)
    assert ["train/gan" in row for row in late.logged] == [False, False, True]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clipping_bounds_the_gradients_of_both_networks(precision: str):
    norms = []

    class Norms(Adversarial):
        def _step(self, optimizer):
            step = optimizer.optimizer.step

            def spy(*args, **kwargs):
                found = [p.grad for g in optimizer.optimizer.param_groups for p in g["params"]]
                norms.append(float(torch.nn.utils.get_total_norm(found)))
                return step(*args, **kwargs)

            optimizer.optimizer.step = spy
            super()._step(optimizer)
            optimizer.optimizer.step = step

    def measured(clip_norm: float | None) -> list[float]:
        norms.clear()
        settings = {"arch_args": TINY, "discriminator_args": {"features": 4}}
        run(
            Norms("msrresnet", clip_norm=clip_norm, pixel_weight=1.0, **settings),
            2,
            precision=precision,
        )
        return list(norms)

    free = measured(None)
    clipped = measured(1e-3)
    assert len(free) == len(clipped) == 4
    assert min(free) > 1e-3
    assert max(clipped) <= 1e-3 * (1 + 1e-4)


def test_each_network_has_its_own_schedule():
    adversarial = Adversarial(
        "msrresnet", arch_args=TINY, discriminator_args={"features": 4},
        optimisation=Optimisation(learning_rate=1e-3, milestones=[2], gamma=0.1),
        discriminator_optimisation=Optimisation(learning_rate=4e-3, milestones=[3], gamma=0.5),
    )  # fmt: skip
    trainer = run(adversarial, 3)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([1e-4, 2e-3])


@pytest.mark.parametrize(("name", "gan"), [("srgan", "vanilla"), ("vgg128", "hinge")])
def test_the_vgg_style_discriminators_train_on_their_crop_size(name, gan):
    adversarial = Adversarial(
        "msrresnet", arch_args=TINY, gan=gan, discriminator=name,
        discriminator_args={"crop": 32, "features": 16},
    )  # fmt: skip
    before = copy_of(adversarial.discriminator)
    run(adversarial, 1)
    assert changed(before, adversarial.discriminator)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gan": "ragn"}, "unknown adversarial loss 'ragn'; did you mean 'ragan'"),
        ({"discriminator": "unett"}, "unknown discriminator 'unett'; did you mean 'unet'"),
        ({"perceptual": Perceptual(weights="nowhere")}, "no VGG19 weights at nowhere"),
        ({"accumulate": 0}, "accumulate must be 1 batch or more, got 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Adversarial("msrresnet", arch_args=TINY, **settings)


def test_everything_of_a_gan_run_is_in_a_checkpoint_and_comes_back(tmp_path: Path):
    adversarial = model()
    run(adversarial, 2).save_checkpoint(tmp_path / "last.ckpt")
    other = model()
    resumed = pl.Trainer(max_steps=2, accelerator="cpu", devices=1, barebones=True)
    hr = torch.rand(2, 3, 32, 32)
    data = DataLoader(TensorDataset(imresize(hr, 0.25), hr), 2)
    resumed.fit(other, data, ckpt_path=tmp_path / "last.ckpt")  # nothing left to do
    assert not changed(copy_of(adversarial), other)
    assert resumed.global_step == 2
    assert len(resumed.optimizers) == 2
    for optimizer in resumed.optimizers:
        assert {float(s["step"]) for s in optimizer.state.values()} == {2.0}


def test_a_network_that_grows_meets_true_pictures_of_its_size():
    torch.manual_seed(0)
    grown = Adversarial(
        "staged", scale=4, discriminator_args={"features": 4},
        arch_args={"largest": 4, "features": 4, "blocks": 1, "grow_every": 2, "fade": 2},
    )  # fmt: skip
    seen: list[tuple[int, ...]] = []
    grown.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    before = copy_of(grown.net)
    run(grown, 4)
    sides = [side for side, _ in dict.fromkeys(seen)]
    assert sides == [16, 32]
    assert learned(before, grown.net)
    assert grown.averaged.grown.tolist() == [1000, 1000]

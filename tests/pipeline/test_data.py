"""Batches ``(lr, hr)`` for a trainer: the one low resolution, new data each epoch, exact resume."""

import functools
import itertools
import logging
import random
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from pipeline.damage import Skipped
from pipeline.data import ShardData
from pipeline.pictures import read_picture
from pipeline.shards import shards as write_shards
from sr_module.degrade import Degradation, SecondOrder
from sr_module.resize import imresize


def _data(folder: Path | str, **settings) -> ShardData:
    defaults = {"batch_size": 2, "crop": 16, "steps_per_epoch": 4, "workers": 0}
    return ShardData(str(folder), **{**defaults, "shuffle_buffer": 4, **settings})


class Recorder(pl.LightningModule):
    """Learns nothing and remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.validated: list[list[tuple[Tensor, Tensor]]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.weight * batch[1].mean()

    def on_validation_epoch_start(self):
        self.validated.append([])

    def validation_step(self, batch, batch_idx):
        self.validated[-1].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _trainer(
    folder: Path, *, steps: int = -1, callbacks: list[Callback] = (), **more
) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )


def _trained(data: ShardData, folder: Path, *, resume: Path | None = None, **settings) -> Recorder:
    model = Recorder()
    _trainer(folder, **settings).fit(model, datamodule=data, ckpt_path=resume)
    return model


def _hr(model: Recorder) -> list[Tensor]:
    return [hr for _, hr in model.seen]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:.*is not empty"),
    pytest.mark.filterwarnings("ignore:.*has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


@pytest.mark.parametrize(
    "degradation",
    [None, Degradation(4, blur_sigma=1.2, jpeg_quality=60)],
    ids=["bicubic", "blur and jpeg"],
)
def test_lr_is_the_one_low_resolution_of_hr(numbered_shards, degradation):
    data = _data(numbered_shards, degradation=degradation)
    batch = next(iter(data.train_dataloader()))
    lr, hr = data.on_after_batch_transfer(batch, 0)
    assert (lr.shape, hr.shape) == ((2, 3, 4, 4), (2, 3, 16, 16))
    assert lr.dtype == hr.dtype == torch.float32
    assert torch.equal(hr, batch.float() / 255)
    assert torch.equal(lr, (degradation or Degradation(4))(hr))
    if degradation is None:
        assert torch.equal((lr * 255).round().to(torch.uint8), imresize(batch, 1 / 4))
    assert float(min(lr.min(), hr.min())) >= 0
    assert float(max(lr.max(), hr.max())) <= 1


def test_noise_is_the_same_for_every_validation_and_new_for_every_step(numbered_shards, tmp_path):
    data = _data(numbered_shards, degradation=Degradation(4, noise_sigma=20))
    model = _trained(data, tmp_path, steps=8)
    first, second = model.validated
    assert len(first) == 6
    assert _equal([lr for lr, _ in first], [lr for lr, _ in second])
    clean = Degradation(4)
    noises = [lr - clean(hr) for lr, hr in model.seen]
    assert all(float(noise.std()) > 0.02 for noise in noises)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(noises))
    again = _trained(data, tmp_path, steps=8)
    assert _equal([lr for lr, _ in model.seen], [lr for lr, _ in again.seen])


@pytest.mark.parametrize(
    "degradation", [Degradation(4, jpeg_quality=(10, 90)), SecondOrder(4)], ids=["jpeg", "second"]
)
def test_a_shard_degrades_pictures_as_a_bare_call_does(numbered_shards, tmp_path, degradation):
    model = _trained(_data(numbered_shards, degradation=degradation), tmp_path, steps=2)
    again = _trained(_data(numbered_shards, degradation=degradation), tmp_path, steps=2)
    assert _equal([lr for lr, _ in model.seen], [lr for lr, _ in again.seen])
    data = _data(numbered_shards, degradation=degradation)
    batch = next(iter(data.train_dataloader()))
    lr, hr = data.on_after_batch_transfer(batch, 0)
    place = f"noise/0/val/{int(batch.sum())}"
    seed = random.Random(place).getrandbits(63)
    assert torch.equal(lr, degradation(hr, torch.Generator().manual_seed(seed)))


def test_a_margin_is_degraded_and_cut_off_at_places_of_their_own(numbered_shards, tmp_path):
    data = _data(numbered_shards, degradation=Degradation(4), crop=32, margin=4)
    model = _trained(data, tmp_path, steps=4)
    for lr, hr in model.seen:
        assert (lr.shape, hr.shape) == ((2, 3, 8, 8), (2, 3, 32, 32))
    reduced = torch.cat([Degradation(4)(hr) - lr for lr, hr in model.seen])
    inner = reduced[..., 2:-2, 2:-2]  # the border of lr knows what lay beyond
    assert inner.abs().max() < 1e-6
    assert reduced.abs().max() > 1e-3


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_pictures_are_those_of_the_files(numbered_shards, workers):
    data = _data(numbered_shards, workers=workers)
    pictures = list(data.val_dataloader())
    assert len(pictures) == 6
    for batch in pictures:
        original = read_picture(
            numbered_shards.parent / "pictures" / f"{int(batch[0, 0, 0, 0]):02d}.png"
        )
        assert torch.equal(batch, original[None])
        _, hr = data.on_after_batch_transfer(batch, 0)
        assert torch.equal(hr, original[None].float() / 255)


def test_the_first_validation_pictures_can_be_had_alone_and_are_the_same(numbered_shards):
    noisy = functools.partial(_data, numbered_shards, degradation=SecondOrder(4))
    data = noisy()
    whole = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()]
    alone = list(noisy().first_validated(2, torch.device("cpu")))
    assert len(alone) == 2
    for (lr, hr), (lr_whole, hr_whole) in zip(alone, whole, strict=False):
        assert torch.equal(lr, lr_whole)
        assert torch.equal(hr, hr_whole)


def test_validation_pictures_are_cut_to_a_multiple_of_the_scale(numbered_shards):
    data = _data(numbered_shards, scale=3, crop=15)
    lr, hr = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert (lr.shape, hr.shape) == ((1, 3, 13, 13), (1, 3, 39, 39))


@pytest.mark.parametrize("reload", [0, 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_brings_new_batches_and_a_run_can_be_repeated(
    numbered_shards, tmp_path, workers, reload
):
    data = _data(numbered_shards, workers=workers)
    settings = {"steps": 12, "reload_dataloaders_every_n_epochs": reload}
    first = _hr(_trained(data, tmp_path, **settings))
    assert len(first) == 12
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(first, 2))
    assert _equal(
        first, _hr(_trained(_data(numbered_shards, workers=workers), tmp_path, **settings))
    )


@pytest.mark.parametrize("reload", [0, 1])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("crops_per_picture", [1, 3])
def test_a_resumed_run_sees_exactly_the_remaining_batches(
    numbered_shards, tmp_path, workers, crops_per_picture, reload
):
    settings = {"workers": workers, "crops_per_picture": crops_per_picture}
    more = {"steps": 10, "reload_dataloaders_every_n_epochs": reload}
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = _hr(_trained(_data(numbered_shards, **settings), tmp_path, callbacks=[keep], **more))
    assert len(whole) == 10
    for done in (1, 3, 4, 5, 7, 8, 9):  # an epoch has four
        resume = tmp_path / f"step={done}.ckpt"
        rest = _trained(_data(numbered_shards, **settings), tmp_path, resume=resume, **more)
        assert _equal(_hr(rest), whole[done:])


def test_a_run_that_ended_goes_on_with_the_next_batch(numbered_shards, tmp_path):
    whole = _hr(_trained(_data(numbered_shards), tmp_path, steps=10))
    for done in (3, 4, 6):
        keep = ModelCheckpoint(tmp_path / str(done), save_last=True, every_n_train_steps=1)
        _trained(_data(numbered_shards), tmp_path, steps=done, callbacks=[keep])
        resume = tmp_path / str(done) / "last.ckpt"
        rest = _hr(_trained(_data(numbered_shards), tmp_path, steps=10, resume=resume))
        assert _equal(rest, whole[done:])


def test_a_limit_of_batches_shortens_epochs_without_repeating_any(numbered_shards, tmp_path):
    model = _trained(_data(numbered_shards), tmp_path, steps=9, limit_train_batches=3)
    assert len(model.seen) == 9
    assert len(model.validated) == 3
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(_hr(model), 2))


def test_a_resume_with_other_settings_says_so(numbered_shards, tmp_path, caplog):
    keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2)
    _trained(_data(numbered_shards), tmp_path, steps=2, callbacks=[keep])
    last = tmp_path / "last.ckpt"
    with caplog.at_level(logging.WARNING, "pipeline.data"):
        _trained(_data(numbered_shards), tmp_path, steps=4, resume=last)
        assert "the resumed run's data differ" not in caplog.text
        other = _data(numbered_shards, seed=1, batch_size=3)
        model = _trained(other, tmp_path, steps=4, resume=last)
    assert "the resumed run's data differ (seed 0 -> 1, batch_size 2 -> 3)" in caplog.text
    assert [len(hr) for hr in _hr(model)] == [3, 3]


def test_validation_may_be_limited(numbered_shards):
    assert len(list(_data(numbered_shards, val_limit=4).val_dataloader())) == 4


# What cannot be meant


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"crop": 18}, r"data\.crop 18 is not a multiple of the scale 4"),
        ({"crop": 0}, r"data\.crop is 0; it must be 1 or more"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"steps_per_epoch": 0}, r"data\.steps_per_epoch is 0"),
        ({"crops_per_picture": 0}, r"data\.crops_per_picture is 0"),
        ({"shuffle_buffer": 0}, r"data\.shuffle_buffer is 0"),
        ({"workers": -1}, r"data\.workers is -1; 0 reads in the training process"),
        ({"val_limit": 0}, r"data\.val_limit is 0; 1 or more, or null for all"),
        ({"cache_gib": 0.0}, r"data\.cache_gib is 0\.0; it must be above 0"),
        ({"retry_s": -1.0}, r"data\.retry_s is -1\.0; 0 asks once, or more"),
        ({"max_bad_share": 1.5}, r"data\.max_bad_share is 1\.5; a share from 0 to 1"),
        ({"margin": 6}, r"data\.margin is 6; 0, or a multiple of the scale 4"),
        ({"degradation": Degradation(2)}, r"data\.degradation reduces by 2, .* enlarges by 4"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        _data("nowhere", **settings)


def test_shards_without_a_val_split_say_how_to_get_one(tmp_path, paint_noise):
    paint_noise(tmp_path / "pictures" / "1.png")
    write_shards([tmp_path / "pictures"], tmp_path / "out", cut=0)
    data = _data(tmp_path / "out")
    assert len(list(data.train_dataloader())) == 4
    with pytest.raises(ValueError, match=r"no val samples; .*--val above 0 from two or more"):
        data.val_dataloader()


def test_a_crop_larger_than_the_pieces_is_refused_at_setup(shards):
    with pytest.raises(ValueError, match=r"data\.crop 64 is larger than the pieces of 48 pixels"):
        _data(shards, crop=64).setup("fit")


def test_shards_that_are_cut_short_are_refused_at_setup_above_the_bound(numbered_shards, tmp_path):
    folder = shutil.copytree(numbered_shards, tmp_path / "shards")
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    _data(folder, max_bad_share=1.0).setup("fit")
    with pytest.raises(ValueError, match=r"train-000000\.tar has .* cut short.*max_bad_share 0 "):
        _data(folder, max_bad_share=0.0).setup("fit")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shards in .*none"):
        _data(tmp_path / "none").setup("fit")


# What is skipped, and what stops a run


def _harm(folder: Path, numbers: slice) -> None:
    """Shards that end before they begin."""
    for path in sorted(folder.glob("train-*.tar"))[numbers]:
        path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_rank_skips_is_told_over_workers_splits_and_epochs(
    numbered_shards, tmp_path, workers
):
    folder = shutil.copytree(numbered_shards, tmp_path / "shards")
    _harm(folder, slice(1))
    (val,) = sorted(folder.glob("val-*.tar"))[:1]
    val.write_bytes(bytes(val.stat().st_size))
    data = _data(folder, workers=workers, max_bad_share=1.0, batch_size=6)
    assert data.skipped() == Skipped()
    _trained(data, tmp_path, steps=8)
    assert data.index is not None
    lost = [data.index.splits[split].shards[0].samples for split in ("train", "val")]
    assert data.skipped() == Skipped(samples=sum(lost), shards=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_ends_a_reader_is_said_in_one_sentence(numbered_shards, tmp_path, workers):
    folder = shutil.copytree(numbered_shards, tmp_path / "shards")
    _harm(folder, slice(None))
    data = _data(folder, workers=workers)
    with pytest.raises(ValueError, match=r"^\d+ of 18 samples are damaged [^\n]*srdet shards$"):
        list(data.train_dataloader())
    data = _data(folder, workers=workers, max_bad_share=1.0)
    with pytest.raises(ValueError, match=r"^the shards [^\n]* give no sample; copy[^\n]*$"):
        list(data.train_dataloader())


# Over the network


def test_a_second_run_on_the_same_machine_reads_the_cache(numbered_shards, tmp_path, serve):
    web = serve(numbered_shards)
    settings = {"cache": tmp_path / "kept", "workers": 2}
    local = list(_data(numbered_shards, workers=2).train_dataloader())
    for _ in range(2):
        assert _equal(list(_data(web.address, **settings).train_dataloader()), local)
    shards = [name for name, _ in web.asked if name.endswith(".tar")]
    assert len(shards) == len(set(shards)) > 0


def test_a_cache_that_holds_no_shard_is_refused_at_setup(numbered_shards, tmp_path, serve):
    address = serve(numbered_shards).address
    with pytest.raises(ValueError, match=r"data\.cache_gib 1e-09 does not hold one shard"):
        _data(address, cache=tmp_path / "kept", cache_gib=1e-9).setup("fit")
    _data(numbered_shards, cache=tmp_path / "kept", cache_gib=1e-9).setup("fit")  # needs none

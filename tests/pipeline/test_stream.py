"""Streams of batches: repeatable, shared fairly, resumable to the batch, unharmed by damage."""

import itertools
import logging
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.damage import Damage, Skipped
from pipeline.index import Shard, load_index, open_shard
from pipeline.pictures import read_picture
from pipeline.samples import ShardReader, decode_png
from pipeline.shards import shards
from pipeline.stream import TrainStream, ValStream, draw_window
from pipeline.transfer import ONCE, Retry


def _shards(folder: Path, split: str = "train") -> dict[str, Shard]:
    found = load_index(str(folder)).splits[split].shards
    return {f"{folder}/{shard.name}": shard for shard in found}


def _reader(places: dict[str, Shard], *, most: float = 1.0) -> ShardReader:
    return ShardReader(places, damage=Damage(places, most=most))


def _train(folder: Path, **settings) -> TrainStream:
    return _train_of(_shards(folder), **{"batches": 7, **settings})


def _train_of(places: dict[str, Shard], **settings) -> TrainStream:
    defaults = {"batch_size": 2, "crop": 16, "batches": 30, "buffer": 4}
    return TrainStream(_reader(places), **{**defaults, **settings})


def _val(folder: Path, split: str = "val", **settings) -> ValStream:
    return ValStream(_reader(_shards(folder, split)), **settings)


def _loaded(stream, workers: int) -> list[Tensor]:
    context = "fork" if workers else None
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    return list(loader)


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _numbers(pictures: list[Tensor]) -> list[int]:
    """Of the pictures in batches or alone, by their red value."""
    return [number for picture in pictures for number in picture[..., 0, 0, 0].flatten().tolist()]


@pytest.fixture
def copied(numbered_shards, tmp_path) -> Path:
    """Shards that a test may damage."""
    return shutil.copytree(numbered_shards, tmp_path / "shards")


def _overwrite(path: Path, start: int, length: int) -> None:
    """Damages a file without changing its size."""
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xa5" * length
    path.write_bytes(content)


def _header(path: Path, number: int) -> int:
    """Where the picture of a shard's ``number``-th sample has its entry."""
    content = path.read_bytes()
    blocks = range(0, len(content), 512)
    return [at for at in blocks if b".png\0" in content[at : at + 100]][number]


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


# Training


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_seed_gives_the_same_batches(numbered_shards, workers):
    first = _loaded(_train(numbered_shards), workers)
    assert [batch.shape for batch in first] == [(2, 3, 16, 16)] * 7
    assert all(batch.dtype == torch.uint8 for batch in first)
    assert _equal(first, _loaded(_train(numbered_shards), workers))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"rank": 1, "world": 2}])
def test_another_seed_epoch_or_rank_gives_other_batches(numbered_shards, change):
    usual = {"world": 2} if "rank" in change else {}
    first = _loaded(_train(numbered_shards, **usual), 0)
    second = _loaded(_train(numbered_shards, **change), 0)
    assert not any(map(torch.equal, first, second))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_see_different_samples(numbered_shards, workers):
    assert len(_shards(numbered_shards)) >= 2 * max(1, workers)
    seen = []
    for rank in range(2):
        # As many samples as the smallest reader has in one lap.
        stream = _train(numbered_shards, rank=rank, world=2, batches=2 * max(1, workers), buffer=1)
        seen.append(_numbers(_loaded(stream, workers)))
    assert set(seen[0]).isdisjoint(seen[1])


def test_all_readers_together_see_every_sample_of_a_lap_once(numbered_shards):
    for readers in (1, 2, 3, 7, 25):  # more readers than shards, and than samples
        stream = _train(numbered_shards)
        laps = [
            [
                decode_png(sample["png"])
                for sample in itertools.islice(
                    stream._part(list(stream.reader.shards), part, readers), 100
                )
            ]
            for part in range(readers)
        ]
        everything = _numbers([picture for lap in laps for picture in lap])
        expected = _numbers(list(_val(numbered_shards, "train")))
        assert sorted(everything) == sorted(expected)


def test_over_an_epoch_every_sample_is_seen_about_equally_often(numbered_shards):
    for workers in (0, 2, 6):
        counts = Counter(_numbers(_loaded(_train(numbered_shards, batches=90), workers)))
        assert len(counts) == 18
        assert min(counts.values()) >= 5
        assert max(counts.values()) <= 15


def test_more_readers_than_samples_still_all_yield(tmp_path, paint_noise):
    paint_noise(tmp_path / "pictures" / "1.png", number=1)
    paint_noise(tmp_path / "pictures" / "2.png", number=2)
    shards([tmp_path / "pictures"], tmp_path / "out", cut=0, val=0)
    batches = _loaded(_train(tmp_path / "out", rank=1, world=2), 3)
    assert len(batches) == 7
    assert set(_numbers(batches)) == {1, 2}


@pytest.mark.parametrize(
    ("workers", "crops_per_picture"), [(0, 1), (0, 3), (1, 1), (2, 3), (3, 1), (3, 3)]
)
def test_a_resumed_stream_gives_exactly_the_remaining_batches(
    numbered_shards, workers, crops_per_picture
):
    settings = {"crops_per_picture": crops_per_picture, "rank": 1, "world": 2, "epoch": 3}
    whole = _loaded(_train(numbered_shards, **settings), workers)
    for skip in range(8):
        rest = _loaded(_train(numbered_shards, **settings, skip=skip), workers)
        assert _equal(rest, whole[skip:])


def test_what_a_resume_skips_is_not_decoded(numbered_shards, monkeypatch):
    decoded = []
    decode = ShardReader.decode

    def counted(reader, sample, **settings):
        decoded.append(sample["__key__"])
        return decode(reader, sample, **settings)

    monkeypatch.setattr(ShardReader, "decode", counted)
    _loaded(_train(numbered_shards, skip=6), 0)
    assert len(decoded) == 2


def test_crops_of_one_picture_are_dealt_to_consecutive_batches(numbered_shards):
    batches = _loaded(_train(numbered_shards, crops_per_picture=3, batches=6), 0)
    numbers = [_numbers([batch]) for batch in batches]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3] == numbers[4] == numbers[5]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(batches))


def test_crops_of_the_same_picture_differ_from_draw_to_draw(tmp_path, paint_noise):
    paint_noise(tmp_path / "pictures" / "1.png")
    shards([tmp_path / "pictures"], tmp_path / "out", cut=0, val=0)
    batches = _loaded(_train(tmp_path / "out"), 0)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(batches, 2))
    assert not any(torch.equal(first, second) for first, second in batches)


def test_a_crop_is_a_part_of_its_picture_in_one_of_eight_orientations():
    picture = torch.arange(3 * 9 * 7).view(3, 9, 7)
    windows = picture.unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 4, 4)
    upright = [torch.rot90(w, turns, (1, 2)) for turns in range(4) for w in windows]
    possible = [crop for w in upright for crop in (w, w.flip(2))]
    rng = random.Random(0)
    drawn = [draw_window(9, 7, 4, rng).of(picture) for _ in range(2000)]
    hits = {
        next(i for i, crop in enumerate(possible) if torch.equal(crop, found)) for found in drawn
    }
    assert len(hits) == len(possible) == 6 * 4 * 8


def test_a_crop_as_large_as_the_picture_is_the_picture():
    picture = torch.arange(3 * 5 * 5).view(3, 5, 5)
    crop = draw_window(5, 5, 5, random.Random(0)).of(picture)
    assert torch.equal(crop.flatten().sort().values, picture.flatten())


# Damage


def test_a_damaged_picture_is_skipped_counted_and_said_once(copied, caplog):
    places = _shards(copied)
    place = next(iter(places))
    _overwrite(Path(place), _header(Path(place), 0) + 512 + 200, 400)
    stream = _train(copied, batches=60)
    with caplog.at_level(logging.WARNING):
        batches = list(stream)
    assert len(batches) == 60
    assert len(set(_numbers(batches))) == 17
    assert stream.reader.damage.of_shards() == {place: 1}  # however often it came by
    assert [place in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_entry_ends_its_shard_and_what_is_missing_is_counted(copied, number, caplog):
    place, shard = next(iter(_shards(copied).items()))
    samples = shard.samples
    assert samples >= 2
    _overwrite(Path(place), _header(Path(place), number), 512)
    load_index(str(copied))  # the size is right, so nobody could know before
    reader = _reader(_shards(copied))
    assert len(list(reader.read(place))) == number
    assert reader.damage.of_shards() == {place: samples - number}
    assert f"skipped {samples - number} of its {samples} samples" in caplog.text


def test_a_shard_that_disappears_is_counted(copied, caplog):
    places = _shards(copied)
    gone = next(iter(places))
    Path(gone).unlink()
    stream = _train_of(places)
    assert len(list(stream)) == 30
    assert stream.reader.damage.of_shards() == {gone: places[gone].samples}
    assert gone in caplog.text


@pytest.mark.parametrize("readers", [1, 2, 5, 9])
def test_one_good_shard_is_enough_for_every_reader(copied, readers):
    places = _shards(copied)
    good, *others = places
    for place in others:
        _overwrite(Path(place), 0, 512)
    expected = set(_numbers([decode_png(s["png"]) for s in _reader(places).read(good)]))
    for rank in range(readers):
        batches = list(_train_of(places, rank=rank, world=readers))
        assert len(batches) == 30
        assert set(_numbers(batches)) <= expected


def test_random_damage_never_stops_a_stream(copied):
    rng = random.Random(5)
    clean = {path: path.read_bytes() for path in copied.glob("*.tar")}
    places = _shards(copied)
    for _ in range(40):
        for path, content in clean.items():
            damaged = bytearray(content)
            for _ in range(2):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            path.write_bytes(damaged)
        stream = ValStream(_reader(places))
        read = len(list(stream))
        total = sum(shard.samples for shard in places.values())
        assert read + sum(stream.reader.damage.of_shards().values()) == total


def test_shards_without_one_good_sample_are_an_error(copied):
    places = _shards(copied)
    for place in places:
        _overwrite(Path(place), 0, 512)
    for world in (1, 9):
        with pytest.raises(ValueError, match=r"the shards .*train-.* give no sample; copy them"):
            list(_train_of(places, world=world))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_draw_without_a_good_picture_is_filled_and_resumes_exactly(copied, batch_size):
    for path in copied.glob("train-*.tar"):
        _overwrite(path, _header(path, 0) + 512 + 200, 400)
    whole = list(_train(copied, batch_size=batch_size, batches=40))
    assert [batch.shape for batch in whole] == [(batch_size, 3, 16, 16)] * 40
    rest = list(_train(copied, batch_size=batch_size, batches=40, skip=23))
    assert _equal(rest, whole[23:])


def test_pictures_smaller_than_the_crop_are_replaced_and_counted(tmp_path, paint_noise, caplog):
    paint_noise(tmp_path / "pictures" / "1.png", number=1)
    paint_noise(tmp_path / "pictures" / "2.png", number=2, height=15)
    shards([tmp_path / "pictures"], tmp_path / "out", cut=0, val=0)
    stream = _train(tmp_path / "out")
    assert set(_numbers(list(stream))) == {1}
    assert stream.reader.damage.totals() == Skipped(samples=0, small=1, shards=0)
    assert "40 x 15 pixels, below the crop of 16" in caplog.text


def test_a_crop_larger_than_all_pictures_is_an_error_with_the_cure(numbered_shards):
    with pytest.raises(ValueError, match=r"crop of 41 pixels; lower data\.crop, or write shards"):
        list(_train(numbered_shards, crop=41))


# Validation


@pytest.mark.parametrize("limit", [1, 4, 6, 100])
def test_a_limit_counts_over_all_readers(numbered_shards, limit):
    first = _numbers(list(_val(numbered_shards, limit=limit)))
    assert len(first) == min(limit, 6)
    shared = [_numbers(list(_val(numbered_shards, rank=r, world=2, limit=limit))) for r in range(2)]
    assert sorted(shared[0] + shared[1]) == sorted(first)


def test_after_damage_the_rest_is_still_counted_once_over_all_readers(copied):
    places = _shards(copied)  # the larger split, for its several shards
    first, second, *_ = places
    _overwrite(Path(first), _header(Path(first), 1), 512)
    _overwrite(Path(second), _header(Path(second), 0) + 512 + 200, 400)
    shared = [list(ValStream(_reader(places), rank=rank, world=3)) for rank in range(3)]
    together = [number for pictures in shared for number in _numbers(pictures)]
    assert len(together) == len(set(together)) == 18 - (places[first].samples - 1) - 1


def test_pictures_come_back_as_they_were(numbered_shards):
    originals = numbered_shards.parent / "pictures"
    read = list(_val(numbered_shards))
    assert len(read) == 6
    for picture in read:
        number = _numbers([picture])[0]
        assert torch.equal(picture, read_picture(originals / f"{number:02d}.png"))


# One shard, more workers than shards, uneven shards


@pytest.fixture(scope="session")
def one_shard(tmp_path_factory, paint_noise) -> Path:
    """A shard of seven pictures for training, and one of two for validation."""
    folder = tmp_path_factory.mktemp("one")
    for number in range(9):
        paint_noise(folder / "pictures" / f"{number}.png", number=number)
    shards([folder / "pictures"], folder / "shards", cut=0, val=0.2)
    assert len(list((folder / "shards").glob("*.tar"))) == 2
    return folder / "shards"


@pytest.fixture(scope="session")
def uneven_shards(tmp_path_factory, paint_noise) -> Path:
    """Training shards of one to many samples: large pictures fill one, small ones share it."""
    folder = tmp_path_factory.mktemp("uneven")
    for number in range(24):
        side = 200 if number % 6 == 0 else 24
        paint_noise(
            folder / "pictures" / f"{number:02d}.png", number=number, width=side, height=side
        )
    shards([folder / "pictures"], folder / "shards", cut=0, val=0.2, shard_mb=0.05)
    sizes = [shard.samples for shard in _shards(folder / "shards").values()]
    assert max(sizes) >= 2 * min(sizes)
    return folder / "shards"


EVERY = [(world, workers) for world in (1, 2, 3) for workers in range(5)]


@pytest.mark.parametrize(
    ("kind", "world", "workers"),
    [("one_shard", *one) for one in EVERY]
    + [("uneven_shards", *one) for one in ((1, 2), (2, 1), (2, 3), (3, 2))],
)
def test_whatever_the_shards_every_rank_trains_alike_and_resumes_exactly(
    request, kind, world, workers
):
    folder = request.getfixturevalue(kind)
    seen = []
    for rank in range(world):
        settings = {"rank": rank, "world": world, "crop": 24, "epoch": 2}
        whole = _loaded(_train(folder, **settings), workers)
        assert [batch.shape for batch in whole] == [(2, 3, 24, 24)] * 7
        assert _equal(_loaded(_train(folder, **settings), workers), whole)
        assert _equal(_loaded(_train(folder, **settings, skip=5), workers), whole[5:])
        seen.append(whole)
    assert not any(_equal(a, b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize(
    ("kind", "world", "workers"),
    [("numbered_shards", *one) for one in EVERY]
    + [(kind, *one) for kind in ("one_shard", "uneven_shards") for one in ((1, 4), (2, 2), (3, 1))],
)
def test_whatever_the_shards_validation_counts_every_sample_once(request, kind, world, workers):
    folder = request.getfixturevalue(kind)
    for split in ("train", "val"):
        seen = [
            number
            for rank in range(world)
            for picture in _loaded(_val(folder, split, rank=rank, world=world), workers)
            for number in _numbers([picture])
        ]
        expected = load_index(str(folder)).splits[split].samples
        assert len(seen) == len(set(seen)) == expected


@pytest.mark.parametrize(("world", "workers"), [(1, 4), (2, 3), (3, 0)])
def test_whatever_the_shards_a_long_epoch_draws_samples_about_equally(
    one_shard, uneven_shards, world, workers
):
    for folder in (one_shard, uneven_shards):
        samples = load_index(str(folder)).splits["train"].samples
        counts: Counter[int] = Counter()
        for rank in range(world):
            stream = _train(folder, rank=rank, world=world, batches=5 * samples)
            counts.update(_numbers(_loaded(stream, workers)))
        assert len(counts) == samples
        mean = sum(counts.values()) / samples
        assert 0.5 * mean <= min(counts.values()) <= max(counts.values()) <= 2 * mean


def test_a_limit_leaves_the_shards_behind_it_unread(numbered_shards):
    reader = _reader(_shards(numbered_shards, "val"))
    read, asked = reader.opener, []

    def noted(place, shard):
        asked.append(place)
        return read(place, shard)

    reader.opener = noted
    first = next(iter(reader.shards.values()))
    assert len(list(ValStream(reader, limit=first.samples))) == first.samples
    assert len(asked) == 1


# Damage, over processes and epochs


@pytest.fixture
def log(tmp_path) -> Iterator[Path]:
    """What is logged, by this process and those that it forks."""
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("pipeline").addHandler(handler)
    yield tmp_path / "log"
    logging.getLogger("pipeline").removeHandler(handler)
    handler.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_what_workers_skip_is_counted_and_said_once_over_all_epochs(copied, workers, log):
    places = _shards(copied)
    harmed = list(places)[:2]
    for place in harmed:
        _overwrite(Path(place), _header(Path(place), 0) + 512 + 200, 400)
    stream = _train_of(places)
    for stream.epoch in range(3):
        assert len(_loaded(stream, workers)) == 30
    assert stream.reader.damage.totals() == Skipped(samples=2, shards=2)
    for place in harmed:
        # Two workers may meet the same damage at the same moment, in the first epoch.
        assert 1 <= log.read_text().count(f"shard {place}") <= max(1, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_much_damage_stops_a_stream(copied, workers):
    places = _shards(copied)
    for place in list(places)[:3]:
        _overwrite(Path(place), 0, 512)
    stream = TrainStream(_reader(places, most=0.1), batch_size=2, crop=16, batches=200, buffer=4)
    with pytest.raises(ValueError, match=r"samples are damaged .* data\.max_bad_share 0\.1"):
        _loaded(stream, workers)


@pytest.mark.parametrize("height", [0, 1, 2**31])
def test_a_picture_that_lies_about_its_size_is_damaged_and_not_small(copied, height):
    places = _shards(copied)
    place = Path(next(iter(places)))
    content = bytearray(place.read_bytes())
    start = content.index(b"\x89PNG")
    content[start + 20 : start + 24] = height.to_bytes(4)
    place.write_bytes(content)
    stream = _train_of(places)
    assert len(list(stream)) == 30
    assert stream.reader.damage.totals() == Skipped(samples=1, shards=1)


# Over the network


def _remote(address: str, split: str, retry: Retry = ONCE, **settings) -> ShardReader:
    found = load_index(address, retry=retry).splits[split].shards
    places = {f"{address}/{shard.name}": shard for shard in found}
    opener = partial(open_shard, retry=retry)
    return ShardReader(places, opener=opener, damage=Damage(places, most=1.0), **settings)


def _batches(reader: ShardReader) -> TrainStream:
    return TrainStream(reader, batch_size=2, crop=16, batches=7, buffer=4)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_over_http_give_what_the_folder_gives(numbered_shards, serve, workers):
    address = serve(numbered_shards).address
    assert load_index(address) == load_index(str(numbered_shards))
    local = _loaded(_train(numbered_shards), workers)
    assert _equal(_loaded(_batches(_remote(address, "train")), workers), local)
    val = _numbers(_loaded(ValStream(_remote(address, "val")), workers))
    assert sorted(val) == sorted(_numbers(list(_val(numbered_shards))))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_falls_while_a_stream_reads_and_comes_back_changes_no_batch(
    numbered_shards, serve, clock, ranges
):
    web = serve(numbered_shards)
    web.ranges = ranges
    retry = Retry(sleep=clock.sleep, clock=clock.time)
    clock.at[3] = web.up
    stream = _batches(_remote(web.address, "train", retry))
    web.dies_at = Path(list(stream.reader.shards)[1]).name
    assert _equal(list(stream), list(_train(numbered_shards)))
    assert len(clock.pauses) == 3
    assert stream.reader.damage.totals() == Skipped()


def test_a_server_that_stays_away_stops_a_stream_with_one_error(numbered_shards, serve, clock):
    web = serve(numbered_shards)
    stream = _batches(_remote(web.address, "train", Retry(sleep=clock.sleep, clock=clock.time)))
    web.down()
    with pytest.raises(ConnectionError, match=r"train-.*\.tar.* given up after \d+ attempts"):
        list(stream)
    assert clock.now <= 300


def test_a_shard_that_is_not_there_is_counted_at_once(copied, serve, clock, caplog):
    retry = Retry(sleep=clock.sleep, clock=clock.time)
    reader = _remote(serve(copied).address, "train", retry)
    gone = list(reader.shards)[1]
    (copied / Path(gone).name).unlink()
    assert len(list(ValStream(reader))) == 18 - reader.shards[gone].samples
    assert reader.damage.of_shards() == {gone: reader.shards[gone].samples}
    assert f"{gone}: the server answered 404" in caplog.text
    assert clock.pauses == []


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_an_object_store_give_what_the_folder_gives(numbered_shards, workers):
    address = f"file://{numbered_shards}"  # by fsspec, like every scheme but http
    local = _loaded(_train(numbered_shards), workers)
    assert _equal(_loaded(_batches(_remote(address, "train")), workers), local)

"""Streams of batches: repeatable, shared fairly, resumable to the batch, unharmed by damage."""

import http.server
import itertools
import json
import logging
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.index import INDEX, load_index
from pipeline.pictures import read_picture
from pipeline.shards import shards
from pipeline.stream import ShardReader, TrainStream, ValStream, decode_png, random_crop


def _shards(folder: Path | str, split: str = "train") -> dict[str, int]:
    found = load_index(str(folder)).splits[split].shards
    return {f"{folder}/{shard.name}": shard.samples for shard in found}


def _train(folder: Path | str, **settings) -> TrainStream:
    defaults = {"batch_size": 2, "crop": 16, "batches": 7, "buffer": 4}
    return TrainStream(_shards(folder), **{**defaults, **settings})


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


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_yields_the_same_number_of_batches(numbered_shards, workers, world):
    for rank in range(world):
        stream = _train(numbered_shards, rank=rank, world=world)
        assert len(_loaded(stream, workers)) == len(stream) == 7


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
                    stream._part(list(stream.shards), part, readers), 100
                )
            ]
            for part in range(readers)
        ]
        everything = _numbers([picture for lap in laps for picture in lap])
        expected = _numbers(list(ValStream(_shards(numbered_shards))))
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


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("crops_per_picture", [1, 3])
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

    def counted(reader, sample):
        decoded.append(sample["__key__"])
        return decode(reader, sample)

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


def test_a_crop_is_a_part_of_its_picture_in_one_of_eight_orientations(numbered_shards):
    picture = torch.arange(3 * 9 * 7).view(3, 9, 7)
    windows = picture.unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 4, 4)
    upright = [torch.rot90(w, turns, (1, 2)) for turns in range(4) for w in windows]
    possible = [crop for w in upright for crop in (w, w.flip(2))]
    rng = random.Random(0)
    drawn = [random_crop(picture, 4, rng) for _ in range(2000)]
    hits = {
        next(i for i, crop in enumerate(possible) if torch.equal(crop, found)) for found in drawn
    }
    assert len(hits) == len(possible) == 6 * 4 * 8


def test_a_crop_as_large_as_the_picture_is_the_picture():
    picture = torch.arange(3 * 5 * 5).view(3, 5, 5)
    crop = random_crop(picture, 5, random.Random(0))
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
    assert stream.reader.bad.keys() == {place}
    assert stream.reader.bad[place] >= 3
    assert [place in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_entry_ends_its_shard_and_what_is_missing_is_counted(copied, number, caplog):
    place, samples = next(iter(_shards(copied).items()))
    assert samples >= 2
    _overwrite(Path(place), _header(Path(place), number), 512)
    load_index(str(copied))  # the size is right, so nobody could know before
    reader = ShardReader(_shards(copied))
    assert len(list(reader.read(place))) == number
    assert reader.bad == {place: samples - number}
    assert f"skipped {samples - number} of its {samples} samples" in caplog.text


def test_a_shard_that_disappears_is_counted(copied, caplog):
    places = _shards(copied)
    gone = next(iter(places))
    Path(gone).unlink()
    stream = _train_of(places)
    assert len(list(stream)) == 30
    assert stream.reader.bad[gone] % places[gone] == 0
    assert stream.reader.bad[gone] > 0
    assert gone in caplog.text


def _train_of(places: dict[str, int], **settings) -> TrainStream:
    defaults = {"batch_size": 2, "crop": 16, "batches": 30, "buffer": 4}
    return TrainStream(places, **{**defaults, **settings})


@pytest.mark.parametrize("readers", [1, 2, 5, 9])
def test_one_good_shard_is_enough_for_every_reader(copied, readers):
    places = _shards(copied)
    good, *others = places
    for place in others:
        _overwrite(Path(place), 0, 512)
    expected = set(_numbers([decode_png(s["png"]) for s in ShardReader(places).read(good)]))
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
        stream = ValStream(places)
        read = len(list(stream))
        assert read + sum(stream.reader.bad.values()) == sum(places.values())


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
    assert len(whole) == 40
    rest = list(_train(copied, batch_size=batch_size, batches=40, skip=23))
    assert _equal(rest, whole[23:])


def test_pictures_smaller_than_the_crop_are_replaced_and_counted(tmp_path, paint_noise, caplog):
    paint_noise(tmp_path / "pictures" / "1.png", number=1)
    paint_noise(tmp_path / "pictures" / "2.png", number=2, height=15)
    shards([tmp_path / "pictures"], tmp_path / "out", cut=0, val=0)
    stream = _train(tmp_path / "out")
    assert set(_numbers(list(stream))) == {1}
    assert sum(stream.reader.bad.values()) > 0
    assert "40 x 15 pixels, below the crop of 16" in caplog.text


def test_a_crop_larger_than_all_pictures_is_an_error_with_the_cure(numbered_shards):
    with pytest.raises(ValueError, match=r"crop of 41 pixels; lower data\.crop, or write shards"):
        list(_train(numbered_shards, crop=41))


# Validation


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_counts_every_sample_once(numbered_shards, workers, world):
    pictures = [
        picture
        for rank in range(world)
        for picture in _loaded(
            ValStream(_shards(numbered_shards, "val"), rank=rank, world=world), workers
        )
    ]
    assert len(pictures) == len(set(_numbers(pictures))) == 6
    assert all(picture.shape == (3, 40, 40) for picture in pictures)


@pytest.mark.parametrize("limit", [1, 4, 6, 100])
def test_a_limit_counts_over_all_readers(numbered_shards, limit):
    places = _shards(numbered_shards, "val")
    first = _numbers(list(ValStream(places, limit=limit)))
    assert len(first) == min(limit, 6)
    shared = [_numbers(list(ValStream(places, rank=r, world=2, limit=limit))) for r in range(2)]
    assert sorted(shared[0] + shared[1]) == sorted(first)


def test_after_damage_the_rest_is_still_counted_once_over_all_readers(copied):
    places = _shards(copied)  # the larger split, for its several shards
    first, second, *_ = places
    _overwrite(Path(first), _header(Path(first), 1), 512)
    _overwrite(Path(second), _header(Path(second), 0) + 512 + 200, 400)
    shared = [list(ValStream(places, rank=rank, world=3)) for rank in range(3)]
    together = [number for pictures in shared for number in _numbers(pictures)]
    assert len(together) == len(set(together)) == 18 - (places[first] - 1) - 1


def test_pictures_come_back_as_they_were(numbered_shards):
    originals = numbered_shards.parent / "pictures"
    for picture in ValStream(_shards(numbered_shards, "val")):
        number = _numbers([picture])[0]
        assert torch.equal(picture, read_picture(originals / f"{number:02d}.png"))


# Over http


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., str]]:
    """Serves a folder on this machine; ``cut`` names files of which only a third is sent."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder: Path, *, cut: str = "", refuse: str = "", chunked: bool = False) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = folder / self.path.lstrip("/")
                if refuse and refuse in path.name:
                    return self.send_error(503)
                if not path.is_file():
                    return self.send_error(404)
                content = path.read_bytes()
                self.send_response(200)
                if chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                    content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
                else:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                # Of a small tar a large part is padding; a third is surely too little.
                short = cut and cut in path.name
                self.wfile.write(content[: len(content) // 3] if short else content)
                self.close_connection = True
                return None

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serving = {"poll_interval": 0.01}
        threading.Thread(target=server.serve_forever, kwargs=serving, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_over_http_give_what_the_folder_gives(numbered_shards, serve, workers):
    address = serve(numbered_shards)
    assert load_index(address) == load_index(str(numbered_shards))
    local = _loaded(_train(numbered_shards), workers)
    assert _equal(_loaded(_train(address), workers), local)
    val = _loaded(ValStream(_shards(address, "val")), workers)
    assert sorted(_numbers(val)) == sorted(
        _numbers(list(ValStream(_shards(numbered_shards, "val"))))
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_transfer_that_breaks_off_is_counted_and_the_run_goes_on(
    numbered_shards, serve, caplog, chunked
):
    cut = "train-000001"
    address = serve(numbered_shards, cut=cut, chunked=chunked)
    places = _shards(address)
    place = f"{address}/{cut}.tar"
    stream = ValStream(places)
    read = len(list(stream))
    assert set(stream.reader.bad) == {place}
    assert 0 < stream.reader.bad[place] <= places[place]
    assert read + stream.reader.bad[place] == 18
    assert place in caplog.text
    assert len(list(_train(address))) == 7


@pytest.mark.parametrize("failing", [{"refuse": "train-000001"}, {"cut": "train-000001"}])
def test_a_shard_that_the_server_withholds_does_not_stop_a_run(numbered_shards, serve, failing):
    assert len(list(_train(serve(numbered_shards, **failing)))) == 7


def test_a_shard_that_is_not_there_is_counted(copied, serve, caplog):
    places = _shards(serve(copied))
    gone = list(places)[1]
    (copied / Path(gone).name).unlink()
    stream = ValStream(places)
    assert len(list(stream)) == 18 - places[gone]
    assert stream.reader.bad == {gone: places[gone]}
    assert f"{gone}: the server answered 404" in caplog.text


def test_an_address_without_shards_is_named(tmp_path, serve):
    address = serve(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no shards in '{address}/set/'.*give the address"):
        load_index(f"{address}/set/")


def test_a_server_in_trouble_is_told_from_a_wrong_address(numbered_shards, serve):
    address = serve(numbered_shards, refuse=INDEX)
    with pytest.raises(ConnectionError, match=f"{address}/index.json: the server answered 503"):
        load_index(address)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_index_that_breaks_off_is_told(numbered_shards, serve, chunked):
    address = serve(numbered_shards, cut=INDEX, chunked=chunked)
    with pytest.raises(ConnectionError, match=r"index\.json: the transfer broke off"):
        load_index(address)


def test_a_server_that_is_not_there_is_told(serve, tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="cannot be reached"):
            load_index(address)


def test_a_page_in_place_of_the_index_is_told(tmp_path, serve):
    (tmp_path / INDEX).write_text("<html>log in</html>")
    with pytest.raises(ValueError, match=r"index\.json is not a shard index"):
        load_index(serve(tmp_path))
    (tmp_path / INDEX).write_text(json.dumps({"format": 9}))
    with pytest.raises(ValueError, match="format 9"):
        load_index(serve(tmp_path))

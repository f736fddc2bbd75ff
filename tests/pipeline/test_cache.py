"""Shards from the network are kept whole, within the bound, by many processes at once."""

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.cache import Cache
from pipeline.index import Shard, open_shard

SIZE = 200_000


@pytest.fixture
def remote(tmp_path, serve) -> Callable[[int], tuple[str, Shard]]:
    """The n-th of some shards on a server, which is ``remote.web``."""
    folder = tmp_path / "remote"
    folder.mkdir()
    web = serve(folder)

    def shard(number: int) -> tuple[str, Shard]:
        content = bytes([number]) * SIZE
        path = folder / f"{number}.tar"
        if not path.exists():
            path.write_bytes(content)
        known = Shard(path.name, 1, SIZE, hashlib.sha256(content).hexdigest())
        return f"{web.address}/{path.name}", known

    shard.web, shard.folder = web, folder
    return shard


def _cache(folder: Path, *, shards: float = 10) -> Cache:
    return Cache(folder, limit=int(shards * SIZE), fetch=open_shard)


def _read(cache: Cache, asked: tuple[str, Shard]) -> bytes:
    with cache.open(*asked) as opened:
        return opened.read()


def _asked(remote, number: int) -> int:
    return [name for name, _ in remote.web.asked].count(f"{number}.tar")


def _kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.*")}


def test_a_shard_is_fetched_once_and_then_comes_from_disk(tmp_path, remote):
    for _ in range(3):
        assert _read(_cache(tmp_path / "kept"), remote(1)) == b"\1" * SIZE
    assert _asked(remote, 1) == 1
    remote.web.down()
    assert _read(_cache(tmp_path / "kept"), remote(1)) == b"\1" * SIZE


def test_the_same_shard_at_another_address_is_the_same(tmp_path, remote):
    first = _read(_cache(tmp_path / "kept"), remote(1))
    nobody = ("http://127.0.0.1:9/elsewhere.tar", remote(1)[1])
    assert _read(_cache(tmp_path / "kept"), nobody) == first


@pytest.mark.parametrize("damage", ["shorter", "longer", "other", "empty"])
def test_a_damaged_copy_is_fetched_again(tmp_path, remote, damage, caplog):
    _read(_cache(tmp_path / "kept"), remote(1))
    (copy,) = (tmp_path / "kept").glob("*.tar")
    content = copy.read_bytes()
    harmed = {"shorter": content[:-1], "longer": content + b"1", "other": b"2" + content[1:]}
    copy.write_bytes(harmed.get(damage, b""))
    assert _read(_cache(tmp_path / "kept"), remote(1)) == content
    assert copy.read_bytes() == content
    assert f"the copy {copy} is damaged" in caplog.text


def test_a_copy_that_is_damaged_while_a_process_runs_is_noticed(tmp_path, remote):
    cache = _cache(tmp_path / "kept")
    for _ in range(2):
        for _ in range(3):
            assert _read(cache, remote(1)) == b"\1" * SIZE
        (copy,) = (tmp_path / "kept").glob("*.tar")
        copy.write_bytes(b"2" * SIZE)


def test_what_was_used_longest_ago_goes_first(tmp_path, remote):
    cache = _cache(tmp_path / "kept", shards=3.5)
    for number in (1, 2, 3, 1, 4):
        _read(cache, remote(number))
    assert _kept(tmp_path / "kept") == {f"{remote(n)[1].sha256}.tar" for n in (1, 3, 4)}
    for number in (1, 3, 4):
        _read(cache, remote(number))
    assert len(remote.web.asked) == 4


def test_a_shard_that_is_read_while_it_is_dropped_is_read_to_its_end(tmp_path, remote):
    cache = _cache(tmp_path / "kept", shards=1)
    _read(cache, remote(1))
    with cache.open(*remote(1)) as opened:
        assert opened.read(10) == b"\1" * 10
        _read(cache, remote(2))
        assert opened.read() == b"\1" * (SIZE - 10)
    assert _kept(tmp_path / "kept") == {f"{remote(2)[1].sha256}.tar"}


def test_what_does_not_fit_is_read_from_the_network_alone(tmp_path, remote, caplog):
    cache = _cache(tmp_path / "kept", shards=0.5)
    for _ in range(2):
        assert _read(cache, remote(1)) == b"\1" * SIZE
    assert _kept(tmp_path / "kept") == set()
    assert ["no room in" in record.getMessage() for record in caplog.records] == [True]


def test_a_full_disk_costs_the_copy_and_not_the_run(small_disk, remote):
    cache = _cache(small_disk)
    assert _read(cache, remote(1)) == b"\1" * SIZE
    assert _kept(small_disk) == set()


def test_what_is_not_what_the_index_says_is_refused_and_not_kept(tmp_path, remote):
    place, shard = remote(1)
    (remote.folder / "1.tar").write_bytes(b"3" * SIZE)
    with pytest.raises(ValueError, match=f"{place} has not the checksum of its index.json"):
        _read(_cache(tmp_path / "kept"), (place, shard))
    assert _kept(tmp_path / "kept") == set()


def test_a_transfer_that_fails_leaves_nothing_and_the_next_one_works(tmp_path, remote):
    place, shard = remote(1)
    remote.web.cut["1.tar"] = 1
    with pytest.raises(ConnectionError, match="broke off"):
        _read(_cache(tmp_path / "kept"), (place, shard))
    assert _kept(tmp_path / "kept") == set()
    assert _read(_cache(tmp_path / "kept"), (place, shard)) == b"\1" * SIZE


def test_what_a_killed_process_left_is_cleared_away(tmp_path, remote):
    cache = _cache(tmp_path / "kept", shards=1.5)
    left = [tmp_path / "kept" / f"{remote(n)[1].sha256}.partial" for n in (1, 2)]
    for path in left:
        path.write_bytes(b"?" * SIZE)
    assert _read(cache, remote(1)) == b"\1" * SIZE
    assert _kept(tmp_path / "kept") == {f"{remote(1)[1].sha256}.tar"}


def test_a_path_is_not_copied(tmp_path, remote):
    _, shard = remote(1)
    path = shutil.copy(remote.folder / "1.tar", tmp_path / "1.tar")
    assert _read(_cache(tmp_path / "kept"), (str(path), shard)) == b"\1" * SIZE
    assert _kept(tmp_path / "kept") == set()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just pushed it out
        return 0


def _read_all(folder: Path, asked: list[tuple[str, Shard]], bound: float, start, answers) -> None:
    cache = _cache(folder, shards=bound)
    start.wait()
    worst = 0
    for place, shard in asked:
        content = _read(cache, (place, shard))
        good = hashlib.sha256(content).hexdigest() == shard.sha256
        taken = sum(map(_size, folder.glob("*.tar")))
        worst = max(worst, taken if good else 10**12)
    answers.put(worst)


def _at_once(folder: Path, orders: list[list[tuple[str, Shard]]], bound: float) -> list[int]:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(len(orders)), context.Queue()
    run = partial(context.Process, target=_read_all)
    processes = [run(args=(folder, order, bound, start, answers)) for order in orders]
    for process in processes:
        process.start()
    worst = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    return worst


def test_two_processes_that_want_the_same_shard_download_it_once(tmp_path, remote):
    orders = [[remote(n) for n in range(6)]] * 4
    assert max(_at_once(tmp_path / "kept", orders, 10)) <= 6 * SIZE
    assert len(remote.web.asked) == 6


def test_nobody_reads_half_a_file_while_others_push_it_out(tmp_path, remote):
    asked = [remote(n) for n in range(5)]
    orders = [(asked[n:] + asked[:n]) * 4 for n in range(4)]
    assert max(_at_once(tmp_path / "kept", orders, 2.5)) <= 2.5 * SIZE
    assert not list((tmp_path / "kept").glob("*.partial"))


def test_who_waits_for_a_download_that_is_killed_takes_it_over(tmp_path, remote):
    """The lock ends with its process, whatever ended that."""
    folder = tmp_path / "kept"
    place, shard = remote(1)
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if not child:  # holds the unfinished copy until it is killed

        def hold(place: str, shard: Shard) -> None:
            os.write(ready_write, b"1")
            os.read(os.pipe()[0], 1)

        Cache(folder, limit=10 * SIZE, fetch=hold).open(place, shard)
    os.read(ready_read, 1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert len(list(folder.glob("*.partial"))) == 1
    assert _read(_cache(folder), (place, shard)) == b"\1" * SIZE
    assert _kept(folder) == {f"{shard.sha256}.tar"}

"""Data path: crops a second from shards, beside decoding alone (its ceiling) and BasicSR's.

Run it with: make bench. The pictures are those of SRDET_DATA (sr/BSDS500_train), else rendered
ones; BasicSR runs in the environment whose interpreter SRDET_PEERS_PYTHON names.
"""

import contextlib
import itertools
import math
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.io import write_png

from benchmarks.clock import medians
from pipeline.damage import Damage
from pipeline.heap import keep_freed_memory
from pipeline.index import Shard, load_index
from pipeline.samples import Sample, ShardReader, decode_png
from pipeline.scenes import write_scenes
from pipeline.shards import shards
from pipeline.stream import TrainStream
from pipeline.world import cores_shared_with
from sr_module.degrade import Degradation
from sr_module.resize import imresize

CUTS, PICTURES, SCALE = (192, 480), 60, 4
CROP, BATCH, BATCHES, WORKERS, ROUNDS = 96, 16, 60, 2, 3
LONG, ENDLESS = 10_000, 10**9
DECODING, BASICSR = "decoding alone", "BasicSR's PairedImageDataset"

Rows = Iterator[tuple[str, str]]


def run() -> Rows:
    """Two reader processes a work, started once; all works in turn, medians."""
    keep_freed_memory()  # as the commands do
    with tempfile.TemporaryDirectory() as folder, cores_shared_with(WORKERS):
        pictures = _pictures(Path(folder))
        for cut in CUTS:
            root = Path(folder) / str(cut)
            shards(pictures, root, cut=cut, step=cut, val=0, shard_mb=4)
            if cut == CUTS[0]:  # pages shared with readers that end later would become its own
                yield "memory", _memory(_places(root))
            yield from _rows(root, cut)


class _Work:
    """Takes batches from reader processes, and notes the processor time that they took for it."""

    def __init__(self, read: Callable[[], object], readers: list[psutil.Process]) -> None:
        self.read, self.readers = read, readers
        self.seconds: list[float] = []

    def __call__(self) -> None:
        before = self._spent()
        self.read()
        self.seconds.append(self._spent() - before)

    def crop_ms(self) -> float:
        """Processor time a crop, the first round left out as in ``medians``."""
        return statistics.median(self.seconds[1:]) / (BATCH * BATCHES) * 1000

    def _spent(self) -> float:
        times = [reader.cpu_times() for reader in self.readers]
        return sum(spent.user + spent.system for spent in times)


def _rows(root: Path, cut: int) -> Rows:
    places = _places(root)
    with contextlib.ExitStack() as stack:
        works = {
            DECODING: _reading(_Decoding(places)),
            "stream, 1 crop a picture": _reading(_stream(places, 1)),
            "stream, 4 crops a picture": _reading(_stream(places, 4)),
            "1 crop, with low resolution made": _reading(_stream(places, 1), after=_pair),
            "4 crops, with low resolution made": _reading(_stream(places, 4), after=_pair),
        }
        peer, why = _basicsr(root, stack)
        if peer:
            works[BASICSR] = peer
        seconds = medians(works, rounds=ROUNDS)
        spent = {name: work.crop_ms() for name, work in works.items()}
    for name in works:
        yield f"{cut} px: {name}", _figures(name, seconds, spent)
    if not peer:
        yield f"{cut} px: {BASICSR}", why


def _figures(name: str, seconds: dict[str, float], spent: dict[str, float]) -> str:
    """By the clock, and by processor time, which other work on the machine hardly changes."""
    said = f"{BATCH * BATCHES / seconds[name]:6.0f} a second"
    said += f"  {seconds[DECODING] / seconds[name]:5.0%} of decoding"
    said += f"  {spent[name]:6.3f} ms of processor time"
    said += f"  {_share(spent[DECODING], spent[name]):5.0%}"
    if BASICSR not in seconds:
        return said
    by_clock, by_processor = seconds[BASICSR] / seconds[name], _share(spent[BASICSR], spent[name])
    return f"{said}  {by_clock:5.2f} ({by_processor:.2f}) x BasicSR"


def _share(part: float, whole: float) -> float:
    """Processors' clocks tick a hundred times a second: work too short for them has no share."""
    return part / whole if whole else math.nan


def _pictures(folder: Path) -> list[Path]:
    data = os.environ.get("SRDET_DATA")
    if data:
        return sorted((Path(data) / "sr" / "BSDS500_train").iterdir())[:PICTURES]
    write_scenes(folder / "scenes", count=PICTURES)
    return [folder / "scenes" / "images"]


def _places(root: Path) -> dict[str, Shard]:
    written = load_index(str(root)).splits["train"].shards
    return {str(root / shard.name): shard for shard in written}


def _samples(places: dict[str, Shard]) -> list[Sample]:
    reader = ShardReader(places)
    return [sample for place in places for sample in reader.read(place)]


class _Decoding(IterableDataset[int]):
    """Decodes batches of whole pictures from memory; only their numbers are passed on."""

    def __init__(self, places: dict[str, Shard]) -> None:
        self.pngs = [sample["png"] for sample in _samples(places)]

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        for number in itertools.count(info.id, info.num_workers):
            for place in range(number * BATCH, (number + 1) * BATCH):
                decode_png(self.pngs[place % len(self.pngs)])
            yield number


def _stream(places: dict[str, Shard], crops: int) -> TrainStream:
    reader = ShardReader(places, damage=Damage(places))
    settings = {"batch_size": BATCH, "crop": CROP, "batches": ENDLESS}
    return TrainStream(reader, crops_per_picture=crops, **settings)


def _reading(
    stream: IterableDataset[Tensor] | _Decoding, *, after: Callable[[Tensor], object] = id
) -> _Work:
    """Takes the next batches of a stream that is read all the time, as in a long training."""
    before = set(psutil.Process().children())
    batches = iter(DataLoader(stream, batch_size=None, num_workers=WORKERS))
    readers = [child for child in psutil.Process().children() if child not in before]

    def read() -> None:
        for batch in itertools.islice(batches, BATCHES):
            after(batch)

    return _Work(read, readers)


def _pair(batch: Tensor) -> tuple[Tensor, Tensor]:
    """What the device does in a training; BasicSR's readers give both pictures as float."""
    hr = batch.float().div_(255)
    return Degradation(SCALE)(hr, torch.Generator()), hr


def _basicsr(root: Path, stack: contextlib.ExitStack) -> tuple[_Work | None, str]:
    """Reads the same pieces as files once; and why that cannot be."""
    python = os.environ.get("SRDET_PEERS_PYTHON")
    if not python:
        return None, "not measured: SRDET_PEERS_PYTHON names no interpreter that has BasicSR 1.4.2"
    for number, sample in enumerate(_samples(_places(root))):
        for kind in ("hr", "lr"):
            (root / kind).mkdir(exist_ok=True)
        hr = decode_png(sample["png"])
        hr = hr[:, : hr.shape[1] // SCALE * SCALE, : hr.shape[2] // SCALE * SCALE]
        write_png(hr, str(root / "hr" / f"{number}.png"), compression_level=1)
        write_png(imresize(hr[None], 1 / SCALE)[0], str(root / "lr" / f"{number}.png"))
    script = Path(__file__).with_name("basicsr_pairs.py")
    numbers = map(str, (SCALE, CROP, BATCH, BATCHES, WORKERS))
    words = [python, str(script), str(root / "hr"), str(root / "lr"), *numbers]
    peer = stack.enter_context(
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    stack.callback(peer.communicate)  # the end of its input ends it
    _ask(peer)
    return _Work(partial(_ask, peer), psutil.Process(peer.pid).children()), ""


def _ask(peer: subprocess.Popen[str]) -> None:
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write("\n")
    peer.stdin.flush()
    if int(peer.stdout.readline() or 0) != BATCH * BATCHES:
        raise RuntimeError("BasicSR's reader ended early; see what it wrote above")


def _memory(places: dict[str, Shard]) -> str:
    """Of this process and its readers together, after a tenth of many batches and after all."""
    stream = TrainStream(
        ShardReader(places), batch_size=BATCH, crop=CROP, batches=LONG, crops_per_picture=BATCH,
        buffer=64,
    )  # fmt: skip
    loader = DataLoader(stream, batch_size=None, num_workers=WORKERS)
    taken = [_unique() for number, _ in enumerate(loader, 1) if number % (LONG // 10) == 0]
    said = f"{taken[0]:.0f} MiB after {LONG // 10} batches, {taken[-2]:.0f} MiB after "
    return f"{said}{LONG - LONG // 10}, at most {max(taken):.0f} MiB between"


def _unique() -> float:
    process = psutil.Process()
    family = [process, *process.children()]
    return sum(member.memory_full_info().uss for member in family) / 2**20


if __name__ == "__main__":
    for name, figure in run():
        print(f"{name:<44} {figure}")

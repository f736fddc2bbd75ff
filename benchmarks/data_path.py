"""Data path: crops a second from shards, beside decoding alone (its ceiling).

Run it with: make bench
"""

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.data import ShardReader, TrainStream, load_index
from pipeline.scenes import write_scenes
from pipeline.shards import shards

SCENES, CUT, BATCH, BATCHES = 24, 160, 16, 30


def run() -> Iterator[tuple[str, str]]:
    """One process: decoding alone, then the whole stream with one and with four crops a picture."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scenes(root / "scenes", count=SCENES)
        shards([root / "scenes" / "images"], root / "shards", cut=CUT, step=CUT)
        index = load_index(str(root / "shards"))
        places = [str(root / "shards" / shard.name) for shard in index.splits["train"].shards]
        ceiling = _decoding(places)
        yield "decoding alone", f"{ceiling:7.0f} pictures/s"
        for crops in (1, 4):
            rate = _streaming(places, crops)
            share = rate / (ceiling * crops)
            figure = f"{rate:7.0f} crops/s   {share:4.0%} of the ceiling"
            yield f"stream, {crops} crops a picture", figure


def _decoding(places: list[str]) -> float:
    reader = ShardReader()
    samples = list(itertools.chain.from_iterable(map(reader.read, places)))
    started = time.perf_counter()
    for sample in itertools.islice(itertools.cycle(samples), BATCH * BATCHES):
        reader.decode(sample)
    return BATCH * BATCHES / (time.perf_counter() - started)


def _streaming(places: list[str], crops: int) -> float:
    stream = TrainStream(
        places, batch_size=BATCH, crop=96, batches=BATCHES * crops, crops_per_picture=crops
    )
    started = time.perf_counter()
    count = sum(len(batch) for batch in stream)
    return count / (time.perf_counter() - started)

"""Data path: crops a second from shards, beside decoding alone (its ceiling).

Run it with: make bench
"""

import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.clock import medians
from pipeline.index import load_index
from pipeline.scenes import write_scenes
from pipeline.shards import shards
from pipeline.stream import Sample, ShardReader, TrainStream

SCENES, CUT, BATCH, BATCHES, ROUNDS = 24, 160, 16, 30, 3


def run() -> Iterator[tuple[str, str]]:
    """One process: decoding alone, then the whole stream with one and with four crops a picture."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scenes(root / "scenes", count=SCENES)
        shards([root / "scenes" / "images"], root / "shards", cut=CUT, step=CUT)
        index = load_index(str(root / "shards"))
        written = index.splits["train"].shards
        places = {str(root / "shards" / shard.name): shard.samples for shard in written}
        reader = ShardReader(places)
        samples = list(itertools.chain.from_iterable(map(reader.read, places)))
        works = {
            "decoding alone": partial(_decode, reader, samples),
            "stream, 1 crop a picture": partial(_stream, places, 1),
            "stream, 4 crops a picture": partial(_stream, places, 4),
        }
        seconds = medians(works, rounds=ROUNDS)
        ceiling = seconds["decoding alone"]
        for name, value in seconds.items():
            crops = BATCH * BATCHES * (4 if "4" in name else 1)
            yield (
                name,
                f"{crops / value:7.0f} a second   {ceiling / value:4.0%} of decoding's speed",
            )


def _decode(reader: ShardReader, samples: list[Sample]) -> None:
    for sample in itertools.islice(itertools.cycle(samples), BATCH * BATCHES):
        reader.decode(sample)


def _stream(places: dict[str, int], crops: int) -> None:
    """As many pictures decoded as alone, and ``crops`` crops of each."""
    stream = TrainStream(
        places, batch_size=BATCH, crop=96, batches=BATCHES * crops, crops_per_picture=crops
    )
    for _ in stream:
        pass

"""Clips from shards: written from footage, read as training and validation see them."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import ShardData
from pipeline.index import load_index
from pipeline.samples import ShardReader
from pipeline.shards import shards as write_shards
from pipeline.stream import TrainStream, ValStream, Window, draw_frames


def film(folder: Path, number: int, frames: int, size: tuple[int, int] = (40, 24)) -> None:
    """Frames of noise; red tells the clip, green the frame."""
    folder.mkdir(parents=True)
    for n in range(frames):
        pixels = np.random.default_rng([number, n]).integers(
            0, 256, (size[1], size[0], 3), np.uint8
        )
        pixels[..., 0], pixels[..., 1] = number, n
        Image.fromarray(pixels).save(folder / f"{n}.png")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of clips of five frames, of seven films; one film is too short."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(6):
        film(root / "films" / str(number), number, frames=11)
    film(root / "films" / "short", 9, frames=4)
    write_shards([root / "films"], root / "shards", frames=5, cut=0, val=0.3, source="tests")
    return root / "shards"


def reader(folder: Path, split: str) -> ShardReader:
    index = load_index(str(folder))
    places = {f"{folder}/{shard.name}": shard for shard in index.splits[split].shards}
    return ShardReader(places, frames=index.frames)


def known(clip: torch.Tensor) -> tuple[int, list[int]]:
    return int(clip[0, 0].float().mean()), clip[:, 1].flatten(1).float().mean(1).int().tolist()


def test_footage_is_dealt_whole_and_what_is_too_short_is_noted(clips: Path):
    index = load_index(str(clips))
    assert index.frames == 5
    assert index.splits["train"].pictures + index.splits["val"].pictures == 6
    assert [skip["file"] for skip in index.skipped] == ["short"]
    assert "has no 5 frames in a row" in index.skipped[0]["reason"]
    films = {
        split: {known(c)[0] for c in ValStream(reader(clips, split), frames=5)}
        for split in index.splits
    }
    assert not films["train"] & films["val"]


def test_frames_come_back_in_their_order_and_validation_takes_the_middle(clips: Path):
    whole = [known(clip) for clip in ValStream(reader(clips, "val"), frames=5)]
    assert [frames for _, frames in whole] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] * (len(whole) // 2)
    middle = [known(clip) for clip in ValStream(reader(clips, "val"), frames=3)]
    assert middle == [(film, frames[1:4]) for film, frames in whole]


def test_training_crops_are_the_same_place_of_neighbouring_frames(clips: Path):
    stream = TrainStream(
        reader(clips, "train"), batch_size=3, crop=16, batches=8, frames=3, crops_per_picture=2
    )
    seen = set()
    for batch in stream:
        assert batch.shape == (3, 3, 3, 16, 16)
        for clip in batch:
            frames = known(clip)[1]
            assert frames in (
                [[n, n + 1, n + 2] for n in range(8)] + [[n + 2, n + 1, n] for n in range(8)]
            )
            seen.add((min(frames) % 5, frames[0] < frames[2]))
    assert len(seen) > 3  # several beginnings, both directions of time


def test_a_window_cuts_and_turns_every_frame_alike():
    still = torch.arange(3 * 20 * 30).view(3, 20, 30)
    window = draw_frames(Window(2, 5, 8, 3, True), 5, 3, random.Random(1))
    clip = window.of(torch.stack([still + 10_000 * n for n in range(5)]))
    place = Window(2, 5, 8, 3, True).of(still)
    assert torch.equal(clip % 10_000, place.expand(3, -1, -1, -1))
    steps = (clip[:, 0, 0, 0] // 10_000).diff().tolist()
    assert steps in ([1, 1], [-1, -1])


def test_low_resolution_is_a_clip_and_high_resolution_its_middle_frame(clips: Path):
    data = ShardData(str(clips), scale=4, frames=3, crop=16, batch_size=2, workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    lr, hr = data.on_after_batch_transfer(batch, 0)
    assert lr.shape == (2, 3, 3, 4, 4)
    assert torch.equal(hr, batch[:, 1].float() / 255)
    alone = data.on_after_batch_transfer(batch[:, 2:3].expand(-1, 3, -1, -1, -1), 0)[0]
    assert torch.equal(lr[:, 2], alone[:, 1])


@pytest.mark.parametrize(
    ("frames", "of", "said"),
    [
        (
            3,
            "stills",
            r"holds single pictures, the network reads 3 frames; .*--frames 3.*repeat_still",
        ),
        (
            1,
            "clips",
            r"holds clips of 5 frames, the network reads single pictures; write the frames",
        ),
        (7, "clips", r"holds clips of 5 frames, the network reads 7; write clips with"),
    ],
)
def test_clips_for_a_still_network_and_the_reverse_are_named(clips, shards, frames, of, said: str):
    data = ShardData(str(clips if of == "clips" else shards), frames=frames, crop=16)
    with pytest.raises(ValueError, match=said):
        data.setup("fit")


def test_stills_are_repeated_only_where_asked(shards: Path):
    data = ShardData(str(shards), frames=3, repeat_still=True, crop=16, batch_size=2, workers=0)
    data.setup("fit")
    lr, hr = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert (lr.shape, hr.shape) == ((2, 3, 3, 4, 4), (2, 3, 16, 16))
    assert torch.equal(lr[:, 0], lr[:, 2])


def test_footage_whose_frames_change_size_keeps_what_came_before(tmp_path: Path):
    film(tmp_path / "films" / "a", 1, frames=6)
    Image.new("RGB", (8, 8)).save(tmp_path / "films" / "a" / "6.png")
    index = write_shards([tmp_path / "films"], tmp_path / "shards", frames=3, cut=0, val=0)
    assert index.splits["train"].samples == 2
    assert "6.png is 8 x 8 pixels" in index.skipped[0]["reason"]
    assert "2 clips before it are kept" in index.skipped[0]["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frames": 4}, "--frames 4: clips have 3, 5 or another odd number"),
        ({"frames": 3, "frame_step": 0}, "--frame_step 0: 1 or more"),
        ({"frame_step": 2}, "only with --frames"),
        ({"frames": 3, "coco": Path("x.json")}, "leave out --frames"),
    ],
)
def test_settings_of_clips_that_do_not_go_together_are_refused(tmp_path: Path, options, said: str):
    with pytest.raises(ValueError, match=said):
        write_shards([tmp_path], tmp_path / "out", **options)

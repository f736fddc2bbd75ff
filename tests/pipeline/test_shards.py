"""Pictures become shards: split by picture, covering, with boxes; or the old set stays whole."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.files import NoSpaceError
from pipeline.fingerprints import fingerprint
from pipeline.index import INDEX, load_index
from pipeline.pictures import read_picture
from pipeline.shards import main, shards, split_pictures


def _samples(folder: Path, split: str) -> list[tuple[str, torch.Tensor, dict]]:
    """Key, picture and description of every sample, read with nothing of ours but the index."""
    found = []
    for shard in json.loads((folder / INDEX).read_text())["splits"][split]["shards"]:
        with tarfile.open(folder / shard["name"]) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        for name in files:
            if name.endswith(".png"):
                pixels = np.array(Image.open(io.BytesIO(files[name])))
                meta = json.loads(files[name.replace(".png", ".json")])
                found.append((name[:-4], torch.from_numpy(pixels).permute(2, 0, 1), meta))
    return found


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def pictures(tmp_path, paint_noise) -> Path:
    """Six pictures of 70 x 50, one of 20 x 20, in two levels."""
    for number in range(5):
        paint_noise(tmp_path / "pictures" / f"{number}.png", width=70, height=50, number=number)
    paint_noise(tmp_path / "pictures" / "deep" / "0.png", width=70, height=50, number=5)
    paint_noise(tmp_path / "pictures" / "small.png", width=20, height=20, number=6)
    return tmp_path / "pictures"


@pytest.fixture
def coco(tmp_path) -> tuple[Path, Path]:
    """Four pictures of 100 x 80 with coloured rectangles where their boxes are."""
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for number in range(1, 5):
        pixels = np.zeros((80, 100, 3), np.uint8)
        for colour in range(1, 6):
            x, y = int(rng.integers(0, 90)), int(rng.integers(0, 70))
            w, h = int(rng.integers(4, 10)), int(rng.integers(4, 10))
            pixels[y : y + h, x : x + w] = 40 * colour
            box = {"id": len(annotations) + 1, "image_id": number, "bbox": [x, y, w, h]}
            annotations.append({**box, "category_id": colour, "iscrowd": int(colour == 5)})
        name = f"{number}.png"
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        images.append({"id": number, "file_name": name, "width": 100, "height": 80})
    categories = [{"id": colour, "name": f"colour {colour}"} for colour in range(1, 6)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path / "images", tmp_path / "coco.json"


def _edit(coco: Path, key: str, position: int, **changes: object) -> None:
    content = json.loads(coco.read_text())
    content[key][position].update(changes)
    coco.write_text(json.dumps(content))


def test_the_index_counts_and_digests_what_was_written(pictures, tmp_path):
    out = tmp_path / "out"
    index = shards([pictures], out, cut=32, step=16, val=0.3, shard_mb=0.02, source="mine, CC0")
    assert (index.source, index.cut, index.skipped) == ("mine, CC0", {"size": 32, "step": 16}, [])
    assert {name: split.pictures for name, split in index.splits.items()} == {"train": 5, "val": 2}
    named = [shard.name for split in index.splits.values() for shard in split.shards]
    assert sorted(path.name for path in out.iterdir()) == sorted([INDEX, *named])
    for name, split in index.splits.items():
        assert split.samples == len(_samples(out, name)) == sum(s.samples for s in split.shards)
        for shard in split.shards:
            content = (out / shard.name).read_bytes()
            assert len(content) == shard.bytes
            assert hashlib.sha256(content).hexdigest() == shard.sha256
    assert asdict(load_index(str(out))) == asdict(index)


def test_a_shard_is_closed_when_it_passes_its_size(pictures, tmp_path):
    index = shards([pictures], tmp_path / "out", cut=32, step=16, val=0, shard_mb=0.03)
    sizes = [shard.bytes for shard in index.splits["train"].shards]
    assert len(sizes) > 3
    assert all(0.03 * 2**20 <= size < 0.03 * 2**20 + 32_768 for size in sizes[:-1])
    whole = shards([pictures], tmp_path / "whole", cut=32, step=16, val=0)
    assert len(whole.splits["train"].shards) == 1
    assert whole.splits["train"].samples == index.splits["train"].samples


def test_equal_input_gives_equal_bytes(pictures, tmp_path):
    first = shards([pictures], tmp_path / "a", cut=32, step=16, val=0.3)
    moved = shutil.copytree(pictures, tmp_path / "elsewhere")
    second = shards([moved], tmp_path / "b", cut=32, step=16, val=0.3)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert first.digest() == second.digest()
    third = shards([pictures], tmp_path / "c", cut=32, step=16, val=0.3, seed=1)
    assert third.digest() != first.digest()


def test_no_picture_has_pieces_on_both_sides_of_the_split(pictures, tmp_path):
    # The folder is also named by another path: its pictures must not come twice.
    roundabout = pictures / ".." / pictures.name
    shards([pictures, roundabout], tmp_path / "out", cut=32, step=16, val=0.4)
    sides = {
        name: {int(picture[0, 0, 0]) for _, picture, _ in _samples(tmp_path / "out", name)}
        for name in ("train", "val")
    }
    assert len(sides["val"]) == 3
    assert sides["train"].isdisjoint(sides["val"])
    assert sides["train"] | sides["val"] == set(range(7))


def test_pieces_say_where_they_come_from_and_rebuild_their_picture(pictures, tmp_path):
    shards([pictures], tmp_path / "out", cut=32, step=16, val=0.3)
    samples = _samples(tmp_path / "out", "train") + _samples(tmp_path / "out", "val")
    assert len({key for key, _, _ in samples}) == len(samples)
    rebuilt = {}
    for _, piece, meta in samples:
        original = read_picture(pictures / meta["file"])
        whole = rebuilt.setdefault(meta["file"], torch.full_like(original, 255))
        h, w = piece.shape[1:]
        whole[:, meta["y"] : meta["y"] + h, meta["x"] : meta["x"] + w] = piece
    assert len(rebuilt) == 7
    for name, whole in rebuilt.items():
        assert torch.equal(whole, read_picture(pictures / name))


def test_without_a_cut_pictures_stay_whole(pictures, tmp_path):
    shards([pictures], tmp_path / "out", cut=0, val=0)
    whole = list(_samples(tmp_path / "out", "train"))
    assert len(whole) == len(list(pictures.iterdir()))
    for _, picture, meta in whole:
        assert torch.equal(picture, read_picture(pictures / meta["file"]))


@pytest.mark.parametrize(
    ("count", "val", "held"),
    [(1, 0.05, 0), (2, 0.05, 1), (2, 0.99, 1), (40, 0.05, 2), (10, 0.0, 0), (10, 0.95, 9)],
)
def test_the_split_leaves_something_on_each_side(count, val, held):
    paths = [Path(f"{number}.png") for number in range(count)]
    split = split_pictures(paths, val=val, seed=0)
    assert len(split["val"]) == held
    assert sorted(split["train"] + split["val"]) == sorted(paths)
    assert split_pictures(paths[::-1], val=val, seed=0) == split


def test_boxes_lie_where_their_rectangles_are(coco, tmp_path):
    images, annotations = coco
    index = shards([images], tmp_path / "out", coco=annotations, cut=64, step=20, val=0.25)
    assert index.categories == {colour: f"colour {colour}" for colour in range(1, 6)}
    seen = Counter()
    for name in ("train", "val"):
        for _, piece, meta in _samples(tmp_path / "out", name):
            uppermost = int((piece[0] == 40 * 5).sum())  # pixels of the rectangle that none covers
            boxed = 0
            for box in meta["boxes"]:
                x, y, w, h = (round(side) for side in box["bbox"])
                inside = piece[0, y : y + h, x : x + w]
                assert inside.numel() == w * h
                # A later rectangle may cover an earlier one, never the other way round.
                assert int(inside.min()) >= 40 * box["category_id"]
                assert box["iscrowd"] == (box["category_id"] == 5)
                boxed += w * h * (box["category_id"] == 5)
                seen[box["category_id"]] += 1
            assert boxed == uppermost or (boxed == 0 and uppermost <= 9 * 9 / 2)
    assert len(seen) == 5
    assert min(seen.values()) >= 4


def test_a_coco_picture_that_lies_otherwise_than_annotated_is_skipped(coco, tmp_path):
    images, annotations = coco
    exif = Image.Exif()
    exif[274] = 6
    Image.open(images / "2.png").save(images / "2.png", exif=exif)
    index = shards([images], tmp_path / "out", coco=annotations, cut=64, step=32)
    assert [skip["file"] for skip in index.skipped] == ["2.png"]
    said = index.skipped[0]["reason"]
    assert "80 x 100 pixels" in said
    assert "100 x 80" in said
    assert index.splits["train"].pictures + index.splits["val"].pictures == 3


def test_a_missing_coco_picture_is_skipped_and_counted(coco, tmp_path, capsys):
    images, annotations = coco
    (images / "3.png").unlink()
    index = shards([images], tmp_path / "out", coco=annotations, cut=64, step=32)
    assert index.skipped == [
        {"file": "3.png", "reason": f"{images}/3.png is missing; copy it there"}
    ]
    assert "skipped: 1 files, the first: " in capsys.readouterr().out


def test_boxes_that_had_to_be_cut_are_told(coco, tmp_path, capsys):
    images, annotations = coco
    _edit(annotations, "annotations", 0, bbox=[90, 70, 50, 50])
    shards([images], tmp_path / "out", coco=annotations, cut=64, step=32)
    assert "annotations left out or mended: 1" in capsys.readouterr().out


def test_one_picture_named_twice_in_coco_is_an_error(coco, tmp_path):
    images, annotations = coco
    _edit(annotations, "images", 1, file_name="1.png")
    with pytest.raises(ValueError, match=r"coco\.json names the picture 1\.png twice .*id 2"):
        shards([images], tmp_path / "out", coco=annotations)


def test_coco_needs_the_one_folder_that_is_there(coco, tmp_path):
    images, annotations = coco
    with pytest.raises(ValueError, match=r"exactly one --images folder, got .*images, .*images"):
        shards([images, images], tmp_path / "out", coco=annotations)
    with pytest.raises(ValueError, match=r"there is no .*none"):
        shards([tmp_path / "none"], tmp_path / "out", coco=annotations)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        shards([images], tmp_path / "out", coco=tmp_path / "none.json")


def test_pictures_that_cannot_be_read_are_skipped_and_counted(pictures, tmp_path, capsys, caplog):
    (pictures / "text.png").write_text("not a picture")
    (pictures / "empty.jpg").write_bytes(b"")
    cut = pictures / "4.png"
    cut.write_bytes(cut.read_bytes()[:500])
    index = shards([pictures], tmp_path / "out", cut=32, step=32, val=0, max_pixels=70 * 50)
    assert {skip["file"] for skip in index.skipped} == {"text.png", "empty.jpg", "4.png"}
    assert all(skip["file"] in skip["reason"] for skip in index.skipped)
    assert len(caplog.records) == 3
    assert index.splits["train"].pictures == 6
    assert "skipped: 3 files" in capsys.readouterr().out
    small = shards([pictures], tmp_path / "b", cut=32, step=32, val=0, max_pixels=400)
    assert small.splits["train"].pictures == 1


def test_where_nothing_can_be_read_nothing_is_written(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "[bold].png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"no shards were written \(.*\[bold\]\.png is not"):
        shards([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_look_like_markup_are_told_as_they_are(pictures, tmp_path, capsys):
    (pictures / "[").mkdir()
    (pictures / "[" / "x].png").write_text("not a picture")
    shards([pictures], tmp_path / "[out]", cut=0)
    said = capsys.readouterr().out
    assert "[/x].png" in said
    assert f"written: {tmp_path}/[out]/index.json\n" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cut": 20}, "--cut 20: .*32 pixels or more"),
        ({"cut": -1}, "--cut -1"),
        ({"cut": 64, "step": 65}, r"--step 65: allowed is 1 to --cut \(64\)"),
        ({"step": 0}, "--step 0"),
        ({"val": 1.0}, "--val 1.0"),
        ({"val": float("nan")}, "--val nan"),
        ({"shard_mb": 0}, "--shard_mb 0"),
        ({"shard_mb": float("inf")}, "--shard_mb inf"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(pictures, tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        shards([pictures], tmp_path / "out", **settings)


def test_folders_without_pictures_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        shards([tmp_path / "none"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*empty"):
        shards([tmp_path / "empty"], tmp_path / "out")


def test_a_set_that_stands_there_is_only_replaced_on_request(pictures, tmp_path):
    out = tmp_path / "out"
    shards([pictures], out, cut=0)
    before = _bytes(out)
    with pytest.raises(FileExistsError, match="--overwrite true"):
        shards([pictures], out, cut=32, step=32)
    assert _bytes(out) == before
    shards([pictures], out, cut=32, step=32, overwrite=True)
    assert _bytes(out) != before


def test_overwrite_never_deletes_pictures_or_files_that_are_no_shards(pictures, tmp_path):
    before = sorted(pictures.rglob("*"))
    for out in (pictures, tmp_path):
        with pytest.raises(ValueError, match=r"--out .* holds the input .*choose another"):
            shards([pictures], out, cut=0, overwrite=True)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match="is not a set of shards"):
        shards([pictures], thesis, cut=0, overwrite=True)
    assert (thesis / "thesis.tex").read_text() == "years"
    assert sorted(pictures.rglob("*")) == before


def test_overwrite_never_deletes_the_annotations(coco, tmp_path):
    images, annotations = coco
    out = tmp_path / "out"
    shards([images], out, coco=annotations, cut=0)
    shutil.move(annotations, out / "coco.json")
    with pytest.raises(ValueError, match="holds the input"):
        shards([images], out, coco=out / "coco.json", cut=0, overwrite=True)
    assert (out / "coco.json").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_stop_in_the_middle_leaves_the_old_set_whole(pictures, tmp_path, monkeypatch, stop):
    out = tmp_path / "out"
    shards([pictures], out, cut=0)
    before = _bytes(out)
    calls = []

    def read(path, **settings):
        calls.append(path)
        if len(calls) == 4:
            raise stop
        return read_picture(path, **settings)

    monkeypatch.setattr("pipeline.shards.read_picture", read)
    expected = NoSpaceError if isinstance(stop, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        shards([pictures], out, cut=32, step=16, shard_mb=0.001, overwrite=True)
    assert _bytes(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pictures"]


def test_a_full_disk_is_told_in_one_line(pictures, tmp_path, small_disk):
    words = f"shards --images {pictures} --out {small_disk / 'set'} --cut 32 --step 16"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words.split()],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line != "writing shards ..."]
    assert len(said) == 1
    assert said[0].startswith(
        f"srdet shards: error: no room on disk while writing {small_disk}/set ("
    )
    assert list(small_disk.iterdir()) == []


def test_the_command_takes_the_same_options(pictures, tmp_path, capsys):
    words = f"--images {pictures} --out {tmp_path / 'out'} --cut 32 --step 32 --val 0.3"
    main(words.split())
    assert load_index(str(tmp_path / "out")).splits["val"].pictures == 2
    assert "val: " in capsys.readouterr().out


def test_the_index_names_every_picture_by_its_fingerprint(pictures, tmp_path):
    written = shards([pictures], tmp_path / "out", cut=32, step=16, val=0.2)
    read = load_index(str(tmp_path / "out"))
    expected = {fingerprint(read_picture(path)) for path in pictures.rglob("*.png")}
    assert set(read.fingerprints) == expected
    assert written == read

"""The index is read, or refused with its place and the cure."""

import json
import shutil

import pytest

from pipeline.index import INDEX, load_index, read_index
from pipeline.transfer import Retry


@pytest.fixture
def copied(numbered_shards, tmp_path):
    """Shards that a test may damage."""
    return shutil.copytree(numbered_shards, tmp_path / "shards")


def test_the_index_of_a_folder_is_read(numbered_shards):
    for place in (str(numbered_shards), f"{numbered_shards}/"):
        index = load_index(place)
        assert index.splits["train"].samples == 18
        assert index.splits["val"].samples == 6


def test_the_digest_names_the_shards(copied):
    digest = load_index(str(copied)).digest()
    text = (copied / INDEX).read_text()
    first = json.loads(text)["splits"]["train"]["shards"][0]["sha256"]
    (copied / INDEX).write_text(text.replace(first, "0" * 64))
    assert load_index(str(copied)).digest() != digest


def test_a_folder_without_shards_says_how_to_write_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shards in .*srdet shards --images PICTURES"):
        load_index(str(tmp_path / "none"))


def test_a_file_in_place_of_the_folder_says_the_same(numbered_shards):
    with pytest.raises(FileNotFoundError, match="no shards in"):
        load_index(str(numbered_shards / INDEX))


NO_SHARDS = {"pictures": 1, "samples": 1}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "3", "{}", "\x00\xff"),
        *('{"format": 1}', '{"format": 1, "splits": 3}'),
        json.dumps({"format": 1, "splits": {"train": NO_SHARDS}}),
        json.dumps({"format": 1, "splits": {"train": {**NO_SHARDS, "shards": [{}]}}}),
    ],
)
def test_a_damaged_index_is_named_with_the_cure(content):
    with pytest.raises(ValueError, match=r"^here is not a shard index .*srdet shards"):
        read_index(content, where="here")


def test_an_index_that_is_not_text_is_named_with_the_cure(copied):
    (copied / INDEX).write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"index\.json is not a shard index .*srdet shards"):
        load_index(str(copied))


def test_another_format_is_refused_whatever_it_holds():
    with pytest.raises(ValueError, match=r"here has format 2, this version reads 1; write"):
        read_index('{"format": 2, "parts": []}', where="here")


def test_a_missing_shard_is_named(copied):
    (copied / "train-000001.tar").unlink()
    with pytest.raises(
        ValueError, match=r"train-000001\.tar is missing; 1 of the 9 train .*copy it again"
    ):
        load_index(str(copied))


def test_a_shard_that_is_cut_short_is_named(copied):
    shard = copied / "val-000000.tar"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    said = rf"val-000000\.tar has {size - 1} bytes, the index says {size}.*copy it again"
    with pytest.raises(ValueError, match=said):
        load_index(str(copied))


def test_missing_and_cut_shards_are_warned_of_and_refused_above_the_share(copied, caplog):
    (copied / "train-000001.tar").unlink()
    shard = copied / "train-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-100])
    index = load_index(str(copied), most=0.17)  # 3 of 18
    assert len(index.splits["train"].shards) == 9
    assert "train-000001.tar is missing: about 2 samples are missing" in caplog.text
    assert "train-000002.tar has" in caplog.text
    said = (
        r"2 of the 9 train shards lack 3 of 18 samples, more than data\.max_bad_share 0\.1 allows"
    )
    with pytest.raises(ValueError, match=said):
        load_index(str(copied), most=0.1)


def test_a_shard_that_grew_is_another_one_whatever_may_be_missing(copied):
    with (copied / "val-000000.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ValueError, match=r"val-000000\.tar has .*it was changed"):
        load_index(str(copied), most=1.0)


# Over http


def test_an_address_without_shards_is_named(tmp_path, serve):
    address = serve(tmp_path).address
    with pytest.raises(FileNotFoundError, match=f"no shards in '{address}/set/'.*give the address"):
        load_index(f"{address}/set/")


def test_a_server_in_trouble_is_told_from_a_wrong_address(numbered_shards, serve):
    web = serve(numbered_shards)
    web.refuse[INDEX] = 1
    with pytest.raises(ConnectionError, match=f"{web.address}/index.json: the server answered 503"):
        load_index(web.address)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_index_that_breaks_off_is_told_or_asked_for_again(
    numbered_shards, serve, clock, chunked
):
    web = serve(numbered_shards)
    web.chunked, web.cut[INDEX] = chunked, 1
    with pytest.raises(ConnectionError, match=r"index\.json: .*Incomplete"):
        load_index(web.address)
    web.cut[INDEX] = 1
    retry = Retry(sleep=clock.sleep, clock=clock.time)
    assert load_index(web.address, retry=retry) == load_index(str(numbered_shards))
    assert len(clock.pauses) == 1


def test_a_server_that_is_not_there_is_told(numbered_shards, serve):
    web = serve(numbered_shards)
    web.down()
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load_index(web.address)


def test_a_page_in_place_of_the_index_is_told(tmp_path, serve):
    address = serve(tmp_path).address
    (tmp_path / INDEX).write_text("<html>log in</html>")
    with pytest.raises(ValueError, match=r"index\.json is not a shard index"):
        load_index(address)
    (tmp_path / INDEX).write_text(json.dumps({"format": 9}))
    with pytest.raises(ValueError, match="format 9"):
        load_index(address)

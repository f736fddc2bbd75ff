"""Files come whole, whatever the network does, or one error says what was tried."""

import logging
import sys
from functools import partial
from pathlib import Path

import fsspec
import pytest

from pipeline.transfer import ONCE, RefusedError, Retry, open_place, read_place

CONTENT = bytes(range(256)) * 4096  # 1 MiB, four reads


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def patient(clock) -> Retry:
    return Retry(total_s=100, sleep=clock.sleep, clock=clock.time)


def _read(place: str, retry: Retry, *, size: int = len(CONTENT)) -> bytes:
    with open_place(place, size=size, retry=retry) as opened:
        return opened.read()


def test_a_path_is_opened_as_it_is(folder):
    assert _read(str(folder / "a.tar"), ONCE) == CONTENT
    assert read_place(str(folder / "a.tar")) == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_transfer_that_breaks_off_twice_comes_whole(
    folder, serve, clock, patient, ranges, chunked
):
    web = serve(folder)
    web.ranges, web.chunked, web.cut["a.tar"] = ranges, chunked, 2
    assert _read(f"{web.address}/a.tar", patient) == CONTENT
    assert len(clock.pauses) == 2
    first, second, third = [start for _, start in web.asked]
    assert first == 0 < second  # each attempt begins where the last one stood
    assert second < third if ranges else second == third


def test_a_server_that_dies_in_mid_file_and_comes_back_is_waited_for(folder, serve, clock, patient):
    web = serve(folder)
    web.dies_at = "a.tar"
    clock.at[4] = web.up
    assert _read(f"{web.address}/a.tar", patient) == CONTENT
    assert len(clock.pauses) == 4
    assert [start > 0 for _, start in web.asked] == [False, True]


def test_pauses_double_up_to_a_bound_and_differ_between_readers(folder, serve, clock):
    web = serve(folder)
    web.refuse["a.tar"] = 8
    retry = Retry(first_s=2, most_s=16, sleep=clock.sleep, clock=clock.time)
    assert _read(f"{web.address}/a.tar", retry) == CONTENT
    longest = [2, 4, 8, 16, 16, 16, 16, 16]
    assert all(b / 2 <= p <= b for p, b in zip(clock.pauses, longest, strict=True))
    assert len(set(clock.pauses)) == 8


def test_a_server_that_stays_away_is_given_up_in_one_sentence(
    folder, serve, clock, patient, caplog
):
    web = serve(folder)
    web.down()
    place = f"{web.address}/a.tar"
    said = (
        rf"^{place}: cannot be reached .* given up after (\d+) attempts in \d+ s; check address.*"
    )
    with pytest.raises(ConnectionError, match=said) as caught:
        _read(place, patient)
    assert f"given up after {len(clock.pauses) + 1} attempts in {clock.now:.0f} s" in str(
        caught.value
    )
    assert "data.retry_s" in str(caught.value)
    assert 50 < clock.now <= 100
    assert [place in record.getMessage() for record in caplog.records] == [True]  # said once


def test_the_time_that_is_allowed_begins_anew_with_every_byte(folder, serve, clock):
    web = serve(folder)
    web.cut["a.tar"] = 20
    retry = Retry(total_s=1.5, sleep=clock.sleep, clock=clock.time)
    assert _read(f"{web.address}/a.tar", retry) == CONTENT
    assert clock.now > 3


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_answers_of_the_moment_are_asked_again(folder, serve, clock, patient, code):
    web = serve(folder)
    web.code, web.refuse["a.tar"] = code, 1
    assert read_place(f"{web.address}/a.tar", retry=patient) == CONTENT
    assert len(clock.pauses) == 1


@pytest.mark.parametrize(
    ("code", "error"), [(404, FileNotFoundError), (410, FileNotFoundError), (403, RefusedError)]
)
def test_answers_that_last_are_told_at_once(folder, serve, clock, patient, code, error):
    web = serve(folder)
    web.code, web.refuse["a.tar"] = code, 1
    for ask in (read_place, partial(open_place, size=len(CONTENT))):
        web.refuse["a.tar"] = 1
        with pytest.raises(error, match=f"a.tar: the server answered {code}"):
            ask(f"{web.address}/a.tar", retry=patient).read()
    assert clock.pauses == []


def test_a_file_that_stays_shorter_than_it_should_be_is_given_up(folder, serve, patient):
    web = serve(folder)
    web.ranges = False
    with pytest.raises(ConnectionError, match=r"broke off .* given up after"):
        _read(f"{web.address}/a.tar", patient, size=len(CONTENT) + 1)


def test_asking_once_does_not_speak_of_attempts(serve, folder):
    web = serve(folder)
    web.down()
    with pytest.raises(ConnectionError, match=r"cannot be reached \([^)]*\)$"):
        read_place(f"{web.address}/a.tar")


# Object stores


@pytest.fixture
def stored() -> str:
    """A file in fsspec's store in memory."""
    place = "memory://bucket/a.tar"
    with fsspec.open(place, "wb") as file:
        file.write(CONTENT)
    yield place
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_an_object_store_gives_what_it_holds(stored, folder):
    assert _read(stored, ONCE) == read_place(stored) == CONTENT
    assert _read(f"file://{folder}/a.tar", ONCE) == CONTENT


def test_an_object_store_that_breaks_off_goes_on_where_it_stood(
    stored, clock, patient, monkeypatch
):
    memory = type(fsspec.filesystem("memory").open("/bucket/a.tar"))
    read, calls = memory.read, []

    def failing(file, *size):
        calls.append(file.tell())
        if len(calls) in (2, 3):
            raise TimeoutError("slow down")
        return read(file, *size)

    monkeypatch.setattr(memory, "read", failing)
    assert _read(stored, patient) == CONTENT
    assert len(clock.pauses) == 2
    assert calls[1] == calls[2] == calls[3] > 0


def test_what_an_object_store_does_not_hold_is_told_at_once(stored, clock, patient):
    with pytest.raises(FileNotFoundError):
        _read(stored.replace("a.tar", "b.tar"), patient)
    assert clock.pauses == []


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_missing_package_is_named_with_the_command(monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(
        ValueError, match=rf"{scheme}://b/a cannot be opened: .*pip install {package}"
    ):
        read_place(f"{scheme}://b/a")


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match=r"s4://b/a cannot be opened: .*none of the known schemes"):
        read_place("s4://b/a")


def test_an_outage_that_ends_is_noted(folder, serve, patient, caplog):
    web = serve(folder)
    web.refuse["a.tar"] = 1
    with caplog.at_level(logging.INFO):
        _read(f"{web.address}/a.tar", patient)
    assert "answers again after 1 failures" in caplog.text

"""What is said where no Ray can be worked with."""

import os

import pytest

from pipeline.ray_session import check_address, ray_session, unreachable


def wrapped() -> ConnectionError:
    """As Ray raises what its server said of a token."""
    try:
        try:
            raise RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing")
        except RuntimeError as said:
            raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379") from said
    except ConnectionError as error:
        return error


def test_a_ray_that_asks_for_a_token_is_not_called_absent():
    said = unreachable("head:6379", wrapped())
    assert said.startswith("the Ray at head:6379 asks for a token")
    assert "RAY_AUTH_MODE=token" in said


def test_what_ray_says_is_told_with_what_to_do():
    said = unreachable("head:6379", ConnectionError("Failed to connect\nfor a long time"))
    assert said.startswith("no Ray answers at head:6379 (Failed to connect); start one there")
    assert "the embedded Ray" in unreachable("local", RuntimeError())


def test_an_address_where_nothing_answers_is_told_before_ray_is_asked(monkeypatch, free_port):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=f"no Ray answers at {address}"):
        check_address(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConnectionError, match=f"no Ray answers at {address}"), ray_session(None):
        pass
    check_address("local")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_embedded_ray_gives_its_workers_the_turn_of_the_process_that_asks(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session(None, cores=3, environment={"RAY_DEDUP_LOGS": "0"}) as ray:
        assert ray.cluster_resources()["CPU"] == 3
        ask = ray.remote(lambda: (os.nice(0), os.environ["RAY_DEDUP_LOGS"]))
        assert ray.get(ask.remote()) == (os.nice(0), "0")
        with ray_session(None) as same:
            assert same.is_initialized()
        assert ray.is_initialized()
    assert not ray.is_initialized()

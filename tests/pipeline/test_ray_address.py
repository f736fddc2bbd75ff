"""What is said where no Ray can be worked with."""

from pipeline.ray_address import unreachable


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

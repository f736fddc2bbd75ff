r"""``srdet serve``: a network, or a detector behind one, over HTTP.

    srdet serve --model models:/srdet-esrgan@champion --port 8080
    srdet serve --model espcn_x4
    curl -s -H 'Content-Type: application/json' http://127.0.0.1:8080/invocations \\
        -d "{\"dataframe_records\": [{\"image\": \"$(base64 -w0 photo.png)\"}]}"

Answers are JSON: ``{"predictions": [{"image": ..., "width": ..., "height": ..., "scale": ...}]}``
with the enlarged PNG in base64, or ``{"predictions": [{"detections": [...], ...}]}``. It is what
``mlflow models serve`` starts for the same model, with a limit on the size of a request.
"""

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline.options import run_function
from pipeline.packing import MAX_PICTURES, MAX_PIXELS, pack_network
from pipeline.progress import console
from pipeline.recording.models import scoring_app
from pipeline.registered import is_registered, packed
from pipeline.served import LIMIT, longest_text
from pipeline.upscalers import network_file

Scope = dict[str, Any]
Messages = Callable[..., Awaitable[Any]]


def main(words: list[str]) -> None:
    """The command."""
    run_function(serve, words, name="serve")


def serve(
    model: str, *, host: str = "127.0.0.1", port: int = 8080, max_pixels: int = MAX_PIXELS
) -> None:
    """Answers requests until it is stopped.

    Args:
        model: a registered model, such as models:/srdet-esrgan@champion; or a network of `srdet
            models`, or a file of weights (.safetensors).
        host: address to listen on; 0.0.0.0 lets other machines in, who need no password.
        port: to listen on.
        max_pixels: larger pictures are refused.

    Raises:
        ValueError: no such model, or weights of a kind that is not served.
        OSError: the port is taken.
    """
    import uvicorn

    if max_pixels < 1:
        raise ValueError(f"--max_pixels is {max_pixels}; it must be 1 or more")
    os.environ[LIMIT] = str(max_pixels)
    with tempfile.TemporaryDirectory() as temporary:
        folder = packed(model) if is_registered(model) else Path(temporary) / "model"
        if not is_registered(model):
            pack_network(network_file(model), folder)
        app = SizeLimit(scoring_app(folder), MAX_PICTURES * longest_text(max_pixels))
        where = f"http://{host}:{port}/invocations"
        console.print(f"serving {model} at {where}", highlight=False, soft_wrap=True)
        uvicorn.run(app, host=host, port=port, log_level="warning")


class SizeLimit:
    """Refuses requests above so many bytes with status 413, before they fill the memory.

    Args:
        app: what answers the others, by the ASGI protocol.
        most: bytes of a request's body.
    """

    def __init__(self, app: Messages, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Messages, send: Messages) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more and len(body) <= self.most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > self.most:
            await _too_large(send, self.most)
            return
        whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Any:  # noqa: ANN401
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


async def _too_large(send: Messages, most: int) -> None:
    said = f'{{"error_code": "BAD_REQUEST", "message": "more than {most} bytes; send less"}}'
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": said.encode()})

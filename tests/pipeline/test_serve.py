import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import uvicorn

from pipeline.packing import pack_network
from pipeline.pictures import png
from pipeline.recording.models import scoring_app
from pipeline.serve import SizeLimit
from pipeline.tracking import Card, start
from sr_module import build
from sr_module.checkpoint import save_net

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def listening(words: list[str], port: int, **environment: str):
    process = subprocess.Popen(
        [sys.executable, "-m", *words], start_new_session=True, text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
             "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            time.sleep(0.3)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def post(port: int, body: object) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode() if not isinstance(body, bytes) else body,
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check_answers(port: int) -> None:
    text = base64.b64encode(png(torch.rand(3, 6, 10))).decode()
    for form in ({"dataframe_records": [{"image": text}]}, {"inputs": {"image": [text]}}):
        status, answer = post(port, form)
        assert status == 200, answer
        (made,) = answer["predictions"]
        assert (made["width"], made["height"], made["scale"]) == (40, 24, 4)
        assert base64.b64decode(made["image"]).startswith(b"\x89PNG")
    for form, said in (
        ({"dataframe_records": [{"image": "!!"}]}, "picture 1 is not base64"),
        ({"dataframe_records": [{"picture": text}]}, "image"),
        ({"inputs": {"image": [7]}}, "base64"),
        (b"{", "JSON"),
    ):
        status, answer = post(port, form)
        assert status == 400, (form, answer)
        assert said.lower() in answer["message"].lower()


@pytest.fixture
def registered(store, tmp_path) -> str:
    """A network in the registry of the session's store."""
    torch.manual_seed(0)
    net = tmp_path / "net.safetensors"
    save_net(build("msrresnet", 4, features=8, blocks=1), net, provenance={})
    pack_network(net, tmp_path / "packed")
    with start("tests serve", "one") as run:
        run.model(tmp_path / "packed", Card("network", "network", 4, register="srdet-served"))
    return "models:/srdet-served@champion"


def test_the_application_that_both_commands_run_answers_over_http(tmp_path):
    torch.manual_seed(0)
    net = tmp_path / "net.safetensors"
    save_net(build("msrresnet", 4, features=8, blocks=1), net, provenance={})
    pack_network(net, tmp_path / "packed")
    port = free_port()
    app = SizeLimit(scoring_app(tmp_path / "packed"), 100_000)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        check_answers(port)
        status, answer = post(port, {"inputs": {"image": ["A" * 200_000]}})
        assert (status, "send less" in answer["message"]) == (413, True)
    finally:
        server.should_exit = True
        thread.join(60)


def until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_mlflow_serves_a_registered_network_over_http(registered, store):
    port = free_port()
    words = ["mlflow", "models", "serve", "-m", registered, "--env-manager", "local"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    with listening(words, port, MLFLOW_TRACKING_URI=store):
        check_answers(port)


@pytest.mark.slow
def test_srdet_serve_is_the_short_form_with_a_limit(registered, store, tmp_path):
    port = free_port()
    words = ["pipeline", "serve", "--model", registered, "--port", str(port)]
    words += ["--max_pixels", "1000"]
    cache = str(tmp_path / "cache")
    with listening(words, port, MLFLOW_TRACKING_URI=store, XDG_CACHE_HOME=cache):
        check_answers(port)
        text = base64.b64encode(png(torch.rand(3, 40, 40))).decode()
        status, answer = post(port, {"inputs": {"image": [text]}})
        assert (status, "more than the limit" in answer["message"]) == (400, True)
        status, answer = post(port, {"inputs": {"image": ["A" * 1_000_000]}})
        assert status == 413
        assert "send less" in answer["message"]


def test_a_request_that_is_too_large_is_refused_before_all_of_it_is_here():
    import asyncio

    taken, sent = [], []

    async def app(scope, receive, send):
        taken.append((await receive())["body"])

    def receiving(pieces):
        waiting = [
            {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
            for number, piece in enumerate(pieces)
        ]

        async def receive():
            return waiting.pop(0)

        return receive, waiting

    async def send(message):
        sent.append(message)

    async def talk(*pieces):
        receive, waiting = receiving(pieces)
        await SizeLimit(app, 10)({"type": "http"}, receive, send)
        return waiting

    assert asyncio.run(talk(b"12345", b"67890")) == []
    assert taken == [b"1234567890"]
    assert len(asyncio.run(talk(b"123456", b"67890", b"never read"))) == 1
    assert sent[0]["status"] == 413
    assert len(taken) == 1

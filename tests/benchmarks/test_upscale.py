"""The benchmark runs; what it measures is nobody's business here."""

import sys

import pytest

from benchmarks import upscale
from benchmarks.served import Served
from sr_module.archs.quantised import can_quantise


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"WIDTH": 32, "HEIGHT": 32, "PICTURES": 1, "ROUNDS": 1, "THREADS": 1, "FRAME": (8, 8)}
    for name, value in sizes.items():
        monkeypatch.setattr(upscale, name, value)
    monkeypatch.delenv("SRDET_DATA", raising=False)


def test_without_a_peer_the_comparison_is_skipped_with_its_reason(small, monkeypatch):
    monkeypatch.delenv("SRDET_PEERS_PYTHON", raising=False)
    figures = dict(upscale.run())
    assert "output MP/s" in figures["compact x4, srdet upscale"]
    assert figures["compact x4, realesrgan"] == "skipped: SRDET_PEERS_PYTHON is not set"
    eight_bits = ["srcnn 9-5-5", "srcnn 9-1-5", "espcn"] if can_quantise() else []
    expected = [(name, kind) for name in upscale.FAST for kind in ("fp32", "bf16")]
    expected += [(name, "int8") for name in eight_bits]
    measured = [name for name in figures if "1080p" in name]
    assert sorted(measured) == sorted(f"{name} to 1080p, {kind}" for name, kind in expected)


def test_a_peer_that_fails_says_why():
    words = ["-c", "raise SystemExit('no such package')"]
    with (
        Served(sys.executable, words, threads=1) as peer,
        pytest.raises(RuntimeError, match="no such package"),
    ):
        peer.round()

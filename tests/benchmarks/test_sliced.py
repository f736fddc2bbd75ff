"""The benchmark runs beside nobody; what it measures is nobody's business here."""

import pytest

from benchmarks import sliced
from detection.detectors import save_detector
from detection.families import build_model
from tests.pipeline.test_study import write_squares


@pytest.mark.slow
def test_without_the_peer_our_own_ways_are_measured_and_it_is_said_so(tmp_path, monkeypatch):
    monkeypatch.delenv("SRDET_PEERS_PYTHON", raising=False)
    path = write_squares(tmp_path)
    detector = tmp_path / "detector.safetensors"
    save_detector(
        build_model("small_fcos", num_classes=2), detector, architecture="small_fcos",
        categories={7: "square"}, provenance={},
    )  # fmt: skip
    figures = dict(
        sliced.run(
            path, tmp_path / "images", str(detector), pictures=2, rounds=1, only=sliced.OURS[:1]
        )
    )
    assert "SRDET_PEERS_PYTHON not set" in figures["srdet, grid fp32"]
    assert "AP_small" in figures["srdet, grid fp32"]

"""The benchmarks run; what they measure is nobody's business here."""

import importlib.util

from benchmarks import data_path, train_step
from benchmarks.__main__ import others


def test_benchmarks_that_run_alone_are_named_and_are_there():
    named = dict(others())
    assert {"ranks", "start_up", "loss_curves", "compiled", "sweep"} <= set(named)
    assert not {"training", "train_basicsr", "served"} & set(named)
    assert all(importlib.util.find_spec(f"benchmarks.{name}") for name in named)


def test_the_training_step_is_measured_for_each_format_and_layout(monkeypatch):
    monkeypatch.setattr(train_step, "BATCH", 1)
    monkeypatch.setattr(train_step, "CROP", 16)
    monkeypatch.setattr(train_step, "ROUNDS", 1)
    figures = dict(train_step.run())
    assert len(figures) == 4
    assert all("images/s" in figure for figure in figures.values())


def test_the_data_path_is_measured_beside_decoding(monkeypatch):
    monkeypatch.delenv("SRDET_DATA", raising=False)
    monkeypatch.delenv("SRDET_PEERS_PYTHON", raising=False)
    small = {"CUTS": (192,), "PICTURES": 3, "BATCHES": 2, "BATCH": 2, "ROUNDS": 1, "LONG": 40}
    for name, value in small.items():
        monkeypatch.setattr(data_path, name, value)
    figures = dict(data_path.run())
    assert "a second" in figures["192 px: decoding alone"]
    assert "of decoding" in figures["192 px: stream, 4 crops a picture"]
    assert "SRDET_PEERS_PYTHON" in figures["192 px: BasicSR's PairedImageDataset"]

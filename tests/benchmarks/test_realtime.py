"""The benchmark runs; what it measures is nobody's business here."""

import torch

from benchmarks import realtime


def test_every_network_is_measured_in_both_precisions_and_both_ways(monkeypatch):
    for name, value in {"FRAME": (8, 8), "FRAMES": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(realtime, name, value)
    threads = torch.get_num_threads()
    figures = dict(realtime.run())
    assert len(figures) == 4 * len(realtime.NETS)
    assert all("both on one" in figure and "one each" in figure for figure in figures.values())
    assert torch.get_num_threads() == threads

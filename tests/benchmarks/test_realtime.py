"""The benchmark runs; what it measures is nobody's business here."""

import torch

from benchmarks import realtime
from sr_module.archs.quantised import can_quantise


def test_every_network_is_measured_in_every_precision_that_it_has_and_both_ways(monkeypatch):
    for name, value in {"FRAME": (8, 8), "FRAMES": 2, "ROUNDS": 1}.items():
        monkeypatch.setattr(realtime, name, value)
    threads = torch.get_num_threads()
    figures = dict(realtime.run())
    nets = {(name, kind) for name in realtime.NETS for kind in ("fp32", "bf16")}
    nets |= {("espcn", "int8")} if can_quantise() else set()
    assert {tuple(figure.split(", ")[:2]) for figure in figures} == nets
    assert len(figures) == 2 * len(nets)
    assert all("both on one" in figure and "one each" in figure for figure in figures.values())
    assert torch.get_num_threads() == threads

"""What ships: every network loads, is small, and says nothing of the machine it was made on."""

import re

import pytest
import torch
from safetensors import safe_open

from sr_module import load_net, upscale
from sr_module.catalogue import FOLDER, trained, trained_net
from sr_module.checkpoint import read_provenance

LARGEST = 6e6
ALL_TOGETHER = 30e6


def test_there_are_trained_networks_and_nothing_else_beside_them():
    assert trained()
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in trained().values()}


@pytest.mark.parametrize("name", trained())
def test_a_shipped_network_loads_enlarges_and_is_small(name):
    net = load_net(trained_net(name))
    assert trained_net(name).stat().st_size <= LARGEST
    assert name.endswith(f"_x{net.scale}")
    grey = torch.full((3, 20, 20), 0.5)
    assert (upscale(net, grey) - 0.5).abs().mean() < 0.05


def test_all_together_they_are_small():
    assert sum(path.stat().st_size for path in trained().values()) <= ALL_TOGETHER


@pytest.mark.parametrize("name", trained())
def test_a_shipped_header_tells_the_origin_and_no_place_of_a_machine(name):
    told = read_provenance(trained_net(name))
    needed = {"data", "data_licence", "steps", "config", "command", "scores", "scores_protocols"}
    assert needed <= set(told)
    with safe_open(trained_net(name), framework="pt") as file:
        header = file.metadata()["srdet"]
    assert not re.search(r"(?:^|[^\w.:/])(?:~?/\w|[A-Za-z]:\\)|file:|sqlite:", header)


def test_an_unknown_name_is_refused_with_the_nearest():
    name = next(iter(trained()))
    with pytest.raises(ValueError, match=f"unknown trained network '{name[:-1]}'; did you mean"):
        trained_net(name[:-1])

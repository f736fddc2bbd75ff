"""``srdet sample``: pictures drawn, by name and number."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import cli
from pipeline.pictures import read_picture
from sr_module import build, save_net


@pytest.fixture
def network(tmp_path: Path) -> Path:
    sizes = {"features": 4, "blocks": 1, "prior_features": 4, "prior_layers": 1, "hidden": 4}
    save_net(
        build("pixel_recursive", 2, side=12, **sizes), tmp_path / "n.safetensors", provenance={}
    )
    return tmp_path / "n.safetensors"


def small(path: Path, side: int = 4) -> Path:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def draw(network: Path, picture: Path, out: Path, *more: str) -> int:
    words = ["--model", str(network), "--pictures", str(picture), "--out", str(out), *more]
    return cli.main(["sample", *words])


def test_as_many_pictures_are_drawn_as_asked_and_the_seed_repeats_them(network, tmp_path):
    picture = small(tmp_path / "a.png")
    for out in ("one", "two"):
        assert draw(network, picture, tmp_path / out, "--count", "2", "--seed", "5") == 0
    first = [read_picture(tmp_path / "one" / f"a_{n}.png") for n in range(2)]
    again = [read_picture(tmp_path / "two" / f"a_{n}.png") for n in range(2)]
    assert first[0].shape == (3, 8, 8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(*first)


@pytest.mark.parametrize(
    ("side", "more", "said"),
    [
        (8, [], "a.png: a result of 16 x 16 pixels is larger than the 12 x 12"),
        (4, ["--temperature", "-1"], "temperature must be 0 or more, got -1"),
        (4, ["--count", "0"], "--count 0: 1 or more"),
    ],
)
def test_what_cannot_be_drawn_is_named(network, tmp_path, capsys, side, more, said: str):
    assert draw(network, small(tmp_path / "a.png", side), tmp_path / "out", *more) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_network_without_a_likelihood_says_so(tmp_path, capsys):
    assert draw(Path("espcn_x4"), small(tmp_path / "a.png"), tmp_path / "out") == 2
    assert "espcn makes one picture of each, it draws none" in capsys.readouterr().err

"""Every network that ships is what its header says: trained so, and as good as that."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.evaluate import evaluate
from pipeline.parsing import CONF, parse, plain
from sr_module.catalogue import trained
from sr_module.checkpoint import read_provenance

START = "model.init_args.init_from"


def told(name: str) -> dict[str, Any]:
    return dict(read_provenance(trained()[name]))


def leaves(config: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Settings by their dotted names."""
    if isinstance(config, Mapping) and config:
        for part, inner in config.items():
            yield from leaves(inner, f"{key}.{part}" if key else part)
    else:
        yield key, config


def words_of(command: str) -> list[str]:
    """The words of the last training in ``command``; earlier ones make what it starts from."""
    trainings = [words for words in map(shlex.split, command.split(";")) if "train" in words]
    assert trainings[-1][:2] == ["srdet", "train"]
    return [word.replace("conf/", f"{CONF}/") for word in trainings[-1][2:]]


@pytest.mark.parametrize("name", trained())
def test_the_settings_of_a_shipped_network_are_its_recipe_and_its_command(
    name, tmp_path, monkeypatch
):
    words, recorded = words_of(told(name)["command"]), dict(leaves(told(name)["config"]))
    monkeypatch.chdir(tmp_path)
    if f"--{START}" in words:
        Path(words[words.index(f"--{START}") + 1]).touch()  # a name, or a file of that training
    replayed = dict(leaves(plain(parse(words))))
    # Of the weights that a run started from the header keeps no more than the file's name.
    assert (recorded.pop(START) is None) == (replayed[START] is None)
    assert recorded == {key: replayed.get(key) for key in recorded}

    recipe = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
    asked = dict(leaves({part: recipe[part] for part in ("model", "data")}))
    assert set(asked) <= set(recorded)


@pytest.mark.real_data
@pytest.mark.parametrize("name", trained())
def test_a_shipped_network_scores_what_its_header_says(name, real_data):
    scores, precision = told(name)["scores"]["Set5"], told(name)["scores_precision"]
    again = evaluate(
        [f"Set5={real_data / 'sr/Set5/HR'}"],
        model=[name],
        precision=precision,
        device="cpu",
        track=False,
    )
    mean = again.models[0].sets[0].mean
    assert mean["psnr_y"] == pytest.approx(scores["psnr_y"], abs=0.01)
    assert mean["ssim_y"] == pytest.approx(scores["ssim_y"], abs=0.001)

"""Settings of a trial as the words of ``srdet train``, and as the YAML file that a person keeps."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SHIPPED = Path(__file__).parents[2]
"""Where ``conf`` is, beside the code."""


def recipes(train: Sequence[Path]) -> list[Path]:
    """The config files of ``srdet train``, from the working folder or from the shipped ``conf``.

    Raises:
        FileNotFoundError: one is in neither.
    """
    found = []
    for path in train:
        places = [path.resolve(), SHIPPED / path]
        place = next((each for each in places if each.is_file()), None)
        if place is None:
            raise FileNotFoundError(
                f"train: no file {path}; name config files of `srdet train`, such as "
                "conf/experiment/srresnet_small.yaml"
            )
        found.append(place)
    return found


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """``--key=value``, as the command line has it."""
    return [f"--{key}={_written(value)}" for key, value in settings.items()]


def _written(value: Any) -> str:  # noqa: ANN401
    """Numbers, lists and null in the form that YAML and JSON share."""
    return value if isinstance(value, str) else json.dumps(value)


def base_words(train: Sequence[Path], fixed: Mapping[str, Any], shards: str) -> list[str]:
    """What every trial starts from; paths hold in any working folder.

    Raises:
        FileNotFoundError: a config file is not there.
    """
    files = [f"--config={path}" for path in recipes(train)]
    return [*files, *words_of(fixed), f"--data.shards={absolute(shards)}"]


def absolute(address: str) -> str:
    """A folder's path from the root; an address of another kind as it is."""
    return str(Path(address).resolve()) if Path(address).exists() else address


def recipe(train: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config files of ``train`` in turn, and ``settings`` over them, as one nested mapping."""
    merged: dict[str, Any] = {}
    for path in recipes(train):
        merged = _over(merged, yaml.safe_load(path.read_text()) or {})
    for key, value in settings.items():
        nested: Any = copy.deepcopy(value)
        for word in reversed(key.split(".")):
            nested = {word: nested}
        merged = _over(merged, nested)
    return merged


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _over(merged[key], value) if both else value
    return merged

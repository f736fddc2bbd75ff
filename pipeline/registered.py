"""Models of MLflow's registry, as files here: ``models:/srdet-esrgan@champion``."""

import hashlib
import logging
import os
from pathlib import Path

from pipeline.addresses import default_uri, public_uri
from pipeline.recording import registry
from pipeline.recording.store import AwayError

logger = logging.getLogger(__name__)

PREFIX = "models:/"
FOLDER, NET = "srdet", "net.safetensors"
DATA = f"data/{FOLDER}"
"""Where a packed model keeps weights and settings."""


def is_registered(word: str) -> bool:
    """Whether a word names a model of MLflow's registry, or one that a run has stored."""
    return word.startswith(PREFIX)


def network_of(model: str) -> Path:
    """The weights of a registered network, fetched once for each version.

    Args:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/NAME/latest`` or
            ``models:/ID``.

    Raises:
        ValueError: there is no such model, alias or version, or it is no network of ours.
        ConnectionError: the store does not answer.
    """
    return registry.fetch(default_uri(), model, f"{DATA}/{NET}", _cache())


def packed(model: str) -> Path:
    """The whole folder of a registered model, likewise."""
    return registry.fetch(default_uri(), model, "", _cache())


def short_name(model: str) -> str:
    """What to call it where names have no signs: srdet-esrgan-champion."""
    return model.removeprefix(PREFIX).replace("@", "-").replace("/", "-")


def check_free(name: str | None, uri: str, *, kind: str, scale: int) -> None:
    """Looks before the work whether its model can be registered under ``name``, if one is given.

    Args:
        name: in the registry.
        uri: of the store that will have it.
        kind: of the model.
        scale: of the model.

    Raises:
        ValueError: the name is taken by models of another kind, or is none.
    """
    if name is None:
        return
    try:
        registry.check_name(uri, name, kind=kind, scale=scale)
    except AwayError as error:
        logger.warning("%s; whether '%s' is free shows at the end", error, name)


def _cache() -> Path:
    """Another store may have another model of that name and version."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    store = hashlib.sha256(public_uri(default_uri()).encode()).hexdigest()[:12]
    return Path(base) / "srdet" / "models" / store

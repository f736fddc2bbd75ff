"""Which pictures a network learnt from, so that a study can tell when it is tested on them.

A fingerprint is a difference hash: luma averaged over 17 by 16 fields, and for each field but the
last of a row whether the next one is brighter. It outlives another size, another file format and
JPEG; frames of a film that follow each other are nearly alike, and so are their fingerprints.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from detection.detectors import read_metadata
from pipeline.progress import bar
from sr_module.checkpoint import read_provenance

FIELDS = (16, 17)
ALIKE = 24
"""Bits of 256 in which fingerprints of one picture may differ. Saved again at a quarter of the side
with JPEG 60, pictures differed in at most 15; two different ones in 48 or more."""
LISTED = 20_000
"""A network's file names at most so many pictures."""

KEY = "fingerprints"
"""In what a file of weights says of its origin; one text, words apart by spaces."""


def fingerprint(picture: Tensor) -> str:
    """64 hexadecimal digits that name an 8-bit picture ``(C, H, W)``."""
    luma = picture.float().mean(0, keepdim=True)
    fields = F.adaptive_avg_pool2d(luma, FIELDS)[0].numpy()
    return np.packbits(fields[:, 1:] > fields[:, :-1]).tobytes().hex()


def alike(ours: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """Positions of those of ``ours`` that are, or nearly are, one of ``theirs``."""
    if not ours or not theirs:
        return []
    mine, others = _bits(ours), _bits(theirs)
    # |a - b| of bits is a (1 - b) + (1 - a) b, which is two products of matrices
    apart = mine @ (1 - others).T + (1 - mine) @ others.T
    return [int(place) for place in np.flatnonzero(apart.min(axis=1) <= ALIKE)]


def learnt_from(path: Path) -> list[str] | None:
    """Fingerprints of the pictures that a network or detector learnt from; None: it says none."""
    if path.suffix != ".safetensors":
        return None
    told = read_provenance(path) or _of_detector(path)
    words = told.get(KEY)
    return words.split() if isinstance(words, str) else None


def _of_detector(path: Path) -> dict[str, object]:
    try:
        origin: dict[str, object] = json.loads(read_metadata(path)["provenance"])
    except ValueError:  # weights of another maker
        return {}
    return origin


def listed(fingerprints: Sequence[str], *, before: Path | None = None) -> dict[str, str]:
    """What a file of weights says of its pictures; empty where they are unknown or too many.

    Args:
        fingerprints: of the pictures of this training.
        before: weights that it started from, whose pictures it has seen, too.
    """
    earlier = learnt_from(before) if before is not None else []
    if earlier is None or not fingerprints:
        return {}
    every = list(dict.fromkeys([*earlier, *fingerprints]))
    return {KEY: " ".join(every)} if len(every) <= LISTED else {}


def seen_before(
    pictures: Mapping[int, str], learners: Mapping[str, Sequence[Path]]
) -> dict[str, list[int]]:
    """Of each learner the image ids of ``pictures`` (id to fingerprint) that it learnt from.

    Learners whose files do not say what they learnt from are left out.
    """
    images, ours = list(pictures), list(pictures.values())
    told = {}
    with bar("pictures seen in training", len(learners)) as advance:
        for name, files in learners.items():
            sources = [learnt_from(file) for file in files]
            if all(source is not None for source in sources):
                theirs = [each for source in sources for each in source or []]
                told[name] = [images[place] for place in alike(ours, theirs)]
            advance(1)
    return told


def _bits(fingerprints: Sequence[str]) -> NDArray[np.float32]:
    packed = np.frombuffer(bytes.fromhex("".join(fingerprints)), dtype=np.uint8)
    return np.unpackbits(packed.reshape(len(fingerprints), -1), axis=1).astype(np.float32)

"""What of a split could not be used: counted once a sample, over all reader processes of a rank."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.index import Shard

logger = logging.getLogger(__name__)

UNSEEN, GOOD, DAMAGED, SMALL = range(4)
"""What is known of a sample."""
SKIPPED_SAMPLES, SKIPPED_SHARDS = "data/skipped_samples", "data/skipped_shards"
SMALL_SAMPLES = "data/small_samples"
"""What the counts are called in the record of a run."""
CAUSES = {"break": 0, "damage": 1, "size": 2}
"""What is said once a shard."""


@dataclass(frozen=True)
class Skipped:
    """Totals of a rank since the run began or went on.

    Attributes:
        samples: different samples that are damaged or could not be reached.
        small: different samples that are smaller than the crop, which is no damage.
        shards: different shards of which at least one sample is damaged or could not be reached.
    """

    samples: int = 0
    small: int = 0
    shards: int = 0

    def __add__(self, other: "Skipped") -> "Skipped":
        return Skipped(
            self.samples + other.samples, self.small + other.small, self.shards + other.shards
        )


class Damage:
    """State of every sample of a split, in memory that this process shares with its readers.

    One byte a sample; writing the same byte twice is harmless, so readers need no lock, and a
    sample that a broken connection withheld is good again once it was read.

    Args:
        shards: path or address of each shard, with what the index says of it.
        most: share of the samples that may be damaged.
        world: ranks that share the samples.
    """

    def __init__(self, shards: Mapping[str, Shard], *, most: float = 0.1, world: int = 1) -> None:
        self.most, self.world = most, world
        self._number = {place: number for number, place in enumerate(shards)}
        sizes = [shard.samples for shard in shards.values()]
        self._state = torch.zeros(sum(sizes), dtype=torch.uint8)
        self._said = torch.zeros(len(sizes), len(CAUSES), dtype=torch.bool)
        for shared in (self._state, self._said):
            shared.share_memory_()  # type: ignore[no-untyped-call]
        self._of = list(torch.split(self._state, sizes))

    def good(self, place: str, number: int) -> None:
        """A sample was used."""
        self._of[self._number[place]][number] = GOOD

    def small(self, place: str, number: int, why: str) -> None:
        """A sample is smaller than the crop."""
        self._of[self._number[place]][number] = SMALL
        self._say(place, "size", why)

    def damaged(self, place: str, number: int, why: str) -> None:
        """A sample cannot be decoded.

        Raises:
            ValueError: too many are damaged.
        """
        self._of[self._number[place]][number] = DAMAGED
        self._say(place, "damage", why)
        self._check(why)

    def broken(self, place: str, given: int, why: str) -> None:
        """A shard ended after ``given`` samples, before its end.

        Raises:
            ValueError: too many are damaged.
        """
        self._of[self._number[place]][given:] = DAMAGED
        self._say(place, "break", why)
        self._check(why)

    def totals(self, over: Callable[[Tensor], Tensor] = lambda found: found) -> Skipped:
        """What all readers of this rank have skipped so far.

        Args:
            over: sums a tensor of counts over all ranks, for what they have skipped together.
        """
        found = torch.stack([self._state == DAMAGED, self._state == SMALL]).int()
        damaged, small = over(found) > 0
        shards = damaged.split([len(state) for state in self._of])
        return Skipped(int(damaged.sum()), int(small.sum()), sum(bool(s.any()) for s in shards))

    def of_shards(self) -> dict[str, int]:
        """Damaged samples of each shard that has some."""
        counts = {place: int((self._of[i] == DAMAGED).sum()) for place, i in self._number.items()}
        return {place: count for place, count in counts.items() if count}

    def _say(self, place: str, cause: str, why: str) -> None:
        """Once per shard and cause, since they come by again and again, in every process."""
        said = self._said[self._number[place]]
        if not said[CAUSES[cause]]:
            said[CAUSES[cause]] = True
            logger.warning("shard %s: skipped %s", place, why)

    def _check(self, why: str) -> None:
        damaged = int((self._state == DAMAGED).sum())
        # At least a rank's part of the set: one bad shard at the start is not yet a bad set.
        seen = max(int((self._state != UNSEEN).sum()), len(self._state) // self.world)
        if damaged > self.most * seen:
            raise ValueError(
                f"{damaged} of {seen} samples are damaged or cannot be reached, more than "
                f"data.max_bad_share {self.most} allows; the last: {why}; copy the shards again, "
                "or write the set again with: srdet shards"
            )

"""What all ranks of a training have to do at the same step, agreed on without making it wait."""

from typing import Any

import torch
from torch import Tensor, distributed


class AnyRank:
    """Whether any rank wants something, answered to all of them alike.

    To be asked once a step by every rank. The answer is that of the step before, whose exchange ran
    beside the step: over gloo, between the processors, so that no device has to be waited for. A
    process that is alone gets its own wish at once.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._asked: tuple[Tensor, distributed.Work] | None = None

    def __call__(self, wish: bool) -> bool:
        """Hands in this rank's wish, and tells whether there was one in the step before."""
        if not _several():
            return wish
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        before, wishes = self._asked, torch.tensor(int(wish))
        work = distributed.all_reduce(
            wishes, distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        assert work is not None
        self._asked = wishes, work
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )

"""The contract every super-resolution network fulfils."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

Criterion = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


class SRNet(nn.Module):
    """A super-resolution network: ``forward(lr) -> sr``.

    ``lr`` is ``(B, channels, H, W)`` RGB float32 in [0, 1]; ``sr`` is ``(B, channels, scale * H,
    scale * W)`` in about the same range (``upscale`` clamps). A network that reads several frames
    takes ``(B, frames, channels, H, W)`` and enlarges the middle one.
    """

    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)
    """Enlargement factors that this kind of network exists for."""

    scale: int
    """Enlargement factor of both sides."""
    channels: int = 3
    """Colour channels of input and output."""
    frames: int = 1
    """Low-resolution frames that one output frame is made from."""
    multiple_of: int = 1
    """Height and width of ``lr`` must be divisible by this; ``upscale`` pads and trims."""
    overlap: int = 16
    """Low-resolution pixels of context that a tile needs on each side to meet its neighbours."""
    serves: tuple[int, ...] = ()
    """Every scale that these very weights are made for; empty where that is ``scale`` alone."""

    has_int8: ClassVar[bool] = False
    """Whether ``prepared`` knows how to compute in 8-bit integers."""

    banded: ClassVar[bool] = False
    """Whether ``prepared`` takes pictures in bands that fit a cache: no need of small tiles."""

    rests: bool = False
    """Whether some of its parameters take no part in some training steps."""

    score_names: ClassVar[tuple[str, ...]] = ()
    """What ``scores`` measures besides fidelity."""

    arch: str = ""
    """Name in ``ARCHS``, set by ``build``; empty for a network that ``build`` did not make."""
    arch_args: Mapping[str, object] = {}
    """Every argument that ``build`` passed besides the scale, defaults included."""

    def middle(self, lr: Tensor) -> Tensor:
        """The picture that is enlarged: of several frames the middle one, else ``lr`` itself."""
        return lr if self.frames == 1 else lr[:, self.frames // 2]

    def prepared(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """``forward`` as it is fastest on a CPU in ``dtype``, its results ``finished``.

        For many pictures without gradients; it keeps the weights that it was made from. int8 is
        asked for only where the network has it.
        """
        return lambda lr: finished(self(lr))

    def advance(self, step: int) -> None:
        """Told before each training step; networks that grow while they train override it."""

    def target(self, hr: Tensor) -> Tensor:
        """What ``forward`` is to reach at this point of a training: ``hr``, unless it grows."""
        return hr

    def scores(self, lr: Tensor, hr: Tensor) -> Tensor:
        """``(len(score_names), B)``: scores of its own kind, such as likelihoods."""
        return lr.new_zeros(0, len(lr))

    def sample(
        self,
        lr: Tensor,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draws a picture; only networks that give a likelihood can.

        Raises:
            ValueError: this network has no likelihood.
        """
        name = self.arch or type(self).__name__
        raise ValueError(f"{name} makes one picture of each, it draws none; use: srdet upscale")

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """Training loss of one batch; networks with supervised intermediate outputs override it."""
        return criterion(self(lr), hr)

    def __call__(self, lr: Tensor) -> Tensor:
        """``forward`` with its hooks, typed: ``nn.Module`` promises nothing about its result."""
        sr: Tensor = super().__call__(lr)
        return sr


def finished(sr: Tensor) -> Tensor:
    """The same tensor, in [0, 1] now.

    Raises:
        FloatingPointError: it is NaN or infinite somewhere.
    """
    check_finite(sr)
    return sr.clamp_(0, 1)


def check_finite(made: Tensor) -> None:
    """Refuses what a network made if it is not numbers: clamped, it would look like a picture.

    Args:
        made: ``(B, C, H, W)``.

    Raises:
        FloatingPointError: it is NaN or infinite somewhere.
    """
    dense = made.permute(0, 2, 3, 1) if made.stride(1) == 1 else made  # aminmax copies others
    if not torch.stack(dense.aminmax()).isfinite().all():
        raise FloatingPointError(
            "the network's output is not a number everywhere (NaN or infinite): its weights are "
            "damaged, or its values overflow in bf16; compute in fp32 to tell which"
        )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        yield
    finally:
        for each in training:
            each.training = True

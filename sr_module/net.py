"""The contract every super-resolution network fulfils."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn

Criterion = Callable[[Tensor, Tensor], Tensor]


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

    arch: str = ""
    """Name in ``ARCHS``, set by ``build``; empty for a network that ``build`` did not make."""
    arch_args: Mapping[str, object] = {}
    """Every argument that ``build`` passed besides the scale, defaults included."""

    def middle(self, lr: Tensor) -> Tensor:
        """The picture that is enlarged: of several frames the middle one, else ``lr`` itself."""
        return lr if self.frames == 1 else lr[:, self.frames // 2]

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """Training loss of one batch; networks with supervised intermediate outputs override it."""
        return criterion(self(lr), hr)

    def __call__(self, lr: Tensor) -> Tensor:
        """``forward`` with its hooks, typed: ``nn.Module`` promises nothing about its result."""
        sr: Tensor = super().__call__(lr)
        return sr

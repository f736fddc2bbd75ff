"""A staged network: x2, then x4, then x8, each stage grown onto the one before while it trains.

The pyramid is LapSRN's (Lai et al. 2017, arXiv:1704.03915, section 3.1): every stage doubles
features, and adds a residual to the enlarged picture of the stage before, so each gives a picture.
The growth is Karras et al. 2018, "Progressive Growing of GANs", arXiv:1710.10196, section 2: a new
stage fades in over ``fade`` steps, while the ones before go on learning, and the pictures to reach
fade with it (appendix A.1). Between GANs that is StackGAN's way, too (arXiv:1612.03242).

The convolutions are EDSR's (no normalisation). Pictures are enlarged bicubically, where both papers
take simpler kernels. With ``grow`` off, all stages train from the beginning, on the last picture.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.layers import conv3x3
from sr_module.archs.luma import enlarge
from sr_module.net import Criterion, SRNet
from sr_module.resize import imresize

_SHARES = 1000
"""Shares of stages are kept as whole thousandths: counters are copied, not averaged."""


class StagedNet(SRNet):
    """A pyramid of x2 stages, of which the same weights serve every scale."""

    scales = (2, 4, 8)
    grown: Tensor

    def __init__(
        self,
        scale: int,
        *,
        largest: int = 8,
        features: int = 32,
        blocks: int = 4,
        grow: bool = True,
        grow_every: int = 10_000,
        fade: int = 3000,
    ) -> None:
        super().__init__()
        if largest not in self.scales or scale > largest:
            raise ValueError(f"staged: largest must be 2, 4 or 8 and no less than {scale}")
        if fade > grow_every:
            raise ValueError(f"staged: fade must end before the next stage, in {grow_every} steps")
        self.scale = scale
        self.serves = tuple(s for s in self.scales if s <= largest)
        self.grow, self.grow_every, self.fade = grow, grow_every, fade
        self.conv_first = conv3x3(3, features)
        self.stages = nn.ModuleList(_Stage(features, blocks) for _ in self.serves)
        self.rests = grow or self.depth < len(self.stages)
        self.active = self.depth
        """Stages that a training step runs."""
        self.register_buffer("grown", torch.full((len(self.serves),), _SHARES))
        self.overlap = _radius(self.depth, blocks)

    @property
    def depth(self) -> int:
        """Stages that the network's scale needs."""
        return self.serves.index(self.scale) + 1

    def advance(self, step: int) -> None:
        """Lets the network grow to where the training's ``step``-th step finds it."""
        if not self.grow:
            return
        shares = [self._share(stage, step) for stage in range(len(self.serves))]
        self.active = max(1, sum(share > 0 for share in shares[: self.depth]))
        self.grown.copy_(torch.tensor(shares))

    def _share(self, stage: int, step: int) -> int:
        """Thousandths by which a stage's residual counts; the first counts from the beginning."""
        if stage == 0:
            return _SHARES
        since = step - stage * self.grow_every + 1
        return min(_SHARES, max(0, math.ceil(_SHARES * since / self.fade)))

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, 3, scale * H, scale * W)``; in training, what has grown so far."""
        return self._pyramid(lr, self.active if self.training else self.depth)[-1]

    def target(self, hr: Tensor) -> Tensor:
        """What the stages grown so far are to reach: ``hr`` reduced, and faded as they are."""
        goal = self._reduced(hr, self.active)
        if self.active == 1:
            return goal
        share = self.grown[self.active - 1] / _SHARES
        before = enlarge(self._reduced(hr, self.active - 1), 2)
        return before + share * (goal - before)

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """The mean of the criterion over the pictures of all stages grown so far (section 3.2)."""
        if not self.grow:
            return criterion(self(lr).float(), hr)
        made = self._pyramid(lr, self.active)
        goals = [self._reduced(hr, stage + 1) for stage in range(self.active - 1)]
        goals.append(self.target(hr))
        each = [criterion(sr.float(), goal) for sr, goal in zip(made, goals, strict=True)]
        return torch.stack(each).mean()

    def _reduced(self, hr: Tensor, stages: int) -> Tensor:
        """``hr``, made for the network's scale, as the picture of ``stages`` stages."""
        factor = 0.5 ** (self.depth - stages)
        return hr if factor == 1 else imresize(hr, factor)

    def _pyramid(self, lr: Tensor, stages: int) -> list[Tensor]:
        """The pictures of the first ``stages`` stages."""
        x, picture, made = self.conv_first(lr), lr, []
        shares = self.grown / _SHARES
        for stage, share in zip(self.stages[:stages], shares, strict=False):
            x, residual = stage(x)
            picture = enlarge(picture, 2) + share * residual
            made.append(picture)
        return made


class _Stage(nn.Module):
    """Residual blocks, a sub-pixel doubling, and the residual of the picture."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(features) for _ in range(blocks))
        self.up = nn.Sequential(conv3x3(features, 4 * features), nn.PixelShuffle(2), nn.ReLU())
        self.to_rgb = conv3x3(features, 3)
        with torch.no_grad():  # a stage begins as bicubic enlargement
            self.to_rgb.weight.mul_(0.1)
            self.to_rgb.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        x = self.up(x)
        return x, self.to_rgb(x)


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3x3(features, features), conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + changed


def _radius(stages: int, blocks: int) -> int:
    """Input pixels that a result depends on, each way."""
    radius = 1.0 + sum((2 * blocks + 1.5) * 0.5**stage for stage in range(stages))
    return math.ceil(radius)

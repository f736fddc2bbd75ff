"""VESPCN: several frames, brought into register by a spatial transformer, make one.

Caballero et al. 2017, "Real-Time Video Super-Resolution with Spatio-Temporal Networks and Motion
Compensation", arXiv:1611.05250: each neighbour is warped onto the middle frame by a flow that a
coarse network (a quarter of the resolution) estimates and a fine one (half of it) corrects; the
frames in register enter an ESPCN of 3x3 kernels all at once (early fusion), or pair by pair, layer
after layer, with weights shared over time (slow fusion, which is a convolution over time as well).
Flow is learned without truth, from how well it warps (section 3.3).

Departures: flow is in pixels, at most ``reach`` of them, where the paper counts in shares of the
picture, so that it does not depend on the picture's size; flow is sought in frames whose local
contrast is levelled, which finds it much sooner; the network adds to the bicubic enlargement of the
middle frame; all terms of the loss are means over pixels. Frames may be brought into register
bicubically: halfway between pixels the paper's bilinear way wipes out just those details in which
frames differ. And they may enter with their ``phases``: a frame in register shows what the middle
one shows, but for what lies above the frequencies that its pixels can hold, which its sampling
turned by two pi times the flow; only who knows that angle can tell the two apart (measured,
docs/RESULTS.md, "Clips").
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module.archs.luma import LumaNet, enlarge, luma
from sr_module.choice import unknown
from sr_module.net import Criterion

_STRIDE = 4
"""Of the coarse flow."""
_COARSE_RADIUS, _FINE_RADIUS = 19, 11
"""Input pixels that the flow at a pixel depends on, each way."""
_FINE_REACH = 1.0
"""Pixels that the fine network may add to the coarse flow, each way."""
_HUBER = 0.01  # the paper's epsilon
_LIFT = 10.0
"""By which differences of frames in register are made about as large as what frames show."""
_AROUND = 4
"""Pixels each way over which contrast is levelled."""
_FAINT = 0.01
"""A contrast, as a deviation of luma in [0, 1], below which it is taken for noise."""


class VESPCN(LumaNet):
    """VESPCN of 3 or 5 frames; without ``motion`` the frames are fused as they come."""

    def __init__(
        self,
        scale: int,
        *,
        frames: int = 3,
        fusion: str = "early",
        motion: bool = True,
        convs: int = 9,
        features: int = 24,
        kernel: str = "bilinear",
        phases: bool = False,
        reach: float = 8.0,
        motion_weight: float = 0.01,
        smooth_weight: float = 0.001,
    ) -> None:
        super().__init__()
        if frames not in (3, 5):
            raise ValueError(f"vespcn: frames must be 3 or 5, got {frames}")
        if fusion not in ("early", "slow"):
            raise unknown("fusion of vespcn:", fusion, ("early", "slow"))
        if kernel not in ("bilinear", "bicubic"):
            raise unknown("kernel of vespcn:", kernel, ("bilinear", "bicubic"))
        if phases and not motion:
            raise ValueError("vespcn: phases are those of the motion; leave motion on, or them out")
        if convs <= frames:
            raise ValueError(f"vespcn: convs must be more than the {frames} frames, got {convs}")
        self.scale, self.frames, self.kernel, self.phases = scale, frames, kernel, phases
        self.motion_weight, self.smooth_weight = motion_weight, smooth_weight
        self.motion = Motion(reach) if motion else None
        fuse = _early if fusion == "early" else _slow
        self.body = fuse(frames, 5 if phases else 1, convs, features, scale**2)
        self.radius = convs
        self.multiple_of = _STRIDE if motion else 1
        seen = _FINE_RADIUS + max(_COARSE_RADIUS, math.ceil(reach) + 1) + 2 * _AROUND
        self.overlap = convs + (seen if motion else 0)
        self._initialise()

    def _initialise(self) -> None:
        """He's start; the last layers begin near zero: no motion, bicubic interpolation."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        flows = [] if self.motion is None else [self.motion.coarse[-2], self.motion.fine[-2]]
        for last in (self.body[-1], *flows):
            assert isinstance(last, nn.Conv2d)
            last.weight.data.mul_(0.05)

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, frames, 3, H, W) -> (B, 3, scale * H, scale * W)``."""
        up = enlarge(self.middle(lr), self.scale)
        return self.with_luma(up, self._fused(*self._in_register(_lumas(lr))))

    def loss(self, lr: Tensor, hr: Tensor, criterion: Criterion) -> Tensor:
        """Of the middle frame's luma, of the warped neighbours, and of the flow's roughness."""
        frames = _lumas(lr)
        warped, flow = self._in_register(frames)
        loss = criterion(self._fused(warped, flow).float(), luma(hr))
        if flow is None:
            return loss
        unlike = (warped.float() - self.middle(frames).unsqueeze(1)).square().mean()
        return loss + self.motion_weight * unlike + self.smooth_weight * _roughness(flow)

    def flow(self, lr: Tensor) -> Tensor:
        """From where each neighbour is fetched: ``(B, frames - 1, 2, H, W)``, (x, y) in pixels.

        The neighbour at a pixel's place plus its flow is the middle frame at that place. Without
        ``motion`` it is zero.
        """
        frames = _lumas(lr)
        _, flow = self._in_register(frames)
        if flow is not None:
            return flow
        batch, _, height, width = frames.shape
        return frames.new_zeros(batch, self.frames - 1, 2, height, width)

    def _in_register(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Lumas ``(B, frames, H, W)`` with the neighbours warped onto the middle, and the flow."""
        if self.motion is None:
            return frames, None
        at, (batch, _, height, width) = self.frames // 2, frames.shape
        around = torch.cat((frames[:, :at], frames[:, at + 1 :]), 1).flatten(0, 1).unsqueeze(1)
        middle = frames[:, at : at + 1].expand(-1, self.frames - 1, -1, -1)
        flow = self.motion(middle.reshape_as(around), around)
        moved = warp(around, flow, kernel=self.kernel).view(batch, -1, height, width)
        inserted = torch.cat((moved[:, :at], frames[:, at : at + 1], moved[:, at:]), 1)
        return inserted, flow.view(batch, -1, 2, height, width)

    def _fused(self, frames: Tensor, flow: Tensor | None) -> Tensor:
        """Frames in register ``(B, frames, H, W)`` -> luma ``(B, 1, scale * H, scale * W)``."""
        middle = self.middle(frames).unsqueeze(1)
        if self.phases:
            assert flow is not None
            frames = _with_phases(frames, _LIFT * (frames - middle), flow)
        x = self.body(F.pad(frames, [self.radius] * 4, mode="replicate"))
        return enlarge(middle, self.scale) + F.pixel_shuffle(x, self.scale)


class Motion(nn.Module):
    """Flow from one luma to another, coarse to fine (section 3.2, figure 4 of the paper)."""

    def __init__(self, reach: float) -> None:
        super().__init__()
        self.reach = reach
        self.coarse = _flow_net([(2, 24, 5, 2), (24, 24, 3, 1), (24, 24, 5, 2), (24, 24, 3, 1)], 4)
        self.fine = _flow_net([(5, 24, 5, 2), (24, 24, 3, 1), (24, 24, 3, 1), (24, 24, 3, 1)], 2)

    def forward(self, still: Tensor, moving: Tensor) -> Tensor:
        """Lumas ``(B, 1, H, W)`` of the middle frame and its neighbour -> ``(B, 2, H, W)``."""
        height, width = still.shape[-2:]
        missing = [0, -width % _STRIDE, 0, -height % _STRIDE]
        still, moving = _levelled(*(F.pad(y, missing, mode="replicate") for y in (still, moving)))
        coarse = self.reach * self.coarse(torch.cat((still, moving), 1)).float().tanh()
        seen = torch.cat((still, moving, coarse, warp(moving, coarse)), 1)
        flow = coarse + _FINE_REACH * self.fine(seen).float().tanh()
        cut: Tensor = flow[..., :height, :width]
        return cut


def _levelled(still: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the local mean of ``still``, divided by its local deviation.

    What is faint then tells as much about the way between them as what is not.
    """
    mean = _local_mean(still)
    still, moving = still - mean, moving - mean
    contrast = (_local_mean(still.square()) + _FAINT**2).sqrt()
    return still / contrast, moving / contrast


def _local_mean(image: Tensor) -> Tensor:
    around = F.pad(image, [_AROUND] * 4, mode="replicate")
    return F.avg_pool2d(around, 2 * _AROUND + 1, stride=1)


def warp(image: Tensor, flow: Tensor, *, kernel: str = "bilinear") -> Tensor:
    """``image`` read at every pixel's place plus its flow; borders are continued.

    Args:
        image: ``(B, C, H, W)``.
        flow: ``(B, 2, H, W)``, (x, y) in pixels.
        kernel: between pixels, "bilinear" or "bicubic".
    """
    height, width = image.shape[-2:]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype).view(-1, 1)
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    # grid_sample counts from -1 to 1 between the outer edges of the outermost pixels.
    across = (x + flow[:, 0] + 0.5) * (2 / width) - 1
    down = (y + flow[:, 1] + 0.5) * (2 / height) - 1
    grid = torch.stack((across, down), -1)
    return F.grid_sample(
        image.float(), grid, mode=kernel, padding_mode="border", align_corners=False
    )


def _flow_net(layers: list[tuple[int, int, int, int]], factor: int) -> nn.Sequential:
    """Convolutions (inputs, outputs, kernel, stride) with ReLU, then a flow ``factor`` as large."""
    net = nn.Sequential()
    for inputs, outputs, kernel, stride in layers:
        net.append(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2))
        net.append(nn.ReLU(inplace=True))
    net.append(nn.Conv2d(layers[-1][1], 2 * factor**2, 3, padding=1))
    return net.append(nn.PixelShuffle(factor))


def _with_phases(frames: Tensor, unlike: Tensor, flow: Tensor) -> Tensor:
    """Each frame, and how it is ``unlike`` the middle one times cosines and sines of its phase.

    ``(B, T, H, W)``, and flow ``(B, T - 1, 2, H, W)`` -> ``(B, T * 5, H, W)``; of the middle frame
    the four are zero.
    """
    at, angle = frames.shape[1] // 2, 2 * math.pi * flow
    turns = torch.cat((angle.cos(), angle.sin()), 2)
    turns = torch.cat((turns[:, :at], torch.zeros_like(turns[:, :1]), turns[:, at:]), 1)
    return torch.cat((frames.unsqueeze(2), unlike.unsqueeze(2) * turns), 2).flatten(1, 2)


def _early(frames: int, maps: int, convs: int, features: int, outputs: int) -> nn.Sequential:
    """All frames, of so many maps each, enter the first layer as channels."""
    return _plain(frames * maps, convs, features, outputs)


def _slow(frames: int, maps: int, convs: int, features: int, outputs: int) -> nn.Sequential:
    """Each of the first layers joins neighbouring pairs, until one frame is left."""
    net = nn.Sequential()
    for layer in range(frames - 1):
        net.append(_Pairs(features if layer else maps, features, frames - layer))
        net.append(nn.ReLU(inplace=True))
    for part in _plain(features, convs - frames + 1, features, outputs):
        net.append(part)
    return net


class _Pairs(nn.Module):
    """One convolution over each frame and the next: ``(B, T * C, ...) -> (B, (T - 1) * F, ...)``.

    A convolution over time of length two, written so that pictures have four dimensions.
    """

    def __init__(self, inputs: int, features: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(2 * inputs, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        each = x.reshape(batch, self.frames, channels // self.frames, height, width)
        pairs = torch.cat((each[:, :-1], each[:, 1:]), 2).flatten(0, 1)
        joined: Tensor = self.conv(pairs)
        return joined.reshape(batch, -1, *joined.shape[-2:])


def _plain(inputs: int, convs: int, features: int, outputs: int) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(inputs, features, 3), nn.ReLU(inplace=True))
    for _ in range(convs - 2):
        net.append(nn.Conv2d(features, features, 3)).append(nn.ReLU(inplace=True))
    return net.append(nn.Conv2d(features, outputs, 3))


def _lumas(lr: Tensor) -> Tensor:
    """``(B, T, 3, H, W) -> (B, T, H, W)``."""
    return luma(lr.flatten(0, 1)).view(*lr.shape[:2], *lr.shape[-2:])


def _roughness(flow: Tensor) -> Tensor:
    """The mean of a Huber-like norm of the flow's differences between neighbouring pixels."""
    across = flow.diff(dim=-1)[..., 1:, :].square().sum(-3)
    down = flow.diff(dim=-2)[..., 1:].square().sum(-3)
    return (across + down + _HUBER).sqrt().mean()

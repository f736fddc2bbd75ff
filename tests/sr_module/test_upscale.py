import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_module import SRNet, build, upscale
from sr_module.tiles import best_tile, count_parts, upscale_parts
from sr_module.upscale import Precision


class Nearest(SRNet):
    """Repeats pixels; keeps what it was given, and has as much memory as it is told."""

    def __init__(self, *, scale: int = 2, multiple_of: int = 1, memory: int = 10**9) -> None:
        super().__init__()
        self.scale, self.multiple_of, self.memory = scale, multiple_of, memory
        self.overlap = 2
        self.seen: list[tuple[int, int]] = []
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, lr: Tensor) -> Tensor:
        """Nearest enlargement."""
        self.seen.append(tuple(lr.shape[-2:]))
        if lr.shape[-1] * lr.shape[-2] > self.memory:
            raise torch.OutOfMemoryError("out of memory")
        assert not any(side % self.multiple_of for side in lr.shape[-2:])
        return F.interpolate(lr * self.gain, scale_factor=self.scale, mode="nearest")


def nearest(lr: Tensor, scale: int = 2) -> Tensor:
    return lr.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 3, 7, 5), (1, 3, 1, 1)])
def test_pictures_and_batches_keep_their_form(shape: tuple[int, ...]):
    lr = torch.rand(shape)
    sr = upscale(Nearest(), lr)
    assert torch.equal(sr, nearest(lr))
    assert sr.dtype == torch.float32


@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("tile", [None, 1, 3, 8, 100])
def test_every_pixel_is_written_once_in_its_place(multiple: int, tile: int | None):
    lr = torch.rand(2, 3, 13, 10)
    net = Nearest(scale=3, multiple_of=multiple)
    assert torch.equal(upscale(net, lr, tile=tile), nearest(lr, 3))


def test_the_output_is_made_on_the_device_that_is_to_hold_it():
    # "meta" has shapes and no values: whatever came by way of main memory would be there
    sr = upscale(Nearest(), torch.rand(2, 3, 9, 5), onto="meta")
    assert (sr.device.type, sr.shape) == ("meta", (2, 3, 18, 10))
    assert upscale(Nearest(), torch.rand(3, 4, 4)).device.type == "cpu"


def test_results_are_clamped():
    net = Nearest()
    net.gain.data.fill_(3)
    assert upscale(net, torch.ones(3, 4, 4)).max() == 1


def test_large_pictures_are_tiled_by_themselves():
    net = Nearest()
    upscale(net, torch.zeros(3, 700, 800))
    assert net.seen[0] == (236, 269)  # a third of each side, and the overlap
    assert len(net.seen) == 9


def test_tiles_of_a_picture_are_of_about_one_size():
    net = Nearest(multiple_of=4)
    upscale(net, torch.zeros(3, 100, 68), tile=64)  # not 64 and 36, nor 64 and 4
    assert net.seen == [(56, 40), (56, 36), (52, 40), (52, 36)]


def test_tiles_are_small_where_they_stay_in_a_cache_and_context_is_cheap():
    assert best_tile(300, 300, "cpu", overlap=18) == 300
    assert best_tile(300, 3000, "cpu", overlap=18) == 320
    assert best_tile(2000, 3000, "cpu", overlap=32) == 384
    assert best_tile(600, 700, "cuda", overlap=18) == 700
    assert best_tile(2000, 3000, "cuda", overlap=18) == 384


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (9, 23), (17, 5)])
def test_parts_come_by_rows_cover_all_once_and_are_what_the_whole_gives(size, overlap, multiple):
    lr = torch.rand(1, 3, *size)

    def run(part: Tensor) -> Tensor:
        assert not any(side % multiple for side in part.shape[-2:])
        return nearest(part, 3)

    sr = torch.full((1, 3, 3 * size[0], 3 * size[1]), torch.nan)
    parts = upscale_parts(
        run,
        lambda rows, columns: lr[..., rows, columns],
        size,
        scale=3,
        tile=8,
        overlap=overlap,
        multiple_of=multiple,
    )
    places = []
    for rows, columns, part in parts:
        target = sr[..., 3 * rows.start : 3 * rows.stop, 3 * columns.start : 3 * columns.stop]
        assert target.isnan().all()
        target.copy_(part)
        places.append((rows.start, columns.start))
    assert torch.equal(sr, nearest(lr, 3))
    assert places == sorted(places)
    assert len(places) == count_parts(size, 8, multiple)


def test_sides_are_padded_by_reflection_and_by_the_border_where_too_little_is_left():
    seen: list[Tensor] = []

    def run(part: Tensor) -> Tensor:
        seen.append(part)
        return part

    for size in ((5, 6), (1, 4)):
        lr = torch.rand(1, 1, *size)
        list(
            upscale_parts(
                run, lambda rows, columns, lr=lr: lr[..., rows, columns], size,
                scale=1, tile=8, overlap=0, multiple_of=4,
            )
        )  # fmt: skip
        mode = "reflect" if size[0] > 1 else "replicate"
        around = (0, -size[1] % 4, 0, -size[0] % 4)
        assert torch.equal(seen.pop(), F.pad(lr, around, mode=mode))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_network_that_gives_no_numbers_is_an_error_and_no_black_picture(value: float):
    net = Nearest()
    net.gain.data.fill_(value)
    with pytest.raises(FloatingPointError, match=r"not a number .*compute in fp32"):
        upscale(net, torch.rand(3, 8, 8))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arch", ["srcnn", "fsrcnn", "espcn", "compact", "vdsr"])
def test_one_damaged_weight_of_a_prepared_network_is_an_error(arch: str, precision: Precision):
    net = build(arch, 2)
    *_, bias = net.parameters()
    bias.data[-1] = torch.nan
    with pytest.raises(FloatingPointError, match=r"not a number .*compute in fp32"):
        upscale(net, torch.rand(3, 9, 14), precision=precision)


@pytest.mark.parametrize("arch", ["espcn", "compact", "edsr"])
@pytest.mark.parametrize("tile", [None, 8])
def test_the_result_is_whole_in_memory_and_not_the_picture_s(arch: str, tile: int | None):
    lr = torch.rand(3, 9, 14)
    kept = lr.clone()
    sr = upscale(build(arch, 2), lr, tile=tile)
    assert sr.unsqueeze(0).is_contiguous() or sr.unsqueeze(0).is_contiguous(
        memory_format=torch.channels_last
    )
    assert sr.untyped_storage().nbytes() == 4 * sr.numel()
    assert torch.equal(lr, kept)


def test_tiles_are_halved_until_they_fit():
    lr = torch.rand(3, 130, 100)
    net = Nearest(memory=40 * 40)
    assert torch.equal(upscale(net, lr), nearest(lr))
    assert upscale(net, lr, tile=128).shape == (3, 260, 200)
    assert max(h * w for h, w in net.seen[-3:]) <= 40 * 40


def test_when_no_tile_fits_the_error_names_the_cure():
    with pytest.raises(MemoryError, match=r"tile of .* pixels of 2 picture.*fewer pictures"):
        upscale(Nearest(memory=4), torch.rand(2, 3, 130, 100))


def test_progress_counts_every_tile():
    calls: list[tuple[int, int]] = []
    upscale(Nearest(), torch.rand(3, 10, 7), tile=5, progress=lambda *c: calls.append(c))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_training_modes_are_restored_even_after_an_error():
    net = build("srresnet", 2, features=4, blocks=1).train()
    net.body.eval()  # frozen statistics in a network that trains
    before = [module.training for module in net.modules()]
    statistics = net.body[-1].running_mean.clone()
    upscale(net, torch.rand(3, 8, 8))
    with pytest.raises(RuntimeError, match="stop"):
        upscale(net, torch.rand(3, 8, 8), progress=_stop)
    assert [module.training for module in net.modules()] == before
    assert torch.equal(net.body[-1].running_mean, statistics)


def _stop(done: int, total: int) -> None:
    raise RuntimeError(f"stop at {done} of {total}")


def test_training_goes_on_after_inference():
    net = build("compact", 2, features=4, convs=1)
    upscale(net, torch.rand(3, 8, 8))
    net(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("arch", "args"), [("msrresnet", {"blocks": 2}), ("srresnet", {"blocks": 1})]
)
def test_bfloat16_stays_close_to_float32(arch: str, args: dict[str, int]):
    net, lr = build(arch, 2, features=8, **args), torch.rand(3, 16, 16)
    full, half = upscale(net, lr), upscale(net, lr, precision="bf16")
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.02


@pytest.mark.parametrize("frames", [3])
def test_networks_of_several_frames_take_clips(frames: int):
    class Centre(Nearest):
        def forward(self, lr: Tensor) -> Tensor:
            return super().forward(lr[:, frames // 2])

    net = Centre(multiple_of=4)
    net.frames = frames
    clip = torch.rand(2, frames, 3, 9, 6)
    assert torch.equal(upscale(net, clip, tile=4), nearest(clip[:, 1]))
    assert torch.equal(upscale(net, clip[0], tile=4), nearest(clip[0, 1]))
    with pytest.raises(ValueError, match=r"\(3, C, H, W\) or \(B, 3, C, H, W\)"):
        upscale(net, clip[:, :2])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(8, 8), r"\(8, 8\)"),
        (torch.zeros(1, 8, 8), "C = 3"),
        (torch.zeros(3, 0, 8), "shape"),
        (torch.zeros(0, 3, 8, 8), "shape"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "divide 8-bit by 255"),
        (torch.full((3, 8, 8), 200.0), "got 200 to 200"),
        (torch.full((3, 8, 8), -0.5), "got -0.5"),
        (torch.full((3, 8, 8), torch.nan), "got nan"),
    ],
)
def test_unfit_pictures_are_refused(image: Tensor, said: str):
    with pytest.raises(ValueError, match=said):
        upscale(Nearest(), image)


def test_unfit_settings_are_refused():
    with pytest.raises(ValueError, match="tile must be at least 1"):
        upscale(Nearest(), torch.zeros(3, 8, 8), tile=0)
    with pytest.raises(ValueError, match="unknown precision 'fp16'; choose from: fp32, bf16, int8"):
        upscale(Nearest(), torch.zeros(3, 8, 8), precision="fp16")

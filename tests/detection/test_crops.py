import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detection import Detections, Detector, Upscale
from detection.crops import detect_full, detect_windows, see_windows
from detection.windows import Window, WindowPlan, grid_windows

SQUARES = [[40, 32, 48, 40], [100, 60, 112, 72], [8, 84, 16, 92], [64, 8, 72, 12]]


def nearest(scale: int) -> Upscale:
    return lambda lr: F.interpolate(lr, scale_factor=float(scale), mode="nearest")


def bicubic(scale: int) -> Upscale:
    return lambda lr: F.interpolate(lr, scale_factor=float(scale), mode="bicubic")


def drawn(boxes: list[list[int]], width: int = 160, height: int = 120) -> Tensor:
    """White rectangles on black."""
    picture = torch.zeros(3, height, width)
    for x1, y1, x2, y2 in boxes:
        picture[:, y1:y2, x1:x2] = 1
    return picture


def bright_boxes(pictures: list[Tensor]) -> list[Detections]:
    """A detector of white rectangles: the box around each bright connected region, to the pixel."""
    return [_regions(picture.mean(0) > 0.5) for picture in pictures]


def _regions(mask: Tensor) -> Detections:
    # The greatest index that reaches a pixel through bright neighbours names its region.
    index = torch.arange(1.0, mask.numel() + 1).reshape(mask.shape) * mask
    while True:
        spread = F.max_pool2d(index[None, None], 3, 1, 1)[0, 0] * mask
        if torch.equal(spread, index):
            break
        index = spread
    boxes = []
    for name in index[mask].unique():
        rows, columns = torch.nonzero(index == name, as_tuple=True)
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        boxes.append([float(end) for end in ends])
    tensor = torch.tensor(boxes).reshape(-1, 4)
    return Detections(tensor, torch.ones(len(boxes)), torch.ones(len(boxes), dtype=torch.int64))


def centroid(pictures: list[Tensor]) -> list[Detections]:
    """A detector of one bright blob: a box of 2 x 2 around its centre of mass."""
    found = []
    for picture in pictures:
        mass = picture.mean(0)
        rows, columns = (torch.arange(side) + 0.5 for side in mass.shape)
        x = float((mass.sum(0) * columns).sum() / mass.sum())
        y = float((mass.sum(1) * rows).sum() / mass.sum())
        box = torch.tensor([[x - 1, y - 1, x + 1, y + 1]])
        found.append(Detections(box, torch.ones(1), torch.ones(1, dtype=torch.int64)))
    return found


def sorted_rows(found: Detections) -> list[list[float]]:
    return sorted(found.boxes.tolist())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_cropping_enlarging_and_mapping_back_returns_the_same_boxes(
    scale: int, reduction: int
) -> None:
    full = drawn(SQUARES)
    given = full[:, ::reduction, ::reduction]  # every edge lies on a multiple of 4
    plan = WindowPlan({5: tuple(grid_windows(160, 120, size=64, overlap=0.5, multiple=reduction))})
    found = detect_windows(
        [(5, given)], plan, nearest(scale), bright_boxes, scale=scale, reduction=reduction
    )[5]
    unique = {tuple(round(value, 4) for value in box) for box in found.boxes.tolist()}
    assert unique == {tuple(map(float, box)) for box in SQUARES}


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_enlargement_keeps_the_centre_of_a_square_without_a_half_pixel_shift(scale: int) -> None:
    picture = drawn([[21, 33, 30, 42]], 96, 96)
    plan = WindowPlan({1: (Window(8, 16, 48, 48),)})
    found = detect_windows([(1, picture)], plan, bicubic(scale), centroid, scale=scale)[1]
    torch.testing.assert_close(
        found.boxes.mean(0)[:2] + found.boxes.mean(0)[2:],
        torch.tensor([51.0, 75.0]),
        atol=2e-2,
        rtol=0,
    )


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("window", [Window(8, 16, 48, 48), Window(21, 5, 60, 64)])
def test_the_centre_of_a_blob_comes_back_to_a_hundredth_of_a_pixel(
    mode: str, window: Window
) -> None:
    for shift, passes in ((0.0, True), (0.375, False)):  # the second is what must not happen
        x, y = _blob_found_at((40.3, 38.8), window, mode, shift)
        assert (abs(x - 40.3) < 0.01 and abs(y - 38.8) < 0.01) == passes


def _blob_found_at(
    centre: tuple[float, float], window: Window, mode: str, shift: float
) -> tuple[float, float]:
    """Where a smooth blob is found through windows enlarged four times, off by ``shift``."""
    grid = torch.arange(96.0) + 0.5
    across, down = (torch.exp(-((grid - c) ** 2) / (2 * 2.5**2)) for c in centre)
    picture = torch.outer(down, across).expand(3, -1, -1)

    def enlarge(lr: Tensor) -> Tensor:
        # 0.375 of a small pixel is one and a half of the large ones
        twice = F.interpolate(lr, scale_factor=8.0, mode=mode).roll(round(8 * shift), 3)
        return F.avg_pool2d(twice, 2)

    found = detect_windows([(1, picture)], WindowPlan({1: (window,)}), enlarge, centroid, scale=4)[
        1
    ]
    x1, y1, x2, y2 = found.boxes[0].tolist()
    return (x1 + x2) / 2, (y1 + y2) / 2


def test_boxes_come_back_as_fractions_of_a_pixel() -> None:
    def between(pictures: list[Tensor]) -> list[Detections]:
        box = torch.tensor([[10.1, 20.2, 31.3, 42.7]])
        return [Detections(box, torch.ones(1), torch.ones(1).long()) for _ in pictures]

    plan = WindowPlan({1: (Window(8, 16, 48, 48),)})
    found = detect_windows([(1, drawn([], 96, 96))], plan, nearest(3), between, scale=3)[1]
    expected = torch.tensor([[8 + 10.1 / 3, 16 + 20.2 / 3, 8 + 31.3 / 3, 16 + 42.7 / 3]])
    torch.testing.assert_close(found.boxes, expected)


def test_boxes_are_copied_to_the_host_once_and_after_the_last_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    moving = Detections.to

    def noted(self: Detections, device: torch.device | str) -> Detections:
        events.append("copy")
        return moving(self, device)

    def detector(pictures: list[Tensor]) -> list[Detections]:
        events.append("detect")
        return bright_boxes(pictures)

    monkeypatch.setattr(Detections, "to", noted)
    pictures = [(i, drawn(SQUARES)) for i in range(5)]
    plan = WindowPlan({i: (Window(0, 0, 64, 120),) for i in range(5)})
    detect_windows(pictures, plan, nearest(1), detector, scale=1, batch_size=2)
    assert events == ["detect"] * 3 + ["copy"]
    events.clear()
    detect_full(pictures, detector, batch_size=2)
    assert events == ["detect"] * 3 + ["copy"]


def test_every_detection_knows_its_window_whatever_the_batches() -> None:
    pictures = [(i, drawn([[10, 10, 20, 20], [100, 60, 112, 72]])) for i in (3, 1)]
    windows = (Window(64, 0, 96, 120), Window(0, 0, 64, 64), Window(32, 0, 96, 120))
    plan = WindowPlan({1: windows, 3: windows[:2]})
    for batch_size in (1, 2, 9):
        seen = see_windows(pictures, plan, nearest(2), bright_boxes, scale=2, batch_size=batch_size)
        assert list(seen) == [3, 1]
        assert seen[1].window.tolist() == [0, 1, 2]
        assert seen[3].window.tolist() == [0, 1]
        assert seen[1].found.boxes[1].tolist() == [10.0, 10, 20, 20]
        assert (seen[1].width, seen[1].height, seen[1].windows) == (160, 120, windows)


def test_a_detector_that_skips_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="answered for 1 of 2 pictures"):
        detect_full([(1, drawn([])), (2, drawn([]))], lambda found: bright_boxes(found)[:1])


def test_an_enlargement_that_aligns_corners_is_caught_by_the_centre() -> None:
    def aligned(lr: Tensor) -> Tensor:
        return F.interpolate(lr, scale_factor=4.0, mode="bicubic", align_corners=True)

    picture = drawn([[21, 33, 30, 42]], 96, 96)
    plan = WindowPlan({1: (Window(8, 16, 48, 48),)})
    x1, _, x2, _ = detect_windows([(1, picture)], plan, aligned, centroid, scale=4)[1].boxes[0]
    assert abs(float(x1 + x2) / 2 - 25.5) > 0.05


def test_a_box_cut_by_an_inner_side_is_dropped_and_by_the_picture_is_kept() -> None:
    picture = drawn([[0, 50, 6, 56], [62, 20, 70, 28], [20, 10, 28, 18]])
    plan = WindowPlan({1: (Window(0, 0, 64, 120),)})
    found = detect_windows([(1, picture)], plan, nearest(2), bright_boxes, scale=2)[1]
    assert sorted_rows(found) == [[0.0, 50.0, 6.0, 56.0], [20.0, 10.0, 28.0, 18.0]]


def test_the_border_is_measured_in_original_pixels() -> None:
    picture = drawn([[52, 20, 60, 28]])  # ends 4 original pixels before the window does
    plan = WindowPlan({1: (Window(0, 0, 64, 120),)})

    def count(border: float, reduction: int) -> int:
        given = picture[:, ::reduction, ::reduction]
        run = detect_windows(
            [(1, given)],
            plan,
            nearest(4),
            bright_boxes,
            scale=4,
            reduction=reduction,
            border=border,
        )
        return len(run[1])

    assert [count(3.9, 1), count(4.1, 1), count(3.9, 4), count(4.1, 4)] == [1, 0, 1, 0]


def test_batches_across_pictures_equal_single_windows() -> None:
    pictures = [(i, drawn([[8 * i, 8, 8 * i + 8, 16], [60, 40, 72, 48]])) for i in range(1, 6)]
    windows = (Window(0, 0, 160, 120), *grid_windows(160, 120, size=64))  # two shapes
    plan = WindowPlan({i: windows for i, _ in pictures})

    def width_as_score(batch: list[Tensor]) -> list[Detections]:
        return [
            Detections(d.boxes, d.scores * picture.shape[2] / 1000, d.labels)
            for d, picture in zip(bright_boxes(batch), batch, strict=True)
        ]

    def run(batch_size: int) -> dict[int, list[list[float]]]:
        found = detect_windows(
            pictures, plan, nearest(2), width_as_score, scale=2, batch_size=batch_size
        )
        return {i: torch.cat([d.boxes, d.scores[:, None]], 1).tolist() for i, d in found.items()}

    single = run(1)
    assert run(7) == single  # also the order inside a picture
    assert run(1000) == single
    assert all(len(boxes) > 2 for boxes in single.values())


def test_windows_of_many_pictures_share_a_batch() -> None:
    sizes: list[int] = []

    def counting(lr: Tensor) -> Tensor:
        sizes.append(len(lr))
        return lr

    pictures = [(i, drawn([])) for i in range(10)]
    plan = WindowPlan({i: (Window(0, 0, 32, 32),) for i in range(10)})
    detect_windows(pictures, plan, counting, bright_boxes, scale=1, batch_size=4)
    assert sizes == [4, 4, 2]


def test_the_oracle_of_high_resolution_sees_the_original_pixels() -> None:
    picture = torch.rand(3, 120, 160, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def record(pictures: list[Tensor]) -> list[Detections]:
        seen.extend(pictures)
        return [Detections.empty() for _ in pictures]

    plan = WindowPlan({1: (Window(16, 8, 64, 64),)})
    detect_windows([(1, picture)], plan, lambda lr: lr, record, scale=1)
    assert torch.equal(seen[0], picture[:, 8:72, 16:80])


def test_every_picture_has_an_entry_and_progress_counts_every_window() -> None:
    done: list[int] = []
    plan = WindowPlan({1: (Window(0, 0, 32, 32), Window(32, 0, 64, 64)), 2: ()})
    found = detect_windows(
        [(1, drawn([])), (2, drawn([])), (3, drawn([]))],
        plan,
        nearest(1),
        bright_boxes,
        scale=1,
        progress=done.append,
    )
    assert {image: len(detections) for image, detections in found.items()} == {1: 0, 2: 0, 3: 0}
    assert sum(done) == 2


def test_detectors_see_values_between_zero_and_one() -> None:
    extremes: list[float] = []

    def record(pictures: list[Tensor]) -> list[Detections]:
        extremes.extend([float(pictures[0].min()), float(pictures[0].max())])
        return bright_boxes(pictures)

    plan = WindowPlan({1: (Window(0, 0, 64, 64),)})
    # bicubic overshoots at the edges of the square
    detect_windows([(1, drawn([[20, 20, 40, 40]]))], plan, bicubic(4), record, scale=4)
    assert extremes == [0.0, 1.0]


def test_an_upscaler_of_another_scale_is_refused() -> None:
    plan = WindowPlan({1: (Window(0, 0, 32, 32),)})
    with pytest.raises(ValueError, match="scale 4 asks for"):
        detect_windows([(1, drawn([]))], plan, nearest(2), bright_boxes, scale=4)


@pytest.mark.parametrize(
    ("window", "reduction", "message"),
    [
        (Window(2, 0, 32, 32), 4, "not a multiple of the reduction factor 4"),
        (Window(140, 0, 32, 32), 1, "leaves the picture of 160x120"),
        (Window(0, 100, 32, 32), 4, "leaves the picture of 160x120"),
    ],
)
def test_windows_of_another_picture_are_refused(
    window: Window, reduction: int, message: str
) -> None:
    given = drawn([])[:, ::reduction, ::reduction]
    with pytest.raises(ValueError, match=message):
        detect_windows(
            [(1, given)],
            WindowPlan({1: (window,)}),
            nearest(1),
            bright_boxes,
            scale=1,
            reduction=reduction,
        )


@pytest.mark.parametrize("reduction", [1, 4])
def test_whole_pictures_answer_in_original_pixels(reduction: int) -> None:
    pictures = [(i, drawn(SQUARES)[:, ::reduction, ::reduction]) for i in range(3)]
    detector: Detector = bright_boxes
    found = detect_full(pictures, detector, reduction=reduction, batch_size=2)
    assert list(found) == [0, 1, 2]
    assert sorted_rows(found[2]) == sorted([float(v) for v in box] for box in SQUARES)

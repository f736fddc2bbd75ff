import pytest
import torch

from pipeline.reporting.curve import GAP, TEXT, TILE, Axis, Panel, Point, draw_curve, draw_strip

PSNR = Axis("PSNR", lower_is_better=False)
LPIPS = Axis("LPIPS", lower_is_better=True)
POINTS = [Point(0, 30, 0.4), Point(0.5, 29, 0.3), Point(1, 27, 0.25)]


def test_every_point_bears_its_share_and_every_axis_its_good_end():
    panels = [Panel("Set5", {"networks mixed": POINTS}), Panel("Set14", {"networks mixed": POINTS})]
    figure = draw_curve(panels, distortion=PSNR, perception=LPIPS)
    assert [axes.get_title() for axes in figure.axes] == ["Set5", "Set14"]
    axes = figure.axes[0]
    assert axes.get_xlabel() == "PSNR (more is better)"
    assert axes.get_ylabel() == "LPIPS (less is better)"
    assert [text.get_text() for text in axes.texts] == ["0", "0.5", "1"]
    assert axes.get_lines()[0].get_xydata().tolist() == [[30, 0.4], [29, 0.3], [27, 0.25]]
    assert axes.get_legend() is None


def test_two_curves_are_told_apart_by_a_legend():
    panel = Panel("Set5", {"networks mixed": POINTS, "pictures mixed": POINTS[:2]})
    axes = draw_curve([panel], distortion=PSNR, perception=LPIPS).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(panel.lines)
    assert len({line.get_color() for line in axes.get_lines()}) == 2


@pytest.mark.parametrize(("count", "size"), [(2, (2, 1)), (7, (7, 1)), (9, (5, 2)), (15, (5, 3))])
def test_details_lie_in_rows_at_whole_factors(count, size):
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    details = [("LR", red.expand(3, 24, 24)), *[("x", torch.zeros(3, 96, 96))] * (count - 1)]
    sheet = draw_strip(details)
    assert sheet.size == (
        size[0] * (TILE + GAP) + GAP,
        size[1] * (TILE + GAP + TEXT + 4) + GAP,
    )
    top = GAP + TEXT + 4
    assert sheet.getpixel((GAP, top)) == sheet.getpixel((GAP + TILE - 1, top + TILE - 1))
    assert sheet.getpixel((GAP, top)) == (255, 0, 0)
    assert sheet.getpixel((GAP + TILE + GAP, top)) == (0, 0, 0)

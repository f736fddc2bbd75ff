"""The page of a study: complete, self-contained, honest about gaps, and never half-written."""

import base64
import dataclasses
import io
import itertools
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageColor
from rich.console import Console

import pipeline.files
from pipeline.report import (
    ArmView,
    BinView,
    CurveView,
    ErrorView,
    GainView,
    GalleryRow,
    StudyView,
    TableView,
    Tile,
    TrustView,
    plots,
    print_table,
    write_report,
)
from pipeline.reporting.figures import arm_styles
from pipeline.reporting.tiles import FOUND, TRUTH, data_uri, draw_tile, row_width
from pipeline.reporting.view import milliseconds, percent, points

NAN = math.nan


def _arm(name: str, label: str, ap: float) -> ArmView:
    metrics = {"AP": ap, "AP50": ap + 0.2, "AP_small": ap - 0.05, "AP_large": NAN}
    return ArmView(name, label, metrics, seconds_per_picture=ap, megapixels_per_picture=0.82)


@pytest.fixture
def study() -> StudyView:
    square = torch.tensor([[2.0, 3, 8, 9]])
    dark = torch.full((3, 12, 16), 40, dtype=torch.uint8)
    return StudyView(
        title="Harbour & roads",
        verdict="SRGAN helps: AP_small +3.4 points (95 % interval +1.7 to +5.1).",
        protocol="120 pictures, 1469 objects.",
        reference="bicubic",
        arms=[_arm("bicubic", "Bicubic x4", 0.231), _arm("srgan", "SRGAN x4", 0.257)],
        gains=[
            GainView("srgan", "AP", -0.004, -0.016, 0.008, "inconclusive"),
            GainView("srgan", "AP_small", 0.034, 0.017, 0.051, "helps"),
        ],
        curve=[
            BinView("srgan", 8, 16, 812, 0.2, 0.05, 0.03, 0.07),
            BinView("srgan", 16, math.inf, 97, 0.4, -0.01, -0.04, 0.02),
        ],
        coverage={"small objects inside a window": "98.4 %"},
        costs={"whole study": "6 min 12 s"},
        gallery=[
            GalleryRow("picture 7", [Tile("LR", dark, square), Tile("HR", dark, square, square)])
        ],
        training=[CurveView("PSNR", "dB", {"srgan": [(0, 24.0), (100, 26.5)]})],
        settings={"seed": "17"},
        notes=["Scenes are <drawn>."],
    )


def _read(study: StudyView, tmp_path) -> str:
    return write_report(study, tmp_path / "report.html").read_text(encoding="utf-8")


def _pixels(picture: Image.Image, colour: str) -> np.ndarray:
    return (np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=2)


class _Tags(HTMLParser):
    """Every start tag, and whether each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_every_arm_number_section_and_note(study, tmp_path):
    page = _read(study, tmp_path)
    for text in (
        *("Harbour &amp; roads", study.verdict, "120 pictures", "Bicubic x4", "SRGAN x4"),
        *("23.1", "43.1", "18.1", "25.7", "45.7", "20.7"),
        *("−0.4", "−1.6 to +0.8", "+3.4", "+1.7 to +5.1", "inconclusive", "helps"),
        *("231", "257", "0.82", "812", "97 (and larger)", "98.4 %", "6 min 12 s"),
        *("picture 7", "PSNR (dB)", "seed", "17", "Scenes are &lt;drawn&gt;.", "How to read this"),
    ):
        assert text in page, text


def test_the_page_asks_for_nothing_outside_itself(study, tmp_path):
    page = _read(study, tmp_path)
    assert "http://" not in page
    assert "https://" not in page
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    names = {tag for tag, _ in tags.found}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for _, attributes in tags.found:
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(key, "#").startswith(("#", "data:image/png;base64,")), attributes
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page


def test_inlined_figures_share_no_identifier(study, tmp_path):
    page = _read(study, tmp_path)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert used
    assert {first or second for first, second in used} <= set(ids)


def test_figure_text_takes_the_colour_of_the_page(study, tmp_path):
    page = _read(study, tmp_path)
    assert "currentColor" in page
    assert "prefers-color-scheme: dark" in page


def test_a_metric_that_was_not_measured_is_a_dash(study, tmp_path):
    arms = [
        dataclasses.replace(
            a, metrics={"AP": NAN}, seconds_per_picture=NAN, megapixels_per_picture=NAN
        )
        for a in study.arms
    ]
    gains = [GainView("srgan", "AP", NAN, NAN, NAN, "inconclusive")]
    bins = [BinView("srgan", 8, 16, 0, NAN, NAN, NAN, NAN)]
    empty = dataclasses.replace(study, arms=arms, gains=gains, curve=bins)
    page = _read(empty, tmp_path)
    assert page.count("<td>–</td>") >= 6
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).replace("nance", "")
    assert set(plots(empty)) == {"training_psnr"}


def test_a_study_without_pictures_curves_or_gains_still_has_a_page(study, tmp_path):
    bare = StudyView("Bare", "Nothing was compared.", "-", "bicubic", study.arms[:1], gains=[])
    page = _read(bare, tmp_path)
    assert "Nothing was compared." in page
    for absent in ("Gallery", "Training", "Coverage", "Settings", "Notes"):
        assert f"<h2>{absent}</h2>" not in page
    no_tiles = dataclasses.replace(study, gallery=[GalleryRow("nothing to see", [])])
    assert "nothing to see" in _read(no_tiles, tmp_path)


def test_what_a_user_typed_cannot_become_markup(study, tmp_path):
    arms = [study.arms[0], dataclasses.replace(study.arms[1], label="<b>x</b> & $bad{$")]
    page = _read(dataclasses.replace(study, arms=arms, verdict="<script>1</script>"), tmp_path)
    assert "<script" not in page
    assert "<b>x</b>" not in page


def test_an_interrupted_write_leaves_the_old_page(study, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def crash(_: int) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr(pipeline.files.os, "fsync", crash)
    with pytest.raises(OSError, match="went away"):
        write_report(study, path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_boxes_are_drawn_on_the_outermost_pixels_of_the_object():
    picture = torch.zeros(3, 10, 20, dtype=torch.uint8)
    truth, found = torch.tensor([[2.0, 3, 8, 9]]), torch.tensor([[10.0, 1, 19, 6]])
    drawn = draw_tile(Tile("", picture, truth, found), width=100)
    rows, columns = np.nonzero(_pixels(drawn, TRUTH))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 15, 39, 44)
    assert set(rows) | set(columns) == set(range(10, 45))  # a whole outline ...
    assert not _pixels(drawn, TRUTH)[16:44, 11:39].any()  # ... and nothing inside
    rows, columns = np.nonzero(_pixels(drawn, FOUND))
    assert (columns.min(), rows.min(), columns.max()) == (50, 5, 94)
    assert rows.max() == 29
    assert 60 < len(rows) < 120  # dashed: about half of the 138 pixels of the outline


def test_where_truth_and_found_agree_both_colours_show():
    box = torch.tensor([[1.0, 1, 9, 9]])
    drawn = draw_tile(Tile("", torch.zeros(3, 10, 10, dtype=torch.uint8), box, box), width=100)
    assert _pixels(drawn, TRUTH).sum() > 100
    assert _pixels(drawn, FOUND).sum() > 100


def test_enlarging_repeats_pixels_and_invents_none():
    picture = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    drawn = np.asarray(draw_tile(Tile("", picture), width=40))
    expected = picture.permute(1, 2, 0).numpy().repeat(5, axis=0).repeat(5, axis=1)
    assert np.array_equal(drawn, expected)


def test_low_and_high_resolution_of_a_row_are_shown_equally_wide():
    low, high = (Tile("", torch.zeros(3, s, s, dtype=torch.uint8)) for s in (24, 96))
    width = row_width(GalleryRow("", [low, high]))
    assert width % 96 == 0
    assert draw_tile(low, width=width).size == draw_tile(high, width=width).size


def test_names_of_found_objects_are_written_and_must_match_the_boxes():
    picture, box = torch.zeros(3, 40, 40, dtype=torch.uint8), torch.tensor([[10.0, 20, 30, 35]])
    plain = draw_tile(Tile("", picture, found=box), width=200)
    named = draw_tile(Tile("", picture, found=box, found_labels=("boat 0.8",)), width=200)
    changed = (np.asarray(named) != np.asarray(plain)).any(axis=2)
    assert changed[85:100, 50:150].sum() > 50  # above the box, which begins at row 100
    assert not changed[102:].any()
    with pytest.raises(ValueError, match="zip"):
        draw_tile(Tile("", picture, found=box, found_labels=("a", "b")), width=200)


def test_an_inlined_picture_decodes_to_the_same_pixels():
    picture = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    png = base64.b64decode(data_uri(picture).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(picture))


def test_figures_are_named_for_the_tracker_and_save_as_png(study):
    figures = plots(study)
    assert list(figures) == ["gains", "gain_by_size", "cost", "training_psnr"]
    for figure in figures.values():
        png = io.BytesIO()
        figure.savefig(png, format="png")
        assert png.getvalue().startswith(b"\x89PNG")


def test_the_gain_figure_shows_the_interval_that_was_given(study):
    axes = plots(study)["gains"].axes
    assert [a.get_xlabel().split(" over")[0] for a in axes] == ["gain in AP", "gain in AP_small"]
    ends = [line.get_xdata() for line in axes[1].lines if len(line.get_xdata()) == 2]
    assert any(np.allclose(end, [1.7, 5.1]) for end in ends)
    assert any(np.allclose(end, [0, 0]) for end in ends)  # the line of no gain


def test_every_arm_keeps_its_own_colour_and_marker(study):
    arms = [_arm(f"arm{n}", f"Arm {n}", 0.2) for n in range(12)]
    styles = arm_styles(dataclasses.replace(study, arms=[study.arms[0], *arms], gains=[], curve=[]))
    assert len(set(styles.values())) == 13


def test_eight_arms_beside_the_reference_have_eight_colours(study):
    arms = [_arm(f"{n}", f"{n}", 0.3) for n in range(8)]
    styles = arm_styles(dataclasses.replace(study, arms=[study.arms[0], *arms], gains=[], curve=[]))
    assert len({colour for colour, _ in styles.values()}) == 9


def test_labels_of_arms_that_cost_and_score_alike_hide_neither_each_other_nor_a_marker(study):
    near = [
        dataclasses.replace(study.arms[0], name=f"an arm {n}", label=f"an arm {n}",
                metrics={"AP": 0.1 + 0.0005 * n}, seconds_per_picture=0.5 + 0.01 * n)
        for n in range(5)
    ]  # fmt: skip
    figure = plots(dataclasses.replace(study, arms=[*study.arms, *near]))["cost"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith("an arm")]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    assert len(boxes) == 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_rare_size_with_a_wide_interval_does_not_flatten_the_others(study):
    even = plots(study)["gain_by_size"].axes[0]
    assert even.get_yscale() == "linear"
    wild = dataclasses.replace(
        study.curve[0], low_px=96, high_px=math.inf, gain_low=-0.6, gain_high=0.3
    )
    bent = plots(dataclasses.replace(study, curve=[*study.curve, wild]))["gain_by_size"].axes[0]
    assert bent.get_yscale() == "symlog"
    low, high, middle = bent.transData.transform([(8, -60), (8, 5), (8, 0)])[:, 1]
    assert (high - middle) > (middle - low) / 4


def test_a_verdict_of_many_arms_is_set_smaller(study, tmp_path):
    assert '<p class="verdict">' in _read(study, tmp_path)
    many = dataclasses.replace(study, verdict="Of many arms. " * 30)
    assert '<p class="verdict long">' in _read(many, tmp_path)


def test_the_terminal_table_holds_the_numbers_and_the_verdict(study):
    console = Console(file=io.StringIO(), width=200)
    print_table(study, console)
    printed = console.file.getvalue()
    for text in ("SRGAN x4", "25.7", "○ −0.4 (−1.6 to +0.8)", "reference", study.verdict):
        assert text in printed, text


def test_gains_of_an_unknown_arm_or_reference_are_refused(study):
    with pytest.raises(ValueError, match=r"reference 'nearest'.*bicubic"):
        dataclasses.replace(study, reference="nearest")
    stray = GainView("edsr", "AP", 0.1, 0.0, 0.2, "helps")
    with pytest.raises(ValueError, match="edsr"):
        dataclasses.replace(study, gains=[stray])


def test_numbers_are_printed_as_a_reader_expects():
    assert [percent(v) for v in (0.3142, NAN, 0.0)] == ["31.4", "–", "0.0"]
    assert [points(v) for v in (0.012, -0.0031, -0.0001, NAN)] == ["+1.2", "−0.3", "0.0", "–"]
    assert [milliseconds(v) for v in (0.0123, 2.4, NAN)] == ["12.3", "2,400", "–"]


def test_an_interval_that_leaves_its_estimate_out_is_still_drawn(study, tmp_path):
    few = [BinView("srgan", 8, 16, objects=1, ap=0.1, gain=0.3, gain_low=-0.2, gain_high=0.1)]
    page = write_report(dataclasses.replace(study, curve=few), tmp_path / "report.html").read_text()
    assert "Gain against object size" in page


def test_warnings_stand_on_the_page_and_in_the_terminal(study, tmp_path):
    warned = dataclasses.replace(study, warnings=["srgan moves things by +0.38 pixels"])
    assert "<b>Warning.</b> srgan moves things by +0.38 pixels" in _read(warned, tmp_path)
    console = Console(file=io.StringIO(), width=200)
    print_table(warned, console)
    assert "warning: srgan moves things by +0.38 pixels" in console.file.getvalue()


def test_small_tables_and_the_figure_of_errors_are_shown(study, tmp_path):
    table = TableView(
        "Kinds of error", "In points.", ("arm", "miss"), (("srgan", "−1.5 (-7)"),), "errors"
    )
    errors = [ErrorView("srgan", "miss", -0.015), ErrorView("srgan", "dupe", 0.002)]
    full = dataclasses.replace(study, tables=[table], errors=errors)
    page = _read(full, tmp_path)
    for text in ("<h2>Kinds of error</h2>", "In points.", "−1.5 (-7)", "change of AP50"):
        assert text in page, text
    heights = [bar.get_height() for bar in plots(full)["errors"].axes[0].patches]
    assert heights == pytest.approx([-1.5, 0.2])


def test_scores_before_and_after_calibration_are_drawn_for_every_source(study):
    lines = [
        TrustView("srgan", source, calibrated, ((0.2, 0.1), (0.8, 0.5)))
        for source in ("windows", "whole picture")
        for calibrated in (False, True)
    ]
    panels = plots(dataclasses.replace(study, trust=lines))["trust"].axes
    assert [panel.get_title() for panel in panels] == ["windows", "whole picture"]
    assert [len(panel.lines) for panel in panels] == [3, 3]  # the diagonal, raw, calibrated


def test_an_upper_bound_has_no_headline(study, tmp_path):
    bound = dataclasses.replace(study, upper_bound=True)
    assert 'class="cards"' in _read(study, tmp_path)
    assert 'class="cards"' not in _read(bound, tmp_path)


def test_precision_is_drawn_over_recall_and_the_fastest_best_arms_are_joined(study):
    curves = {"bicubic": tuple([0.9] * 50 + [0.0] * 51), "srgan": tuple([1.0] * 101)}
    figures = plots(dataclasses.replace(study, precision=curves))
    lines = figures["precision"].axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["Bicubic x4", "SRGAN x4"]
    assert lines[0].get_xydata()[49].tolist() == pytest.approx([49, 90])
    nothing = dataclasses.replace(study, precision={"bicubic": (NAN,) * 101})
    assert "precision" not in plots(nothing)
    # the slower arm is the better one, so both stand on the frontier
    frontier = figures["cost"].axes[0].get_lines()[0].get_xydata()
    assert {tuple(point) for point in frontier} == {(231.0, 23.1), (257.0, 25.7)}


def test_an_arm_that_is_not_to_be_had_beats_no_other(study):
    first, second = study.arms
    faster = dataclasses.replace(
        second, name="original", label="Original", seconds_per_picture=0.1, ceiling=True
    )
    figures = plots(dataclasses.replace(study, arms=[first, second, faster]))
    frontier = figures["cost"].axes[0].get_lines()[0].get_xydata()
    assert {tuple(point) for point in frontier} == {(231.0, 23.1), (257.0, 25.7)}

"""The best of each column is bold, and a table is never cut."""

import math

import pytest

from pipeline.columns import columns
from pipeline.score_table import captions, markdown, print_tables
from pipeline.scoring import Evaluated, ModelScores, PictureScores, average

COLUMNS = columns(["psnr", "ssim", "rmse"], "matlab-y", 4)


def row(name: str, *values: tuple[float, float, float], sets: int = 1) -> ModelScores:
    keys = [column.key for column in COLUMNS]
    pictures = [
        PictureScores(f"picture {number}", dict(zip(keys, value, strict=True)), 0.5 * number)
        for number, value in enumerate(values, 1)
    ]
    names = [f"set number {number}" for number in range(1, sets + 1)]
    return ModelScores(name, 1234567, [average(each, pictures, COLUMNS) for each in names])


def table(*rows: ModelScores) -> Evaluated:
    return Evaluated(4, {column.key: column.protocol for column in COLUMNS}, ["a remark"], [*rows])


def lines(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_highest_or_lowest_value_is_bold_with_all_that_print_alike():
    text = markdown(
        table(row("a", (30.0001, 0.9, 5)), row("b", (30.0004, 0.8, 4)), row("c", (29, 0.9, 6))),
        COLUMNS,
    )
    found = [line[2:5] for line in lines(text)[2:]]
    assert found == [
        ["**30.000**", "**0.9000**", "5.00"],
        ["**30.000**", "0.8000", "**4.00**"],
        ["29.000", "**0.9000**", "6.00"],
    ]


def test_a_row_alone_and_what_is_no_number_are_not_bold():
    assert "**" not in markdown(table(row("a", (30, 0.9, 5))), COLUMNS)
    text = markdown(table(row("a", (math.nan, 0.9, 5)), row("b", (20, 0.8, 6))), COLUMNS)
    assert [line[2] for line in lines(text)[2:]] == ["nan", "**20.000**"]


def test_means_are_those_of_their_metric_and_time_is_the_median():
    (means,) = row("a", (20, 0.5, 3), (30, 0.7, 4), (40, 0.9, 5)).sets
    assert means.mean == pytest.approx(
        {"psnr_y": 30, "ssim_y": 0.7, "rmse_y": math.sqrt((9 + 16 + 25) / 3)}
    )
    assert means.seconds_per_megapixel == 1.0


def test_every_picture_has_a_section_in_which_rows_are_compared():
    both = table(row("a", (30, 0.9, 5), (20, 0.8, 9)), row("b", (31, 0.8, 4), (21, 0.9, 8)))
    text = markdown(both, COLUMNS, per_picture=True)
    pictures = [line for line in lines(text) if line[0].startswith("picture ") or not line[0]]
    assert [line[:3] for line in pictures] == [
        ["picture 1", "a", "30.000"],
        ["", "b", "**31.000**"],
        ["picture 2", "a", "20.000"],
        ["", "b", "**21.000**"],
    ]


def test_the_protocol_stands_below_the_table():
    expected = ["PSNR-Y dB, SSIM-Y", "RMSE-Y"]
    said = captions(COLUMNS, ["a remark"])
    assert [line.split(": ")[0] for line in said[:-1]] == expected
    assert all("4 px shaved" in line for line in said[:-1])
    assert said[-1] == "a remark"
    text = markdown(table(row("a", (30, 0.9, 5))), COLUMNS)
    assert all(f"- {line}" in text for line in said)


def test_what_goes_to_a_file_is_not_cut_to_a_terminals_width(capsys):
    print_tables(table(row("a network of a long name", (30, 0.9, 5), sets=6)), COLUMNS)
    shown = capsys.readouterr().out
    assert shown.count("means, x4") == 1
    assert shown.count("set number 6") == len(COLUMNS) + 1
    assert "a network of a long name" in shown


def test_a_narrow_terminal_gets_a_table_for_each_set(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    print_tables(table(row("a", (30, 0.9, 5), sets=3)), COLUMNS)
    assert capsys.readouterr().out.count("means, x4") == 3
    print_tables(table(row("a", (30, 0.9, 5), sets=1)), COLUMNS)
    assert capsys.readouterr().out.count("means, x4") == 1

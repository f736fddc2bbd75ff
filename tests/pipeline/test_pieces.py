"""Pieces cover their picture, and boxes travel into them."""

import pytest
import torch

from pipeline.pieces import Box, Cut, boxes_inside, cuts


@pytest.mark.parametrize("height", [1, 31, 32, 33, 48, 100])
@pytest.mark.parametrize("width", [5, 32, 65, 127])
@pytest.mark.parametrize(("size", "step"), [(32, 16), (32, 32), (32, 31), (33, 1), (0, 1)])
def test_pieces_cover_every_pixel_and_hold_what_is_there(height, width, size, step):
    picture = torch.arange(3 * height * width).view(3, height, width)
    seen = torch.zeros(height, width, dtype=torch.bool)
    for piece in cuts(picture, size=size, step=step):
        h, w = piece.picture.shape[1:]
        assert (h, w) == ((min(size, height), min(size, width)) if size else (height, width))
        there = (slice(piece.y, piece.y + h), slice(piece.x, piece.x + w))
        assert torch.equal(piece.picture, picture[:, *there])
        seen[there] = True
    assert seen.all()


def test_pieces_of_480_stand_240_apart_and_the_last_ends_at_the_border():
    places = [(cut.y, cut.x) for cut in cuts(torch.zeros(3, 480, 1000), size=480, step=240)]
    assert places == [(0, 0), (0, 240), (0, 480), (0, 520)]


def test_no_piece_comes_twice():
    places = [(cut.y, cut.x) for cut in cuts(torch.zeros(3, 96, 80), size=32, step=16)]
    assert len(places) == len(set(places)) == 5 * 4


@pytest.mark.parametrize(
    ("corners", "inside"),
    [
        ((110, 220, 120, 226), [10, 20, 10, 6]),  # wholly
        ((90, 220, 110, 230), [0, 20, 10, 10]),  # half: clipped
        ((89, 220, 110, 230), None),  # less than half
        ((140, 240, 148, 248), [40, 40, 8, 8]),  # up to the corner
        ((148, 240, 160, 248), None),  # outside
        ((0, 0, 500, 500), None),  # larger than the piece
    ],
)
def test_a_box_of_which_half_lies_inside_is_kept_in_the_pieces_pixels(corners, inside):
    piece = Cut(100, 200, torch.zeros(3, 48, 48))
    found = boxes_inside([Box(tuple(map(float, corners)), 7, iscrowd=True)], piece)
    expected = [{"bbox": inside, "category_id": 7, "iscrowd": 1}] if inside else []
    assert found == expected

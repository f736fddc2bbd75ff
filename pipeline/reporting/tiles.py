"""Gallery pictures: enlarged by repeating pixels, with boxes, ready to be inlined."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from pipeline.reporting.view import GalleryRow, Tile

TRUTH = "#ffd400"
FOUND = "#ff3fd0"  # nothing on the ground is magenta; yellow and it differ for every eye
PAGE = 1060  # pixels of a row without its gaps; enlarged by the largest whole number that fits
WIDEST = 360  # pixels of one picture: a short row need not fill the page
DASH = 4  # pixels
LINE = 12  # pixels that a line of text needs


def row_width(row: GalleryRow) -> int:
    """One width for all pictures of a row, a whole multiple of the widest of them."""
    widest = max((int(tile.picture.shape[2]) for tile in row.tiles), default=1)
    room = min(WIDEST, PAGE // max(len(row.tiles), 1))
    return widest * max(1, room // widest)


def draw_tile(tile: Tile, *, width: int) -> Image.Image:
    """The picture of a tile at `width` pixels, nothing interpolated, with its boxes.

    Truth is a solid line; what was found is a dashed one drawn over it, so that where both agree
    the line shows both colours.
    """
    _, rows, columns = tile.picture.shape
    zoom = width / columns
    plain = Image.fromarray(np.ascontiguousarray(tile.picture.permute(1, 2, 0).cpu().numpy()))
    drawn = plain.resize((width, round(rows * zoom)), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    for box in _corners(tile.truth, zoom):
        pen.rectangle(box, outline=TRUTH)
    labels = tile.found_labels or ("",) * len(tile.found)
    for box, label in zip(_corners(tile.found, zoom), labels, strict=True):
        _dashed(pen, box)
        if label:
            _write(pen, box, label)
    return drawn


def data_uri(picture: Image.Image) -> str:
    """A picture as the text of an `src` attribute; PNG, so that no pixel changes."""
    png = io.BytesIO()
    picture.save(png, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _corners(boxes: Tensor, zoom: float) -> list[tuple[int, int, int, int]]:
    """Boxes on the enlarged picture; the last pixel of a box is inside it, hence the - 1."""
    enlarged = (boxes.detach().cpu().double() * zoom).round().int().tolist()
    return [(x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)) for x0, y0, x1, y1 in enlarged]


def _write(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], label: str) -> None:
    """Above the box, or below it where the picture ends."""
    above = box[1] > LINE
    place = (box[0], box[1] - 1) if above else (box[0], box[3] + 2)
    anchor = "lb" if above else "lt"
    pen.text(place, label, fill=FOUND, anchor=anchor, stroke_width=1, stroke_fill="black")


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    for x in range(x0, x1 + 1, 2 * DASH):
        for y in (y0, y1):
            pen.line([(x, y), (min(x + DASH - 1, x1), y)], fill=FOUND)
    for y in range(y0, y1 + 1, 2 * DASH):
        for x in (x0, x1):
            pen.line([(x, y), (x, min(y + DASH - 1, y1))], fill=FOUND)

"""Pascal VOC's annotations: one XML file a picture.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge". Pixels count from 1 and
both ends of a box belong to it, so ``xmin`` 1 and ``xmax`` 1 is a box of one pixel. Objects marked
difficult are ignored in its evaluation; they become crowd regions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from detection.formats.mark import Mark, numbers, wrong

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class _Node:
    """An element with the line it begins in, for errors; the standard tree keeps no lines."""

    name: str
    line: int
    text: str = ""
    children: list[_Node] = field(default_factory=list)

    def child(self, name: str) -> _Node | None:
        return next((each for each in self.children if each.name == name), None)


def read_voc(path: Path, size: tuple[int, int], *, origin: int = 1) -> list[Mark]:
    """The objects of one annotation file.

    Args:
        path: of the XML file.
        size: width and height of its picture, in pixels; a size in the file must be the same.
        origin: number of the first pixel: 1 as in VOC, with both ends inside; 0 where a tool wrote
            corners from 0, the right and lower one outside.

    Raises:
        ValueError: what cannot be meant; the message names file and line.
    """
    root = _parse(path)
    if root.name != "annotation":
        raise wrong(
            path, root.line, f"the file holds <{root.name}>", "VOC's begin with <annotation>"
        )
    _check_size(path, root, size)
    return [_mark(path, each, origin) for each in root.children if each.name == "object"]


def _mark(path: Path, entry: _Node, origin: int) -> Mark:
    name, box = entry.child("name"), entry.child("bndbox")
    if name is None or not name.text.strip():
        raise wrong(path, entry.line, "an object without a <name>", "name its category")
    if box is None:
        raise wrong(path, entry.line, "an object without a <bndbox>", "add its box or remove it")
    left, top, right, bottom = (_number(path, box, side) for side in SIDES)
    left, top = left - origin, top - origin
    if right <= left or bottom <= top:
        raise wrong(
            path, box.line, f"the box ends before it begins ({left:g} {top:g} {right:g} "
            f"{bottom:g})", "mend or remove the object",
        )  # fmt: skip
    difficult = entry.child("difficult")
    crowd = difficult is not None and difficult.text.strip() == "1"
    return Mark((left, top, right - left, bottom - top), name.text.strip(), crowd)


def _check_size(path: Path, root: _Node, size: tuple[int, int]) -> None:
    if (said := root.child("size")) is None:
        return
    width, height = (_number(path, said, side) for side in ("width", "height"))
    # Some tools leave the size 0 where they did not look.
    if (width, height) not in (size, (0, 0)):
        raise wrong(
            path, said.line, f"the size is {width:g}x{height:g}, the picture has "
            f"{size[0]}x{size[1]} pixels", "are these the annotations of another picture?",
        )  # fmt: skip


def _number(path: Path, parent: _Node, name: str) -> float:
    node = parent.child(name)
    if node is None:
        raise wrong(path, parent.line, f"<{parent.name}> without <{name}>", "add it")
    return numbers(path, node.line, [node.text.strip()])[0]


def _parse(path: Path) -> _Node:
    parser = expat.ParserCreate()
    stack = [_Node("", 0)]

    def begin(name: str, _: dict[str, str]) -> None:
        node = _Node(name, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)

    def add(text: str) -> None:
        stack[-1].text += text

    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = add
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        said = expat.ErrorString(error.code)
        raise wrong(path, error.lineno, f"no well-formed XML ({said})", "mend the file") from error
    return stack[0].children[0]

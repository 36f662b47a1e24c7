"""A line chart as SVG: axes, lines, a legend, and the values where somebody points.

What lives here: how lines of numbers become shapes, drawn with drawsvg (extra `report`). What may
not live here: results and their words (page.py), scales (_axes.py), colours (_style.py: shapes
have classes only).

There is no script: the values are in the picture, hidden until the pointer is over
their place. Text from outside becomes only text of elements, which drawsvg escapes; attributes,
which it does not, hold our own words and numbers.
"""

from __future__ import annotations

from unicodedata import east_asian_width

from fastecho.errors import ExtensionMissingError

from .words import extra_text

try:
    import drawsvg as svg
except ImportError:
    raise ExtensionMissingError(
        f"charts need drawsvg, which is not installed: {extra_text('report')}"
    ) from None

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._axes import Axis

__all__ = ["ALONE", "NARROW", "WIDE", "Line", "Shape", "chart"]

COLOURS = 6
ROW = 20
"""Height of a row of text."""
GLYPH = 7.2
"""Width of a character at most, on average, in the font of 13 px."""
DOTS = 40
"""Lines of at most so many points show each of them."""


class Line:
    """What one line shows: its name, (x, y) in the order of x, and its look.

    A y of None breaks the line. Colours and dashes are numbers; any number will do.
    """

    __slots__ = ("colour", "dash", "name", "points")

    def __init__(
        self,
        name: str,
        points: Sequence[tuple[float, float | None]],
        colour: int = 0,
        dash: int = 0,
    ) -> None:
        self.name = name
        self.points = points
        self.colour = colour % COLOURS
        self.dash = (dash + colour // COLOURS * 2) % 4


class Shape:
    """Size and margins of a chart, and at how many places it shows its values."""

    __slots__ = ("bottom", "height", "left", "name", "places", "right", "width")

    def __init__(self, name: str, width: int, height: int, left: int, places: int) -> None:
        self.name = name
        self.width = width
        self.height = height
        self.left = left
        self.right = 18
        self.bottom = 42
        self.places = places


WIDE = Shape("wide", 860, 340, 72, 60)
ALONE = Shape("alone", 680, 320, 72, 0)
NARROW = Shape("narrow", 380, 320, 70, 24)


def chart(
    title: str,
    about: str,
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    shape: Shape,
    name: str,
    *,
    css: str = "",
) -> str:
    """Return one chart as an <svg> element.

    Args:
        title, about: what screen readers say of it.
        name: an id that no other chart of the page has.
        css: a style of its own, for a picture that stands alone.
    """
    return _Picture(lines, x, y, shape).text(title, about, name, css)


class _Picture:
    """One chart while it is drawn."""

    def __init__(self, lines: Sequence[Line], x: Axis, y: Axis, shape: Shape) -> None:
        self._lines = [line for line in lines if any(y is not None for _, y in line.points)]
        self._x = x
        self._y = y
        self._shape = shape
        self._legend = self._legend_rows()
        self._top = ROW * (len(self._legend) + 1) + 4
        self._height = shape.height + ROW * len(self._legend)

    def text(self, title: str, about: str, name: str, css: str) -> str:
        shape = self._shape
        drawing = svg.Drawing(
            shape.width, self._height, id_prefix=name, class_=f"chart {shape.name}",
            role="img", aria_labelledby=f"{name}-title {name}-about",
        )  # fmt: skip
        if css:
            drawing.append_css(css)
            drawing.append(svg.Rectangle(0, 0, shape.width, self._height, class_="paper"))
        heading = svg.Title(title, id=f"{name}-title")
        heading_about = svg.Title(about, id=f"{name}-about")
        heading_about.TAG_NAME = "desc"
        drawing.extend([heading, heading_about, *self._axes(), *self._names()])
        for line in self._lines:
            drawing.extend(self._shapes(line))
        drawing.extend(self._places())
        return str(drawing.as_svg(header=""))

    def _across(self, value: float) -> float:
        room = self._shape.width - self._shape.left - self._shape.right
        return round(self._shape.left + self._x(value) * room, 1)

    def _up(self, value: float) -> float:
        room = self._height - self._top - self._shape.bottom
        return round(self._top + (1 - self._y(value)) * room, 1)

    def _axes(self) -> list[Any]:
        shape = self._shape
        right, bottom = shape.width - shape.right, self._height - shape.bottom
        found = [
            svg.Text(self._y.title, None, 4, self._top - 12, class_="title"),
            svg.Text(self._x.title, None, right, self._height - 6, class_="title end"),
        ]
        for value, text in self._y.ticks:
            height = self._up(value)
            found.append(svg.Line(shape.left, height, right, height, class_="grid"))
            if text:
                found.append(svg.Text(text, None, shape.left - 8, height + 4, class_="end"))
        taken = 0.0
        for value, text in self._x.ticks:
            place = self._across(value)
            found.append(svg.Line(place, self._top, place, bottom, class_="grid"))
            half = _width(text) / 2
            # The last number moves in at the right edge; one that would touch another is left out.
            middle = min(place, shape.width - half)
            if middle - half >= taken:
                found.append(svg.Text(text, None, round(middle, 1), bottom + 18, class_="middle"))
                taken = middle + half + 6
        return found

    def _legend_rows(self) -> list[list[tuple[float, str, Line]]]:
        """Return rows of (left edge, name, line); none if there is but one line."""
        if len(self._lines) < 2:
            return []
        room = self._shape.width - 8
        rows: list[list[tuple[float, str, Line]]] = [[]]
        left = 4.0
        for line in self._lines:
            name = _cut(line.name, room - 40)
            width = 36 + _width(name) + 16
            if rows[-1] and left + width > room:
                rows.append([])
                left = 4.0
            rows[-1].append((left, name, line))
            left += width
        return rows

    def _names(self) -> list[Any]:
        found = []
        for number, row in enumerate(self._legend):
            base = ROW * number + 15
            for left, name, line in row:
                look = f"line c{line.colour} d{line.dash}"
                found.append(svg.Line(left, base - 4, left + 28, base - 4, class_=look))
                found.append(svg.Text(name, None, left + 34, base))
        return found

    def _shapes(self, line: Line) -> list[Any]:
        """Return the path of a line, and dots where there are few points or a single one."""
        words, dots = [], []
        pen_down, alone = False, False
        for value, height in line.points:
            if height is None:
                pen_down = False
                continue
            place = f"{self._across(value):g},{self._up(height):g}"
            words.append(f"{'L' if pen_down else 'M'}{place}")
            alone = alone or not pen_down
            dots.append((self._across(value), self._up(height)))
            pen_down = True
        found = [svg.Path(d=" ".join(words), class_=f"line c{line.colour} d{line.dash}")]
        if len(line.points) <= DOTS or len(words) == 1:
            found += [svg.Circle(*dot, 2.5, class_=f"dot c{line.colour}") for dot in dots]
        return found

    def _places(self) -> list[Any]:
        """Return strips over some places; each has its values, hidden until pointed at."""
        chosen = self._chosen()
        count = len(chosen)
        places = [self._across(value) for value in chosen]
        right = self._shape.width - self._shape.right
        found = []
        for n, (value, place) in enumerate(zip(chosen, places, strict=True)):
            start = (places[n - 1] + place) / 2 if n else self._shape.left
            end = (place + places[n + 1]) / 2 if n + 1 < count else right
            strip = svg.Rectangle(
                round(start, 1), self._top, round(max(end - start, 1), 1),
                self._height - self._top - self._shape.bottom, class_="strip",
            )  # fmt: skip
            group = svg.Group(class_="at")
            # An empty title keeps browsers from showing the title of the whole chart here.
            group.extend([svg.Title(""), strip, self._tip(value, place)])
            found.append(group)
        return found

    def _chosen(self) -> Sequence[float]:
        """Return the places whose values are shown: no more than fit."""
        most = self._shape.places
        if not most:
            return []
        if self._x.places:
            fitting = (places for places in self._x.places if len(places) <= most)
            return next(fitting, self._x.places[-1])
        values = sorted({x for line in self._lines for x, _ in line.points})
        count = min(len(values), most)
        return [values[round(n * (len(values) - 1) / max(count - 1, 1))] for n in range(count)]

    def _tip(self, value: float, place: float) -> Any:
        """Return the values of all lines at one place: a line, dots and a box of text."""
        tip = svg.Group(class_="tip")
        tip.append(
            svg.Line(place, self._top, place, self._height - self._shape.bottom, class_="guide")
        )
        rows = [self._x.text(value)]
        for line in self._lines:
            height = _at(line, value)
            if height is None:
                continue
            tip.append(svg.Circle(place, self._up(height), 4, class_=f"dot c{line.colour}"))
            name = f"{line.name}: " if len(self._lines) > 1 else ""
            text = self._y.text(height)
            rows.append(_cut(name, self._shape.width * 0.8 - _width(text)) + text)
        width = max(map(_width, rows)) + 16
        left = place + 10 if place + 10 + width <= self._shape.width else place - 10 - width
        left = round(min(max(left, 0.0), self._shape.width - width), 1)
        box = svg.Rectangle(
            left, self._top + 4, round(width, 1), 18 * len(rows) + 8, rx=4, class_="box"
        )
        tip.append(box)
        tip.append(svg.Text(rows, None, left + 8, self._top + 4, line_height=1.38, line_offset=1.3))
        return tip


def _at(line: Line, value: float) -> float | None:
    """Return the y of the point that is nearest to x; None beyond the ends of the line."""
    if not line.points[0][0] - 1e-9 <= value <= line.points[-1][0] + 1e-9:
        return None
    return min(line.points, key=lambda point: abs(point[0] - value))[1]


def _width(text: str) -> float:
    """Return about how wide a text is, in px: browsers' fonts differ."""
    return sum(2 if east_asian_width(glyph) in "WF" else 1 for glyph in text) * GLYPH


def _cut(text: str, room: float) -> str:
    """Return a text that is no wider than `room` px."""
    if _width(text) <= room:
        return text
    while text and _width(text) > room - GLYPH:
        text = text[:-1]
    return text + "…"

"""One SVG file: the few elements that the charts need, and one style sheet for light and dark.

An image in a README cannot ask the page for its colours, so the sheet follows the reader's system, by
`prefers-color-scheme`. A page may have been set to the other of the two: hence a panel of our own below
everything, instead of none. There is no script and no external font, which GitHub would not load.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of colour
blindness can tell apart; those that are too faint as a line on white are darkened. No chart needs them to be
told apart: each line and bar has its name beside it.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree as ET

WIDTH = 760
"""What GitHub shows without scaling it."""

MARGIN = 24

TEXT_SIZE = 12

TITLE_SIZE = 16

NOTE_SIZE = 11

GLYPH_EM = 0.6
"""A generous mean width of a letter: which font a reader has is not known."""


class _Palette(NamedTuple):
    """The colours of one mode."""

    ink: str
    muted: str
    """Of text that explains."""
    other: str
    """Of bars that are there to compare with."""
    faint: str
    """Of the grid."""
    panel: str
    series: tuple[str, ...]


_LIGHT = _Palette(
    ink="#1f2328",
    muted="#59636e",
    other="#a9b4bf",
    faint="#d1d9e0",
    panel="#ffffff",
    series=("#0072b2", "#d55e00", "#00855f", "#a8488c", "#7a6a00", "#4d5560"),
)
_DARK = _Palette(
    ink="#f0f6fc",
    muted="#9198a1",
    other="#5f6975",
    faint="#3d444d",
    panel="#0d1117",
    series=("#56b4e9", "#ff9147", "#2fcf9f", "#e394c4", "#f0e442", "#b4bcc6"),
)

SERIES = len(_LIGHT.series)
"""How many lines have a colour of their own."""

_XML_FORBIDS = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Not even escaped may a document hold these."""


def _colours(palette: _Palette) -> str:
    return "".join(
        (
            f".panel{{fill:{palette.panel};stroke:{palette.faint}}}",
            f"text{{fill:{palette.ink}}}.ink{{color:{palette.ink}}}",
            f".muted{{fill:{palette.muted}}}.grid{{stroke:{palette.faint}}}",
            f".other{{color:{palette.other}}}",
            *(f".s{number}{{color:{colour}}}" for number, colour in enumerate(palette.series)),
        )
    )


_SHEET = "\n".join(
    (
        f"text{{font:{TEXT_SIZE}px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}}",
        f".title{{font-size:{TITLE_SIZE}px;font-weight:600}}.strong{{font-weight:600}}",
        f".note{{font-size:{NOTE_SIZE}px}}",
        ".line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}",
        ".thin{stroke:currentColor;stroke-width:1}.fill{fill:currentColor}",
        _colours(_LIGHT),
        "@media (prefers-color-scheme:dark){",
        _colours(_DARK),
        "}",
    )
)


class Drawing:
    """An SVG document that is being drawn; places are in pixels from the top left corner."""

    def __init__(self, height: float, title: str, subtitle: str, description: str) -> None:
        """Draw the panel and the two lines above a chart.

        Args:
            height: Of the whole, in pixels.
            title: What the chart shows.
            subtitle: Where that was measured.
            description: What a reader learns who cannot see it.
        """
        self._root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": str(WIDTH),
                "height": _number(height),
                "viewBox": f"0 0 {WIDTH} {_number(height)}",
                "role": "img",
                "aria-labelledby": "title description",
            },
        )
        self._add("title", clean(title), id="title")
        self._add("desc", clean(description), id="description")
        self._add("style", f"\n{_SHEET}\n")
        edge = {"x": 0.5, "y": 0.5, "width": WIDTH - 1, "height": height - 1, "rx": 6}
        self._add("rect", None, "panel", **edge)
        self.text(MARGIN, 34, fit(title, WIDTH - 2 * MARGIN, TITLE_SIZE), "title")
        self.text(MARGIN, 54, fit(subtitle, WIDTH - 2 * MARGIN), "muted")

    def text(
        self, x: float, y: float, content: str, classes: str = "", *, anchor: str = "start"
    ) -> None:
        """Write one line; `y` is its base line, and `anchor` (start, middle, end) lies at `x`."""
        anchors = {} if anchor == "start" else {"text-anchor": anchor}
        self._add("text", clean(content), classes=classes, x=x, y=y, **anchors)

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """Draw one straight line."""
        self._add("line", classes=classes, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: Iterable[tuple[float, float]], classes: str) -> None:
        """Draw a line through points."""
        pairs = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add("polyline", classes=classes, points=pairs)

    def bar(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        """Draw a filled rectangle."""
        self._add("rect", classes=classes, x=x, y=y, width=width, height=height, rx=2)

    def dot(self, x: float, y: float, classes: str) -> None:
        """Draw a filled circle."""
        self._add("circle", classes=classes, cx=x, cy=y, r=4)

    def encode(self) -> str:
        """Return the file, an element a line."""
        ET.indent(self._root, " ")
        return ET.tostring(self._root, encoding="unicode") + "\n"

    def _add(
        self, tag: str, content: str | None = None, classes: str = "", **attributes: float | str
    ) -> None:
        shown = {
            name: value if isinstance(value, str) else _number(value)
            for name, value in attributes.items()
        }
        element = ET.SubElement(self._root, tag, ({"class": classes} if classes else {}) | shown)
        element.text = content


def clean(text: str) -> str:
    """Return a text on one line, without what XML cannot hold; the writer escapes the rest."""
    return " ".join(_XML_FORBIDS.sub("\ufffd", text).split())


def text_width(text: str, size: float = TEXT_SIZE) -> float:
    """Return how wide a text is at most, about, in pixels."""
    return len(text) * size * GLYPH_EM


def fit(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """Return a text that is no wider than `width` pixels; what is cut off is marked."""
    text = clean(text)
    if text_width(text, size) <= width:
        return text
    return text[: max(1, int(width / (size * GLYPH_EM)) - 1)].rstrip() + "…"


def _number(value: float) -> str:
    """Return a place to a tenth of a pixel: finer is not seen, and makes noise in a diff."""
    return f"{round(value, 1) + 0:g}" if abs(value) < 100_000 else f"{value:.0f}"

"""What line charts have in common: a grid with numbers, lines, and the name of each at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.plots.scale import Scale, spread_labels
from bench.plots.svg import MARGIN, NOTE_SIZE, SERIES, TEXT_SIZE, WIDTH, Drawing, fit
from bench.report import Report

LEFT = 80
"""Room for the numbers of the vertical axis."""

RIGHT = WIDTH - 210
"""Room for the names of the lines."""

LABEL_GAP = 32
"""Two lines of text, and air."""

_LABEL_X = RIGHT + 18
_LABEL_WIDTH = WIDTH - MARGIN - _LABEL_X


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    note: str
    """A figure or two, below the name."""
    pieces: Sequence[Sequence[tuple[float, float]]]
    """Points, interrupted where nothing was measured. At least one of them has one."""


def machine(reports: Sequence[Report]) -> str:
    """Return where reports come from, in a line."""
    environments = [report.environment for report in reports]
    places = {f"{one.cores} cores, {one.cpu}, {one.filesystem}" for one in environments}
    syncs = sorted(report.fdatasync_ms.p50 for report in reports)
    ends = dict.fromkeys((f"{syncs[0]:g}", f"{syncs[-1]:g}"))
    commits = dict.fromkeys(one.commit for one in environments)
    where = places.pop() if len(places) == 1 else "several machines"
    return f"commit {', '.join(commits)} · fdatasync {'–'.join(ends)} ms · {where}"


def draw_vertical(drawing: Drawing, scale: Scale, write: Callable[[float], str], name: str) -> None:
    """Draw a line across for each mark, with its number at the left, and a name on top."""
    drawing.text(MARGIN, scale.end - 14, name, "muted")
    for tick in scale.ticks:
        y = scale.place(tick)
        drawing.line(LEFT, y, RIGHT, y, "grid")
        drawing.text(LEFT - 8, y + 4, write(tick), "muted", anchor="end")


def draw_horizontal(
    drawing: Drawing, scale: Scale, marks: Sequence[tuple[float, str]], bottom: float, name: str
) -> None:
    """Draw a short line and a label for each mark below the chart, and a name below those."""
    for value, label in marks:
        x = scale.place(value)
        drawing.line(x, bottom, x, bottom + 5, "grid")
        drawing.text(x, bottom + 21, label, "muted", anchor="middle")
    drawing.text((LEFT + RIGHT) / 2, bottom + 40, name, "muted", anchor="middle")


def draw_lines(drawing: Drawing, lines: Sequence[Line], x: Scale, y: Scale) -> None:
    """Draw lines; a point without neighbours is a dot."""
    for number, line in enumerate(lines):
        colour = series_class(number)
        for piece in line.pieces:
            points = [(x.place(across), y.place(up)) for across, up in piece]
            if len(points) > 1:
                drawing.path(points, f"line {colour}")
            elif points:
                drawing.dot(*points[0], f"fill {colour}")


def draw_names(drawing: Drawing, lines: Sequence[Line], x: Scale, y: Scale) -> None:
    """Write the name of each line at its end, and lead to it where others are in the way."""
    ends = [next(piece[-1] for piece in reversed(line.pieces) if piece) for line in lines]
    wanted = [y.place(up) for _, up in ends]
    places = spread_labels(wanted, LABEL_GAP, y.end, y.start - TEXT_SIZE)
    for number, (line, end, place) in enumerate(zip(lines, ends, places, strict=True)):
        colour = series_class(number)
        drawing.path(
            [(x.place(end[0]) + 3, y.place(end[1])), (RIGHT + 6, place), (_LABEL_X - 4, place)],
            f"line thin {colour}",
        )
        drawing.text(_LABEL_X, place + 4, fit(line.name, _LABEL_WIDTH), "strong")
        drawing.text(_LABEL_X, place + 19, fit(line.note, _LABEL_WIDTH, NOTE_SIZE), "muted note")


def series_class(number: int) -> str:
    """Return the class that colours a series."""
    return f"s{number % SERIES}"

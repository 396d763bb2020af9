"""Whether a server was flat: its memory in each second of a run, and how far its archive was behind."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from bench.plots.axes import (
    LEFT,
    RIGHT,
    Line,
    draw_horizontal,
    draw_lines,
    draw_names,
    draw_vertical,
    machine,
)
from bench.plots.scale import Scale, linear_scale, write_number
from bench.plots.seconds import FOOT, mark_seconds, split_pieces
from bench.plots.svg import Drawing
from bench.report import Report, ServerSecond

MEMORY_TOP, MEMORY_BOTTOM = 96, 256
LAG_TOP, LAG_BOTTOM = 304, 404


def draw_server(title: str, reports: Mapping[str, Report]) -> str | None:
    """Return a chart with a line for each report that knows of its server's memory; None if none does.

    Both parts start at 0, so that what grows is as steep as it looks.
    """
    timelines = {
        name: report.server_timeline
        for name, report in reports.items()
        if any(each.memory_mib is not None for each in report.server_timeline)
    }
    if not timelines:
        return None
    memory = [
        _line(name, seconds, lambda each: each.memory_mib) for name, seconds in timelines.items()
    ]
    lags = [
        _line(name, seconds, lambda each: each.flush_lag_seconds)
        for name, seconds in timelines.items()
    ]
    bottom = LAG_BOTTOM if any(line.pieces for line in lags) else MEMORY_BOTTOM
    drawing = Drawing(
        bottom + FOOT,
        title,
        machine([reports[name] for name in timelines]),
        "The server's memory in each second. "
        + " ".join(f"{each.name}: {each.note}." for each in memory),
    )
    seconds = [each.second for each in chain(*timelines.values())]
    x = Scale(min(seconds), max(seconds), LEFT, RIGHT)
    y = linear_scale(_highest(memory), MEMORY_BOTTOM, MEMORY_TOP)
    draw_vertical(drawing, y, write_number, "memory of the server, MiB")
    draw_lines(drawing, memory, x, y)
    draw_names(drawing, memory, x, y)
    if bottom == LAG_BOTTOM:
        y = linear_scale(_highest(lags), LAG_BOTTOM, LAG_TOP)
        draw_vertical(drawing, y, write_number, "longest flush lag in that second, s")
        draw_lines(drawing, lags, x, y)
    marks = mark_seconds(min(seconds), max(seconds))
    draw_horizontal(drawing, x, marks, bottom, "second of the run")
    return drawing.encode()


def _line(
    name: str, seconds: Sequence[ServerSecond], value: Callable[[ServerSecond], float | None]
) -> Line:
    points = [(each.second, up) for each in seconds if (up := value(each)) is not None]
    ends = [write_number(up) for _, up in (*points[:1], *points[-1:])]
    return Line(name, f"from {' to '.join(ends)}", split_pieces(points))


def _highest(lines: Sequence[Line]) -> float:
    return max(up for line in lines for piece in line.pieces for _, up in piece)

"""How steady a rate is: each second of a run, and how long the acknowledgements of that second took."""

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median

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
from bench.plots.scale import Scale, linear_scale, log_scale, write_ms, write_number
from bench.plots.svg import Drawing
from bench.report import Report, Second

RATE_TOP, RATE_BOTTOM = 96, 256
WAIT_TOP, WAIT_BOTTOM = 304, 404
FOOT = 56
"""Below the last axis: its numbers and its name."""

SECONDS_STEPS_MAX = 8


def draw_seconds(title: str, reports: Mapping[str, Report]) -> str | None:
    """Return a chart with a line for each report that has a timeline; None if none has.

    The rate starts at 0, so that a dip is as deep as it looks. The p99 below it is by logarithm: one
    stall of the disk is a hundred times the rest, which would lie flat on the ground otherwise.
    """
    timelines = {name: report.timeline for name, report in reports.items() if report.timeline}
    if not timelines:
        return None
    lines = [_line(name, timeline) for name, timeline in timelines.items()]
    waits = [
        Line(name, "", pieces)
        for name, timeline in timelines.items()
        if (pieces := _waits(timeline))
    ]
    drawing = Drawing(
        (WAIT_BOTTOM if waits else RATE_BOTTOM) + FOOT,
        title,
        machine([reports[name] for name in timelines]),
        "Rate in each second of a run. " + " ".join(f"{line.name}: {line.note}." for line in lines),
    )
    seconds = [each.second for each in chain(*timelines.values())]
    x = Scale(min(seconds), max(seconds), LEFT, RIGHT)
    top = max(each.rate_per_second for each in chain(*timelines.values()))
    y = linear_scale(top, RATE_BOTTOM, RATE_TOP)
    draw_vertical(drawing, y, write_number, "rate per second")
    draw_lines(drawing, lines, x, y)
    draw_names(drawing, lines, x, y)
    if waits:
        _draw_waits(drawing, waits, timelines, x)
    bottom = WAIT_BOTTOM if waits else RATE_BOTTOM
    draw_horizontal(
        drawing, x, mark_seconds(min(seconds), max(seconds)), bottom, "second of the run"
    )
    return drawing.encode()


def _draw_waits(
    drawing: Drawing, waits: Sequence[Line], timelines: Mapping[str, Sequence[Second]], x: Scale
) -> None:
    """Draw the p99 of each second below, in the colour that the report has above."""
    values = [up for line in waits for piece in line.pieces for _, up in piece]
    y = log_scale(values, WAIT_BOTTOM, WAIT_TOP)
    draw_vertical(drawing, y, write_ms, "ack p99 in that second")
    by_name = {line.name: line for line in waits}
    draw_lines(drawing, [by_name.get(name, Line(name, "", [])) for name in timelines], x, y)


def _line(name: str, timeline: Sequence[Second]) -> Line:
    rates = [each.rate_per_second for each in timeline]
    note = f"median {write_number(median(rates))}, min {write_number(min(rates))}"
    return Line(
        name, note, split_pieces([(each.second, each.rate_per_second) for each in timeline])
    )


def _waits(timeline: Sequence[Second]) -> list[list[tuple[float, float]]]:
    """Return the p99 of each second in which something was acknowledged."""
    return split_pieces(
        [(each.second, each.ack_p99_ms) for each in timeline if each.ack_p99_ms > 0]
    )


def split_pieces(points: Sequence[tuple[int, float]]) -> list[list[tuple[float, float]]]:
    """Split where seconds are missing: a line through them would claim what nobody measured."""
    pieces: list[list[tuple[float, float]]] = []
    for second, value in points:
        if not pieces or second > pieces[-1][-1][0] + 1:
            pieces.append([])
        pieces[-1].append((second, value))
    return pieces


def mark_seconds(first: int, last: int) -> list[tuple[float, str]]:
    """Return round seconds from the first to the last."""
    ticks = linear_scale(last, 0, 1, steps_max=SECONDS_STEPS_MAX).ticks
    marks = [tick for tick in ticks if tick.is_integer() and first <= tick <= last]
    return [(tick, f"{tick:.0f}") for tick in marks or (float(first),)]

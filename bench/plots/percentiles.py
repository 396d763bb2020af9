"""How long most waits are, and the longest: a latency at each percentile.

The horizontal axis is that of HdrHistogram's plots: each step to the right leaves a tenth of the waits
before it. So the tail, which a linear axis would hide in its last pixel, has as much room as the rest.
"""

import math
from collections.abc import Mapping, Sequence

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
from bench.plots.scale import Scale, log_scale, write_ms
from bench.plots.svg import Drawing
from bench.report import Latency, Report

WAITS_BEYOND_MIN = 10
"""A percentile with fewer waits beyond it is an anecdote: the line ends before it."""

SHARES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
"""What the axis marks, in per cent. It begins at the first: the quicker half is not what one looks for."""

TOP, BOTTOM, HEIGHT = 96, 336, 392


def draw_percentiles(
    title: str, latencies: Mapping[str, Latency], reports: Sequence[Report]
) -> str | None:
    """Return a chart with a line for each latency, by its name; None if too few waited."""
    lines = [
        Line(name, _note(latency), [points])
        for name, latency in latencies.items()
        if (points := _points(latency))
    ]
    if not lines:
        return None
    drawing = Drawing(
        HEIGHT,
        title,
        machine(reports),
        "Latency by percentile, of all rounds together. "
        + " ".join(f"{line.name}: {line.note}." for line in lines),
    )
    everything = [point for line in lines for piece in line.pieces for point in piece]
    furthest = max(across for across, _ in everything)
    x = Scale(_nines(SHARES[0]), max(_nines(SHARES[1]), furthest), LEFT, RIGHT)
    y = log_scale((up for _, up in everything), BOTTOM, TOP)
    draw_vertical(drawing, y, write_ms, "latency")
    marks = [(_nines(share), f"{share:g} %") for share in SHARES if _nines(share) <= x.high + 1e-9]
    draw_horizontal(drawing, x, marks, BOTTOM, "share of waits that were no longer")
    draw_lines(drawing, lines, x, y)
    draw_names(drawing, lines, x, y)
    return drawing.encode()


def _points(latency: Latency) -> list[tuple[float, float]]:
    """Return the slower half, as far as it can be drawn: a logarithm has no zero, a tail needs waits."""
    return [
        (_nines(percent), milliseconds)
        for percent, milliseconds in latency.curve
        if percent >= SHARES[0]
        and milliseconds > 0
        and (100 - percent) / 100 * latency.count >= WAITS_BEYOND_MIN - 1e-9
    ]


def _nines(percent: float) -> float:
    """Return 1 for 90 %, 2 for 99 %, 3 for 99.9 %."""
    return -math.log10(1 - percent / 100)


def _note(latency: Latency) -> str:
    """Return what the line says at 99 %, and where it would end: all rounds together, as it is drawn."""
    waits = dict(latency.curve)
    return f"p99 {write_ms(waits[99])} · max {write_ms(waits[100])}"

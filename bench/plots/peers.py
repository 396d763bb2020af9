"""One load on several servers: how much each takes, and how long its slow answers are."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.plots.axes import machine
from bench.plots.scale import Scale, log_scale, write_ms, write_number
from bench.plots.svg import MARGIN, WIDTH, Drawing, fit
from bench.report import RATE, Report

OWN_NAME = "Ringlog"

BAR_LEFT, BAR_RIGHT = 168, 424
WAIT_LEFT, WAIT_RIGHT = 520, WIDTH - MARGIN - 70
"""A number has room beside the rightmost dot."""

TOP = 106
ROW = 30
BAR_HEIGHT = 16
FOOT = 30


@dataclass(frozen=True, slots=True)
class _Row:
    """One server."""

    name: str
    own: bool
    rate: float | None
    low: float
    high: float
    """The slowest and the fastest round."""
    p99_ms: float | None


def draw_peers(title: str, report: Report) -> str | None:
    """Return bars of a report and what ran beside it, the fastest first; None if nothing did.

    The rates start at 0 and are not by logarithm: a bar twice as long is twice as much.
    """
    rows = [_row(OWN_NAME, report, own=True)]
    rows += [_row(other.scenario, other, own=False) for other in report.beside]
    highest = max((row.high for row in rows), default=0.0)
    if not report.beside or highest <= 0:
        return None
    rows.sort(key=lambda row: -(row.rate or 0))
    drawing = Drawing(
        TOP + ROW * len(rows) + FOOT,
        title,
        machine([report, *report.beside]),
        " ".join(f"{row.name}: {_rate(row)} a second, p99 {_wait(row)}." for row in rows),
    )
    drawing.text(BAR_LEFT, TOP - 16, "rate per second", "muted")
    drawing.text(WAIT_LEFT, TOP - 16, "ack p99, by logarithm", "muted")
    # As wide as the highest value: each bar has its number, so the axis needs no round ones.
    across = Scale(0.0, highest, BAR_LEFT, BAR_RIGHT)
    waits = [row.p99_ms for row in rows if row.p99_ms]
    along = log_scale(waits, WAIT_LEFT, WAIT_RIGHT) if waits else None
    for number, row in enumerate(rows):
        middle = TOP + ROW * number + ROW / 2
        _draw_rate(drawing, row, across, middle)
        _draw_wait(drawing, row, along, middle)
    note = "Thin lines: the slowest and the fastest round. What each server promises differs."
    drawing.text(MARGIN, TOP + ROW * len(rows) + 18, note, "muted")
    return drawing.encode()


def _row(name: str, report: Report, *, own: bool) -> _Row:
    metric = report.metric(RATE)
    values: Sequence[float] = metric.values if metric else ()
    return _Row(
        name=name,
        own=own,
        rate=report.rate_per_second,
        low=min(values, default=report.rate_per_second or 0.0),
        high=max(values, default=report.rate_per_second or 0.0),
        p99_ms=report.ack_ms["p99"] if report.ack_ms else None,
    )


def _draw_rate(drawing: Drawing, row: _Row, scale: Scale, middle: float) -> None:
    name = fit(row.name, BAR_LEFT - 12 - MARGIN)
    drawing.text(BAR_LEFT - 12, middle + 4, name, _weight(row), anchor="end")
    end: float = BAR_LEFT
    if row.rate is not None:
        width = scale.place(row.rate) - BAR_LEFT
        drawing.bar(BAR_LEFT, middle - BAR_HEIGHT / 2, width, BAR_HEIGHT, f"fill {_colour(row)}")
        drawing.line(scale.place(row.low), middle, scale.place(row.high), middle, "thin ink")
        end = scale.place(row.high)
    drawing.text(end + 8, middle + 4, _rate(row), _weight(row))


def _draw_wait(drawing: Drawing, row: _Row, scale: Scale | None, middle: float) -> None:
    """Draw a dot at the end of a stem, and its number beside it."""
    if scale is None or not row.p99_ms:
        drawing.text(WAIT_LEFT, middle + 4, "–", "muted")
        return
    x = scale.place(row.p99_ms)
    drawing.line(WAIT_LEFT, middle, x, middle, "grid")
    drawing.dot(x, middle, f"fill {_colour(row)}")
    drawing.text(x + 10, middle + 4, _wait(row), _weight(row))


def _weight(row: _Row) -> str:
    return "strong" if row.own else ""


def _colour(row: _Row) -> str:
    return "s0" if row.own else "other"


def _rate(row: _Row) -> str:
    return write_number(row.rate) if row.rate is not None else "failed its check: no rate"


def _wait(row: _Row) -> str:
    return write_ms(row.p99_ms) if row.p99_ms else "unknown"

"""Where a value lies on an axis, which values are marked there, and how they are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

STEPS_MAX = 5
"""So many lines across a chart: enough to read a value, few enough to see the data."""

TICKS_LOG_MAX = 7
"""With more, only powers of ten are marked."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels, evenly or by logarithm."""

    low: float
    high: float
    start: float
    """The pixel of `low`."""
    end: float
    ticks: tuple[float, ...] = ()
    log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value; what lies beyond an end is drawn at that end."""
        value = min(max(value, self.low), self.high)
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.log
            else (self.low, self.high, value)
        )
        # A single value lies in the middle.
        part = (at - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)


def linear_scale(high: float, start: float, end: float, *, steps_max: int = STEPS_MAX) -> Scale:
    """Return a scale from 0 to a round number not below `high`."""
    step = _round_step(high / steps_max)
    steps = max(1, math.ceil(high / step - 1e-9))
    ticks = tuple(number * step for number in range(steps + 1))
    return Scale(0.0, ticks[-1], start, end, ticks)


def log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale from a round number to a round number with all values between; they are above 0."""
    values = list(values)
    exponents = range(
        math.floor(math.log10(min(values))) - 1, math.floor(math.log10(max(values))) + 2
    )
    # 10**-3 as a float is not exactly a thousandth; as text it is the nearest there is.
    round_ones = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    first = max(n for n, one in enumerate(round_ones) if one <= min(values))
    last = min(n for n, one in enumerate(round_ones) if one >= max(values))
    # Of a single round value, the steps around it.
    marked = round_ones[first : last + 1] if last > first else round_ones[first - 1 : last + 2]
    tens = [one for one in marked if f"{one:e}".startswith("1.")]
    ticks = marked if len(marked) <= TICKS_LOG_MAX else tens
    return Scale(marked[0], marked[-1], start, end, tuple(ticks), log=True)


def spread_labels(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones that are `gap` apart, between `low` and `high` if they fit.

    Each is pushed down by the one above it; what is beyond the end then pushes back.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = [min(max(wanted[number], low), high) for number in order]
    for before, after in pairwise(range(len(places))):
        places[after] = max(places[after], places[before] + gap)
    if places and places[-1] > high:
        places[-1] = high
        for before, after in reversed(list(pairwise(range(len(places))))):
            places[before] = min(places[before], places[after] - gap)
    return [place for _, place in sorted(zip(order, places, strict=True))]


def write_number(value: float) -> str:
    """Return three digits, or all before the point."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def write_ms(milliseconds: float) -> str:
    """Return a time in the unit that fits it."""
    if milliseconds >= 1000:
        return f"{write_number(milliseconds / 1000)} s"
    if 0 < milliseconds < 0.1:
        return f"{write_number(milliseconds * 1000)} µs"
    return f"{write_number(milliseconds)} ms"


def _round_step(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * (1 - 1e-9))

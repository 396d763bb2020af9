"""A log-linear histogram of latencies: bounded memory, bounded relative error, no samples kept.

Values are non-negative integers (the bench records microseconds). Below ``2**PRECISION_BITS`` every
value has a cell of its own. Above, each power of two is cut into ``2**(PRECISION_BITS - 1)`` equal
cells, so a reported percentile is never below the exact one and at most 1/128 above it. It is the
layout of HdrHistogram, without its options.

    value            0 … 255 | 256 … 511 | 512 … 1023 | …
    width of a cell        1 |         2 |          4 | …
"""

import math

import msgspec

PRECISION_BITS = 8
"""256 exact values, then an error of at most 1/128: finer than the noise of any run."""

VALUE_BITS_MAX = 36
"""19 hours in microseconds; more is counted as the last cell and still seen in ``max``."""

_HALF_BITS = PRECISION_BITS - 1
_VALUE_MAX = (1 << VALUE_BITS_MAX) - 1
_CELLS = ((VALUE_BITS_MAX - PRECISION_BITS) << _HALF_BITS) + (1 << PRECISION_BITS)


class PackedHistogram(msgspec.Struct):
    """A histogram on its way."""

    cells: dict[int, int]
    total: int
    max: int


class Histogram:
    """Counts of recorded values, queried by percentile; those that were packed, if any."""

    __slots__ = ("_counts", "count", "max", "total")

    def __init__(self, packed: PackedHistogram | None = None) -> None:
        self.clear()
        if packed is not None:
            for cell, count in packed.cells.items():
                self._counts[cell] = count
            self.count = sum(packed.cells.values())
            self.total = packed.total
            self.max = packed.max

    def clear(self) -> None:
        """Forget everything."""
        self._counts = [0] * _CELLS
        self.count = 0
        self.total = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Count one value; what lies outside the range counts as its nearest end."""
        self.max = max(self.max, value)
        if not 0 <= value <= _VALUE_MAX:
            value = 0 if value < 0 else _VALUE_MAX
        shift = value.bit_length() - PRECISION_BITS
        if shift > 0:
            self._counts[(shift << _HALF_BITS) + (value >> shift)] += 1
        else:
            self._counts[value] += 1
        self.count += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """Count everything that another one counted."""
        for cell, count in other.pack().cells.items():
            self._counts[cell] += count
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def pack(self) -> PackedHistogram:
        """Return what goes from one process to another: only the cells that are in use."""
        cells = {cell: count for cell, count in enumerate(self._counts) if count}
        return PackedHistogram(cells=cells, total=self.total, max=self.max)

    def percentile(self, percent: float) -> int:
        """Return the largest value that its cell stands for, by nearest rank; 0 when empty."""
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for cell, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_highest_value(cell), self.max)
        return self.max


def _highest_value(cell: int) -> int:
    shift = max(0, (cell >> _HALF_BITS) - 1)
    return ((cell - (shift << _HALF_BITS) + 1) << shift) - 1

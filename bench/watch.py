"""How a server fared from the beginning to the end of a measurement: its memory, and the lag of its archive.

What a run has in the end says nothing of where it is going. So both are looked at again and again, second by second
they stand in the report, and figures say whether they were flat:

- the **slope of memory**, by least squares, for each million of records that the log took meanwhile. Of the second
  half alone too: what a server builds once, while it gets going, is no leak.
- the **lag** in the last fifth of the time over that in the first.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from statistics import fmean, linear_regression
from typing import NamedTuple

import trio

from bench.probe import Probe, Sample
from bench.processes import family_resident_bytes, resident_bytes
from bench.report import MIB, Better, Figure, ServerSecond
from bench.usage import MEMORY

SAMPLE_SECONDS = 0.25
"""Below the flusher's own interval, and rare enough to cost a loaded server nothing: a millisecond each."""

TREND_SECONDS_MIN = 10
"""A shorter run has no beginning and end that could be told apart."""

MILLION = 1_000_000


class Look(NamedTuple):
    """One look at a server."""

    at: float
    """In seconds since the first."""
    sample: Sample | None
    """None where it does not say."""
    memory_bytes: int | None
    """None where its process is not ours."""
    flush_bytes: int = 0
    """What of it does not belong to the server's own process."""


class Watch:
    """A server that is looked at while something else is waited for."""

    def __init__(self, probe: Probe | None, pid: int | None) -> None:
        """Look at the metrics and at the memory, as far as they are known."""
        self.looks: list[Look] = []
        self._probe = probe
        self._pid = pid

    async def until(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Look until `wait` returns; it is cancelled and called again in between."""
        start = trio.current_time()
        while True:
            sample = None if self._probe is None else await self._probe.look()
            memory = (None, 0) if self._pid is None else _memory_bytes(self._pid)
            self.looks.append(Look(trio.current_time() - start, sample, *memory))
            with trio.move_on_after(SAMPLE_SECONDS):
                await wait()
                return

    @property
    def samples(self) -> list[Sample]:
        """What the server said."""
        return [look.sample for look in self.looks if look.sample is not None]


def _memory_bytes(pid: int) -> tuple[int | None, int]:
    try:
        whole = family_resident_bytes(pid)
        return whole, whole - resident_bytes(pid)
    except OSError:
        # It is gone; whoever spoke with it will say so.
        return None, 0


def server_timeline(looks: Iterable[Look]) -> list[ServerSecond]:
    """Return what was seen second by second: the last of the memory, the longest of the lag."""
    return [
        _second(number + 1, list(each))
        for number, each in itertools.groupby(filter(_is_known, looks), lambda look: int(look.at))
    ]


def _is_known(look: Look) -> bool:
    return look.sample is not None or look.memory_bytes is not None


def _second(number: int, looks: Sequence[Look]) -> ServerSecond:
    last = looks[-1]
    samples = [look.sample for look in looks if look.sample is not None]
    return ServerSecond(
        second=number,
        memory_mib=None if last.memory_bytes is None else _mib(last.memory_bytes),
        flush_memory_mib=_mib(last.flush_bytes) if last.flush_bytes else None,
        flush_lag_seconds=round(max(each.lag_seconds for each in samples), 3) if samples else None,
        flush_backlog_records=max(each.backlog_records for each in samples) if samples else None,
    )


def _mib(size: float) -> float:
    return round(size / MIB, 2)


def trend_figures(looks: Sequence[Look]) -> list[Figure]:
    """Return where memory began, and whether memory and lag were flat; nothing of what was not seen."""
    figures = []
    sizes = [look.memory_bytes for look in looks if look.memory_bytes is not None]
    if sizes:
        figures.append(Figure(f"{MEMORY} at the start", round(sizes[0] / MIB, 1), "MiB"))
    if looks and looks[-1].at - looks[0].at >= TREND_SECONDS_MIN - 1:
        figures += _slope(f"{MEMORY} slope", looks)
        figures += _slope(f"{MEMORY} slope, second half", looks[len(looks) // 2 :])
        figures += _lag_drift([look.sample.lag_seconds for look in looks if look.sample])
    return figures


def _slope(name: str, looks: Sequence[Look]) -> list[Figure]:
    points = [
        (look.sample.records / MILLION, look.memory_bytes / MIB)
        for look in looks
        if look.sample is not None and look.memory_bytes is not None
    ]
    records = [across for across, _ in points]
    if len(set(records)) < 2:
        return []
    slope = linear_regression(records, [up for _, up in points]).slope
    return [Figure(name, round(slope, 2), "MiB per million records")]


def _lag_drift(lags: Sequence[float]) -> list[Figure]:
    part = len(lags) // 5
    if not part or not (first := fmean(lags[:part])):
        return []
    ratio = fmean(lags[-part:]) / first
    return [Figure("flush lag, last fifth over first", round(ratio, 3), "", Better.LOWER)]

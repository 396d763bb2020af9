"""How far the archive is behind: a server's `/metrics`, read again and again while it is under load.

The lag is the age of the oldest durable record that the archive does not hold yet, as the server says
itself; the backlog is how many such records there are. A server that does not show its metrics (it has
keys, or is another one) has no samples, and its lag is not known.
"""

import http.client
import math
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio

SAMPLE_SECONDS = 0.25
"""Below the flusher's own interval, and rare enough to cost a loaded server nothing: a millisecond each."""

ANSWER_SECONDS_MAX = 5.0
"""The loop of an overloaded server answers late, not never."""

_SERIES = re.compile(
    rb"^(ringlog_flush_lag_seconds|ringlog_flush_backlog_records) (\S+)$", re.MULTILINE
)


class Sample(NamedTuple):
    """One look."""

    lag_seconds: float
    backlog_records: int


class LagProbe:
    """One server's metrics, over a connection that is kept; one look at a time."""

    def __init__(self, url: str) -> None:
        host = urllib.parse.urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS_MAX)
        self.samples: list[Sample] = []

    async def look(self) -> Sample | None:
        """Return how things are now, or None if the server does not say."""
        return await trio.to_thread.run_sync(self._look)

    async def watch_until(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Keep samples until `wait` returns; it is cancelled and called again in between."""
        while True:
            sample = await self.look()
            if sample is not None:
                self.samples.append(sample)
            with trio.move_on_after(SAMPLE_SECONDS):
                await wait()
                return

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _look(self) -> Sample | None:
        try:
            self._connection.request("GET", "/metrics")
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            # The next look connects anew.
            self._connection.close()
            return None
        series = dict(_SERIES.findall(body)) if response.status == http.HTTPStatus.OK else {}
        if len(series) < 2:
            return None
        return Sample(
            lag_seconds=float(series[b"ringlog_flush_lag_seconds"]),
            backlog_records=int(float(series[b"ringlog_flush_backlog_records"])),
        )


def summarise_lag(samples: Sequence[Sample]) -> dict[str, float] | None:
    """Return the percentiles that reports carry, in seconds, by nearest rank; None without samples."""
    lags = sorted(sample.lag_seconds for sample in samples)
    if not lags:
        return None
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(lags[math.ceil(len(lags) * part) - 1], 3) for name, part in ranks.items()}


def largest_backlog(samples: Sequence[Sample]) -> int | None:
    """Return how many records waited at most; None without samples."""
    return max((sample.backlog_records for sample in samples), default=None)

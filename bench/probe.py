"""What a server says about itself while it is under load: its `/metrics`, read again and again.

The flush lag is the age of the oldest durable record that the archive does not hold yet; the backlog is how
many such records there are; the syncs are those of its log. A server that does not show its metrics (it has
keys, or is another one) has no samples, and nothing of this is known.
"""

import http.client
import math
import re
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import trio

from bench.report import Better, Figure

LOOK_SECONDS_MAX = 5.0
"""The loop of an overloaded server answers late, not never."""

_SERIES = re.compile(
    rb"^(ringlog_flush_lag_seconds|ringlog_flush_backlog_records|ringlog_log_syncs_total"
    rb"|ringlog_log_records_total|ringlog_log_commits_total) (\S+)$",
    re.MULTILINE,
)


class Sample(NamedTuple):
    """One look."""

    lag_seconds: float
    backlog_records: int
    syncs: int
    """Since the server started, as are the next two."""
    commits: int
    records: int


class Probe:
    """One server's metrics, over a connection that is kept; one look at a time."""

    def __init__(self, url: str) -> None:
        host = urllib.parse.urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(host, timeout=LOOK_SECONDS_MAX)

    async def look(self) -> Sample | None:
        """Return how things are now, or None if the server does not say."""
        return await trio.to_thread.run_sync(self._look)

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
        if len(series) < len(Sample._fields):
            return None
        return Sample(
            lag_seconds=float(series[b"ringlog_flush_lag_seconds"]),
            backlog_records=int(float(series[b"ringlog_flush_backlog_records"])),
            syncs=int(float(series[b"ringlog_log_syncs_total"])),
            commits=int(float(series[b"ringlog_log_commits_total"])),
            records=int(float(series[b"ringlog_log_records_total"])),
        )


def lag_figures(samples: Sequence[Sample]) -> list[Figure]:
    """Return how far the archive was behind: percentiles by nearest rank; nothing without samples."""
    lags = sorted(sample.lag_seconds for sample in samples)
    if not lags:
        return []
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    backlog = max(sample.backlog_records for sample in samples)
    return [
        *(
            Figure(f"flush lag {name}", round(lags[math.ceil(len(lags) * part) - 1], 3), "s")
            for name, part in ranks.items()
        ),
        Figure("largest flush backlog", backlog, "records", Better.NEITHER),
    ]


def sync_figures(before: Sample | None, after: Sample | None) -> list[Figure]:
    """Return what the log's syncs were shared by; nothing if the server did not say."""
    if before is None or after is None or after.records == before.records:
        return []
    records, commits = after.records - before.records, after.commits - before.commits
    return [
        Figure("log fsyncs per record", round((after.syncs - before.syncs) / records, 4)),
        Figure("records per commit", round(records / max(1, commits), 1), "", Better.NEITHER),
    ]

"""What a load generator counts while it runs."""

from collections import Counter

from bench.checker import Findings
from bench.histogram import Histogram
from bench.report import Second


class Tally:
    """Latencies by kind in microseconds, refusals, and findings.

    Latencies are collected second by second, so that a run can be seen over time and recorded only once.
    """

    def __init__(self, *kinds: str) -> None:
        self.findings = Findings()
        self.refused: Counter[str] = Counter()
        self.latencies = {kind: Histogram() for kind in kinds}
        """Of the seconds that are over."""
        self.now = {kind: Histogram() for kind in kinds}
        """Of the second that runs; `record` of one of these is the hot path."""
        self.timeline: list[Second] = []

    def restart(self) -> None:
        """Forget latencies: the warm-up is over."""
        for kind in self.latencies:
            self.latencies[kind] = Histogram()
            self.now[kind].clear()
        self.timeline.clear()

    def close_second(self, seconds: float, rated: str) -> Second:
        """Note what happened in the last `seconds`; `rated` is the kind whose number is the rate."""
        acks, counted = self.now.get("ack", Histogram()), self.now[rated].count
        second = Second(
            second=len(self.timeline) + 1,
            rate_per_second=round(counted / seconds, 1),
            ack_p50_ms=acks.percentile(50) / 1000,
            ack_p99_ms=acks.percentile(99) / 1000,
        )
        self.timeline.append(second)
        self.fold()
        return second

    def fold(self) -> None:
        """Add the second that runs to those that are over."""
        for kind, histogram in self.now.items():
            self.latencies[kind].add(histogram)
            histogram.clear()

    def count(self, kind: str) -> int:
        """Return how many of a kind there were since the warm-up."""
        return self.latencies[kind].count + self.now[kind].count

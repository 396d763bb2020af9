"""What a run found, in one form for every scenario: what is printed, stored, compared and plotted.

A `Round` is one measurement on a fresh server. A `Report` is all rounds of a run: each figure with its
value in every round, so that whoever compares two reports knows how much they vary by themselves.
"""

import enum
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median

import msgspec

from bench.environment import Environment, SyncLatency
from bench.histogram import Histogram

PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
"""What reports carry of a latency, beside the longest."""

CURVE_PERCENTS = (
    *(0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98),
    *(99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 99.995, 99.999, 100),
)
"""Where a latency is plotted: closer towards the end, which is what one looks for."""


MIB = 1024 * 1024
"""Bytes in the unit of sizes."""


Waits = Mapping[str, Sequence[tuple[float, float]]]
"""By session: when each message was due, and when it was acknowledged, in seconds of the machine's own clock."""


class Better(enum.StrEnum):
    """Which way a figure improves."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"
    """It explains other figures, and is no goal."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured in one round."""

    name: str
    value: float
    unit: str = ""
    better: Better = Better.LOWER


class Second(msgspec.Struct, kw_only=True):
    """One second of a round."""

    second: int
    rate_per_second: float
    ack_p50_ms: float = 0.0
    ack_p99_ms: float = 0.0
    """Both 0 if nothing was acknowledged."""


class ServerSecond(msgspec.Struct, kw_only=True):
    """What the server was like in one second of a round; None where it is not known."""

    second: int
    memory_mib: float | None = None
    """At its end, with all that the server started."""
    flush_memory_mib: float | None = None
    """That of the process that flushes, if there is one."""
    flush_lag_seconds: float | None = None
    flush_backlog_records: int | None = None
    """The highest."""


@dataclass(slots=True)
class Round:
    """What one measurement gave."""

    sync: SyncLatency
    figures: list[Figure] = field(default_factory=list)
    latencies: dict[str, Histogram] = field(default_factory=dict)
    """By what was waited for (`ack`, `delivery`, `replay`), in microseconds."""
    acked: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    timeline: list[Second] = field(default_factory=list)
    server_timeline: list[ServerSecond] = field(default_factory=list)
    verdict: dict[str, bool | int] = field(default_factory=dict)
    """Empty for what cannot replay and therefore has none."""
    examples: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failure: str = ""
    """Why there is nothing else, if there is not."""
    waits: Waits = field(default_factory=dict)
    """Of each message, where that was asked for."""

    def figure(self, name: str) -> float:
        """Return one of its figures, which it must have."""
        return next(figure.value for figure in self.figures if figure.name == name)


class Metric(msgspec.Struct, kw_only=True):
    """A figure over all rounds."""

    name: str
    unit: str
    better: Better
    values: list[float]
    """One for each round that has it."""
    missing: list[int] = []
    """The rounds that have it not, from 1."""

    @property
    def median(self) -> float:
        """The value that stands for all."""
        return median(self.values)

    @property
    def presence(self) -> str:
        """In how many rounds it is, if not in all."""
        return _presence(len(self.values), self.missing)

    def by_round(self) -> dict[int, float]:
        """Return the values by the number of their round."""
        rounds = range(1, len(self.values) + len(self.missing) + 1)
        return dict(zip((n for n in rounds if n not in self.missing), self.values, strict=True))


class Latency(msgspec.Struct, kw_only=True):
    """One kind of waiting over all rounds."""

    count: int
    rounds: list[dict[str, float]]
    """p50, p90, p99, p999 and max of each round that has it, in milliseconds."""
    curve: list[tuple[float, float]]
    """Percent and milliseconds, of all rounds together."""
    missing: list[int] = []
    """The rounds that have it not, from 1."""

    @property
    def presence(self) -> str:
        """In how many rounds it is, if not in all."""
        return _presence(len(self.rounds), self.missing)

    @property
    def median(self) -> dict[str, float]:
        """The median of each percentile; the longest wait is that of all rounds."""
        medians = {
            name: round(median(each[name] for each in self.rounds), 3) for name in self.rounds[0]
        }
        return medians | {"max": max(each["max"] for each in self.rounds)}


class Report(msgspec.Struct, kw_only=True):
    """The outcome of a run.

    A run whose verdict failed has no rate and no metrics: how fast something was lost is of no interest.
    """

    scenario: str
    config: dict[str, str | int | float | bool | None]
    environment: Environment
    rate_per_second: float | None
    """The median of the metric `rate`, if the scenario has one."""
    acked: int
    refused: dict[str, int]
    ack_ms: dict[str, float] | None
    delivery_ms: dict[str, float] | None
    replay_ms: dict[str, float] | None
    fdatasync_ms: SyncLatency
    metrics: list[Metric]
    latencies: dict[str, Latency]
    timeline: list[Second]
    """Of the round with the median rate."""
    verdict: dict[str, bool | int]
    examples: list[str]
    warnings: list[str]
    beside: "list[Report]" = []
    """The same load on something else, in the same run."""
    server_timeline: list[ServerSecond] = []
    """Of the same round as the timeline; its seconds begin with those, and are not cut at the same instants."""
    failures: list[str] = []
    """Rounds that gave nothing, and why."""

    @property
    def ok(self) -> bool:
        """Whether the promise was kept, by all that gave one."""
        return bool(self.verdict.get("ok", True)) and all(other.ok for other in self.beside)

    @property
    def is_whole(self) -> bool:
        """Whether no round failed, of this or of what ran beside it."""
        return not self.failures and all(other.is_whole for other in self.beside)

    def metric(self, name: str) -> Metric | None:
        """Return the metric with this name, if there is one."""
        return next((metric for metric in self.metrics if metric.name == name), None)


RATE = "rate"
"""The name of the figure that a scenario is about, if it is about a rate: something a second."""


def make_report(
    scenario: str,
    rounds: Sequence[Round],
    *,
    config: dict[str, str | int | float | bool | None],
    environment: Environment,
) -> Report:
    """Report all rounds of one run; where some failed, what the others gave. If all did, that is no verdict."""
    measured = [each for each in rounds if not each.failure]
    failures = [
        f"round {number} of {len(rounds)} failed: {each.failure}"
        for number, each in enumerate(rounds, 1)
        if each.failure
    ]
    verdict: dict[str, bool | int] = {"ok": False}
    if measured:
        verdict = merge_verdicts(each.verdict for each in measured)
    kept = verdict.get("ok", True)
    metrics = _metrics(rounds) if kept else []
    latencies = _latencies(rounds) if kept else {}
    rates = [metric.median for metric in metrics if metric.name == RATE]
    medians = {kind: latency.median for kind, latency in latencies.items()}
    return Report(
        scenario=scenario,
        config=config,
        environment=environment,
        rate_per_second=rates[0] if rates else None,
        acked=sum(each.acked for each in rounds),
        refused=dict(sum((each.refused for each in rounds), Counter[str]())),
        ack_ms=medians.get("ack"),
        delivery_ms=medians.get("delivery"),
        replay_ms=medians.get("replay"),
        fdatasync_ms=_sync(rounds),
        metrics=metrics,
        latencies=latencies,
        timeline=_middle(measured).timeline if kept else [],
        verdict=verdict,
        examples=list(chain(*(each.examples for each in rounds))),
        warnings=list(dict.fromkeys(chain(*(each.warnings for each in rounds)))),
        server_timeline=_middle(measured).server_timeline if kept else [],
        failures=failures,
    )


def summarise_ms(latency_us: Histogram) -> dict[str, float]:
    """Return the percentiles that reports carry, in milliseconds."""
    summary = {name: latency_us.percentile(percent) / 1000 for name, percent in PERCENTS.items()}
    return summary | {"max": latency_us.max / 1000}


def read_report(path: Path) -> Report:
    """Return a report that `write_json` wrote.

    Raises:
        msgspec.DecodeError: It is no such file.
        OSError: It cannot be read.
    """
    return msgspec.json.decode(path.read_bytes(), type=Report)


def write_json(report: msgspec.Struct, path: Path) -> None:
    """Write a report where the next program finds it; ``-`` is stdout."""
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
    if str(path) == "-":
        sys.stdout.buffer.write(encoded + b"\n")
        sys.stdout.flush()
    else:
        path.write_bytes(encoded + b"\n")


def progress(line: str) -> None:
    """Say on stderr how far a run is."""
    print(line, file=sys.stderr, flush=True)


def _metrics(rounds: Sequence[Round]) -> list[Metric]:
    """Return each figure that a round has, in the order of the first that has it."""
    by_name = [{figure.name: figure for figure in each.figures} for each in rounds]
    names = dict.fromkeys(chain.from_iterable(by_name))
    return [_metric(name, [figures.get(name) for figures in by_name]) for name in names]


def _metric(name: str, figures: Sequence[Figure | None]) -> Metric:
    there = [figure for figure in figures if figure is not None]
    return Metric(
        name=name,
        unit=there[0].unit,
        better=there[0].better,
        values=[figure.value for figure in there],
        missing=_missing(figures),
    )


def _missing(values: Sequence[object | None]) -> list[int]:
    """Return the numbers of the rounds that have none."""
    return [number for number, value in enumerate(values, 1) if value is None]


def _presence(count: int, missing: Sequence[int]) -> str:
    return f"in {count} of {count + len(missing)} rounds" if missing else ""


def _latencies(rounds: Sequence[Round]) -> dict[str, Latency]:
    kinds = dict.fromkeys(chain.from_iterable(each.latencies for each in rounds))
    by_kind = {kind: [_waits(each, kind) for each in rounds] for kind in kinds}
    return {kind: _latency(waits) for kind, waits in by_kind.items() if any(waits)}


def _waits(each: Round, kind: str) -> Histogram | None:
    """Return how long was waited in a round, if anything was waited for."""
    waits = each.latencies.get(kind)
    return waits if waits is not None and waits.count else None


def _latency(rounds: Sequence[Histogram | None]) -> Latency:
    there = [each for each in rounds if each is not None]
    merged = Histogram()
    for each in there:
        merged.add(each)
    return Latency(
        count=merged.count,
        rounds=[summarise_ms(each) for each in there],
        curve=[(percent, merged.percentile(percent) / 1000) for percent in CURVE_PERCENTS],
        missing=_missing(rounds),
    )


def _middle(rounds: Sequence[Round]) -> Round:
    """Return the round with the median rate; the lower of the two in the middle."""

    def rate(each: Round) -> float:
        return next((figure.value for figure in each.figures if figure.name == RATE), 0.0)

    return sorted(rounds, key=rate)[(len(rounds) - 1) // 2]


def merge_verdicts(verdicts: Iterable[dict[str, bool | int]]) -> dict[str, bool | int]:
    """Return one verdict on all: each kind of fault counted, and whether there was none."""
    given = [verdict for verdict in verdicts if verdict]
    if not given:
        return {}
    counts: dict[str, bool | int] = {
        kind: sum(verdict[kind] for verdict in given) for kind in given[0]
    }
    return counts | {"ok": all(verdict["ok"] for verdict in given)}


def _sync(rounds: Sequence[Round]) -> SyncLatency:
    return SyncLatency(
        p50=round(median(each.sync.p50 for each in rounds), 3),
        p99=round(median(each.sync.p99 for each in rounds), 3),
    )

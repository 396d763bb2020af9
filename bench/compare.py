"""What of the difference between two reports is noise, and what is not.

A figure is called better or worse only if both hold:

- **It is more than chance.** If the rounds are enough for a p below 0.05 (four on each side, or three
  beside five), the exact Mann–Whitney test of `bench.significance` must give one. If they are not, no
  round of one side may lie within the range of the other. With three beside three that happens by chance
  once in ten times, so it is marked as weak. With fewer than three rounds there is no judgement.
- **It is large enough to matter**: the medians differ by the threshold at least, 3 % by default. With many
  rounds a difference of 1 % is real as well, and yet nothing to decide by.

What this cannot see: the rounds of a run share an hour and a machine, so they vary less than two runs do.
A neighbour on the same host moves all rounds of one run. Hence the warnings about whatever should be
equal and is not, above all the disk's own sync. And of twenty figures that did not change, one has a p
below 0.05: a single "worse" among many is a reason to measure again, not a finding.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from bench.environment import Environment, SyncLatency
from bench.report import Better, Report
from bench.significance import least_p, mann_whitney_p

ALPHA = 0.05
"""A difference with a smaller p is called one."""

THRESHOLD = 0.03
"""A smaller change of the median is nothing to decide by, however sure."""

ROUNDS_MIN = 3
"""Two values on a side say nothing of how much they vary."""

SYNC_DIFFERENCE_MAX = 0.2
"""Of the disk's median sync; beyond it, the disk was in another state."""

_EXPECTED_TO_DIFFER = {"commit", "load", "interpreter_ns"}
"""What one compares, and what is of one moment."""


class CompareError(Exception):
    """These two reports have nothing to compare: they are of different scenarios."""


class VerdictError(Exception):
    """A run lost, repeated, reordered or changed something; how fast it did is of no interest."""


class Judgement(enum.StrEnum):
    """What a figure's rounds say of B, seen from A."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    """Which is not that there is none."""
    CANNOT_TELL = "cannot tell"


class Spread(msgspec.Struct, frozen=True):
    """One figure in all rounds of one report."""

    median: float
    low: float
    high: float
    rounds: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both reports."""

    name: str
    unit: str
    better: Better
    a: Spread
    b: Spread
    ratio: float | None
    """The median of B over that of A; None if that is 0."""
    p: float | None
    """None if the rounds are too few for the test."""
    judgement: Judgement | None
    """None for what only explains other figures."""
    weak: bool
    """Whether the judgement rests on ranges that do not overlap, instead of the test."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two reports, figure by figure."""

    scenario: str
    commit_a: str
    commit_b: str
    threshold: float
    differences: list[Difference]
    warnings: list[str]
    """What makes the comparison doubtful, or is missing from it."""

    def count(self, judgement: Judgement) -> int:
        """Return how many figures were judged so."""
        return sum(each.judgement is judgement for each in self.differences)


class _Figure(NamedTuple):
    """A metric, or one percentile of a latency."""

    better: Better
    values: Sequence[float]


_Figures = Mapping[tuple[str, str], _Figure]
"""By name and unit: what changed its unit is another figure."""


def compare_reports(a: Report, b: Report, threshold: float = THRESHOLD) -> Comparison:
    """Judge each figure that both reports have; `threshold` is a fraction of the median of A.

    The verdicts are those of the reports themselves. What ran beside them is not compared.

    Raises:
        CompareError: They are of different scenarios.
        VerdictError: One of them broke the promise.
    """
    if a.scenario != b.scenario:
        raise CompareError(
            f"A is of the scenario {a.scenario!r} and B of {b.scenario!r}; "
            "give two reports of the same one"
        )
    for name, report in (("A", a), ("B", b)):
        if not report.verdict.get("ok", True):
            raise VerdictError(f"{name} failed its verdict ({_faults(report)}): it has no figures")
    figures_a, figures_b = _figures(a), _figures(b)
    return Comparison(
        scenario=a.scenario,
        commit_a=a.environment.commit,
        commit_b=b.environment.commit,
        threshold=threshold,
        differences=[
            _difference(*key, figure, figures_b[key], threshold)
            for key, figure in figures_a.items()
            if key in figures_b
        ],
        warnings=[
            *_config_warnings(a.config, b.config),
            *_environment_warnings(a.environment, b.environment),
            *_sync_warnings(a.fdatasync_ms, b.fdatasync_ms),
            *_speed_warnings(a.environment.interpreter_ns, b.environment.interpreter_ns),
            *_partial_warnings("A", a),
            *_partial_warnings("B", b),
            *_missing_warnings("A", figures_a, figures_b),
            *_missing_warnings("B", figures_b, figures_a),
        ],
    )


def _figures(report: Report) -> _Figures:
    """Return all that has a value in at least one round, latencies last."""
    figures = {
        (metric.name, metric.unit): _Figure(metric.better, metric.values)
        for metric in report.metrics
        if metric.values
    }
    for kind, latency in report.latencies.items():
        for percentile in latency.rounds[0] if latency.rounds else ():
            values = [each[percentile] for each in latency.rounds if percentile in each]
            figures[f"{kind} {percentile}", "ms"] = _Figure(Better.LOWER, values)
    return figures


def _difference(name: str, unit: str, a: _Figure, b: _Figure, threshold: float) -> Difference:
    spread_a, spread_b = _spread(a.values), _spread(b.values)
    testable = least_p(spread_a.rounds, spread_b.rounds) < ALPHA
    p = mann_whitney_p(a.values, b.values) if testable else None
    judged = b.better is not Better.NEITHER
    judgement = _judge(spread_a, spread_b, p, b.better, threshold) if judged else None
    return Difference(
        name=name,
        unit=unit,
        better=b.better,
        a=spread_a,
        b=spread_b,
        ratio=spread_b.median / spread_a.median if spread_a.median else None,
        p=p,
        judgement=judgement,
        weak=p is None and judgement in {Judgement.BETTER, Judgement.WORSE},
    )


def _judge(a: Spread, b: Spread, p: float | None, better: Better, threshold: float) -> Judgement:
    """Judge a goal; `p` is None where the rounds are too few for the test."""
    if min(a.rounds, b.rounds) < ROUNDS_MIN:
        return Judgement.CANNOT_TELL
    more_than_chance = p < ALPHA if p is not None else a.high < b.low or b.high < a.low
    change = abs(b.median - a.median)
    # Tested by multiplication: the median of A may be 0.
    if not (more_than_chance and change > 0 and change >= threshold * abs(a.median)):
        return Judgement.NO_DIFFERENCE
    rose = b.median > a.median
    return Judgement.BETTER if rose is (better is Better.HIGHER) else Judgement.WORSE


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values), len(values))


def _faults(report: Report) -> str:
    """Name what a verdict counted."""
    counts = [f"{kind} {count}" for kind, count in report.verdict.items() if kind != "ok" and count]
    return ", ".join(counts) or "not ok"


def _config_warnings(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    return [
        f"config {key}: A has {_shown(a, key)}, B has {_shown(b, key)}"
        for key in dict.fromkeys((*a, *b))
        if key not in a or key not in b or a[key] != b[key]
    ]


def _shown(values: Mapping[str, object], key: str) -> str:
    return str(values[key]) if key in values else "nothing"


def _environment_warnings(a: Environment, b: Environment) -> list[str]:
    facts_a, facts_b = _facts(a), _facts(b)
    return [
        f"{name}: A ran on {_shown(facts_a, name)}, B on {_shown(facts_b, name)}"
        for name in dict.fromkeys((*facts_a, *facts_b))
        if name not in _EXPECTED_TO_DIFFER and facts_a.get(name) != facts_b.get(name)
    ]


def _facts(environment: Environment) -> dict[str, object]:
    """Return what is known of a machine, each version by the name of what it is of."""
    facts: dict[str, object] = dataclasses.asdict(environment) | environment.versions
    del facts["versions"]
    return facts


def _sync_warnings(a: SyncLatency, b: SyncLatency) -> list[str]:
    """Compare the disk itself, with a limit that is the same whichever of the two is slower."""
    low, high = sorted((a.p50, b.p50))
    if high <= low * (1 + SYNC_DIFFERENCE_MAX):
        return []
    syncs = f"fdatasync alone took {a.p50:g} ms in A and {b.p50:g} ms in B (p50)"
    return [f"{syncs}: another state of the disk, so the comparison is doubtful"]


def _speed_warnings(a: float, b: float) -> list[str]:
    """Compare the interpreter itself, by the same limit."""
    low, high = sorted((a, b))
    if high <= low * (1 + SYNC_DIFFERENCE_MAX):
        return []
    calls = f"a function call took {a:g} ns in A and {b:g} ns in B"
    return [f"{calls}: another speed of the machine, so the comparison is doubtful"]


def _missing_warnings(name: str, figures: _Figures, others: _Figures) -> list[str]:
    missing = [figure for figure, unit in figures if (figure, unit) not in others]
    return [f"only in {name}: {', '.join(missing)}"] if missing else []


def _partial_warnings(name: str, report: Report) -> list[str]:
    """Name the figures that not every round has, and the rounds that have none."""
    presence = {metric.name: metric.presence for metric in report.metrics}
    presence |= {kind: latency.presence for kind, latency in report.latencies.items()}
    partial = [f"{figure} {where}" for figure, where in presence.items() if where]
    return [
        *(f"{name}: {failure}" for failure in report.failures),
        *([f"{name} has {', '.join(partial)}"] if partial else []),
    ]

from pathlib import Path
from typing import Any

from bench.checker import Findings, Kind
from bench.environment import SyncLatency, read_environment
from bench.generator import Outcome
from bench.lag import Sample
from bench.measurement import Measured
from bench.report import AppendReport
from bench.rounds import report_rounds


def measured(rate: float, *, verdict: dict[str, bool | int] | None = None, **more: Any) -> Measured:
    """A round whose figures all follow from its rate."""
    outcome = Outcome(
        rate_per_second=rate,
        acked=int(rate),
        refused={"backpressure": 1},
        ack_ms=dict.fromkeys(("p50", "p90", "p99", "p999", "max"), rate / 10),
        server_cpu=rate / 1000,
        server_rss_bytes=int(rate),
        generator_cpu=0.5,
        verify_seconds=1.0,
        verdict=Findings().verdict() if verdict is None else verdict,
        examples=[],
    )
    return Measured(outcome, SyncLatency(p50=0.1, p99=rate / 100), **more)


def report(real: list[Measured], *bare: Measured) -> AppendReport:
    return report_rounds(real, bare, config={}, environment=read_environment(Path()))


def test_figures_are_medians_and_counts_are_sums() -> None:
    made = report([measured(100), measured(900), measured(200)])
    assert made.rate_per_second == 200
    assert made.ack_ms == {"p50": 20, "p90": 20, "p99": 20, "p999": 20, "max": 90}
    assert made.fdatasync_ms == SyncLatency(p50=0.1, p99=2)
    assert (made.server_cpu, made.server_rss_bytes) == (0.2, 200)
    assert (made.acked, made.refused) == (1200, {"backpressure": 3})
    assert (made.bare, made.ratio) == (None, None)


def test_the_ratio_is_that_of_the_median_rates() -> None:
    real = [measured(100), measured(200), measured(300)]
    made = report(real, *(measured(rate, verdict={}) for rate in (800, 400, 100)))
    assert made.ratio == 0.5
    assert made.bare is not None
    assert (made.bare.rate_per_second, made.bare.acked) == (400, 1300)
    rates = [(each.rate_per_second, each.bare_rate_per_second) for each in made.rounds]
    assert rates == [(100, 800), (200, 400), (300, 100)]


def test_one_round_that_lost_something_leaves_no_rate_and_no_ratio() -> None:
    findings = Findings()
    findings.add(Kind.LOST, "s", "one")
    made = report(
        [measured(100), measured(100, verdict=findings.verdict())], measured(1), measured(1)
    )
    assert made.verdict["ok"] is False
    assert made.verdict["lost"] == 1
    assert (made.rate_per_second, made.ratio) == (None, None)


def test_the_lag_is_that_of_all_rounds_and_may_be_unknown() -> None:
    rounds = [measured(1, lag=[Sample(0.1, 5)]), measured(1, lag=[Sample(0.4, 2)])]
    made = report(rounds)
    assert made.flush_lag_s == {"p50": 0.1, "p99": 0.4, "max": 0.4}
    assert made.flush_backlog_max == 5
    assert report([measured(1)]).flush_lag_s is None


def test_the_archive_caught_up_only_if_it_was_held_back() -> None:
    assert report([measured(1)]).catch_up_s is None
    assert report([measured(1, catch_up_seconds=2.5)]).catch_up_s == 2.5

"""How rounds become a report: medians of figures, sums of counts, one verdict."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.checker import Findings, Kind
from bench.environment import SyncLatency
from bench.histogram import Histogram
from bench.report import (
    Better,
    Figure,
    Report,
    Round,
    Second,
    make_report,
    merge_verdicts,
    read_report,
    write_json,
)
from bench.table import print_report
from tests.bench.reports import ENVIRONMENT

SYNC = SyncLatency(p50=0.1, p99=0.2)

CLEAN = Findings().verdict()


def measured(rate: float, *, verdict: dict[str, bool | int] | None = None) -> Round:
    """A round whose figures all follow from its rate."""
    latency = Histogram()
    for value in range(1, 101):
        latency.record(int(rate) * value)
    return Round(
        sync=SyncLatency(p50=0.1, p99=rate / 100),
        figures=[Figure("rate", rate, "/s", Better.HIGHER), Figure("memory", rate * 2, "MiB")],
        latencies={"ack": latency, "delivery": Histogram()},
        acked=int(rate),
        refused=Counter(backpressure=1),
        timeline=[Second(second=1, rate_per_second=rate)],
        verdict=CLEAN if verdict is None else verdict,
        warnings=["the generator was busy"],
    )


def report(*rounds: Round) -> Report:
    return make_report("append", rounds, config={}, environment=ENVIRONMENT)


def test_figures_are_medians_and_counts_are_sums() -> None:
    made = report(measured(100), measured(900), measured(200))
    assert made.rate_per_second == 200
    memory = made.metric("memory")
    assert memory is not None
    assert (memory.median, memory.values) == (400, [200, 1800, 400])
    assert made.fdatasync_ms == SyncLatency(p50=0.1, p99=2)
    assert (made.acked, made.refused) == (1200, {"backpressure": 3})
    assert [second.rate_per_second for second in made.timeline] == [200]
    assert made.warnings == ["the generator was busy"]


def test_percentiles_are_medians_of_rounds_and_the_longest_wait_is_that_of_all() -> None:
    made = report(measured(1), measured(9), measured(2))
    ack = made.ack_ms
    assert ack is not None
    assert (ack["p50"], ack["max"]) == (0.1, 0.9)
    # The curve is that of all waits together.
    together = made.latencies["ack"]
    assert together.count == 300
    assert together.curve[-1] == (100.0, 0.9)


def test_what_never_happened_has_no_latency() -> None:
    made = report(measured(1))
    assert made.delivery_ms is None
    assert "delivery" not in made.latencies


def test_one_round_that_lost_something_leaves_no_rate_and_no_figure() -> None:
    findings = Findings()
    findings.add(Kind.LOST, "s", "one")
    made = report(measured(100), measured(100, verdict=findings.verdict()))
    assert made.ok is False
    assert made.verdict["lost"] == 1
    assert (made.rate_per_second, made.metrics, made.latencies) == (None, [], {})


def test_a_figure_that_one_round_lacks_is_there_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    without = measured(100)
    without.figures.pop()
    without.latencies["delivery"].record(1000)
    made = report(measured(100), without, measured(300))
    rate, memory = made.metrics
    assert (rate.values, rate.missing, rate.presence) == ([100, 100, 300], [], "")
    assert (memory.values, memory.missing) == ([200, 600], [2])
    assert memory.presence == "in 2 of 3 rounds"
    assert memory.by_round() == {1: 200, 3: 600}
    assert made.latencies["delivery"].missing == [1, 3]
    print_report(made)
    printed = capsys.readouterr().out
    assert "400 (200 – 600) MiB in 2 of 3 rounds" in printed
    assert "delivery in 1 of 3 rounds" in printed


def test_what_only_a_later_round_has_is_there_too() -> None:
    later = measured(100)
    later.figures.append(Figure("caught up", 1.0, "s"))
    later.latencies["replay"] = later.latencies["ack"]
    made = report(measured(100), later)
    caught_up = made.metric("caught up")
    assert caught_up is not None
    assert (caught_up.values, caught_up.missing) == ([1.0], [1])
    assert made.latencies["replay"].presence == "in 1 of 2 rounds"


def test_a_round_that_failed_takes_nothing_from_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = report(measured(100), Round(sync=SYNC, failure="it hung up"), measured(300))
    assert made.ok
    assert not made.is_whole
    assert (made.rate_per_second, made.acked) == (200, 400)
    assert made.failures == ["round 2 of 3 failed: it hung up"]
    assert [metric.presence for metric in made.metrics] == ["in 2 of 3 rounds"] * 2
    print_report(made)
    assert "round 2 of 3 failed: it hung up" in capsys.readouterr().out
    outer = report(measured(1))
    outer.beside = [made]
    assert not outer.is_whole


def test_a_run_of_which_every_round_failed_is_no_good_one() -> None:
    made = report(Round(sync=SYNC, failure="it hung up"))
    assert not made.ok
    assert (made.rate_per_second, made.metrics, made.latencies) == (None, [], {})


def test_a_report_fails_with_any_beside_it_and_what_gave_no_promise_has_kept_it() -> None:
    made = report(measured(1))
    made.beside = [report(measured(1, verdict={}))]
    assert made.ok
    made.beside.append(report(measured(1, verdict={"ok": False, "lost": 1})))
    assert not made.ok


def test_verdicts_are_added_kind_by_kind() -> None:
    merged = merge_verdicts([{"ok": True, "lost": 0}, {}, {"ok": False, "lost": 2}])
    assert merged == {"ok": False, "lost": 2}
    assert merge_verdicts([{}, {}]) == {}


def test_a_written_report_reads_as_it_was(tmp_path: Path) -> None:
    made = report(measured(100))
    made.beside = [report(measured(50, verdict={}))]
    write_json(made, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == made
    written = json.loads((tmp_path / "report.json").read_text())
    assert set(written["ack_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert set(written["fdatasync_ms"]) == {"p50", "p99"}


def test_the_table_has_each_figure_with_its_range_and_no_rate_when_something_was_lost(
    capsys: object,
) -> None:
    made = report(measured(1000), measured(3000), measured(2000))
    print_report(made)
    printed = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "2,000 (1,000 – 3,000) /s" in printed
    assert "6,000: all there, once, in order, unchanged" in printed
    assert "warning: the generator was busy" in printed
    print_report(report(measured(1000, verdict={"ok": False, "lost": 3})))
    printed = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "The promise was broken." in printed
    assert "1,000" not in printed

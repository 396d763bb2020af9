"""What several generators saw of one server, as one round."""

import os

import pytest

from bench.environment import SyncLatency
from bench.generator import Outcome
from bench.histogram import Histogram
from bench.measurement import drift_figures, make_round, warnings_of
from bench.report import Figure, Second
from bench.usage import FLUSH, GENERATOR, SERVER

SYNC = SyncLatency(p50=0.1, p99=0.2)


def outcome(
    rates: list[float], *, latency_us: int = 1000, verdict: dict[str, bool | int] | None = None
) -> Outcome:
    histogram = Histogram()
    histogram.record(latency_us)
    return Outcome(
        seconds=float(len(rates)),
        counted=int(sum(rates)),
        acked=int(sum(rates)) + 5,
        refused={"backpressure": 2},
        latencies={"ack": histogram.pack()},
        timeline=[
            Second(second=n, rate_per_second=rate, ack_p99_ms=rate / 100)
            for n, rate in enumerate(rates, 1)
        ],
        verify_seconds=0.1,
        verdict={"ok": True, "lost": 0} if verdict is None else verdict,
        examples=[],
    )


def busy(share: float) -> list[Figure]:
    return [Figure(GENERATOR, share, "cores")]


def test_rates_add_up_and_latencies_are_put_together() -> None:
    made = make_round([outcome([100, 300]), outcome([200, 200], latency_us=9000)], busy(0.2), SYNC)
    assert made.figure("rate") == 400
    assert (made.acked, made.refused["backpressure"]) == (810, 4)
    assert (made.latencies["ack"].count, made.latencies["ack"].max) == (2, 9000)
    seconds = [(second.rate_per_second, second.ack_p99_ms) for second in made.timeline]
    assert seconds == [(300, 2), (500, 3)]


def test_one_generator_that_saw_a_loss_is_enough() -> None:
    made = make_round(
        [outcome([1]), outcome([1], verdict={"ok": False, "lost": 1})], busy(0.2), SYNC
    )
    assert made.verdict == {"ok": False, "lost": 1}


def test_a_run_that_slows_down_says_so() -> None:
    made = make_round([outcome([200.0] * 3 + [150.0] * 9 + [100.0] * 3)], busy(0.2), SYNC)
    (figure,) = drift_figures(made.timeline)
    assert (figure.name, figure.value) == ("rate, last fifth over first", 0.5)
    assert drift_figures(made.timeline[:9]) == []


def test_a_generator_that_may_be_the_bottleneck_is_warned_of() -> None:
    assert make_round([outcome([1])], busy(0.5), SYNC).warnings == []
    (warning,) = make_round([outcome([1])], busy(0.95), SYNC).warnings
    assert "0.95 of a core" in warning


def test_a_machine_without_an_idle_core_and_messages_that_left_late_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    # What flushes is a part of the server, and not in use beside it.
    figures = [*busy(0.7), Figure(SERVER, 1.25, "cores"), Figure(FLUSH, 0.5, "cores")]
    (warning,) = warnings_of(figures, {})
    assert "1.95 of 2 cores" in warning
    late = Histogram()
    late.record(2_000)
    assert warnings_of(busy(0.1), {"late": late}) == []
    late.record(50_000)
    (warning,) = warnings_of(busy(0.1), {"late": late})
    assert "50 ms" in warning

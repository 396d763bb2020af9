"""One short run of each scenario that restarts, kills or fills a server; that of appends is beside its tests."""

from pathlib import Path

import pytest

from bench.report import Report
from bench.scenarios.idle import IdleOptions, run_idle
from bench.scenarios.recover import RecoverOptions, run_recover
from bench.scenarios.replay import ReplayOptions, run_replay
from bench.table import print_report


def figures(report: Report) -> dict[str, float]:
    return {metric.name: metric.median for metric in report.metrics}


async def test_what_was_written_is_replayed_and_so_are_the_tails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await run_replay(
        ReplayOptions(
            sessions=2, messages=50, clients=4, passes=2, long=2_000, tails=1, directory=tmp_path
        )
    )
    assert report.verdict["ok"] is True, report.examples
    assert report.acked == 2 * 50 + 100 + 2_000
    assert report.replay_ms is not None
    assert report.latencies["replay"].count == 4
    assert report.latencies["replay, warm"].count == 8
    found = figures(report)
    assert found["cold rate"] > 0
    assert found["warm throughput"] > 0
    for kind in ("replay", "page"):
        of = f"{kind} of the last 100 of"
        ratio = found[f"{of} 2,000"] / found[f"{of} 100"]
        assert found[f"{kind} of a tail, long over short"] == pytest.approx(ratio, abs=0.01)
    print_report(report)
    assert "cold rate" in capsys.readouterr().out


async def test_a_server_that_was_killed_with_a_backlog_has_everything(tmp_path: Path) -> None:
    report = await run_recover(RecoverOptions(unflushed=(1,), history=(300,), directory=tmp_path))
    assert report.verdict["ok"] is True, report.examples
    found = figures(report)
    waited = found["waited with 1 MiB unflushed, 300 archived"]
    assert 1_000 < waited < 2**20 / 200
    # The record of the session itself waited too, and one more message was acknowledged afterwards.
    assert report.acked == 300 + waited
    ready, joined, acked = (
        found[f"{step} with 1 MiB unflushed, 300 archived"] for step in ("ready", "joined", "acked")
    )
    assert 0 < ready <= joined <= acked
    assert report.config["unflushed"] == "1"


async def test_sessions_rest_while_connections_idle(tmp_path: Path) -> None:
    report = await run_idle(
        IdleOptions(
            sessions=60,
            connections=10,
            seconds=0.1,
            weighed_sessions=30,
            weighed_connections=5,
            settle_seconds=0.1,
            directory=tmp_path,
        )
    )
    assert report.verdict["ok"] is True, report.examples
    assert report.acked == 60
    assert report.latencies["join"].count == 50
    assert set(figures(report)) == {
        "memory at the start",
        "sessions made",
        "memory with 60 sessions at rest",
        "memory and 10 connections",
        "server processor while idle",
        "of which flush processor while idle",
        "of which flush memory",
        "memory of an active session",
        "memory of an idle joined connection",
    }

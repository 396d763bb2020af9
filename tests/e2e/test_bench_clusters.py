"""One short run of each scenario about clusters: real processes, a verdict, and no word about how fast."""

import tempfile
from pathlib import Path

import pytest

from bench.report import Report
from bench.scenarios.cluster import ClusterLoadOptions, run_cluster
from bench.scenarios.drain import DrainOptions, run_drain
from bench.scenarios.failover import FailoverOptions, run_failover
from bench.scenarios.replicated import ReplicatedOptions, run_replicated
from bench.scenarios.run import OptionsError
from bench.table import print_report


def figures(report: Report) -> dict[str, float]:
    return {metric.name: metric.median for metric in report.metrics}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_link_is_measured_beside_one_process_and_beside_two_owners(tmp_path: Path) -> None:
    options = ClusterLoadOptions(
        connections=4, in_flight=2, seconds=0.4, warmup_seconds=0.1, directory=tmp_path
    )
    report = await run_cluster(options)
    alone, two = report.beside
    assert (report.scenario, alone.scenario, two.scenario) == (
        "cluster",
        "one process",
        "two owners",
    )
    for each in (report, alone, two):
        assert each.verdict["ok"] is True, each.examples
        assert each.acked > 0
        assert each.rate_per_second is not None
    rates = [each.rate_per_second or 0 for each in (report, alone, two)]
    assert figures(report)["ratio to one process"] == round(rates[0] / rates[1], 3)
    assert figures(report)["two owners over one"] == round(rates[2] / rates[0], 3)
    assert set(figures(two)) >= {"edge 1 processor", "owner 1 processor", "owner 2 processor"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(180)
async def test_a_second_copy_is_measured_beside_one() -> None:
    with tempfile.TemporaryDirectory(prefix="ringlog-bench-") as name:
        directory = Path(name)
        # PostgreSQL runs as another user where we are root.
        directory.chmod(0o755)
        options = ReplicatedOptions(
            connections=4, in_flight=2, seconds=0.4, warmup_seconds=0.1, directory=directory
        )
        report = await run_replicated(options)
    (local,) = report.beside
    assert (report.scenario, local.scenario) == ("replicated", "local")
    for each in (report, local):
        assert each.verdict["ok"] is True, each.examples
        assert each.acked > 0
    rates = [each.rate_per_second or 0 for each in (report, local)]
    assert figures(report)["ratio to local"] == round(rates[0] / rates[1], 3)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_sessions_that_move_are_timed_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = DrainOptions(
        owners=2,
        connections=4,
        sessions=40,
        per_second=200.0,
        seconds=4.0,
        warmup_seconds=0.5,
        directory=tmp_path,
    )
    report = await run_drain(options)
    assert report.verdict["ok"] is True, report.examples
    assert report.acked >= 200 * 12
    found = figures(report)
    # Half of the slots, but for what bounded loads allow.
    assert 1_900 < found["slots moved, drain"] == found["slots moved, join"] < 2_200
    assert 0 < found["all moved after, drain"] < 4
    for phase in ("steady", "drain", "join"):
        assert report.latencies[f"pause, {phase}"].count == 40
    assert report.latencies["pause, drain"].median["max"] <= report.latencies["ack"].median["max"]
    print_report(report)
    assert "pause, drain" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_sessions_of_an_owner_that_is_killed_are_timed_and_judged(tmp_path: Path) -> None:
    options = FailoverOptions(
        connections=4,
        sessions=40,
        per_second=200.0,
        seconds=7.0,
        warmup_seconds=0.5,
        directory=tmp_path,
    )
    report = await run_failover(options)
    assert report.verdict["ok"] is True, report.examples
    assert figures(report)["kill -9"] == 2
    away = report.latencies["away"]
    # Each session was away once, and kept once: it belongs to one of two owners.
    assert away.count == report.latencies["pause of others"].count == 40
    # The supervisor waits for half a second before it starts anything again.
    assert away.median["p50"] > 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("archive", ["sqlite:///there.db", "postgresql://r@127.0.0.1/r"])
async def test_an_archive_that_is_there_is_refused_before_anything_starts(
    tmp_path: Path, archive: str
) -> None:
    with pytest.raises(OptionsError, match="started afresh"):
        await run_cluster(
            ClusterLoadOptions(connections=1, seconds=0.1, archive=archive, directory=tmp_path)
        )
    assert list(tmp_path.iterdir()) == []


async def test_an_owner_that_is_drained_needs_another_one(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="--owners"):
        await run_drain(DrainOptions(owners=1, per_second=1.0, seconds=0.1, directory=tmp_path))
    with pytest.raises(OptionsError, match="--sessions"):
        await run_failover(
            FailoverOptions(sessions=1, per_second=1.0, seconds=0.1, directory=tmp_path)
        )

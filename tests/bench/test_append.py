"""Whole runs of the append scenario: real processes, a real disk, and no word about how fast."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest

from bench.archived import read_archived
from bench.report import write_json
from bench.scenarios.append import AppendOptions, plans, run_append
from bench.scenarios.run import OptionsError
from bench.server import Server, sqlite_url
from bench.table import print_report
from tests.fakes.liar import open_liar


def options(directory: Path) -> AppendOptions:
    return AppendOptions(
        connections=4,
        in_flight=4,
        seconds=0.5,
        content_bytes=200,
        warmup_seconds=0.1,
        directory=directory,
    )


@pytest.mark.parametrize("joined", [False, True])
async def test_a_short_run_has_a_rate_and_a_clean_verdict(tmp_path: Path, joined: bool) -> None:
    report = await run_append(dataclasses.replace(options(tmp_path), joined=joined))
    write_json(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["scenario"] == "append"
    assert written["rate_per_second"] > 0
    assert written["acked"] > 0
    assert set(written["ack_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert (written["delivery_ms"] is not None) is joined
    assert written["verdict"] == {
        "ok": True,
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
        "changed": 0,
        "phantom": 0,
        "gap": 0,
    }
    assert written["config"]["joined"] is joined
    named = {metric["name"] for metric in written["metrics"]}
    assert named >= {
        "rate", "server processor", "generator processor", "server memory",
        "log fsyncs per record", "flush lag p99", "largest flush backlog",
        "server memory at the start",
    }  # fmt: skip
    first = written["server_timeline"][0]
    assert first["memory_mib"] > 10
    assert first["flush_lag_seconds"] >= 0


async def test_a_run_beside_the_bare_server_gives_a_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await run_append(dataclasses.replace(options(tmp_path), beside_bare=True))
    (bare,) = report.beside
    assert report.ok
    assert report.rate_per_second is not None
    assert bare.rate_per_second is not None
    ratio = report.metric("ratio to bare")
    assert ratio is not None
    assert ratio.median == round(report.rate_per_second / bare.rate_per_second, 3)
    assert bare.acked > 0
    assert bare.verdict == {}
    print_report(report)
    printed = capsys.readouterr().out
    assert "ratio to bare" in printed
    assert "a yardstick, not a product" in printed


async def test_an_archive_that_was_held_back_holds_the_messages_of_all_rounds_in_the_end(
    tmp_path: Path,
) -> None:
    archive = sqlite_url(tmp_path)
    report = await run_append(
        dataclasses.replace(options(tmp_path), archive=archive, archive_down=True, rounds=2)
    )
    assert report.ok, report.examples
    assert report.refused == {}
    backlog, caught_up = (
        report.metric(name) for name in ("largest flush backlog", "archive caught up after")
    )
    assert backlog is not None
    assert min(backlog.values) > 0
    assert caught_up is not None
    assert len(caught_up.values) == 2
    archived = sum(len(rows) for _, rows in read_archived(archive, "bench-"))
    assert archived == report.acked


async def test_the_server_is_killed_before_anything_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it showed from its memory would say nothing about what is durable."""
    pids = []
    kill = Server.kill

    async def note(server: Server) -> None:
        pids.append(server.pid)
        await kill(server)

    monkeypatch.setattr(Server, "kill", note)
    report = await run_append(dataclasses.replace(options(tmp_path), rounds=2))
    assert report.ok, report.examples
    assert len(set(pids)) == 2


async def test_several_generators_share_connections_sessions_and_rate(tmp_path: Path) -> None:
    given = dataclasses.replace(
        options(tmp_path), connections=5, sessions=11, generators=2, per_second=400.0
    )
    parts = plans(given, "ws://127.0.0.1:1/v1/ws", "run")
    assert [part.connections for part in parts] == [3, 2]
    assert [part.sessions for part in parts] == [6, 5]
    assert [part.per_second for part in parts] == [200.0, 200.0]
    assert len({part.run_id for part in parts}) == 2
    report = await run_append(given, "rate")
    assert report.ok, report.examples
    # What became due in the warm-up and in the half second that counts, or a little more.
    assert 240 <= report.acked <= 340


async def test_a_private_postgres_can_be_the_archive_and_its_share_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # Its server may run as another user.
        directory.chmod(0o755)
        report = await run_append(dataclasses.replace(options(directory), archive="postgres"))
    assert report.ok, report.examples
    assert report.metric("database processor") is not None


async def test_what_a_server_does_not_say_is_left_out(tmp_path: Path) -> None:
    with open_liar() as url:
        report = await run_append(dataclasses.replace(options(tmp_path), url=url, seconds=0.2))
    assert report.ok, report.examples
    assert [metric.name for metric in report.metrics] == ["rate", "generator processor"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"archive_down": True, "archive": "postgresql://r@127.0.0.1/r"}, "only with sqlite"),
        ({"archive_down": True, "url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"beside_bare": True, "url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"beside_bare": True, "joined": True}, "shows no messages"),
        ({"sessions": 3}, "one of its own"),
        ({"generators": 5}, "each needs a connection"),
    ],
    ids=["postgres-down", "url-down", "url-bare", "joined-bare", "sessions", "generators"],
)
async def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(OptionsError, match=reason):
        await run_append(dataclasses.replace(options(tmp_path), **changes))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

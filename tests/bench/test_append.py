"""Whole runs of the append scenario: real processes, a real disk, and no word about how fast."""

import dataclasses
import json
from pathlib import Path

import pytest

from bench.archived import read_archived
from bench.report import print_append, write_json
from bench.scenarios.append import AppendOptions, OptionsError, run_append
from bench.server import sqlite_url
from tests.fakes.liar import open_liar


def options(directory: Path) -> AppendOptions:
    return AppendOptions(
        connections=4,
        in_flight=4,
        seconds=0.5,
        content_bytes=200,
        joined=False,
        directory=directory,
    )


async def test_a_run_beside_the_bare_server_gives_a_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await run_append(dataclasses.replace(options(tmp_path), beside_bare=True))
    write_json(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["verdict"]["ok"] is True
    assert written["ratio"] == round(
        written["rate_per_second"] / written["bare"]["rate_per_second"], 3
    )
    assert written["bare"]["acked"] > 0
    for name in ("ack_ms", "fdatasync_ms"):
        assert set(written["bare"][name]) == set(written[name])
    assert "verdict" not in written["bare"]
    print_append(report)
    printed = capsys.readouterr().out
    assert "ratio to bare" in printed
    assert "a yardstick, not a product" in printed


async def test_an_archive_that_was_held_back_holds_the_messages_of_all_rounds_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = sqlite_url(tmp_path)
    report = await run_append(
        dataclasses.replace(options(tmp_path), archive=archive, archive_down=True, rounds=2)
    )
    assert report.verdict["ok"], report.examples
    assert report.refused == {}
    assert report.catch_up_s is not None
    assert report.flush_lag_s is not None
    assert report.flush_backlog_max is not None
    assert report.flush_backlog_max > 0
    archived = sum(len(rows) for _, rows in read_archived(archive, "bench-"))
    assert archived == report.acked
    print_append(report)
    assert "archive held back" in capsys.readouterr().out


async def test_the_flush_lag_is_part_of_every_run_and_rounds_are_repeated(tmp_path: Path) -> None:
    report = await run_append(dataclasses.replace(options(tmp_path), rounds=2, seconds=0.2))
    assert report.flush_lag_s is not None
    assert set(report.flush_lag_s) == {"p50", "p99", "max"}
    assert report.flush_backlog_max is not None
    assert report.catch_up_s is None
    assert len(report.rounds) == 2


async def test_the_lag_of_a_server_that_does_not_say_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_liar() as url:
        report = await run_append(dataclasses.replace(options(tmp_path), url=url, seconds=0.2))
    assert report.verdict["ok"], report.examples
    assert (report.flush_lag_s, report.flush_backlog_max) == (None, None)
    print_append(report)
    assert "not known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"archive_down": True, "archive": "postgresql://r@127.0.0.1/r"}, "only with sqlite"),
        ({"archive_down": True, "url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"beside_bare": True, "url": "ws://127.0.0.1:1/v1/ws"}, "not with --url"),
        ({"beside_bare": True, "joined": True}, "shows no messages"),
    ],
    ids=["postgres-down", "url-down", "url-bare", "joined-bare"],
)
async def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(OptionsError, match=reason):
        await run_append(dataclasses.replace(options(tmp_path), **changes))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

"""`ringlog demo`: as it is installed, in a process of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bench.processes import family
from tests.edge.server_process import ROOT, wait_until

DEADLINE_SECONDS = 150.0


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demonstration that has begun."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.ringlog", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"it ended without saying {text!r}")


def wait_until_gone(pids: list[int]) -> None:
    """What was killed is reaped by another process, in its own time."""
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_crash_says_what_happens_and_ends_with_a_verdict(tmp_path: Path) -> None:
    with demo("crash", f"--directory={tmp_path}") as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, ""), out
    told = [
        "starting a cluster: 2 owners, 2 edges",
        "kill -9 of owner 1",
        "started again",
        "kill -9 of edge 1",
        "6 connections were made again",
        "0 lost, 0 duplicated, 0 reordered, 0 changed, 0 phantom, 0 gap",
        "Every message is there, once, in order, unchanged.",
    ]
    places = [out.find(text) for text in told]
    assert -1 not in places, out
    assert places == sorted(places)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(180)
def test_failover_loses_a_disk_and_nothing_else(tmp_path: Path) -> None:
    with demo("failover", "--json", f"--directory={tmp_path}") as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, ""), out
    result = json.loads(out)
    assert result["verdict"]["ok"]
    assert 100 < result["acknowledged"] == result["replayed"] == result["archived"]
    # Longer than the other owner waited, or nobody took over from anybody.
    assert result["longest_pause_seconds"] > 3


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_drain_tells_a_program_how_it_went_and_cuts_nobody_off(tmp_path: Path) -> None:
    with demo("drain", "--json", f"--directory={tmp_path}") as process:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, ""), out
    result = json.loads(out)
    assert result["demo"] == "drain"
    assert 0 < result["acknowledged"] <= result["replayed"] == result["archived"]
    assert result["connections_lost"] == 0
    assert result["longest_pause_seconds"] > 0
    assert result["verdict"] == {
        "ok": True,
        **dict.fromkeys(("lost", "duplicated", "reordered", "changed", "phantom", "gap"), 0),
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_archive_that_was_tampered_with_is_a_bad_verdict_and_exit_code_1(tmp_path: Path) -> None:
    with demo("drain", "--json", f"--directory={tmp_path}") as process:
        tamper(tmp_path, time.monotonic() + 60)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (1, ""), out
    verdict = json.loads(out)["verdict"]
    assert verdict["ok"] is False
    assert verdict["changed"] > 0
    assert list(tmp_path.iterdir()) == []


def tamper(directory: Path, deadline: float) -> None:
    """Change the first message that the archive gets."""
    while time.monotonic() < deadline:
        for archive in directory.glob("*/archive.db"):
            try:
                with closing(sqlite3.connect(archive, timeout=30)) as connection, connection:
                    sql = "UPDATE messages SET body = replace(body, 'message 1 of', 'massage 1 of') WHERE seq = 1"
                    if connection.execute(sql).rowcount > 0:
                        return
            except sqlite3.OperationalError:
                pass  # it has no tables yet
        time.sleep(0.1)  # noqa: TID251 - another process has no event to wait for
    pytest.fail("nothing came into the archive")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    with demo("crash", f"--directory={tmp_path}") as process:
        read_until(process, "users write")
        started = family(process.pid)[1:]
        assert len(started) >= 4
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    wait_until_gone(started)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(120)
def test_one_that_breaks_off_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo("crash", f"--directory={tmp_path}") as process:
        read_until(process, "users write")
        started = family(process.pid)[1:]
        (first,) = (int(lock.read_text()) for lock in tmp_path.glob("*/owner-0/data/log/lock"))
        os.kill(first, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("ringlog: the demonstration broke off: ")
    assert "exited by itself with -9" in err
    wait_until_gone(started)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_a_database_that_is_in_use_is_refused(tmp_path: Path, sqlite_url: str) -> None:
    from storage import open_archive

    open_archive(sqlite_url).close()
    with demo("crash", "--json", f"--archive={sqlite_url}", f"--directory={tmp_path}") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert json.loads(err)["error"]["code"] == "archive_in_use"

"""What stops a server from starting, beyond test_serve.py: one line with the fix, soon, and no exit code 0."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from bench.postgres import PostgresServer
from edge.config import FAILPOINT_VARIABLE
from storage import open_archive
from tests.edge.server_process import ROOT, join, open_socket, server_process

# The promise is five seconds; a machine that runs two test processes on two cores gets twice that.
REFUSAL_SECONDS_MAX = 10.0


def refused(
    *flags: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> str:
    """Start a server that must refuse to; return the one line that says why."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RINGLOG_")}
    began = time.monotonic()
    done = subprocess.run(
        [*prefix, sys.executable, "-P", "-m", "edge", "serve", "--listen=127.0.0.1:0", *flags],
        capture_output=True,
        text=True,
        timeout=4 * REFUSAL_SECONDS_MAX,
        check=False,
        env=clean | {"PYTHONPATH": str(ROOT)} | dict(environment or {}),
    )
    assert time.monotonic() - began < REFUSAL_SECONDS_MAX
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("ringlog: cannot start: ")
    return line


def without_privileges() -> tuple[str, ...]:
    """What makes a command respect a directory's mode: root writes everywhere otherwise."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere, and there is no setpriv to give that up")
    drop = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")


@pytest.mark.parametrize("name", ["", "new"])
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    parent = tmp_path / "data"
    parent.mkdir()
    parent.chmod(0o555)
    try:
        line = refused(f"--data={parent / name}", prefix=without_privileges())
    finally:
        parent.chmod(0o755)

    assert f"cannot write in the data directory {parent / name}: Permission denied" in line
    assert "--data DIR" in line


@pytest.mark.parametrize(
    ("flags", "name", "why"),
    [
        ((), "flush.writen", "there is no failpoint flush.writen"),
        (
            ("--listen=0.0.0.0:0",),
            "flush.written",
            "is armed where other machines count on this one",
        ),
        (("--link=0.0.0.0:0",), "flush.written", "is armed where other machines count on this one"),
    ],
)
def test_a_failpoint_that_does_not_exist_or_could_hurt_others_is_refused(
    tmp_path: Path, flags: tuple[str, ...], name: str, why: str
) -> None:
    line = refused(f"--data={tmp_path}/data", *flags, environment={FAILPOINT_VARIABLE: name})

    assert why in line
    assert f"unset {FAILPOINT_VARIABLE}" in line


def test_a_failpoint_that_is_armed_is_said_loudly_and_kills_where_it_stands(
    tmp_path: Path,
) -> None:
    with server_process(
        tmp_path / "data", environment={FAILPOINT_VARIABLE: "flush.received"}
    ) as server:
        server.wait_ready()
        (line,) = [line for line in server.lines if "failpoint_armed" in line]
        assert '"level": "warning"' in line
        assert '"name": "flush.received"' in line

        with suppress(ConnectionClosed), open_socket(server) as websocket:
            join(websocket, "s")

        assert server.wait() == -signal.SIGKILL


def test_a_data_directory_that_is_a_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    line = refused(f"--data={tmp_path}/file")

    assert f"cannot write in the data directory {tmp_path}/file: Not a directory" in line


def test_an_archive_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://ringlog:hunter2@127.0.0.1:{port}/ringlog"
        line = refused(f"--data={tmp_path}/data", f"--archive={url}")

    assert f"the archive is not available: 127.0.0.1:{port}" in line
    assert "--archive" in line
    assert "hunter2" not in line


def test_an_archive_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"\x00junk" * 1_000)
    line = refused(f"--data={tmp_path}/data", f"--archive=sqlite:///{tmp_path}/junk.db")

    assert (
        f"{tmp_path}/junk.db: file is not a database; check that --archive or --data names" in line
    )


def test_an_archive_that_another_program_holds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    open_archive(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = refused(f"--data={tmp_path}/data", f"--archive=sqlite:///{path}")

    assert f"{path}: database is locked" in line
    assert "no other program holds it" in line


def test_an_archive_in_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    line = refused(f"--data={tmp_path}/data", f"--archive=sqlite:///{tmp_path}/none/archive.db")

    assert f"{tmp_path}/none/archive.db: No such file or directory" in line


@pytest.mark.postgres
def test_a_postgres_archive_of_a_later_version_is_refused(
    tmp_path: Path, postgres_database: tuple[PostgresServer, str]
) -> None:
    server, name = postgres_database
    server.execute("UPDATE alembic_version SET version_num = 'from_the_future'", name)
    line = refused(f"--data={tmp_path}/data", f"--archive={server.url(name)}")

    assert "from_the_future" in line
    assert "later" in line


@pytest.mark.postgres
def test_a_database_that_is_not_there_is_named(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    line = refused(f"--data={tmp_path}/data", f"--archive={postgres_server.url('nobody_made_it')}")

    assert 'database "nobody_made_it" does not exist' in line


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    line = refused(f"--data={tmp_path}/data", "--listen=192.0.2.1:4000")

    assert "cannot listen on 192.0.2.1:4000" in line
    assert "--listen HOST:PORT" in line


def test_a_server_that_failed_to_start_has_touched_nothing_it_could_not_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(f"--data={tmp_path}/data", f"--listen=127.0.0.1:{taken.getsockname()[1]}")

    assert not (tmp_path / "data").exists()


def test_a_second_server_on_the_same_data_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    with server_process(tmp_path / "data") as first:
        first.wait_ready()
        for _ in range(3):
            line = refused(f"--data={tmp_path}/data")
            assert str(first.pid) in line
        archive = open_archive(f"sqlite:///{tmp_path}/data/archive.db")
        archive.close()
        assert first.stop() == 0
        assert [event for event in first.events() if event["level"] == "error"] == []

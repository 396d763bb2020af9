"""The server as a process: how it starts, how it refuses to, and how it ends."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trio
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from storage import ApiKey, open_archive
from tests.edge.server_process import (
    ROOT,
    ServerProcess,
    join,
    open_socket,
    send,
    server_process,
    wait_until,
)

# The promise is five; a machine that is busy with everything else at once gets more.
REFUSAL_SECONDS_MAX = 20.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def read_to_the_end(websocket: ClientConnection) -> list[dict[str, object]]:
    """Return every frame up to the server's end of the connection, however it ended it."""
    frames = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(websocket.recv(10)))
    return frames


def stored(data: Path, session: str) -> list[str]:
    """Return the texts that SQLite holds, in order."""
    with sqlite3.connect(data / "archive.db") as connection:
        rows = connection.execute(
            "SELECT body FROM messages WHERE session = ? ORDER BY seq", (session,)
        ).fetchall()
    connection.close()
    return [json.loads(body)["content"]["text"] for (body,) in rows]


def status(url: str, *, key: str | None = None) -> int:
    request = urllib.request.Request(url)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            code: int = response.status
            return code
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def refuses_to_start(server: ServerProcess) -> str:
    """Return the one line that says why."""
    code = server.wait(REFUSAL_SECONDS_MAX)
    assert code not in {0, 70}
    lines = [line for line in server.lines if line.startswith("ringlog: cannot start: ")]
    assert lines == server.lines
    assert len(lines) == 1
    return lines[0]


# Starting and stopping.


def test_a_pipe_is_told_where_it_listens_and_where_the_data_is(data: Path) -> None:
    with server_process(data) as server:
        server.wait_ready()

        ready = server.events()[0]
        assert ready["event"] == "ready"
        assert ready["data"] == str(data)
        assert ready["archive"] == f"sqlite:///{data}/archive.db"
        assert ready["durability"] == "local"
        assert status(f"{server.url}/readyz") == 200
        assert (data.stat().st_mode & 0o777) == 0o700


def test_sigterm_stores_everything_closes_with_1012_and_exits_with_0(data: Path) -> None:
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        texts = [f"m{index}" for index in range(20)]
        for text in texts:
            send(websocket, "s", text)

        server.signal(signal.SIGTERM)

        read_to_the_end(websocket)
        assert websocket.close_code == 1012
        assert server.wait() == 0
        assert stored(data, "s") == texts
        assert server.events()[-1] | {"at": ""} == {
            "at": "",
            "level": "info",
            "event": "stopped",
            "records_unflushed": 0,
        }


def test_an_event_stream_ends_when_the_server_stops(data: Path) -> None:
    with server_process(data) as server:
        with open_socket(server.wait_ready()) as websocket:
            join(websocket, "s")
            send(websocket, "s", "one")
        stream = urllib.request.urlopen(f"{server.url}/v1/sessions/s/stream?last_seq=0", timeout=10)
        assert b"id: 1\n" in [stream.readline() for _ in range(4)]

        assert server.stop() == 0
        stream.close()


def test_what_was_acknowledged_before_kill_9_is_there_afterwards(data: Path) -> None:
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        seqs = [send(websocket, "s", f"m{index}") for index in range(5)]
        server.kill()

    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        websocket.send('{"type":"join","ref":"j","session":"s","last_seq":0}')
        frames = [json.loads(websocket.recv(10)) for _ in range(7)][2:]

        assert [frame["seq"] for frame in frames] == seqs == [1, 2, 3, 4, 5]
        assert [frame["content"]["text"] for frame in frames] == [f"m{i}" for i in range(5)]


def test_a_second_signal_does_not_wait_for_the_archive(data: Path) -> None:
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        with sqlite3.connect(data / "archive.db", isolation_level=None) as lock:
            lock.execute("BEGIN IMMEDIATE")  # the archive takes nothing from now on
            send(websocket, "s", "kept in the log")
            server.signal(signal.SIGTERM)
            wait_until(lambda: any('"stopping"' in line for line in server.lines))
            server.signal(signal.SIGINT)

            assert server.wait() == 0
            lock.execute("ROLLBACK")
        lock.close()
        assert server.events()[-1]["records_unflushed"] > 0

    with server_process(data) as server:
        server.wait_ready()
        assert stored(data, "s") == ["kept in the log"]


def test_with_a_certificate_both_http_and_websockets_are_encrypted(
    data: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    flags = (f"--tls-cert={tmp_path}/cert.pem", f"--tls-key={tmp_path}/key.pem")
    with server_process(data, *flags) as server:
        server.wait_ready()
        url = f"https://{server.address}/readyz"
        with urllib.request.urlopen(url, timeout=10, context=trust) as response:
            assert response.status == 200
        address = f"wss://{server.address}/v1/ws?user_id=alice"
        with connect(address, ssl=trust, proxy=None) as websocket:
            join(websocket, "s")
            assert send(websocket, "s", "secret") == 1

            server.signal(signal.SIGTERM)
            read_to_the_end(websocket)
            assert websocket.close_code == 1012
        assert server.wait() == 0
        assert stored(data, "s") == ["secret"]


# Refusing to start: one line, with the fix.


def test_a_port_in_use_is_named(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with server_process(data, f"--listen={address}") as server:
            line = refuses_to_start(server)

    assert f"{address} is in use" in line
    assert "--listen HOST:PORT" in line


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with server_process(tmp_path, f"--data={tmp_path}/file/data") as server:
        line = refuses_to_start(server)

    assert f"{tmp_path}/file/data: Not a directory" in line
    assert "--data DIR" in line


def test_a_data_directory_in_use_says_by_whom(data: Path) -> None:
    with server_process(data) as first:
        first.wait_ready()
        with server_process(data) as second:
            line = refuses_to_start(second)

    assert str(first.pid) in line
    assert "--data" in line


def test_an_archive_that_does_not_answer_is_named_without_its_password(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    url = f"postgresql://ringlog:hunter2@127.0.0.1:{port}/ringlog"
    with server_process(data, f"--archive={url}") as server:
        line = refuses_to_start(server)

    assert "the archive is not available" in line
    assert "hunter2" not in line


def test_an_archive_of_a_later_version_is_refused(data: Path) -> None:
    data.mkdir()
    open_archive(f"sqlite:///{data}/archive.db").close()
    with sqlite3.connect(data / "archive.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    connection.close()
    with server_process(data) as server:
        line = refuses_to_start(server)

    assert "from_the_future" in line
    assert "later" in line


def test_a_damaged_log_is_refused_with_its_file_and_the_command_to_run(data: Path) -> None:
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        for index in range(3):
            send(websocket, "s", f"m{index}")
        server.kill()
    segment = max((data / "log").glob("*.log"))
    with segment.open("r+b") as file:
        file.write(b"\xff" * 64)  # its header
    with server_process(data) as server:
        line = refuses_to_start(server)

    assert segment.name in line
    assert "ringlog log verify" in line


def test_a_bad_certificate_is_refused(data: Path, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("not a certificate")
    flags = (f"--tls-cert={tmp_path}/cert.pem", f"--tls-key={tmp_path}/key.pem")
    with server_process(data, *flags) as server:
        assert "PEM" in refuses_to_start(server)


def test_an_address_that_others_can_reach_needs_a_key_first(data: Path) -> None:
    with server_process(data, "--listen=0.0.0.0:0") as server:
        line = refuses_to_start(server)

    assert "no key" in line
    assert "ringlog key create" in line


# Keys.


def test_a_key_that_is_created_while_the_server_runs_ends_development_mode(data: Path) -> None:
    from edge.auth import generate_key, hash_key

    with server_process(data) as server:
        server.wait_ready()
        assert status(f"{server.url}/v1/sessions") == 200
        key = generate_key()
        archive = open_archive(f"sqlite:///{data}/archive.db")
        archive.create_key(ApiKey("key-1", "test", hash_key(key), ("read",), "default", 0))

        wait_until(lambda: status(f"{server.url}/v1/sessions") == 401)
        assert status(f"{server.url}/v1/sessions", key=key) == 200
        archive.revoke_key("key-1", 1)
        archive.close()
        wait_until(lambda: status(f"{server.url}/v1/sessions", key=key) == 401)
        server.stop()
        assert key not in "\n".join(server.lines)


# Failing: exit 70 within a second, nothing acknowledged.

FAILING_SYNC = """
import os
real = os.fdatasync
def fdatasync(descriptor):
    if os.path.exists("fail-now"):
        raise OSError(5, "Input/output error")
    return real(descriptor)
os.fdatasync = fdatasync
"""


@pytest.fixture
def failing_sync(tmp_path: Path) -> dict[str, str]:
    """An environment in which every sync fails once the file `fail-now` is there."""
    inject = tmp_path / "inject"
    inject.mkdir()
    (inject / "sitecustomize.py").write_text(FAILING_SYNC)
    return {"PYTHONPATH": f"{inject}{os.pathsep}{ROOT}"}


def test_a_failed_sync_acknowledges_nothing_and_exits_with_70_within_a_second(
    data: Path, tmp_path: Path, failing_sync: dict[str, str]
) -> None:
    with (
        server_process(data, environment=failing_sync) as server,
        open_socket(server.wait_ready()) as websocket,
    ):
        join(websocket, "s")
        assert send(websocket, "s", "durable") == 1
        (tmp_path / "fail-now").touch()
        websocket.send('{"type":"send","ref":"x","session":"s","content":{"text":"lost"}}')
        sent_at = time.monotonic()

        frames = read_to_the_end(websocket)
        assert server.wait() == 70
        assert time.monotonic() - sent_at < 1.0
        assert [frame for frame in frames if frame["type"] in {"ack", "message"}] == []
        assert "log_poisoned" in [event.get("code") for event in server.events()]

    (tmp_path / "fail-now").unlink()
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        assert send(websocket, "s", "after") >= 2


def test_a_thread_stuck_in_the_database_does_not_delay_that_end(
    data: Path, tmp_path: Path, failing_sync: dict[str, str]
) -> None:
    with (
        server_process(data, environment=failing_sync) as server,
        open_socket(server.wait_ready()) as websocket,
        contextlib.closing(sqlite3.connect(data / "archive.db", isolation_level=None)) as lock,
    ):
        join(websocket, "s")
        lock.execute("BEGIN IMMEDIATE")
        send(websocket, "s", "the flusher waits for the lock with this")
        trio.run(trio.sleep, 0.5)  # until it does: it flushes every 0.3 s
        (tmp_path / "fail-now").touch()
        websocket.send('{"type":"send","ref":"x","session":"s","content":{"text":"lost"}}')
        sent_at = time.monotonic()

        assert server.wait() == 70
        assert time.monotonic() - sent_at < 2.0


def test_a_fenced_server_exits_with_70(data: Path) -> None:
    with server_process(data) as server, open_socket(server.wait_ready()) as websocket:
        join(websocket, "s")
        with sqlite3.connect(data / "archive.db", timeout=10) as connection:
            connection.execute("UPDATE owner_epochs SET epoch = epoch + 1")
        connection.close()
        websocket.send('{"type":"send","ref":"x","session":"s","content":{"text":"late"}}')

        assert server.wait() == 70
        assert "fenced" in [event.get("code") for event in server.events()]


def test_a_second_data_directory_is_refused_until_the_first_node_is_retired(
    data: Path, tmp_path: Path
) -> None:
    url = f"--archive=sqlite:///{tmp_path}/shared.db"
    with server_process(data, url) as first, open_socket(first.wait_ready()) as websocket:
        join(websocket, "s")
        node_id = (data / "node_id").read_text().strip().replace("-", "")
        with server_process(tmp_path / "other", url) as second:
            line = refuses_to_start(second)
            assert line.endswith(f"if it is lost: ringlog node retire {node_id}")
        archive = open_archive(f"sqlite:///{tmp_path}/shared.db")
        [node] = archive.list_nodes()
        assert archive.retire_node(node_id, node.epoch)
        archive.close()
        with server_process(tmp_path / "other", url) as second:
            second.wait_ready()
            websocket.send('{"type":"send","ref":"x","session":"s","content":{"text":"late"}}')
            assert first.wait() == 70
            assert "fenced" in [event.get("code") for event in first.events()]
            with server_process(data, url) as again:
                assert "the archive belongs to node" in refuses_to_start(again)

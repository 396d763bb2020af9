import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.edge.cli.conftest import Ringlog
from tests.edge.server_process import ROOT, ServerProcess, server_process, wait_until


def test_follow_resumes_across_a_crash_and_shows_everything_once(
    tmp_path: Path, ringlog: Ringlog
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    data, url = tmp_path / "data", f"--url=http://{address}"
    shown: list[str] = []
    with server_process(data, f"--listen={address}") as first:
        first.wait_ready()
        ringlog("session", "send", "s", "before", "--user", "a", "--create", url)
        follower = subprocess.Popen(
            [sys.executable, "-m", "edge", "session", "tail", "s", "--follow", url],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        assert follower.stdout is not None
        reader = threading.Thread(target=lambda: shown.extend(follower.stdout or ()), daemon=True)
        reader.start()
        wait_until(lambda: len(shown) == 1)
        first.kill()
    with server_process(data, f"--listen={address}") as second:
        second.wait_ready()
        ringlog("session", "send", "s", "after", "--user", "a", url)
        wait_until(lambda: len(shown) == 2)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        reader.join(10)
        follower.stdout.close()

    assert [line.split(" ", 2)[2] for line in shown] == ["a: before\n", "a: after\n"]


Script = Callable[[ServerConnection, int], None]


@contextmanager
def scripted(script: Script, handshake: Callable[[int], int] = lambda _: 101) -> Iterator[str]:
    """A peer that does what a real server does only in bad moments; connections are numbered from 1."""
    count = 0

    def admit(connection: ServerConnection, _: Request) -> Response | None:
        nonlocal count
        count += 1
        status = handshake(count)
        return None if status == 101 else connection.respond(status, '{"code": "shutting_down"}')

    with serve(
        lambda connection: script(connection, count), "127.0.0.1", 0, process_request=admit
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"--url=http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def receive(connection: ServerConnection) -> Any:
    return json.loads(connection.recv())


def send(connection: ServerConnection, **frame: object) -> None:
    connection.send(json.dumps(frame))


def message(seq: int) -> dict[str, object]:
    return {
        "type": "message", "session": "s", "seq": seq, "sender": "a", "kind": "text",
        "content": {"text": str(seq)}, "at": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def test_a_refusal_for_now_is_outlasted_once_the_session_was_joined(ringlog: Ringlog) -> None:
    joins: list[Any] = []

    def script(connection: ServerConnection, number: int) -> None:
        joins.append(receive(connection))
        if number == 2:
            send(connection, type="error", ref="join", code="archive_unavailable", message="not now", retry_after_ms=1)  # fmt: skip
        else:
            send(connection, type="joined", ref="join", session="s", head_seq=2)
        if number == 1:
            send(connection, **message(1))
            connection.close(1012)
        elif number > 3:
            send(connection, **message(2))
        connection.close(1012 if number < 4 else 1000)

    with scripted(script, lambda number: 503 if number == 3 else 101) as url:
        tail = ringlog("session", "tail", "s", "-n", "5", url)

    assert (tail.code, tail.out) == (0, "#1 00:00:00 a: 1\n#2 00:00:00 a: 2\n")
    assert "not now; trying again" in tail.err
    assert [join.get("last_seq") for join in joins] == [None, 1, 1]


def test_a_message_that_the_server_cannot_take_now_is_sent_again(ringlog: Ringlog) -> None:
    sent: list[Any] = []

    def script(connection: ServerConnection, number: int) -> None:
        receive(connection)
        send(connection, type="joined", ref="join", session="s", head_seq=0)
        sent.append(receive(connection))
        ref = sent[-1]["ref"]
        if number == 1:
            send(connection, type="error", ref=ref, code="backpressure", message="full", retry_after_ms=1)  # fmt: skip
        else:
            send(connection, type="ack", ref=ref, seq=1)
        for _ in connection:
            pass

    with scripted(script) as url:
        chat = ringlog("session", "chat", "s", "-u", "a", url, stdin="hi\n")

    assert chat.code == 0
    assert len(sent) == 2
    assert sent[0] == sent[1]


def test_a_credential_that_ends_says_how_to_give_another(ringlog: Ringlog) -> None:
    def script(connection: ServerConnection, _: int) -> None:
        receive(connection)
        send(connection, type="joined", ref="join", session="s", head_seq=0)
        connection.close(4401, "unauthorized")

    with scripted(script) as url:
        tail = ringlog("session", "tail", "s", "--follow", url)

    assert (tail.code, "--key" in tail.err.partition("hint: ")[2]) == (1, True)


def test_follow_ends_when_its_reader_has_left(talk: Ringlog, server: ServerProcess) -> None:
    session = "reader-left"
    talk("session", "send", session, "one", "-u", "a", "--create")
    follower = subprocess.Popen(
        [sys.executable, "-m", "edge", "session", "tail", session, "-f", f"--url={server.url}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert follower.stdout is not None
    assert follower.stderr is not None
    assert follower.stdout.readline().endswith("a: one\n")
    follower.stdout.close()

    talk("session", "send", session, "two", "-u", "a")

    assert follower.wait(20) == 0
    assert follower.stderr.read() == ""
    follower.stderr.close()

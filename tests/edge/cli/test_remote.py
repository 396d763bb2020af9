import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.edge.cli.conftest import Ringlog


def test_a_server_that_does_not_answer_in_time_is_exit_code_5(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"--url=http://127.0.0.1:{silent.getsockname()[1]}"
        result = ringlog("session", "list", url, "--timeout-seconds", "0.2", "--json")

    assert result.code == 5
    assert json.loads(result.err)["error"]["code"] == "timeout"


def test_something_else_at_the_address_is_said_to_be_no_ringlog_server(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-x\r\n\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        result = ringlog("session", "list", f"--url=http://127.0.0.1:{other.getsockname()[1]}")
        greeter.join()

    assert (result.code, "no Ringlog server" in result.err) == (4, True)


class _Page(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        body = self.server.body  # type: ignore[attr-defined]  # set by the test
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815, the names that the standard library calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[b"<html>welcome</html>", b'{"hello": "world"}', b"[]", b"\xff"])
def web_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A web server that has nothing to do with Ringlog, and answers everything with 200."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        server.body = request.param  # type: ignore[attr-defined]  # read above
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server_that_is_not_ringlog_is_told_apart(ringlog: Ringlog, web_server: str) -> None:
    commands = [
        ("health",), ("session", "list"), ("session", "show", "s"), ("session", "export", "s"),
        ("session", "send", "s", "x", "-u", "a"), ("session", "tail", "s"),
        ("session", "chat", "s", "-u", "a"),
    ]  # fmt: skip
    for command in commands:
        result = ringlog(*command, f"--url={web_server}")
        assert (result.code, result.out) == (4, ""), command
        assert "no Ringlog server answers" in result.err, command


def test_tail_says_timeout_and_refused_as_the_other_commands_do(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"--url=http://127.0.0.1:{silent.getsockname()[1]}"
        slow = ringlog("session", "tail", "s", url, "--timeout-seconds", "0.2")
    refused = ringlog("session", "tail", "s", url)

    assert (slow.code, "did not answer within 0.2 s" in slow.err) == (5, True)
    assert (refused.code, "Connection refused" in refused.err) == (4, True)

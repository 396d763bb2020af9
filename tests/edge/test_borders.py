"""Which pages and which names reach a server: every trick with Origin and Host, on a real process."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.edge.guarded import Guarded, open_guarded
from tests.edge.raw_socket import open_raw
from tests.edge.server_process import ServerProcess, server_process

DEVELOPMENT_ORIGINS = {
    "http://localhost:1": True,
    "http://LOCALHOST": True,
    "https://127.0.0.1:3000": True,
    "http://127.8.9.10": True,
    "http://[::1]:8080": True,
    "http://app.localhost": True,
    "null": False,
    "": False,
    "*": False,
    "localhost": False,
    "http://": False,
    "file://": False,
    "file://localhost": False,
    "chrome-extension://localhost": False,
    "http://evil.example": False,
    "http://localhost.evil.example": False,
    "http://evil.example/localhost": False,
    "http://evil.example#localhost": False,
    "http://evil.example?localhost": False,
    "http://localhost@evil.example": False,
    "http://notlocalhost": False,
    "http://localhostx": False,
    "http://127.0.0.1.evil.example": False,
    "http://127.0.0.1.nip.io": False,
    "http://2130706433": False,
    "http://0x7f.1": False,
    "http://0.0.0.0": False,
    "http://10.0.0.1": False,
    "http://[::ffff:10.0.0.1]": False,
    "http://[::1": False,
    "http://localhost, http://evil.example": False,
    "http://localhost http://evil.example": False,
}
GUARDED_ORIGINS = {
    "https://app.example": True,
    "HTTPS://APP.Example": True,
    "http://app.example": False,
    "https://app.example:443": False,
    "https://app.example:444": False,
    "https://app.example/": False,
    "https://app.example.evil.example": False,
    "https://evilapp.example": False,
    "https://sub.app.example": False,
    "https://app.example@evil.example": False,
    "https://app.examplé": False,
    "null": False,
    "http://localhost:3000": False,
    "http://127.0.0.1": False,
}
HOSTS = {
    "localhost": True,
    "LOCALHOST:80": True,
    "127.0.0.1": True,
    "127.1.2.3:4000": True,
    "[::1]:4000": True,
    "app.localhost": True,
    "": False,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1.nip.io": False,
    "localhost:4000:80": False,
    "localhost:x": False,
    "localhost@evil.example": False,
    "user@localhost": False,
    "localhost/evil.example": False,
    "localhost evil.example": False,
    "2130706433": False,
    "0.0.0.0": False,
    "[::1": False,
    "[::ffff:10.0.0.1]": False,
    "localhost\\": False,
    "löcalhost": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    with open_guarded(directory, "--allow-origin=https://app.example") as opened:
        yield opened


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("open") / "data") as server:
        yield server.wait_ready()
        assert [event for event in server.events() if event["level"] == "error"] == []


HANDSHAKE = """GET /v1/ws HTTP/1.1\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13"""


def both(server: ServerProcess, *lines: str, host: str = "localhost") -> tuple[str, str]:
    """Return how a plain request and a handshake with these lines are answered: a code, or OK."""
    answers = []
    for start in (
        "GET /v1/sessions HTTP/1.1\r\nConnection: close",
        HANDSHAKE,
    ):
        head = "\r\n".join([start, f"Host: {host}", *lines, "", ""])
        with open_raw(server.address) as raw:
            raw.send(head.encode())
            answer = raw.read_until(b"\r\n\r\n")
            if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
                answers.append("OK")
                continue
            body = raw.read_to_the_end()
            problem = json.loads(body)
            assert problem["hint"]
            answers.append(problem["code"])
    return answers[0], answers[1]


@pytest.mark.parametrize(("origin", "allowed"), DEVELOPMENT_ORIGINS.items())
def test_in_development_local_pages_get_in_and_no_other(
    open_server: ServerProcess, origin: str, allowed: bool
) -> None:
    wanted = "OK" if allowed else "origin_not_allowed"
    assert both(open_server, f"Origin: {origin}") == (wanted, wanted)


@pytest.mark.parametrize(("origin", "allowed"), GUARDED_ORIGINS.items())
def test_with_keys_listed_pages_get_in_and_no_other(
    guarded: Guarded, origin: str, allowed: bool
) -> None:
    wanted = "OK" if allowed else "origin_not_allowed"
    lines = (f"Origin: {origin}", f"Authorization: Bearer {guarded.keys['all']}")
    assert both(guarded.server, *lines) == (wanted, wanted)


@pytest.mark.parametrize(("host", "allowed"), HOSTS.items())
def test_in_development_only_names_of_this_machine_are_answered(
    open_server: ServerProcess, host: str, allowed: bool
) -> None:
    wanted = {"OK"} if allowed else {"host_not_allowed", "bad_request"}
    assert set(both(open_server, host=host)) <= wanted


def test_an_address_in_the_request_line_does_not_stand_in_for_the_host(
    open_server: ServerProcess,
) -> None:
    for target, host in (
        ("http://localhost/v1/sessions", "evil.example"),
        ("http://evil.example/v1/sessions", "evil.example"),
    ):
        with open_raw(open_server.address) as raw:
            raw.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert b" 421 " in raw.read_until(b"\r\n")


def test_a_refused_page_is_not_told_that_it_may_read(guarded: Guarded) -> None:
    with closing(http.client.HTTPConnection(guarded.server.address, timeout=10)) as connection:
        for origin, allowed in (("https://app.example", True), ("https://evil.example", False)):
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            connection.request("OPTIONS", "/v1/sessions", None, headers)
            response = connection.getresponse()
            response.read()
            assert (response.status == 204) == allowed
            assert (response.getheader("Access-Control-Allow-Origin") == origin) == allowed
            assert response.getheader("Access-Control-Allow-Credentials") is None

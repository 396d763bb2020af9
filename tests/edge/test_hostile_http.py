"""Bytes that are no HTTP, or HTTP that parsers disagree on, against a real server process."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.edge.bystander import Bystander, open_bystander
from tests.edge.raw_socket import open_raw, pieces

HEADER_BYTES_MAX = 16 * 1024


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bystander]:
    with open_bystander(tmp_path_factory.mktemp("hostile") / "data") as opened:
        yield opened


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the problem; whatever is refused must carry one, and a hint."""
        if self.status < 400:
            return ""
        problem = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["hint"]
        code: str = problem["code"]
        return code


def responses(received: bytes) -> list[Response]:
    """Split what a connection sent, to its end, into responses with a Content-Length."""
    found = []
    while received:
        head, mark, received = received.partition(b"\r\n\r\n")
        assert mark, f"half a head: {head!r}"
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        assert lines[0].startswith("HTTP/1.1 "), lines[0]
        length = int(headers.get("content-length", "0"))
        found.append(Response(int(lines[0].split()[1]), headers, received[:length]))
        received = received[length:]
    return found


def exchange(bystander: Bystander, *sent: bytes) -> list[Response]:
    """Send the pieces, then a request that ends the connection; return what came before its answer."""
    with open_raw(bystander.address) as raw:
        raw.send(*sent, get(b"Connection: close", path=b"/readyz"))
        found = responses(raw.read_to_the_end())
    if found and found[-1].body.startswith(b'{"status":"ready"'):
        found.pop()
    return found


def get(*lines: bytes, path: bytes = b"/healthz", method: bytes = b"GET") -> bytes:
    head = [method + b" " + path + b" HTTP/1.1", b"Host: localhost", *lines, b"", b""]
    return b"\r\n".join(head)


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return get(*lines, path=b"/v1/sessions", method=b"POST") + body


SESSION = b'{"user_id":"a"}'

MALFORMED = {
    "no version": b"GET /healthz\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version of another protocol": b"GET / FTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version without numbers": b"GET / HTTP/x.y\r\nHost: localhost\r\n\r\n",
    "two spaces": b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the path": b"GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in the path": get(path=b"/\x00"),
    "bytes in the path": get(path=b"/\xff\xfe"),
    "NUL in a header": get(b"X-A: a\x00b"),
    "CR in a header": get(b"X-A: a\rb"),
    "a header without a colon": get(b"X-A"),
    "a header without a name": get(b": x"),
    "a space before the colon": get(b"X-A : b"),
    "a space in a name": get(b"X A: b"),
    "bytes in a name": get(b"X-\xff: b"),
    "a header before the request": b" Host: localhost\r\nGET / HTTP/1.1\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": get(b"Host: evil.example"),
    "a method with a bracket": get(method=b"G[T"),
    "a Content-Length that is no number": post(b"Content-Length: x", body=SESSION),
    "a negative Content-Length": post(b"Content-Length: -1", body=SESSION),
    "a Content-Length with a sign": post(b"Content-Length: +15", body=SESSION),
    "a Content-Length of 400 digits": post(b"Content-Length: " + b"9" * 400, body=SESSION),
    "two different Content-Lengths": post(
        b"Content-Length: 15", b"Content-Length: 16", body=SESSION
    ),
    "an unknown Transfer-Encoding": post(b"Transfer-Encoding: zip", body=SESSION),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "zeros": b"\x00" * 1_000,
    "a quote": b'"GET" / HTTP/1.1\r\n\r\n',
    "JSON": b'{"type":"ping"}\r\n\r\n',
    "Redis": b"*1\r\n$4\r\nPING\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_http_is_refused_with_a_reason(bystander: Bystander, sent: bytes) -> None:
    for sending in ([sent], pieces(sent)):
        found = exchange(bystander, *sending)
        assert {response.code for response in found} <= {"bad_request", "host_not_allowed"}
        assert found[-1].headers.get("connection") == "close" or found[-1].status == 421
    bystander.check()


def test_lines_before_a_request_are_passed_over_or_refused(bystander: Bystander) -> None:
    (response,) = exchange(bystander, b"\r\n" + get())

    assert response.code in {"", "bad_request"}
    bystander.check()


TOO_LARGE = {
    "a long header": get(b"X-A: " + b"x" * HEADER_BYTES_MAX),
    "a long path": get(path=b"/" + b"x" * HEADER_BYTES_MAX),
    "many headers": get(*[b"X-%d: y" % number for number in range(2_000)]),
    "a long name": get(b"x" * HEADER_BYTES_MAX + b": y"),
    "a long method": get(method=b"X" * HEADER_BYTES_MAX),
    "a head that does not end": get(b"X-A: " + b"x" * 100_000)[:-2],
}


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_head_that_is_too_large_is_refused(bystander: Bystander, sent: bytes) -> None:
    found = exchange(bystander, sent)

    assert [response.code for response in found] == ["header_too_large"]
    bystander.check()


@pytest.mark.parametrize("sent", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_later_head_that_is_too_large_is_refused_too(bystander: Bystander, sent: bytes) -> None:
    with open_raw(bystander.address) as raw:
        raw.send(get())
        assert b"200" in raw.read_until(b'{"status":"ok"}')
        raw.send(sent)
        (response,) = responses(raw.read_to_the_end())

    assert response.code == "header_too_large"
    bystander.check()


CHUNKS = {
    "no number": b"x\r\n",
    "a negative number": b"-1\r\n",
    "a number with a sign": b"+1\r\nx\r\n0\r\n\r\n",
    "a number that is too long": b"1" * 400 + b"\r\n",
    "more than it says": b"1\r\nxyz\r\n0\r\n\r\n",
    "bytes": b"\xff\xfe\r\n",
    "a size in hexadecimal notation": b"0x1\r\nx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_that_are_malformed_are_refused(bystander: Bystander, chunks: bytes) -> None:
    found = exchange(bystander, post(b"Transfer-Encoding: chunked", body=chunks))

    assert [response.code for response in found] in (["bad_request"], ["bad_json"], [])
    bystander.check()


SMUGGLING = {
    "length and chunks": post(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunks and length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n"
    ),
    "a header on two lines": post(b"Content-Length:", b" 15", body=SESSION),
    "a bare line feed inside a header": post(b"X-A: b\nContent-Length: 15", body=SESSION),
    "two equal lengths": post(b"Content-Length: 15", b"Content-Length: 15", body=SESSION),
}


@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_proxies_could_read_otherwise_never_becomes_a_second_request(
    bystander: Bystander, sent: bytes
) -> None:
    """A request that was hidden in a body must not be answered."""
    hidden = get(path=b"/v1/sessions")
    found = exchange(bystander, sent + hidden)

    # The first is judged; the second is a request of its own, if the first left the stream intact.
    assert 1 <= len(found) <= 2
    assert found[0].status in {200, 201, 400}
    bystander.check()


def test_a_body_is_never_taken_for_a_request(bystander: Bystander) -> None:
    hidden = get(path=b"/v1/sessions/hidden")
    length = b"Content-Length: %d" % len(hidden)
    found = exchange(bystander, post(length, body=hidden) + get())

    assert [response.code for response in found] == ["bad_json", ""]
    bystander.check()


def upgrade(*lines: bytes, path: bytes = b"/v1/ws", without: bytes = b"") -> bytes:
    head = [
        b"GET " + path + b" HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    ]
    kept = [line for line in head if not without or not line.startswith(without)]
    return b"\r\n".join([*kept, *lines, b"", b""])


HANDSHAKES = {
    "another path": (upgrade(path=b"/v1/sessions"), "not_found"),
    "a path with bytes": (upgrade(path=b"/v1/ws\xff"), "bad_handshake"),
    "a path with an encoded byte": (upgrade(path=b"/v1/ws%ff"), "not_found"),
    "no Host": (upgrade(without=b"Host"), "host_not_allowed"),
    "two Hosts": (upgrade(b"Host: localhost"), "bad_handshake"),
    "another Host": (upgrade(b"Host: evil.example", without=b"Host"), "host_not_allowed"),
    "a Host with bytes": (upgrade(b"Host: \xff\xfe", without=b"Host"), "host_not_allowed"),
    "no key": (upgrade(without=b"Sec-WebSocket-Key"), "bad_handshake"),
    "a short key": (upgrade(b"Sec-WebSocket-Key: eA==", without=b"Sec-WebSocket-Key"), "bad_handshake"),
    "a key that is no base64": (upgrade(b"Sec-WebSocket-Key: !!!", without=b"Sec-WebSocket-Key"), "bad_handshake"),
    "two keys": (upgrade(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "bad_handshake"),
    "no version": (upgrade(without=b"Sec-WebSocket-Version"), "bad_handshake"),
    "version 8": (upgrade(b"Sec-WebSocket-Version: 8", without=b"Sec-WebSocket-Version"), "bad_handshake"),
    "no Connection": (upgrade(without=b"Connection"), "bad_handshake"),
    "an Origin with bytes": (upgrade(b"Origin: http://\xff\xfe"), "origin_not_allowed"),
    "two Origins": (upgrade(b"Origin: http://localhost", b"Origin: http://localhost"), "bad_handshake"),
    "another Origin": (upgrade(b"Origin: https://evil.example"), "origin_not_allowed"),
    "another subprotocol": (upgrade(b"Sec-WebSocket-Protocol: soap"), "unsupported_subprotocol"),
    "a subprotocol with bytes": (upgrade(b"Sec-WebSocket-Protocol: \xff"), "unsupported_subprotocol"),
    "two tokens": (upgrade(b"Sec-WebSocket-Protocol: ringlog.v1, bearer.a, bearer.b"), "bad_handshake"),
    "a bad token": (upgrade(b"Sec-WebSocket-Protocol: ringlog.v1, bearer.a"), "unauthorized"),
    "an Authorization with bytes": (upgrade(b"Authorization: Bearer \xff\xfe"), "unauthorized"),
    "another scheme": (upgrade(b"Authorization: Basic YTpi"), "unauthorized"),
    "two Authorizations": (upgrade(b"Authorization: Bearer a", b"Authorization: Bearer b"), "bad_handshake"),
    "a user that is no name": (upgrade(path=b"/v1/ws?user_id=a%20b"), "invalid_field"),
    "a user of bytes": (upgrade(path=b"/v1/ws?user_id=%ff"), "invalid_field"),
    "two users": (upgrade(path=b"/v1/ws?user_id=a&user_id=b"), "invalid_field"),
    "a body": (upgrade(b"Content-Length: 5") + b"hello", "bad_handshake"),
    "a chunked body": (upgrade(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", "bad_handshake"),
    "a space before a colon": (upgrade(b"X-A : b"), "bad_handshake"),
    "a header on two lines": (upgrade(b"X-A: a", b" b"), "bad_handshake"),
    "a line of nine KiB": (upgrade(b"Cookie: " + b"x" * 9_000), "header_too_large"),
    "200 headers": (upgrade(*[b"X-%d: y" % number for number in range(200)]), "header_too_large"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "code"), HANDSHAKES.values(), ids=HANDSHAKES.keys())
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "kept alive"])
def test_a_handshake_is_refused_with_a_reason(
    bystander: Bystander, sent: bytes, code: str, reused: bool
) -> None:
    if reused and sent == HANDSHAKES["a header on two lines"][0]:
        return  # h11 joins them, and so they are harmless
    found = exchange(bystander, *([get()] if reused else []), sent)

    assert found[-1].code in ({code} if not reused else {code, "bad_request", "host_not_allowed"})
    bystander.check()


def test_many_connections_that_say_nothing_disturb_nobody(bystander: Bystander) -> None:
    host, _, port = bystander.address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), 10) for _ in range(200)]
    bystander.check()
    for connection in silent:
        connection.close()
    bystander.wait_alone()
    bystander.check()

import socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from edge.acceptor import REFUSALS_MAX, open_listener
from edge.limits import Limits
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import open_one_port
from tests.edge.socket_client import open_socket

UPGRADE = (
    b"GET /v1/ws?user_id=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


async def send_raw(port: int, data: bytes) -> bytes:
    """Return everything that the server answers to some bytes before it closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(data)
        received = b""
        with trio.fail_after(10):
            while piece := await stream.receive_some(65536):
                received += piece
    return received


async def test_websockets_and_http_share_the_port(tmp_path: Path) -> None:
    async with (
        open_one_port(tmp_path) as edge,
        open_socket(edge.port) as websocket,
        open_http(edge.port) as http,
    ):
        assert (await websocket.receive("hello"))["user"] == "alice"
        assert (await http.get("/healthz")).status == 200
        assert (await http.get("/readyz")).json()["status"] == "ready"
        assert edge.metrics.connections_accepted == {"websocket": 1, "http": 1}
        assert edge.acceptor.connections == 2


async def test_a_head_may_come_byte_by_byte(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            for byte in UPGRADE:
                await stream.send_all(bytes((byte,)))
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


async def test_frames_that_come_with_the_upgrade_are_read(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            ping = b'{"type":"ping","ref":"1"}'
            frame = bytes((0x81, 0x80 | len(ping), 0, 0, 0, 0)) + ping
            await stream.send_all(UPGRADE + frame)
            received = b""
            with trio.fail_after(5):
                while b'{"type":"ok","ref":"1"}' not in received:
                    received += await stream.receive_some()


async def test_an_upgrade_on_a_kept_alive_connection_goes_to_the_pump(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        for _ in range(3):
            assert (await http.get("/healthz")).status == 200
        async with open_socket(edge.port, stream=http.stream) as websocket:
            assert (await websocket.receive("hello"))["user"] == "alice"
            assert (await websocket.ask(type="ping", ref="1"))["type"] == "ok"
            assert len(edge.pump.board.connections) == 1
            assert edge.http_server.connections == 0
            assert edge.acceptor.connections == 1


async def test_an_upgrade_with_bare_line_feeds_works_all_the_same(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            await stream.send_all(UPGRADE.replace(b"\r\n", b"\n"))
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


async def test_a_head_that_does_not_end_is_refused_at_the_deadline(tmp_path: Path) -> None:
    async with open_one_port(tmp_path, limits=Limits(header_timeout_seconds=0.2)) as edge:
        answer = await send_raw(edge.port, b"GET / HTTP/1.1\r\nHost: local")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"header_timeout"' in answer
        # Browsers connect in advance: nothing was asked, so nothing is answered.
        assert await send_raw(edge.port, b"") == b""
        assert edge.acceptor.connections == 0


async def test_a_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        for line_end in (b"", b"\r\n\r\n"):
            head = b"GET / HTTP/1.1\r\nX: " + b"x" * 17_000 + line_end
            answer = await send_raw(edge.port, head)
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b'"code":"header_too_large"' in answer


async def test_a_later_head_that_is_too_long_is_refused_too(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        await http.get("/healthz")
        answer = await http.get("/healthz", X="x" * 70_000)
        assert (answer.status, answer.code) == (431, "header_too_large")
        assert await http.closed_by_server()


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00\x01", b"\x00" * 10, b"{}\n"])
async def test_bytes_that_are_not_http_are_refused_at_once(tmp_path: Path, start: bytes) -> None:
    async with open_one_port(tmp_path) as edge:
        answer = await send_raw(edge.port, start)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"bad_request"' in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n bad: folded\r\n\r\n\x00",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/3.7\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_malformed_requests_are_refused_and_disturb_nobody(
    tmp_path: Path, request_: bytes
) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as other:
        await other.get("/healthz")
        answer = await send_raw(edge.port, request_)
        assert answer.startswith(b"HTTP/1.1 4") or answer == b"", answer
        assert (await other.get("/healthz")).status == 200


async def test_http_2_is_not_spoken(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        answer = await http.get(
            "/healthz", Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAA"
        )
        assert answer.json() == {"status": "ok"}


async def test_connections_beyond_the_limit_are_told_so(tmp_path: Path) -> None:
    async with (
        open_one_port(tmp_path, limits=Limits(connections_max=2)) as edge,
        open_socket(edge.port),
        open_http(edge.port) as http,
    ):
        assert (await http.get("/healthz")).status == 200
        answer = await send_raw(edge.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"too_many_connections"' in answer
        assert edge.metrics.connections_refused == 1
        await http.stream.aclose()
        with trio.fail_after(5):
            while edge.acceptor.connections > 1:
                await trio.sleep(0.01)
        async with open_http(edge.port) as again:
            assert (await again.get("/healthz")).status == 200


async def test_a_flood_beyond_the_limit_is_closed_without_a_word(tmp_path: Path) -> None:
    async with (
        open_one_port(tmp_path, limits=Limits(connections_max=1)) as edge,
        open_http(edge.port) as http,
    ):
        assert (await http.get("/healthz")).status == 200
        streams = [await trio.open_tcp_stream("127.0.0.1", edge.port) for _ in range(60)]
        answers = []
        with trio.fail_after(10):
            for stream in streams:
                try:
                    answers.append(await stream.receive_some())
                except trio.BrokenResourceError:
                    answers.append(b"")
        told = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
        assert len(told) == REFUSALS_MAX
        assert answers.count(b"") == 60 - REFUSALS_MAX
        assert edge.metrics.connections_refused == 60
        assert (await http.get("/healthz")).status == 200
        for stream in streams:
            await stream.aclose()


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    limits = Limits(keep_alive_timeout_seconds=0.2, close_timeout_seconds=0.2)
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        assert (await http.get("/healthz")).status == 200
        assert await http.closed_by_server()
        with trio.fail_after(5):
            while edge.acceptor.connections:
                await trio.sleep(0.01)


async def test_a_peer_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        for data in (b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", UPGRADE):
            stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
            await stream.send_all(data or b"G")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.aclose()
        with trio.fail_after(5):
            while edge.acceptor.connections:
                await trio.sleep(0.01)


async def test_a_bug_that_one_connection_meets_ends_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as other:
        await other.get("/healthz")

        def fail(sock: socket.socket, head: bytes) -> None:
            sock.close()
            raise RuntimeError("swordfish")

        monkeypatch.setattr(edge.pump, "adopt", fail)
        assert await send_raw(edge.port, UPGRADE) == b""
        assert "swordfish" in "".join(capfd.readouterr())
        assert (await other.get("/healthz")).status == 200
        assert edge.acceptor.connections == 1


async def test_an_address_that_is_taken_is_an_error() -> None:
    async with open_listener("127.0.0.1", 0, Limits()) as listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            open_listener("127.0.0.1", port, Limits())


async def test_tls_serves_http_and_websockets(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async with open_one_port(tmp_path, ssl_context=server_context) as edge:

        async def connect() -> trio.SSLStream[trio.SocketStream]:
            return await trio.open_ssl_over_tcp_stream(
                "localhost", edge.port, ssl_context=client_context, https_compatible=True
            )

        stream = await connect()
        async with stream:
            http = HttpClient(stream)
            assert (await http.get("/healthz")).status == 200
            assert (await http.get("/readyz")).status == 200
        async with open_socket(edge.port, stream=await connect()) as websocket:
            assert (await websocket.receive("hello"))["user"] == "alice"


async def test_plain_http_on_a_tls_port_ends_quietly(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_context)
    limits = Limits(tls_timeout_seconds=0.3)
    async with open_one_port(tmp_path, ssl_context=server_context, limits=limits) as edge:
        await send_raw(edge.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await send_raw(edge.port, b"\x16\x03") == b""
        assert edge.acceptor.connections == 0

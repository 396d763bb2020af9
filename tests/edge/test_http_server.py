import socket
from contextlib import suppress
from pathlib import Path

import trio

from edge.limits import Limits
from tests.edge.http_client import Answer, EventReader, open_http
from tests.edge.one_port import open_one_port


async def test_one_connection_serves_many_requests(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        for _ in range(50):
            assert (await http.get("/healthz")).status == 200
        assert edge.metrics.connections_accepted == {"http": 1}


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            one = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
            await stream.send_all(
                one % (b"healthz", b"") + one % (b"nowhere", b"Connection: close\r\n")
            )
            received = b""
            with trio.fail_after(5):
                while piece := await stream.receive_some():
                    received += piece
        assert received.index(b"HTTP/1.1 200") < received.index(b"HTTP/1.1 404")


async def test_a_connection_that_asks_to_be_closed_is_closed_at_once(tmp_path: Path) -> None:
    limits = Limits(close_timeout_seconds=30)
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        started = trio.current_time()
        assert (await http.get("/healthz", Connection="close")).status == 200
        assert await http.closed_by_server()
        assert trio.current_time() - started < 5


async def test_http_1_0_is_answered_and_closed(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            await stream.send_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            received = b""
            with trio.fail_after(5):
                while piece := await stream.receive_some():
                    received += piece
        assert received.endswith(b'{"status":"ok"}')


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        await http.stream.send_all(
            b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        )
        received = b""
        with trio.fail_after(5):
            while piece := await http.stream.receive_some(65536):
                received += piece
        assert received.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"body_too_large"' in received


async def test_a_chunked_body_over_the_limit_is_refused_and_the_answer_arrives(
    tmp_path: Path,
) -> None:
    limits = Limits(body_bytes_max=100_000)
    async with open_one_port(tmp_path, limits=limits) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            await stream.send_all(
                b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(40):
                await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
            received = b""
            with trio.fail_after(5):
                while piece := await stream.receive_some(65536):
                    received += piece
        assert received.startswith(b"HTTP/1.1 413 ")
        with trio.fail_after(5):
            while edge.acceptor.connections:
                await trio.sleep(0.01)


async def test_a_body_that_does_not_come_is_refused_at_the_deadline(tmp_path: Path) -> None:
    limits = Limits(body_timeout_seconds=0.2)
    async with open_one_port(tmp_path, limits=limits) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            await stream.send_all(
                b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"
            )
            received = b""
            with trio.fail_after(5):
                while piece := await stream.receive_some():
                    received += piece
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"body_timeout"' in received


async def test_a_body_asked_for_with_100_continue_is_taken(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge:
        stream = await trio.open_tcp_stream("127.0.0.1", edge.port)
        async with stream:
            await stream.send_all(
                b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n"
                b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
            )
            with trio.fail_after(5):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
                await stream.send_all(b'{"user_id":"u"}')
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 201 ")


async def open_stalled_reader(port: int, path: str) -> trio.SocketStream:
    """Ask for something and read nothing of it."""
    stalled = trio.socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await stalled.connect(("127.0.0.1", port))
    stream = trio.SocketStream(stalled)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return stream


async def test_a_stalled_reader_of_a_stream_is_cut_and_the_others_read_on(tmp_path: Path) -> None:
    limits = Limits(stall_timeout_seconds=0.5)
    async with (
        open_one_port(tmp_path, limits=limits) as edge,
        open_http(edge.port) as writer,
        open_http(edge.port) as reader,
    ):
        await writer.post("/v1/sessions", {"id": "s", "user_id": "u"})
        stalled = await open_stalled_reader(edge.port, "/v1/sessions/s/stream?last_seq=0")
        await reader.send("GET", "/v1/sessions/s/stream?last_seq=0")
        assert (await reader.receive_head()).status == 200
        events = EventReader(reader)
        seq = 0
        with trio.fail_after(25):
            while edge.metrics.readers_stalled == 0:
                await writer.post(
                    "/v1/sessions/s/messages", {"sender": "u", "content": "x" * 200_000}
                )
                seq += 1
                assert (await events.message())[0] == seq
            while edge.http_server.connections > 2:
                await trio.sleep(0.01)
        assert edge.metrics.event_streams == 1
        await stalled.aclose()


async def test_a_peer_that_leaves_with_a_second_request_sent_ahead_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    limits = Limits(sse_keep_alive_seconds=0.1)
    async with open_one_port(tmp_path, limits=limits) as edge:
        async with open_http(edge.port) as http:
            await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
            await http.send("GET", "/v1/sessions/s/stream?last_seq=0")
            await http.stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await http.receive_head()).status == 200
        with trio.fail_after(5):
            while edge.acceptor.connections:
                await trio.sleep(0.01)


async def test_a_stalled_reader_with_many_requests_sent_ahead_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    limits = Limits(stall_timeout_seconds=0.3)
    async with open_one_port(tmp_path, limits=limits) as edge:
        stalled = await open_stalled_reader(edge.port, "/openapi.json")
        with suppress(trio.BrokenResourceError):
            while True:
                await stalled.send_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(5):
            while edge.acceptor.connections:
                await trio.sleep(0.01)
        assert edge.metrics.readers_stalled == 1
        await stalled.aclose()


async def test_a_slow_reader_that_makes_progress_gets_the_whole_page(tmp_path: Path) -> None:
    limits = Limits(stall_timeout_seconds=1.0)
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        for _ in range(3):
            body = {"sender": "u", "content": "x" * 200_000}
            assert (await http.post("/v1/sessions/s/messages", body)).status == 201
        stream = await open_stalled_reader(edge.port, "/v1/sessions/s/messages")
        received = 0
        with trio.fail_after(25):
            while received < 600_000:
                await trio.sleep(0.02)
                received += len(await stream.receive_some(16_384))
        assert edge.metrics.readers_stalled == 0
        await stream.aclose()


async def test_stopping_ends_idle_connections_now_and_streams_too(tmp_path: Path) -> None:
    limits = Limits(close_timeout_seconds=0.2, grace_seconds=30)
    async with (
        open_one_port(tmp_path, limits=limits) as edge,
        open_http(edge.port) as idle,
        open_http(edge.port) as streaming,
    ):
        await idle.post("/v1/sessions", {"id": "s", "user_id": "u"})
        await streaming.send("GET", "/v1/sessions/s/stream")
        await streaming.receive_head()
        assert (await EventReader(streaming).block()) == {"retry": "1000"}
        started = trio.current_time()
        edge.services.closing.begin()
        await edge.http_server.stop()
        assert trio.current_time() - started < 2
        assert edge.http_server.connections == 0
        assert await idle.closed_by_server()
        assert await streaming.receive_piece() == b""


async def test_stopping_does_not_wait_for_a_connection_that_does_not_end(tmp_path: Path) -> None:
    limits = Limits(grace_seconds=0.3)
    async with open_one_port(tmp_path, limits=limits) as edge, open_http(edge.port) as http:
        await http.stream.send_all(
            b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"
        )
        with trio.fail_after(5):
            while edge.http_server.connections == 0:
                await trio.sleep(0.01)
            await edge.http_server.stop()
            assert await http.closed_by_server()
            while edge.http_server.connections:
                await trio.sleep(0.01)


async def ask_and_half_close(port: int, request: bytes) -> bytes:
    """Send and shut down our side, as `nc -N` does; return all that comes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        await stream.send_eof()
        received = b""
        with trio.fail_after(10):
            while piece := await stream.receive_some(65536):
                received += piece
    return received


async def test_a_peer_that_half_closes_after_its_request_is_answered(tmp_path: Path) -> None:
    create = b'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\n%s\r\n{"id":"%s","user_id":"u"}'
    whole = b"Content-Length: 24\r\n"
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        received = await ask_and_half_close(edge.port, create % (whole, b"s"))
        assert received.startswith(b"HTTP/1.1 201 ")
        assert (await http.get("/v1/sessions/s")).status == 200
        get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert (await ask_and_half_close(edge.port, get)).endswith(b'{"status":"ok"}')
        both = await ask_and_half_close(edge.port, get + create % (whole, b"t"))
        assert both.count(b"HTTP/1.1 200 ") == both.count(b"HTTP/1.1 201 ") == 1
        once = await ask_and_half_close(edge.port, get.replace(b"1.1\r", b"1.0\r"))
        assert once.endswith(b'{"status":"ok"}')
        # What did not come in full is not done.
        half = create % (b"Content-Length: 25\r\n", b"u")
        await ask_and_half_close(edge.port, half)
        assert (await http.get("/v1/sessions/u")).status == 404


async def test_an_event_stream_ends_where_its_reader_half_closes(tmp_path: Path) -> None:
    async with open_one_port(tmp_path) as edge, open_http(edge.port) as http:
        await http.post("/v1/sessions", {"id": "s", "user_id": "u"})
        await ask_and_half_close(
            edge.port, b"GET /v1/sessions/s/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        await http.send("GET", "/v1/sessions/s/stream")
        assert (await http.receive_head()).status == 200
        assert isinstance(http.stream, trio.SocketStream)
        await http.stream.send_eof()
        assert await http.closed_by_server()
        with trio.fail_after(5):
            while edge.metrics.event_streams or edge.acceptor.connections:
                await trio.sleep(0.01)


async def test_a_length_that_two_readers_could_tell_differently_is_refused(tmp_path: Path) -> None:
    smuggle = (
        b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 5\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    old = smuggle.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Content-Length: 5\r\n", b"")
    async with open_one_port(tmp_path) as edge:
        for request in (smuggle, old):
            received = await ask_and_half_close(edge.port, request)
            assert received.startswith(b"HTTP/1.1 400 ")
            assert b"Transfer-Encoding" in received
            assert b"HTTP/1.1 200 " not in received


async def test_a_target_in_absolute_form_names_the_same_host_as_the_header(tmp_path: Path) -> None:
    async def ask(port: int, target: str, host: str) -> Answer:
        async with open_http(port, Host=host) as http:
            return await http.get(target)

    async with open_one_port(tmp_path) as edge:
        port = edge.port
        assert (await ask(port, "http://localhost:1/openapi.json", "LOCALHOST:1")).status == 200
        assert (await ask(port, "HTTP://127.0.0.1?a=1", "127.0.0.1")).code == "not_found"
        for target, host in (
            ("http://evil.example/openapi.json", "evil.example"),
            ("http://evil.example/openapi.json", "localhost"),
            ("http://evil.example/healthz", "localhost"),
            ("http://localhost/openapi.json", "evil.example"),
            ("http://localhost@evil.example/", "localhost"),
        ):
            assert (await ask(port, target, host)).code == "host_not_allowed"
        assert (await ask(port, "ftp://localhost/healthz", "localhost")).code == "bad_request"

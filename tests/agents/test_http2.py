"""Calls over HTTP/2: to hypercorn, and to agents whose frames are in a script."""

from pathlib import Path

import hypercorn.config
import hypercorn.trio
import pytest
import trio
import trustme
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from agents.callerror import CallError
from agents.deadlines import Deadlines
from agents.http import CallerOptions, open_caller
from tests.agents.scripted import (
    LOCAL,
    PATIENT,
    PIECE,
    Authority,
    Http2Exchange,
    loopback,
    open_http2_agent,
)

HEADERS = {"Content-Type": "application/json"}
BODY = b"x" * 200_000  # more than the window that HTTP/2 begins with


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"]])
async def test_http2_is_spoken_with_a_server_that_offers_it(
    tmp_path: Path, offered: list[str]
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.certfile = config.keyfile = str(tmp_path / "server.pem")
    config.alpn_protocols = offered
    config.loglevel = "CRITICAL"

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        seen.append(scope["http_version"])
        length, more = 0, True
        while more:
            event = await receive()
            assert event["type"] == "http.request"
            length += len(event["body"])
            more = event["more_body"]
        assert length == len(BODY)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one\n", b"two\n"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    seen: list[str] = []
    options = CallerOptions(addresses=LOCAL.addresses, tls=Authority().client)
    assert options.tls is not None
    authority.configure_trust(options.tls)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = hypercorn.trio.serve
        [url] = await nursery.start(
            lambda task_status: serve(
                app, config, mode="asgi", shutdown_trigger=stop.wait, task_status=task_status
            )
        )
        async with open_caller(options, resolve=loopback) as caller:
            for _ in range(3):
                async with caller.post(
                    url.replace("127.0.0.1", "localhost"), HEADERS, BODY, PATIENT
                ) as response:
                    answer = b"".join([piece async for piece in response.stream()])
                assert answer == b"one\ntwo\n"
                assert response.http_version == ("HTTP/2" if "h2" in offered else "HTTP/1.1")
                assert caller.idle_count == 1
        stop.set()

    assert seen == (["2"] * 3 if "h2" in offered else ["1.1"] * 3)


async def refused(
    script: object, deadlines: Deadlines = PATIENT, *, calls: int = 1
) -> tuple[CallError, int]:
    """How the last of several calls fails, and how many connections were made."""
    authority = Authority()
    async with (
        open_http2_agent(authority, script) as agent,  # type: ignore[arg-type]
        open_caller(authority.options, resolve=loopback) as caller,
    ):
        for _ in range(calls - 1):
            async with caller.post(agent.url, HEADERS, b"{}", PATIENT) as response:
                assert [piece async for piece in response.stream()] == [b"ok"]
        with pytest.raises(CallError) as info:
            async with caller.post(agent.url, HEADERS, b"{}", deadlines) as response:
                async for _ in response.stream():
                    pass
        return info.value, agent.connections


async def test_headers_go_in_lower_case_and_the_authority_is_the_urls() -> None:
    async def script(exchange: Http2Exchange) -> None:
        seen.update(exchange.headers)
        await exchange.begin(("x-agent", "yes"))
        await exchange.send(b"ok", end=True)

    seen: dict[bytes, bytes] = {}
    authority = Authority()
    async with (
        open_http2_agent(authority, script) as agent,
        open_caller(authority.options, resolve=loopback) as caller,
        caller.post(agent.url, HEADERS, b"{}", PATIENT) as response,
    ):
        assert response.headers == {"x-agent": "yes"}
        assert [piece async for piece in response.stream()] == [b"ok"]

    assert seen[b":authority"] == b"localhost:%d" % agent.port
    assert seen[b"content-type"] == b"application/json"


async def test_calls_at_once_have_a_connection_each() -> None:
    arrived = 0

    async def script(exchange: Http2Exchange) -> None:
        nonlocal arrived
        arrived += 1
        while arrived < 3:
            await trio.sleep(0.001)
        await exchange.begin()
        await exchange.send(b"ok", end=True)

    async def call() -> None:
        async with caller.post(agent.url, HEADERS, b"{}", PATIENT) as response:
            assert [piece async for piece in response.stream()] == [b"ok"]

    authority = Authority()
    async with (
        open_http2_agent(authority, script) as agent,
        open_caller(authority.options, resolve=loopback) as caller,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)

        assert agent.connections == 3


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancelled_call_closes_its_connection_at_once(begun: bool) -> None:
    async def script(exchange: Http2Exchange) -> None:
        if begun:
            await exchange.begin()
            await exchange.send(b"one\n")
        arrived.set()
        await exchange.until_hung_up()
        hung_up.set()

    async def call() -> None:
        async with caller.post(agent.url, HEADERS, b"{}", PATIENT) as response:
            async for _ in response.stream():
                pass

    arrived, hung_up = trio.Event(), trio.Event()
    authority = Authority()
    async with (
        open_http2_agent(authority, script) as agent,
        open_caller(authority.options, resolve=loopback) as caller,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await arrived.wait()
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await hung_up.wait()

        assert caller.idle_count == 0


async def test_a_stall_ends_at_the_idle_deadline_although_pings_come() -> None:
    async def script(exchange: Http2Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"half of a li")
        for _ in range(100):
            exchange.connection.ping(b"12345678")
            await exchange.send(b"")
            await trio.sleep(0.01)

    deadlines = Deadlines(idle_seconds=0.1)
    error, _ = await refused(script, deadlines)

    assert error.code == "agent_timeout_idle"


async def test_a_stream_that_is_reset_and_a_connection_that_is_ended_may_be_tried_again() -> None:
    async def reset(exchange: Http2Exchange) -> None:
        await exchange.begin()
        exchange.connection.reset_stream(exchange.stream_id, 2)
        await exchange.flush()

    async def go_away(exchange: Http2Exchange) -> None:
        await exchange.begin()
        exchange.connection.close_connection()
        await exchange.flush()
        await exchange.stream.aclose()

    async def hang_up(exchange: Http2Exchange) -> None:
        await exchange.stream.aclose()

    for script in (reset, go_away, hang_up):
        error, connections = await refused(script)

        assert (error.code, error.retryable) == ("agent_disconnected", True)
        assert connections == 1


async def test_a_kept_connection_that_the_agent_ends_is_replaced_once() -> None:
    calls = 0

    async def script(exchange: Http2Exchange) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            exchange.connection.close_connection()
            await exchange.flush()
            await exchange.stream.aclose()
            return
        await exchange.begin()
        await exchange.send(b"ok", end=True)

    error, connections = await refused(script, calls=2)

    assert error.code == "agent_disconnected"
    assert (calls, connections) == (3, 2)


async def test_huge_headers_are_refused() -> None:
    async def script(exchange: Http2Exchange) -> None:
        exchange.connection.remote_settings.max_header_list_size = 2**30
        await exchange.begin(*((f"x-{number}", "y" * 1000) for number in range(200)))
        await exchange.until_hung_up()

    error, _ = await refused(script)

    assert (error.code, error.retryable) == ("agent_protocol", False)


@pytest.mark.parametrize(
    "frames",
    [
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # a window that grows by nothing
        b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff",  # headers that cannot be unpacked
        b"\x00\x00\x01\x00\x00\x00\x00\x00\x63x",  # data for a stream that nobody opened
    ],
)
async def test_garbage_instead_of_frames_is_named(frames: bytes) -> None:
    async def script(exchange: Http2Exchange) -> None:
        await exchange.stream.send_all(frames)
        await exchange.until_hung_up()

    error, _ = await refused(script, Deadlines(first_byte_seconds=2))

    assert (error.code, error.retryable) == ("agent_protocol", False)


@pytest.mark.parametrize(
    "frames",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",  # to HTTP/2, the head of a frame of 4.7 MB
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    ],
)
async def test_a_huge_frame_that_does_not_come_ends_at_the_deadline(frames: bytes) -> None:
    async def script(exchange: Http2Exchange) -> None:
        await exchange.stream.send_all(frames)
        await exchange.until_hung_up()

    error, _ = await refused(script, Deadlines(first_byte_seconds=0.1))

    assert error.code == "agent_timeout_first_byte"


async def test_a_status_that_is_no_number_is_named() -> None:
    async def script(exchange: Http2Exchange) -> None:
        exchange.connection.config.validate_outbound_headers = False
        exchange.connection.send_headers(exchange.stream_id, [(":status", "ok")])
        await exchange.flush()
        await exchange.until_hung_up()

    error, _ = await refused(script)

    assert error.code == "agent_protocol"


async def test_endless_data_that_nobody_reads_fills_one_window_and_no_more() -> None:
    sent = 0

    async def script(exchange: Http2Exchange) -> None:
        nonlocal sent
        await exchange.begin()
        while exchange.connection.local_flow_control_window(exchange.stream_id) >= 16_384:
            await exchange.send(bytes(16_384))
            sent += 16_384
        await exchange.until_hung_up()

    authority = Authority()
    async with (
        open_http2_agent(authority, script) as agent,
        open_caller(authority.options, resolve=loopback) as caller,
        caller.post(agent.url, HEADERS, b"{}", PATIENT) as response,
    ):
        assert len(await anext(response.stream())) <= PIECE
        await trio.testing.wait_all_tasks_blocked(0.05)

    assert sent <= 2**24 + 2**17

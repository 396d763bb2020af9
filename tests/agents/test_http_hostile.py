"""Calls to agents that break the rules of HTTP, one rule at a time."""

from dataclasses import replace

import pytest
import trio

from agents.callerror import CallError
from agents.http import HEADER_BYTES_MAX, open_caller
from tests.agents.calls import BODY, HEADERS, call, refused
from tests.agents.scripted import (
    CHUNKED,
    LOCAL,
    PATIENT,
    PIECE,
    Agent,
    Exchange,
    answer,
    chunk,
    loopback,
    open_agent,
    open_listener,
)


async def test_endless_data_is_cut_off() -> None:
    async def script(exchange: Exchange) -> None:
        sent.append(exchange)
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await exchange.send(bytes(PIECE))

    sent: list[Exchange] = []
    options = replace(LOCAL, response_bytes_max=2**20)
    async with open_agent(script) as agent:
        error = await refused(agent, options=options)

        assert (error.code, error.retryable) == ("agent_response_too_large", False)
        assert sent[0].sent < 16 * 2**20, "only what buffers between the two hold"


async def test_other_tasks_run_while_an_agent_floods_with_tiny_pieces() -> None:
    turns = 0

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        while True:
            await exchange.send(chunk(b"x") * 20_000)

    async def watch() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    options = replace(LOCAL, response_bytes_max=50_000)
    async with trio.open_nursery() as nursery, open_agent(script) as agent:
        nursery.start_soon(watch)
        error = await refused(agent, options=options)
        nursery.cancel_scope.cancel()

    assert error.code == "agent_response_too_large"
    assert turns > 50_000 // 100


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000,
        b"HTTP/1.1 200 " + b"O" * 200_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (HEADER_BYTES_MAX + 1) + b"\r\n\r\n",
    ],
    ids=["one", "many", "reason", "just-too-many"],
)
async def test_huge_headers_are_refused(head: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(head)
        await exchange.until_hung_up()

    async with open_agent(script) as agent:
        error = await refused(agent)

        assert (error.code, error.retryable) == ("agent_protocol", False)


async def test_headers_without_an_end_are_cut_off() -> None:
    async def script(exchange: Exchange) -> None:
        sent.append(exchange)
        await exchange.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await exchange.send(b"x: y\r\n" * 10_000)

    sent: list[Exchange] = []
    async with open_agent(script) as agent:
        error = await refused(agent)

        assert error.code == "agent_protocol"
        assert sent[0].sent < 16 * 2**20, "only what buffers between the two hold"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x00\x05hello" * 20,
        b"<html><body>502</body></html>\r\n\r\n",
        b"HTTP/1.1 two-hundred OK\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"ffffffffffffffffffffffffff\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
    ],
)
async def test_garbage_instead_of_http_is_named(garbage: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(garbage)
        await exchange.until_hung_up()

    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, first_byte_seconds=1))

        assert (error.code, error.retryable) == ("agent_protocol", False)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345",
        CHUNKED + chunk(b"one"),
        CHUNKED + b"5\r\nab",
    ],
)
async def test_an_agent_that_closes_early_is_named(sent: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.stream.aclose()

    async with open_agent(script) as agent:
        error = await refused(agent)

        assert (error.code, error.retryable) == ("agent_disconnected", True)


async def test_what_came_before_an_early_end_is_handed_on() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED + chunk(b"one\n"))
        await exchange.stream.aclose()

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        pieces = []
        with pytest.raises(CallError):
            async with caller.post(agent.url, HEADERS, BODY, PATIENT) as response:
                async for piece in response.stream():
                    pieces.append(piece)  # noqa: PERF401 - which survives what follows

        assert pieces == [b"one\n"]
        assert not response.complete


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        await exchange.stream.aclose()

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        assert await call(caller, agent) == b"all of it"
        assert caller.idle_count == 0


async def test_an_answer_that_is_compressed_unasked_is_refused_but_its_status_is_told() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"\x1f\x8b", b"502 Bad Gateway", b"content-encoding: gzip"))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        with pytest.raises(CallError) as info:
            async with caller.post(agent.url, HEADERS, BODY, PATIENT) as response:
                assert response.status == 502
                response.stream()

        assert (info.value.code, info.value.retryable) == ("agent_compressed", False)


async def test_nobody_listens() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        return

    async with open_listener(serve) as agent:
        pass
    error = await refused(agent)

    assert (error.code, error.retryable) == ("agent_unreachable", True)
    wanted = f"cannot connect to localhost, port {agent.port}: connection refused"
    assert str(error) == wanted

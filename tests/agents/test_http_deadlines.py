"""Each deadline of a call, with the real thing over a real socket."""

from dataclasses import replace

import pytest
import trio

from agents.callerror import CallError
from agents.http import open_caller
from tests.agents.calls import BODY, HEADERS, SHORT, call, refused
from tests.agents.scripted import (
    CHUNKED,
    LOCAL,
    PATIENT,
    Agent,
    Authority,
    Exchange,
    chunk,
    loopback,
    open_agent,
    open_listener,
)


async def test_the_connect_deadline_ends_a_handshake_that_nobody_answers() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        await trio.sleep_forever()

    async with open_listener(serve) as agent:
        agent.scheme = "https"
        error = await refused(agent, replace(PATIENT, connect_seconds=SHORT), Authority().options)

        assert (error.code, error.retryable) == ("agent_timeout_connect", True)
        assert str(error) == "the agent did not accept a connection in 0.1 s"


async def test_the_connect_deadline_ends_a_look_up() -> None:
    async def never(host: str) -> list[str]:
        await trio.sleep_forever()

    async with open_caller(LOCAL, resolve=never) as caller:
        with pytest.raises(CallError) as info:
            await call(caller, Agent(80), replace(PATIENT, connect_seconds=SHORT))

    assert info.value.code == "agent_timeout_connect"


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.2\r\n", CHUNKED])
async def test_the_first_byte_deadline_ends_an_answer_that_does_not_begin(sent: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_hung_up()
        hung_up.set()

    hung_up = trio.Event()
    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, first_byte_seconds=SHORT))

        assert (error.code, error.retryable) == ("agent_timeout_first_byte", True)
        with trio.fail_after(5):
            await hung_up.wait()


async def test_headers_that_trickle_do_not_extend_the_first_byte_deadline() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            await exchange.send(b"y")
            await trio.sleep(0.01)

    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, first_byte_seconds=SHORT))

        assert error.code == "agent_timeout_first_byte"


async def test_answers_of_a_hundred_that_never_end_do_not_extend_the_first_byte_deadline() -> None:
    async def script(exchange: Exchange) -> None:
        while True:
            await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, first_byte_seconds=SHORT))

        assert error.code == "agent_timeout_first_byte"


async def test_an_agent_that_does_not_read_is_given_up_at_the_first_byte_deadline() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        await trio.sleep_forever()

    async with open_listener(serve) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        with pytest.raises(CallError) as info:
            await call(caller, agent, replace(PATIENT, first_byte_seconds=SHORT), bytes(2**24))

        assert info.value.code == "agent_timeout_first_byte"


async def test_the_idle_deadline_ends_an_answer_that_stalls_in_the_middle_of_a_line() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(b'{"kind":"te'))
        await exchange.until_hung_up()
        hung_up.set()

    hung_up = trio.Event()
    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        pieces = []
        with pytest.raises(CallError) as info:
            async with caller.post(
                agent.url, HEADERS, BODY, replace(PATIENT, idle_seconds=SHORT)
            ) as response:
                async for piece in response.stream():
                    pieces.append(piece)  # noqa: PERF401 - which survives what follows

        assert pieces == [b'{"kind":"te']
        assert (info.value.code, info.value.retryable) == ("agent_timeout_idle", True)
        with trio.fail_after(5):
            await hung_up.wait()


async def test_what_holds_no_answer_does_not_extend_the_idle_deadline() -> None:
    """Half of a chunk's length, a byte at a time, is something sent and nothing said."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(b"a"))
        for _ in range(100):
            await exchange.send(b"0")
            await trio.sleep(0.01)

    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, idle_seconds=SHORT))

        assert error.code in {"agent_timeout_idle", "agent_protocol"}


async def test_the_time_that_a_reader_takes_is_not_the_agents() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(b"a"), chunk(b"b"), b"0\r\n\r\n")

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        pieces = []
        brief = replace(PATIENT, first_byte_seconds=0.2, idle_seconds=0.2)
        async with caller.post(agent.url, HEADERS, BODY, brief) as response:
            await trio.sleep(0.25)
            async for piece in response.stream():
                await trio.sleep(0.25)
                pieces.append(piece)

        assert b"".join(pieces) == b"ab"


async def test_the_total_deadline_ends_an_answer_that_goes_on_and_on() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        while True:
            await exchange.send(chunk(b"more\n"))
            await trio.sleep(0.005)

    async with open_agent(script) as agent:
        error = await refused(agent, replace(PATIENT, total_seconds=SHORT))

        assert (error.code, error.retryable) == ("agent_timeout_total", False)

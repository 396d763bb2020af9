"""Which connections are kept for the next call, and which are closed."""

import pytest
import trio

from agents import connections
from agents.callerror import CallError
from agents.http import Caller, open_caller
from tests.agents.scripted import (
    CHUNKED,
    LOCAL,
    PATIENT,
    Authority,
    Exchange,
    answer,
    chunk,
    loopback,
    open_agent,
)


async def ok(exchange: Exchange) -> None:
    await exchange.send(answer(b"ok"))


async def call(caller: Caller, url: str) -> None:
    async with caller.post(url, {}, b"{}", PATIENT) as response:
        assert [piece async for piece in response.stream()] == [b"ok"]


async def test_a_connection_is_kept_for_its_own_host_port_and_scheme() -> None:
    authority = Authority("a.example", "b.example")
    async with (
        open_agent(ok) as plain,
        open_agent(ok, tls=authority.server) as secured,
        open_caller(authority.options, resolve=loopback) as caller,
    ):
        for _ in range(2):
            await call(caller, f"http://a.example:{plain.port}/")
            await call(caller, f"http://b.example:{plain.port}/")
            await call(caller, f"https://a.example:{secured.port}/")
            await call(caller, f"https://b.example:{secured.port}/x")

        assert (plain.connections, secured.connections) == (2, 2)
        assert caller.idle_count == 4


async def test_a_connection_that_was_idle_for_too_long_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    async with open_agent(ok) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        await call(caller, agent.url)
        await trio.sleep(0.06)
        await call(caller, agent.url)

        assert agent.connections == 2
        assert caller.idle_count == 1
        with trio.fail_after(5):
            await agent.hung_up.wait()


async def test_an_answer_that_was_not_read_to_its_end_ends_its_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(b"one"), b"0\r\n\r\n")

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        async with caller.post(agent.url, {}, b"{}", PATIENT) as response:
            assert response.status == 200

        assert caller.idle_count == 0
        with trio.fail_after(5):
            await agent.hung_up.wait()


async def test_an_agent_that_wants_no_more_calls_is_not_asked_again_on_it() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok", b"200 OK", b"connection: close"))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        await call(caller, agent.url)

        assert caller.idle_count == 0


async def test_more_than_the_answer_ends_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok") + answer(b"for whoever asks next"))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        await call(caller, agent.url)
        await call(caller, agent.url)

        assert agent.connections == 2


async def test_when_the_caller_ends_nothing_stays_open() -> None:
    async with open_agent(ok) as agent:
        async with open_caller(LOCAL, resolve=loopback) as caller:
            await call(caller, agent.url)
            assert caller.idle_count == 1

        assert caller.idle_count == 0
        with trio.fail_after(5):
            await agent.hung_up.wait()


async def test_a_connection_that_came_to_nothing_is_not_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"nonsense\r\n\r\n")

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        with pytest.raises(CallError):
            await call(caller, agent.url)

        assert caller.idle_count == 0
        with trio.fail_after(5):
            await agent.hung_up.wait()

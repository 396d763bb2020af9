"""Calls over real sockets to agents that behave: what is sent, kept and given up."""

import logging
from dataclasses import replace

import pytest
import trio

from agents.callerror import CallError
from agents.deadlines import Deadlines
from agents.http import open_caller
from tests.agents.calls import BODY, HEADERS, SHORT, call, refused
from tests.agents.scripted import (
    CHUNKED,
    LOCAL,
    PATIENT,
    Agent,
    Authority,
    Exchange,
    Http2Exchange,
    answer,
    chunk,
    loopback,
    open_agent,
    open_http2_agent,
    open_listener,
)


async def test_a_post_carries_the_body_and_the_headers_and_streams_the_answer() -> None:
    first_was_seen = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(b"one\n"))
        await first_was_seen.wait()
        await exchange.send(chunk(b"two\n"), b"0\r\n\r\n")

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        pieces = []
        async with caller.post(agent.url, HEADERS, BODY, PATIENT) as response:
            assert (response.status, response.http_version) == (200, "HTTP/1.1")
            assert response.headers == {"transfer-encoding": "chunked"}
            async for piece in response.stream():
                pieces.append(piece)
                first_was_seen.set()

        assert pieces == [b"one\n", b"two\n"]
        [exchange] = agent.exchanges
        assert exchange.lines == [
            b"POST /answer HTTP/1.1",
            b"host: localhost:%d" % agent.port,
            b"user-agent: ringlog",
            b"accept: */*",
            b"content-type: application/json",
            b"authorization: Bearer canary-5d1f",
            b"accept-encoding: identity",
            b"content-length: 15",
        ]
        assert exchange.body == BODY


async def test_a_connection_is_kept_for_the_next_call() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        assert [await call(caller, agent) for _ in range(3)] == [b"ok"] * 3

        assert agent.connections == 1


async def test_a_connection_serves_only_so_many_calls() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b""))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        for _ in range(101):
            await call(caller, agent)

        assert agent.connections == 2


async def test_calls_at_once_have_a_connection_each_and_only_some_are_kept() -> None:
    everybody_is_here = trio.Event()

    async def script(exchange: Exchange) -> None:
        if len(agent.exchanges) == 5:
            everybody_is_here.set()
        await everybody_is_here.wait()
        await exchange.send(answer(b""))

    options = replace(LOCAL, idle_max=2)
    async with open_agent(script) as agent, open_caller(options, resolve=loopback) as caller:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, caller, agent)

        assert agent.connections == 5
        assert caller.idle_count == 2


async def test_a_call_waits_for_room_no_longer_than_it_may_take_to_connect() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_hung_up()

    options = replace(LOCAL, connections_max=1)
    async with open_agent(script) as agent, open_caller(options, resolve=loopback) as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, caller, agent)
            while not agent.exchanges:
                await trio.sleep(0.001)
            with pytest.raises(CallError) as info:
                await call(caller, agent, Deadlines(connect_seconds=0.05))
            nursery.cancel_scope.cancel()

        assert info.value.code == "agent_calls_full"


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_a_kept_connection_that_the_agent_has_closed_is_replaced(says_goodbye: bool) -> None:
    async def script(exchange: Exchange) -> None:
        served.append(exchange.body)
        if len(served) == 2 and not says_goodbye:
            await exchange.stream.aclose()  # when the request is there already
        else:
            await exchange.send(answer(b"ok"))
            if says_goodbye:
                await exchange.stream.aclose()

    served: list[bytes] = []
    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        await call(caller, agent)
        await trio.testing.wait_all_tasks_blocked(0.01)

        assert await call(caller, agent) == b"ok"
        assert agent.connections == 2


async def test_a_new_connection_that_the_agent_closes_is_not_replaced() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream.aclose()

    async with open_agent(script) as agent:
        error = await refused(agent)

        assert (error.code, error.retryable) == ("agent_disconnected", True)
        assert len(agent.exchanges) == 1


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def target(stream: trio.SocketStream, agent: Agent) -> None:
        raise AssertionError

    async def script(exchange: Exchange) -> None:
        location = f"location: http://127.0.0.1:{inside.port}/".encode()
        await exchange.send(answer(b"", b"307 Temporary Redirect", location))

    async with (
        open_listener(target) as inside,
        open_agent(script) as agent,
        open_caller(LOCAL, resolve=loopback) as caller,
        caller.post(agent.url, HEADERS, BODY, PATIENT) as response,
    ):
        assert response.status == 307
        assert inside.connections == 0


async def test_cookies_are_not_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"", b"200 OK", b"set-cookie: a=b"))

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        await call(caller, agent)
        await call(caller, agent)

        assert b"cookie" not in agent.exchanges[1].head.lower()


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        raise AssertionError

    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))

    async with open_listener(serve) as proxy, open_agent(script) as agent:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with open_caller(LOCAL, resolve=loopback) as caller:
            assert await call(caller, agent) == b"ok"

        assert proxy.connections == 0


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_no_secret_and_no_url_is_logged(caplog: pytest.LogCaptureFixture, level: int) -> None:
    async def script(exchange: Http2Exchange) -> None:
        await exchange.begin(("set-cookie", "canary-77e0"))
        await exchange.send(b"", end=True)

    authority = Authority()
    with caplog.at_level(level):
        async with (
            open_http2_agent(authority, script) as agent,
            open_caller(authority.options, resolve=loopback) as caller,
        ):
            caplog.set_level(level, "httpx2")
            await call(caller, agent)

    said = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("h2")
    )
    assert "canary" not in said
    assert "/answer" not in said


@pytest.mark.parametrize("sent", [b"", CHUNKED, CHUNKED + chunk(b"one")])
async def test_a_cancelled_call_closes_its_connection_at_once(sent: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_hung_up()
        hung_up.set()

    hung_up = trio.Event()
    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, caller, agent)
            while not agent.exchanges:
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await hung_up.wait()

        assert caller.idle_count == 0


async def test_a_cancelled_call_does_not_wait_for_an_agent_that_does_not_read() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        await trio.sleep_forever()

    async with open_listener(serve) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        started = trio.current_time()
        with trio.move_on_after(SHORT):
            await call(caller, agent, body=bytes(2**24))

        assert trio.current_time() - started < 2


async def test_leaving_the_block_closes_an_answer_that_is_not_over() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED + chunk(b"one"))
        await exchange.until_hung_up()
        hung_up.set()

    hung_up = trio.Event()
    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        async with caller.post(agent.url, HEADERS, BODY, PATIENT) as response:
            assert await anext(response.stream()) == b"one"
        with trio.fail_after(5):
            await hung_up.wait()


async def test_an_error_of_whoever_reads_comes_out_as_it_is() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED + chunk(b"one"))
        await exchange.until_hung_up()

    async with open_agent(script) as agent, open_caller(LOCAL, resolve=loopback) as caller:
        with pytest.raises(ZeroDivisionError):
            async with caller.post(agent.url, HEADERS, BODY, PATIENT) as response:
                async for _ in response.stream():
                    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "other"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("accept-encoding", "gzip"),
        ("bad name", "x"),
        ("", "x"),
        ("x:y", "z"),
        ("x", "a\r\nhost: other"),
        ("x", "a\nb"),
        ("x", "a\x00b"),
        ("x", "é"),
    ],
)
async def test_a_header_that_would_change_the_request_is_refused(name: str, value: str) -> None:
    async with open_caller(LOCAL) as caller:
        with pytest.raises(CallError) as info:
            async with caller.post("http://localhost/", {name: value}, BODY, PATIENT):
                pass

    assert (info.value.code, info.value.retryable) == ("agent_request_invalid", False)
    assert not value.strip() or value not in str(info.value)

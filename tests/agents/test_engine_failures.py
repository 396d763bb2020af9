"""Agents that do their worst, and what is told of it."""

from typing import Any

import pytest
import trio

from agents.breaker import BreakerOptions
from agents.places import Places
from tests.agents.engines import (
    calling,
    dispatches,
    half,
    hello,
    make,
    refuse,
    register,
    say,
    silent,
    stalls,
    texts,
    until,
    until_idle,
)
from tests.agents.hooks import Request, open_agent
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, replay


async def test_an_agent_that_is_away_is_tried_again_under_the_same_id(
    open_test_node: OpenNode,
) -> None:
    async def script(request: Request) -> None:
        await (refuse if len(agent.requests) < 3 else hello)(request)

    async with (
        open_agent(script) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["hi", "Hello"]
        (dispatch,) = await dispatches(node)
        assert [(each.code, each.status) for each in dispatch.attempts] == [
            ("agent_status", None),
            ("agent_status", None),
            (None, 200),
        ]
        assert {each.headers["webhook-id"] for each in agent.requests} == {dispatch.dispatch}
        assert [each.json["attempt"] for each in agent.requests] == [1, 2, 3]


async def test_tries_end_and_the_session_goes_on(open_test_node: OpenNode) -> None:
    async with (
        open_agent(refuse) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url, attempts_max=2)
        server = await make(node)
        await say(server)
        await until_idle(server)
        (dispatch,) = await dispatches(node)
        assert (dispatch.state, dispatch.code, len(dispatch.attempts)) == (
            "failed",
            "agent_status",
            2,
        )
        agent.script = hello
        await say(server)
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["hi", "hi", "Hello"]


async def nothing(request: Request) -> None:
    await request.head()


async def malformed(request: Request) -> None:
    await half(request)
    await request.stream.send_all(b'{"type":\n')


async def out_of_order(request: Request) -> None:
    await half(request)
    await request.send({"type": "text-delta", "id": "other", "delta": "x"})


async def says_error(request: Request) -> None:
    await half(request)
    await request.send({"type": "error", "errorText": "the model is away"})


async def endless(request: Request) -> None:
    await request.head()
    while True:
        await request.stream.send_all(b"x" * 65_536)


async def html(request: Request) -> None:
    await request.head(502, content_type="text/html")
    await request.stream.send_all(b"<html>" + b"x" * 100_000)


async def garbage(request: Request) -> None:
    await request.stream.send_all(b"SSH-2.0-OpenSSH\r\n\r\n")


async def not_found(request: Request) -> None:
    await request.head(404)


async def redirects(request: Request) -> None:
    await request.head(307, location="http://169.254.169.254/latest")


@pytest.mark.parametrize(
    ("script", "state", "code", "kept"),
    [
        (nothing, "failed", "answer_empty", []),
        (half, "interrupted", "answer_truncated", ["so far"]),
        (malformed, "interrupted", "answer_bad_json", ["so far"]),
        (out_of_order, "interrupted", "answer_out_of_order", ["so far"]),
        (says_error, "interrupted", "answer_error", ["so far"]),
        (stalls, "interrupted", "agent_timeout_idle", ["so far"]),
        (endless, "failed", "answer_line_too_long", []),
        (html, "failed", "agent_status", []),
        (garbage, "failed", "agent_protocol", []),
        (not_found, "failed", "agent_status", []),
        (redirects, "failed", "agent_status", []),
        (silent, "failed", "agent_timeout_first_byte", []),
    ],
)
async def test_what_fails_is_told_and_what_came_before_stays(
    open_test_node: OpenNode, script: Any, state: str, code: str, kept: list[str]
) -> None:
    async with (
        open_agent(script) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(
            registry,
            agent.url,
            attempts_max=1,
            idle_timeout_ms=1_000,
            first_byte_timeout_ms=1_000,
        )
        server = await make(node)
        await say(server)
        await until_idle(server)
        (dispatch,) = await dispatches(node)
        assert (dispatch.state, dispatch.code) == (state, code)
        assert texts(await replay(node, "s")) == ["hi", *kept]
        assert len(agent.requests) == 1


async def test_an_agent_that_is_gone_is_disabled(open_test_node: OpenNode) -> None:
    async def gone(request: Request) -> None:
        await request.head(410)

    async with open_agent(gone) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until_idle(server)

        def status() -> str:
            return registry.show(W, "bot").agent.status

        with trio.fail_after(5):
            while await trio.to_thread.run_sync(status) != "disabled":
                await trio.sleep(0.01)
        await say(server)
        await until_idle(server)
        assert [each.code for each in await dispatches(node)] == ["agent_gone", "agent_disabled"]
        assert len(agent.requests) == 1


async def test_an_agent_that_is_not_there_fails_and_is_called_once_it_is(
    open_test_node: OpenNode,
) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        server = await make(node)
        await say(server)
        await until_idle(server)
        await register(registry, agent.url)
        await say(server)
        await until_idle(server)
        assert [each.code for each in await dispatches(node)] == ["agent_not_found", None]


async def test_private_addresses_are_not_called_unless_they_are_allowed(
    open_test_node: OpenNode,
) -> None:
    async with (
        open_agent(hello) as agent,
        open_test_node() as node,
        calling(node, networks=()) as (registry, _),
    ):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until_idle(server)
        (dispatch,) = await dispatches(node)
        assert dispatch.code == "agent_address_refused"
        assert agent.connections == 0


async def test_an_agent_that_fails_again_and_again_is_left_alone_for_a_while(
    open_test_node: OpenNode,
) -> None:
    async with (
        open_agent(refuse) as agent,
        open_test_node() as node,
        calling(node) as (registry, engine),
    ):
        engine.places = Places(BreakerOptions(pause_seconds=0.3))
        await register(registry, agent.url, attempts_max=20)
        server = await make(node)
        await say(server)
        await until(lambda: len(agent.requests) == 5)
        await trio.sleep(0.1)
        assert len(agent.requests) == 5
        agent.script = hello
        await until_idle(server)
        assert len(agent.requests) == 6
        assert texts(await replay(node, "s")) == ["hi", "Hello"]

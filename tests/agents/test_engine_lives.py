"""What is left of dispatches when a process ends, and who goes on with them."""

from typing import Any

import pytest
import trio

from agents import ChangeAgent, Registry, Vault
from tests.agents.engines import (
    KEY,
    calling,
    dispatches,
    hello,
    make,
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


async def test_what_was_due_is_sent_by_the_next_life(open_test_node: OpenNode) -> None:
    async with open_agent(hello) as agent:
        async with open_test_node() as node, calling(node) as (registry, _):
            await register(registry, agent.url, debounce_window_ms=60_000, debounce_max_ms=60_000)
            await say(await make(node))
        async with open_test_node() as node:
            registry = Registry(node.archive, Vault([KEY]), lambda: 0)
            change = ChangeAgent(debounce_window_ms=0)
            await trio.to_thread.run_sync(registry.change, W, "bot", change)
            async with calling(node):
                await until(lambda: bool(agent.requests))
                await until_idle(await node.open(W, "s"))
                assert texts(await replay(node, "s")) == ["hi", "Hello"]


@pytest.mark.parametrize(
    ("on_loss", "script", "said", "states"),
    [
        ("interrupt", silent, ["hi", "Hello"], ["done"]),
        ("interrupt", stalls, ["hi", "so far"], ["interrupted"]),
        ("restart", stalls, ["hi", "Hello"], ["done"]),
    ],
)
async def test_what_was_in_flight_goes_on_as_the_agent_is_configured(
    open_test_node: OpenNode, on_loss: str, script: Any, said: list[str], states: list[str]
) -> None:
    async with open_agent(script) as agent:
        async with open_test_node() as node, calling(node) as (registry, _):
            await register(registry, agent.url, on_loss=on_loss)
            server = await make(node)
            await say(server)
            await until(lambda: bool(agent.requests))
            if script is stalls:
                await until(lambda: server.answer is not None and len(server.answer.frames) == 5)
        agent.script = hello
        async with open_test_node() as node, calling(node):
            await until_idle(await node.open(W, "s"))
            assert texts(await replay(node, "s")) == said
            assert [each.state for each in await dispatches(node)] == states
            assert len({each.headers["webhook-id"] for each in agent.requests}) == 1


async def test_a_message_that_is_stored_already_is_stored_no_second_time(
    open_test_node: OpenNode,
) -> None:
    async def finishes_and_hangs(request: Request) -> None:
        await request.answer("Hello")
        await trio.sleep(5)

    async with open_agent(finishes_and_hangs) as agent:
        async with open_test_node() as node, calling(node) as (registry, _):
            await register(registry, agent.url, on_loss="restart")
            server = await make(node)
            await say(server)
            await until(lambda: server.durable_seq == 2)
        async with open_test_node() as node, calling(node):
            await until_idle(await node.open(W, "s"))
            assert texts(await replay(node, "s")) == ["hi", "Hello"]
            assert [each.state for each in await dispatches(node)] == ["done"]
            assert len(agent.requests) == 1

"""Who is called when, who waits for whom, and what ends an answer."""

import pytest
import trio

from agents import ChangeAgent
from runtime import (
    AgentBusyError,
    WaitingReply,
)
from tests.agents.engines import (
    calling,
    dispatches,
    hello,
    make,
    register,
    say,
    stalls,
    texts,
    until,
    until_idle,
)
from tests.agents.hooks import Request, open_agent
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, replay


async def test_no_more_are_called_at_once_than_the_agent_takes_and_nobody_waits_for_another_agent(
    open_test_node: OpenNode,
) -> None:
    async def slow(request: Request) -> None:
        await request.answer("a", pause=0.05)

    async with open_agent(slow) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url, concurrency=3)
        servers = [await make(node, f"s{number}") for number in range(20)]
        await node.catalog.create(W, "other", user_id="alice", agent_id="echo")
        other = await node.open(W, "other", to_append=True)
        for server in servers:
            await say(server)
        await say(other)
        with trio.fail_after(5):
            while other.session.dispatches:
                await trio.sleep(0.01)
        for server in servers:
            await until_idle(server)
        assert agent.open_max == 3
        # Who came first was called first, but for how long it takes to look an agent up.
        called = [each.json["session_id"] for each in agent.requests]
        assert set(called[:6]) <= {f"s{number}" for number in range(12)}


async def test_an_answer_that_is_stopped_keeps_what_had_come(open_test_node: OpenNode) -> None:
    async with (
        open_agent(stalls) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until(lambda: server.answer is not None and len(server.answer.frames) == 5)
        reply = WaitingReply()
        server.tick()
        server.stop(reply, None)
        await reply.wait()
        assert not server.session.dispatches
        (dispatch,) = await dispatches(node)
        assert (dispatch.state, dispatch.code) == ("cancelled", "stopped")
        assert texts(await replay(node, "s")) == ["hi", "so far"]
        reply = WaitingReply()
        server.stop(reply, None)
        await reply.wait()  # There is nothing to stop, which is what was asked for.


async def test_a_message_interrupts_an_agent_that_is_configured_so(
    open_test_node: OpenNode,
) -> None:
    async def script(request: Request) -> None:
        await (stalls if len(agent.requests) == 1 else hello)(request)

    async with (
        open_agent(script) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url, on_message="interrupt")
        server = await make(node)
        await say(server)
        await until(lambda: server.answer is not None and len(server.answer.frames) == 5)
        await say(server, "wait")
        await until_idle(server)
        assert [each.state for each in await dispatches(node)] == ["interrupted", "done"]
        assert texts(await replay(node, "s")) == ["hi", "wait", "so far", "Hello"]


async def test_a_message_is_refused_by_an_agent_that_takes_none_meanwhile(
    open_test_node: OpenNode,
) -> None:
    async with (
        open_agent(stalls) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url, on_message="reject")
        server = await make(node)
        await say(server)
        await until(lambda: bool(agent.requests))
        with pytest.raises(AgentBusyError):
            await say(server)


async def test_a_change_of_an_agent_counts_from_the_next_call_on(open_test_node: OpenNode) -> None:
    async def slow(request: Request) -> None:
        await request.answer("a", pause=0.1)

    async with open_agent(slow) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until(lambda: bool(agent.requests))
        change = ChangeAgent(url=agent.url + "2", on_message="queue")
        await trio.to_thread.run_sync(registry.change, W, "bot", change)
        await say(server)
        await until_idle(server)
        assert [each.path for each in agent.requests] == ["/hook", "/hook2"]
        assert [each.state for each in await dispatches(node)] == ["done", "done"]


async def test_a_session_that_is_erased_in_the_middle_of_an_answer_leaves_nothing(
    open_test_node: OpenNode,
) -> None:
    async with (
        open_agent(stalls) as agent,
        open_test_node() as node,
        calling(node) as (registry, engine),
    ):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until(lambda: server.answer is not None and len(server.answer.frames) == 5)
        await node.catalog.delete(W, "s")
        await until(lambda: not engine._workers)
        assert await dispatches(node) == []


async def test_a_session_that_is_archived_in_the_middle_of_an_answer_is_not_stuck(
    open_test_node: OpenNode,
) -> None:
    async def slow(request: Request) -> None:
        await request.answer("a", pause=0.2)

    async with open_agent(slow) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until(lambda: bool(agent.requests))
        await node.catalog.change(W, "s", state="archived")
        await until_idle(server)
        (dispatch,) = await dispatches(node)
        assert (dispatch.state, dispatch.code) == ("failed", "session_archived")


async def test_a_bug_that_one_dispatch_meets_ends_it_and_nothing_else(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url)
        server = await make(node)
        with monkeypatch.context() as patch:
            patch.setattr("agents.worker.read_history", None)
            await say(server)
            await until_idle(server)
        await say(server)
        await until_idle(server)
        assert [(each.state, each.code) for each in await dispatches(node)] == [
            ("failed", "internal"),
            ("done", None),
        ]

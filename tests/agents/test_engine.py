"""Agents that are called: over real sockets, by a real node, with a real log and a real archive."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
import trio

from agents import ChangeAgent, CreateAgent, Registry, SecretsKey, Vault, run_engine
from agents.engine import Engine
from runtime import (
    AgentBusyError,
    Dispatch,
    Node,
    SessionServer,
    WaitingReply,
    append_durably,
    decode_dispatch,
)
from tests.agents.scripted import Request, open_agent
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, flush, replay

LOOPBACK = (ip_network("127.0.0.0/8"),)
KEY = SecretsKey(b"k" * 32)


@asynccontextmanager
async def calling(node: Node, networks: Any = LOOPBACK) -> AsyncIterator[tuple[Registry, Engine]]:
    registry = Registry(node.archive, Vault([KEY]), lambda: 0)
    async with trio.open_nursery() as nursery:
        engine = await nursery.start(run_engine, node, registry, networks)
        engine.dice = lambda: 0.01
        yield registry, engine
        nursery.cancel_scope.cancel()


async def register(registry: Registry, url: str, **changes: Any) -> Any:
    fields: dict[str, Any] = {"debounce_window_ms": 0, "type": "webhook"} | changes
    create = partial(registry.create, W, CreateAgent(id="bot", url=url, **fields))
    return await trio.to_thread.run_sync(create)


async def make(node: Node, session: str = "s") -> SessionServer:
    await node.catalog.create(W, session, user_id="alice", agent_id="bot")
    return await node.open(W, session, to_append=True)


async def say(server: SessionServer, text: str = "hi") -> int:
    content = json.dumps({"text": text}).encode()
    return (await append_durably(server, sender="alice", content=content)).seq


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)


async def until_idle(server: SessionServer) -> None:
    """Wait until nothing is to be answered, and that is durable."""
    await until(lambda: not server.session.dispatches)
    await server.node.log.sync()


async def dispatches(node: Node) -> list[Dispatch]:
    """All that there were, oldest first."""
    await flush(node)
    found = await trio.to_thread.run_sync(partial(node.archive.dispatches.list, W, agent="bot"))
    return [decode_dispatch(each.body) for each in reversed(found)]


def texts(messages: list[tuple[int, Any]]) -> list[str]:
    """What was said, in short."""
    return [
        content["text"]
        if "text" in content
        else "".join(part.get("text", "") for part in content["parts"])
        for _, content in messages
    ]


async def hello(request: Request) -> None:
    await request.answer("Hel", "lo")


async def test_a_message_is_answered(open_test_node: OpenNode) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        saved = await register(registry, agent.url, headers={"x-key": "secret"})
        server = await make(node)
        await say(server)
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["hi", "Hello"]
        (request,) = agent.requests
        (dispatch,) = await dispatches(node)
        assert (dispatch.state, dispatch.to_seq, dispatch.code) == ("done", 1, None)
        assert [each.status for each in dispatch.attempts] == [200]
        assert dispatch.attempts[0].chunks == 6
        assert request.json == {
            "session_id": "s",
            "agent_id": "bot",
            "user_id": "alice",
            "workspace": W,
            "dispatch_id": dispatch.dispatch,
            "attempt": 1,
            "messages": [
                {
                    "seq": 1,
                    "id": request.json["messages"][0]["id"],
                    "sender_id": "alice",
                    "kind": "text",
                    "content": {"text": "hi"},
                    "metadata": {},
                    "inserted_at": request.json["messages"][0]["inserted_at"],
                }
            ],
        }
        headers = request.headers
        assert headers["x-key"] == "secret"
        assert headers["webhook-id"] == dispatch.dispatch
        assert headers["traceparent"].split("-")[1] == dispatch.dispatch.replace("-", "")
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
        key = base64.b64decode(saved.signing_secret.removeprefix("whsec_"))
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"


async def test_messages_that_come_together_are_answered_together(open_test_node: OpenNode) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url, debounce_window_ms=150)
        server = await make(node)
        for text in "abc":
            await say(server, text)
            await trio.sleep(0.05)
        await until_idle(server)
        (request,) = agent.requests
        assert [each["content"]["text"] for each in request.json["messages"]] == ["a", "b", "c"]


async def test_messages_that_never_pause_are_answered_after_the_longest_wait(
    open_test_node: OpenNode,
) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url, debounce_window_ms=200, debounce_max_ms=300)
        server = await make(node)
        for _ in range(12):
            await say(server)
            await trio.sleep(0.05)
        await until(lambda: bool(agent.requests))
        assert len(agent.requests[0].json["messages"]) < 12


async def test_what_comes_while_it_answers_is_answered_next(open_test_node: OpenNode) -> None:
    async def slow(request: Request) -> None:
        await request.answer("a", pause=0.2)

    async with open_agent(slow) as agent, open_test_node() as node, calling(node) as (registry, _):
        await register(registry, agent.url)
        server = await make(node)
        await say(server, "one")
        await until(lambda: bool(agent.requests))
        await say(server, "two")
        await until_idle(server)
        shown = [
            [each["content"].get("text", "answer") for each in request.json["messages"]]
            for request in agent.requests
        ]
        assert shown == [["one"], ["one", "two", "answer"]]
        assert agent.open_max == 1


@pytest.mark.parametrize(
    ("mode", "limit", "shown"),
    [("tail", 3, ["3", "4", "5"]), ("last", 50, ["5"]), ("entire", 1, ["1", "2", "3", "4", "5"])],
)
async def test_an_agent_is_shown_as_much_as_it_is_configured_for(
    open_test_node: OpenNode, mode: str, limit: int, shown: list[str]
) -> None:
    async with open_agent(hello) as agent, open_test_node() as node, calling(node) as (registry, _):
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        for number in range(1, 5):
            await say(server, str(number))
            if number == 2:
                await flush(node)  # Some are in the archive, and some are not yet.
        await node.catalog.change(W, "s", agent_id="bot")
        await register(registry, agent.url, message_history_mode=mode, message_history_limit=limit)
        await say(server, "5")
        await until_idle(server)
        assert [each["content"]["text"] for each in agent.requests[0].json["messages"]] == shown


async def test_lines_of_whole_messages_are_messages(open_test_node: OpenNode) -> None:
    async def script(request: Request) -> None:
        await request.head()
        await request.send({"kind": "note", "content": {"text": "a"}, "metadata": {"n": 1}})
        await request.send({"kind": "text", "content": {"text": "b"}})

    async with (
        open_agent(script) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url)
        server = await make(node)
        await say(server)
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["hi", "a", "b"]


async def test_an_openai_endpoint_is_an_agent(open_test_node: OpenNode) -> None:
    async def script(request: Request) -> None:
        assert request.json == {
            "model": "gpt",
            "stream": True,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
        }
        await request.head(content_type="text/event-stream")
        for delta in ("Hel", "lo"):
            event = {"choices": [{"index": 0, "delta": {"content": delta}}]}
            await request.stream.send_all(f"data: {json.dumps(event)}\n\n".encode())
        await request.stream.send_all(
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        )

    async with (
        open_agent(script) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
        await register(registry, agent.url, type="openai", model="gpt", system="Be brief.")
        server = await make(node)
        await say(server)
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["hi", "Hello"]


async def test_the_agents_that_are_built_in_answer_without_a_call(open_test_node: OpenNode) -> None:
    async with open_test_node() as node, calling(node):
        await node.catalog.create(W, "s", user_id="alice", agent_id="echo")
        server = await node.open(W, "s", to_append=True)
        await say(server, "say it again")
        await until_idle(server)
        assert texts(await replay(node, "s")) == ["say it again", "say it again"]


# What fails.


async def refuse(request: Request) -> None:
    await request.head(503)
    await request.stream.send_all(b"<html>away</html>")


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


async def half(request: Request) -> None:
    await request.head()
    await request.send({"type": "start"}, {"type": "text-start", "id": "t"})
    await request.send({"type": "text-delta", "id": "t", "delta": "so far"})


async def malformed(request: Request) -> None:
    await half(request)
    await request.stream.send_all(b'{"type":\n')


async def out_of_order(request: Request) -> None:
    await half(request)
    await request.send({"type": "text-delta", "id": "other", "delta": "x"})


async def says_error(request: Request) -> None:
    await half(request)
    await request.send({"type": "error", "errorText": "the model is away"})


async def stalls(request: Request) -> None:
    await half(request)
    await request.stream.send_all(b'{"type":"text-del')
    await trio.sleep(5)


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


async def silent(request: Request) -> None:
    await trio.sleep(5)


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
            idle_timeout_ms=200,
            first_byte_timeout_ms=200,
            connect_timeout_ms=100,
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
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.breaker.OPEN_SECONDS", 0.3)
    async with (
        open_agent(refuse) as agent,
        open_test_node() as node,
        calling(node) as (registry, _),
    ):
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


# Who waits for whom.


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


# What outlives a process.


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

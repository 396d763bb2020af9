"""Agents that are called: over real sockets, by a real node, with a real log and a real archive."""

import base64
import hashlib
import hmac
import json

import pytest
import trio

from tests.agents.engines import (
    calling,
    dispatches,
    hello,
    make,
    register,
    say,
    texts,
    until,
    until_idle,
)
from tests.agents.hooks import Request, open_agent
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, flush, replay


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
        await register(registry, agent.url, debounce_window_ms=1_000)
        server = await make(node)
        for text in "abc":
            await say(server, text)
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

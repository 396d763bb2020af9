"""Agents that answer, as clients see it over HTTP and on a WebSocket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agents import run_engine
from edge.auth import generate_key
from tests.edge.http_client import HttpClient, open_http
from tests.edge.one_port import OnePort, api_key, keyed, open_one_port
from tests.edge.socket_client import open_socket

ADMIN = generate_key()
READER = generate_key()
OTHER = generate_key()


@asynccontextmanager
async def answering(edge: OnePort) -> AsyncIterator[None]:
    """Have its agents called."""
    async with trio.open_nursery() as nursery:
        await nursery.start(run_engine, edge.node, edge.services.agents)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[OnePort]:
    async with open_one_port(tmp_path) as edge:
        yield edge


async def ask(http: HttpClient, session: str = "s", agent: str = "quick", count: int = 1) -> None:
    """Have an agent asked so often, one after the other."""
    await http.post("/v1/sessions", {"id": session, "user_id": "alice", "agent_id": agent})
    for number in range(count):
        body = {"sender": "alice", "content": {"text": f"hello {number}"}}
        assert (await http.post(f"/v1/sessions/{session}/messages", body)).status == 201
        with trio.fail_after(10):
            while (await http.get(f"/v1/sessions/{session}/messages")).json()["head_seq"] < 2 * (
                number + 1
            ):
                await trio.sleep(0.01)


async def create_quick(http: HttpClient) -> None:
    """An agent that answers at once."""
    agent = {"id": "quick", "type": "echo", "debounce_window_ms": 0}
    assert (await http.post("/v1/agents", agent)).status == 201


async def dispatches(edge: OnePort, http: HttpClient, path: str) -> dict[str, Any]:
    await edge.node.log.sync()
    await edge.node.flusher.flush_all()
    answer = await http.get(path)
    assert answer.status == 200, answer.body
    page: dict[str, Any] = answer.json()
    return page


async def test_dispatches_are_listed_newest_first_and_page_by_page(edge: OnePort) -> None:
    async with answering(edge), open_http(edge.port) as http:
        await create_quick(http)
        await ask(http, count=3)
        page: dict[str, Any] = {}
        for path in ("/v1/agents/quick/dispatches", "/v1/sessions/s/dispatches"):
            page = await dispatches(edge, http, path)
            assert [each["from_seq"] for each in page["data"]] == [5, 3, 1]
            assert {each["state"] for each in page["data"]} == {"done"}
            assert (page["has_more"], page["next_cursor"]) == (False, None)
            first = await dispatches(edge, http, f"{path}?limit=2")
            assert first["data"] == page["data"][:2]
            assert first["has_more"]
            rest = await dispatches(edge, http, f"{path}?cursor={first['next_cursor']}")
            assert rest["data"] == page["data"][2:]
        one = page["data"][0]
        shown = await http.get(f"/v1/dispatches/{one['dispatch']}")
        assert shown.json() == one


async def test_what_is_not_there_is_said(edge: OnePort) -> None:
    async with open_http(edge.port) as http:
        answer = await http.get("/v1/dispatches/nothing")
        assert (answer.status, answer.code) == (404, "dispatch_not_found")
        assert (await http.get("/v1/sessions/none/dispatches")).code == "session_not_found"
        assert (await http.get("/v1/agents/none/dispatches")).json()["data"] == []
        again = await http.post("/v1/dispatches/d/redeliver", {})
        assert (again.status, again.code) == (501, "not_built")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=a%20b", "other=1"])
async def test_a_page_that_cannot_be_meant_is_refused(edge: OnePort, query: str) -> None:
    async with open_http(edge.port) as http:
        answer = await http.get(f"/v1/agents/quick/dispatches?{query}")
        assert answer.status == 400


async def test_who_may_not_read_a_session_sees_none_of_its_dispatches(tmp_path: Path) -> None:
    keys = keyed(
        api_key(ADMIN, "admin", "read", "write", "tokens"),
        api_key(READER, "read"),
        api_key(OTHER, "admin", "read", workspace="acme"),
    )
    async with open_one_port(tmp_path, auth=keys) as edge, answering(edge):
        async with open_http(edge.port, Authorization=f"Bearer {ADMIN}") as http:
            await create_quick(http)
            await ask(http)
            page = await dispatches(edge, http, "/v1/sessions/s/dispatches")
            (dispatch,) = (each["dispatch"] for each in page["data"])
            tokens = {
                user: (await http.post("/v1/tokens", {"user_id": user})).json()["token"]
                for user in ("alice", "eve")
            }
        path = f"/v1/dispatches/{dispatch}"
        for credential, status, listed in (
            (READER, 200, 403),
            (tokens["alice"], 200, 403),
            (tokens["eve"], 404, 403),
            (OTHER, 404, 200),
        ):
            async with open_http(edge.port, Authorization=f"Bearer {credential}") as http:
                assert (await http.get(path)).status == status
                answer = await http.get("/v1/agents/quick/dispatches")
                assert answer.status == listed
                assert listed != 200 or answer.json()["data"] == []


async def test_a_stop_over_http_keeps_what_had_come(edge: OnePort) -> None:
    async with answering(edge), open_http(edge.port) as http:
        slow = {"id": "slow", "type": "lorem", "debounce_window_ms": 0}
        assert (await http.post("/v1/agents", slow)).status == 201
        await http.post("/v1/sessions", {"id": "s", "user_id": "alice", "agent_id": "slow"})
        body = {"sender": "alice", "content": {"text": "speak"}}
        await http.post("/v1/sessions/s/messages", body)
        server = await edge.node.open("default", "s")
        with trio.fail_after(10):
            while server.answer is None or len(server.answer.frames) < 8:
                await trio.sleep(0.01)
        assert (await http.post("/v1/sessions/s/stop", None)).status == 204
        messages = (await http.get("/v1/sessions/s/messages")).json()["data"]
        assert messages[1]["sender"] == "agent:slow"
        assert messages[1]["metadata"] == {"termination": "cancelled"}
        assert messages[1]["content"]["parts"][0]["text"].startswith("Lorem ")
        assert (await http.post("/v1/sessions/s/stop", None)).status == 204


async def test_a_socket_sees_an_answer_come_and_stops_another(edge: OnePort) -> None:
    async with answering(edge), open_http(edge.port) as http:
        await create_quick(http)
        await http.post("/v1/sessions", {"id": "s", "user_id": "alice", "agent_id": "quick"})
        async with open_socket(edge.port) as socket:
            await socket.send(type="join", ref=1, session="s")
            await socket.send(type="send", ref=2, session="s", content={"text": "hi"})
            frames: list[Any] = []
            while not frames or frames[-1].get("state") != "done":
                frames.append(await socket.receive())
            kinds = [
                frame.get("state") or frame.get("n") or frame.get("seq")
                for frame in frames
                if frame["type"] not in {"hello", "joined", "ack"}
            ]
            assert kinds == ["queued", 1, "sent", "streaming", 1, 2, 3, 4, 5, 2, "done"]
            assert await socket.ask(type="stop", ref=3, session="s") == {"type": "ok", "ref": 3}
            refused = await socket.ask(type="stop", ref=4, session="nowhere")
            assert refused["code"] == "session_not_found"

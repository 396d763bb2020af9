"""Agents of sessions that other nodes own, and of sessions that move."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agents import Registry, Vault
from runtime import Router, WaitingReply, follow, plan_drain, slot_of
from storage import Archive, open_archive
from tests.agents.engines import KEY, calling, register, stalls, texts, until
from tests.agents.hooks import Request, open_agent
from tests.runtime import clusters
from tests.runtime.steps import W
from tests.runtime.test_answering import received, say, shows


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[Archive, list[clusters.Member], Router]]:
    """Two owners that call agents, and an edge."""
    archive = open_archive(f"sqlite:///{tmp_path}/archive.db")
    try:
        async with (
            clusters.open_members(tmp_path, archive, 2) as members,
            clusters.open_edge(archive) as edge,
            calling(members[0].node),
            calling(members[1].node),
        ):
            yield archive, members, edge
    finally:
        archive.close()


async def begin(edge: Router) -> Any:
    await edge.catalog.create(W, "s", user_id="alice", agent_id="bot")
    session = await edge.open(W, "s", to_append=True, to_follow=True)
    await say(session)
    return session


async def said(edge: Router) -> list[str]:
    session = await edge.open(W, "s")
    page = await session.read_after(0, 100)
    return texts([(0, json.loads(body)["content"]) for body in page.bodies])


async def test_readers_on_an_edge_see_an_answer_from_its_start_and_one_that_joins_late_too(
    tmp_path: Path,
) -> None:
    finish = trio.Event()

    async def waits(request: Request) -> None:
        await request.head()
        await request.send({"type": "start"}, {"type": "text-start", "id": "t"})
        await request.send({"type": "text-delta", "id": "t", "delta": "Hel"})
        await finish.wait()
        await request.send({"type": "text-delta", "id": "t", "delta": "lo"}, {"type": "finish"})

    async with open_agent(waits) as agent, cluster(tmp_path) as (archive, _, edge):
        await register(Registry(archive, Vault([KEY]), lambda: 0), agent.url)
        session = await begin(edge)
        await until(lambda: session.answer is not None and len(session.answer.frames) == 5)
        for _ in range(2):
            async with follow(session, 0, frames=True) as late:
                await shows(late, 1, "sent", "streaming", "1.1", "1.2", "1.3")
        async with follow(session, 1, frames=True) as reader:
            await shows(reader, "sent", "streaming", "1.1", "1.2", "1.3")
            finish.set()
            await until(lambda: session.answer.end is not None)
            await shows(reader, "1.4", "1.5", 2, "done")
        assert await said(edge) == ["hi", "Hello"]


@pytest.mark.parametrize(
    ("on_loss", "kept", "ends"),
    [("interrupt", "so far", "interrupted"), ("restart", "Hello", "done")],
)
async def test_an_answer_that_is_being_given_when_its_session_moves_is_kept_or_begun_anew(
    tmp_path: Path, on_loss: str, kept: str, ends: str
) -> None:
    async def script(request: Request) -> None:
        if len(agent.requests) == 1:
            await stalls(request)
        else:
            await request.answer("Hel", "lo")

    async with open_agent(script) as agent, cluster(tmp_path) as (archive, members, edge):
        await register(Registry(archive, Vault([KEY]), lambda: 0), agent.url, on_loss=on_loss)
        session = await begin(edge)
        await until(lambda: session.answer is not None and len(session.answer.frames) == 5)
        async with follow(session, 1, frames=True) as reader:
            ring = await trio.to_thread.run_sync(archive.read_ring)
            owner = ring.owners[slot_of(W, "s", clusters.SLOTS)]
            await clusters.change(archive, plan_drain(ring, owner, at_ms=0, actor="test"))
            await clusters.until_settled(archive, members)
            found: list[Any] = []
            with trio.fail_after(10):
                while ends not in found:
                    found += await received(reader)
            assert 2 in found
        assert await said(edge) == ["hi", kept]
        # Of one call or two, each under the same id.
        assert len({request.headers["webhook-id"] for request in agent.requests}) == 1


async def test_an_answer_is_stopped_through_an_edge(tmp_path: Path) -> None:
    async with open_agent(stalls) as agent, cluster(tmp_path) as (archive, _, edge):
        await register(Registry(archive, Vault([KEY]), lambda: 0), agent.url)
        session = await begin(edge)
        await until(lambda: session.answer is not None and len(session.answer.frames) == 5)
        reply = WaitingReply()
        session.stop(reply, None)
        await reply.wait()
        await until(lambda: session.answer.end is not None)
        assert b'"state":"cancelled"' in session.answer.end
        assert await said(edge) == ["hi", "so far"]

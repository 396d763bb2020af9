"""What tests of the engine share: a node with agents that are called, and what they do with it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any

import trio

from agents import CreateAgent, Registry, SecretsKey, Vault, run_engine
from agents.engine import Engine
from runtime import (
    Dispatch,
    Node,
    SessionServer,
    append_durably,
    decode_dispatch,
)
from tests.agents.hooks import Request
from tests.runtime.steps import W, flush

LOOPBACK = (ip_network("127.0.0.0/8"),)
KEY = SecretsKey(b"k" * 32)


@asynccontextmanager
async def calling(node: Node, networks: Any = LOOPBACK) -> AsyncIterator[tuple[Registry, Engine]]:
    registry = Registry(node.archive, Vault([KEY]), lambda: 0)
    async with trio.open_nursery() as nursery:
        engine = await nursery.start(run_engine, node, registry, networks)
        engine.random = lambda: 0.01
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


async def refuse(request: Request) -> None:
    await request.head(503)
    await request.stream.send_all(b"<html>away</html>")


async def half(request: Request) -> None:
    await request.head()
    await request.send({"type": "start"}, {"type": "text-start", "id": "t"})
    await request.send({"type": "text-delta", "id": "t", "delta": "so far"})


async def stalls(request: Request) -> None:
    await half(request)
    await request.stream.send_all(b'{"type":"text-del')
    await trio.sleep(5)


async def silent(request: Request) -> None:
    await trio.sleep(5)

"""What tests of a node do with it."""

import json

from runtime import Node, SessionServer, WaitingReply

W = "default"


async def make(node: Node, session: str = "s1") -> SessionServer:
    await node.catalog.create(W, session, user_id="alice")
    return await node.open(W, session)


def send(
    server: SessionServer, client_id: str | None, content: bytes = b"1", expected: int | None = None
) -> WaitingReply:
    reply = WaitingReply()
    server.append("alice", client_id, "text", content, b"{}", expected, reply, None)
    return reply


async def replay(node: Node, session: str = "s1") -> list[tuple[int, object]]:
    server = await node.open(W, session)
    bodies: list[bytes] = []
    has_more = True
    while has_more:
        # A page ends where a flush overtook it.
        page = await server.read_after(len(bodies), 1_000)
        bodies += page.bodies
        has_more = page.has_more
    return [(m["seq"], m["content"]) for m in map(json.loads, bodies)]


def remembers(server: SessionServer) -> bool:
    return server.session.window is not None


async def flush(node: Node) -> None:
    await node.log.sync()
    await node.flusher.flush_all()


async def deactivate(node: Node) -> None:
    await flush(node)
    assert all(server.is_idle(node.sweeps + 1) for server in node.active.values())
    node.active.clear()

"""Before a server serves: probes are answered, everybody else waits at the door.

A start may take long (a log to recover, an edge whose cluster has no owner yet), and an orchestrator that hears
nothing from `/healthz` meanwhile would kill it. So from the moment the address is bound, `GET /healthz` is answered
with 200 and `GET /readyz` with 503 and the reason. What else comes is looked at and left unread, and handed over when
the server serves: whoever connected during a start is answered after it, as if it had waited in the kernel.

Over TLS nobody is answered: what is asked cannot be seen.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from edge.errors import EdgeError
from edge.head import find_end, refuse
from edge.limits import Limits

HELD_MAX = 256
"""Connections that wait here. The oldest of more is closed: who waits longest is most likely to have gone."""

LOOK_SECONDS = 0.1
"""Between two looks at a head that has not come in full."""

PROBES = {b"GET /healthz": "/healthz", b"GET /readyz": "/readyz"}

ALIVE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
    b'Connection: close\r\n\r\n{"status":"ok"}'
)


class Door:
    """Holds what connects, and answers probes."""

    def __init__(self, listener: trio.SocketListener, role: str, limits: Limits) -> None:
        self.reason = "starting"
        """Why the server does not serve yet, as `/readyz` tells it."""
        self._listener = listener
        self._role = role
        self._limits = limits
        self._held: dict[trio.SocketStream, None] = {}
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def keep(self) -> None:
        """Hold what comes, until the door is opened."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._accept(nursery)
        finally:
            self._ended.set()

    async def _accept(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await self._listener.accept()
            except OSError:  # no descriptor is left, perhaps: as trio does where it serves
                await trio.sleep(LOOK_SECONDS)
                continue
            self._held[stream] = None
            nursery.start_soon(self._receive, stream)
            if len(self._held) > HELD_MAX:
                oldest = next(iter(self._held))
                del self._held[oldest]
                await trio.aclose_forcefully(oldest)

    async def open(self) -> list[trio.SocketStream]:
        """Hold nobody any more; return who waited, with nothing read."""
        self._scope.cancel()
        # One may have been accepted in this very moment: it is among those who wait only when `keep` has run.
        await self._ended.wait()
        held = list(self._held)
        self._held.clear()
        return held

    async def close(self) -> None:
        """Send everybody away: the server does not come to serve."""
        for stream in await self.open():
            await trio.aclose_forcefully(stream)

    async def _receive(self, stream: trio.SocketStream) -> None:
        """Answer a probe; leave everything else where it is."""
        try:
            head = await self._look(stream)
        except (OSError, trio.ClosedResourceError):
            head = b""
        probe = PROBES.get(b" ".join(head.split(b" ", 2)[:2]))
        # It may have been handed over meanwhile.
        if stream in self._held and (probe is not None or not head):
            del self._held[stream]
            try:
                if probe is not None:
                    await self._answer(stream, probe)
            finally:
                await trio.aclose_forcefully(stream)

    async def _look(self, stream: trio.SocketStream) -> bytes:
        """Return a whole head, or as much as may be one, without reading it; nothing if the peer has gone."""
        while True:
            head = await stream.socket.recv(self._limits.header_bytes_max, socket.MSG_PEEK)
            whole = find_end(head) is not None or len(head) == self._limits.header_bytes_max
            if whole or not head:
                return head
            await trio.sleep(LOOK_SECONDS)

    async def _answer(self, stream: trio.SocketStream, path: str) -> None:
        reply = ALIVE
        if path == "/readyz":
            reply = refuse(
                EdgeError(
                    "not_ready",
                    f"not ready: {self.reason}",
                    reasons=[self.reason],
                    role=self._role,
                    node_id=None,
                    epoch=None,
                    ring=None,
                )
            )
        with trio.move_on_after(self._limits.close_timeout_seconds):
            try:
                await stream.send_all(reply)
                await stream.send_eof()
                # Closing with unread bytes would reset the connection and destroy the answer.
                while await stream.receive_some(self._limits.header_bytes_max):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


@asynccontextmanager
async def open_door(
    listener: trio.SocketListener, role: str, limits: Limits
) -> AsyncIterator[Door]:
    """Hold what connects until the door is opened, or the block ends."""
    door = Door(listener, role, limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.keep)
        try:
            yield door
        finally:
            with trio.CancelScope(shield=True):
                await door.close()

"""The socket pump: one trio task drives every plain WebSocket through one nested epoll set.

trio waits for the set's own descriptor; then one pass reads every ready socket, hands its messages
to synchronous session code, and writes each socket once. A commit does the same from its side: the
acknowledgements and messages of a batch are queued first, then each socket is written once
(`Host.on_published`). Measured against a task per connection: 2.3 times the appends at 50 × 1 in flight.
"""

import select
import socket
from collections.abc import Callable
from functools import partial

import structlog
import trio

from edge.auth import Authenticator
from edge.connection import Connection, Switchboard
from edge.errors import CLOSE_RESTART, EdgeError
from edge.limits import Limits
from edge.origin import OriginPolicy
from runtime import Host
from storage import StorageError

CONNECTIONS_PER_TURN = 256
"""Connections handled before other tasks have a turn, within a pass over very many."""

SWEEP_SECONDS = 1.0
SWEEP_PARTS = 16
"""The connections are swept in parts, so that ten thousand of them cause no pause."""

log = structlog.get_logger()


class Pump:
    """The WebSockets of this process that have a socket of their own."""

    def __init__(
        self, host: Host, auth: Authenticator, origins: OriginPolicy, limits: Limits
    ) -> None:
        self.board = Switchboard(host, auth, origins, limits)
        self._host = host
        host.on_published.append(self.flush_dirty)

    @property
    def connections(self) -> int:
        """How many connections it drives."""
        return len(self.board.connections)

    def adopt(self, sock: socket.socket, head: bytes) -> Connection:
        """Take over a connected socket whose request head, an upgrade, was read already.

        The socket must not block. The connection is closed when `Connection.closed` is true.
        """
        self.board.now = trio.current_time()
        connection = Connection(self.board, sock)
        self._guard(connection, partial(connection.handshake, head))
        self.flush_dirty()
        return connection

    async def run(self) -> None:
        """Drive the sockets until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            try:
                await self._drive()
            finally:
                for connection in list(self.board.connections.values()):
                    connection.lost()
                self.board.poll.close()

    async def _drive(self) -> None:
        board = self.board
        connections = board.connections
        poll = board.poll
        ready = poll.fileno()
        while True:
            await trio.lowlevel.wait_readable(ready)
            board.now = trio.current_time()
            self._host.tick()
            turn = 0
            for descriptor, events in poll.poll(0):
                connection = connections.get(descriptor)
                if connection is None:
                    continue
                # An error or a hang-up is whatever it waits for.
                interest = connection.interest
                if events & ~select.EPOLLIN and interest & select.EPOLLOUT:
                    self._guard(connection, connection.on_writable, tell=False)
                if (
                    events & ~select.EPOLLOUT
                    and interest & select.EPOLLIN
                    and not connection.closed
                ):
                    self._guard(connection, connection.on_readable)
                turn += 1
                if turn == CONNECTIONS_PER_TURN:
                    turn = 0
                    self.flush_dirty()
                    await trio.lowlevel.checkpoint()
            self.flush_dirty()

    def _guard(
        self, connection: Connection, call: Callable[[], None], *, tell: bool = True
    ) -> None:
        try:
            call()
        except StorageError:
            raise
        except Exception:
            # A bug that one client meets must not end the others: it is told, closed, and logged. It is
            # just dropped where that goes through what failed.
            log.exception("connection_failed")
            self._fail(connection, tell=tell)

    def _fail(self, connection: Connection, *, tell: bool) -> None:
        if tell and connection.client is not None:
            connection.client.cut(EdgeError("internal", "something failed inside the server"))
        else:
            connection.lost()

    def flush_dirty(self) -> None:
        """Write every connection that something was queued for, once."""
        dirty = self.board.dirty
        if dirty:
            self.board.dirty = []
            for connection in dirty:
                connection.flush()

    async def _sweep(self) -> None:
        while True:
            connections = list(self.board.connections.values())
            for part in range(SWEEP_PARTS):
                await trio.sleep(SWEEP_SECONDS / SWEEP_PARTS)
                self.board.now = trio.current_time()
                for connection in connections[part::SWEEP_PARTS]:
                    if not connection.closed:
                        self._guard(connection, connection.sweep, tell=False)

    async def close_all(self) -> None:
        """Close every connection with 1012 and wait until they are gone; bounded by the close timeout."""
        for connection in list(self.board.connections.values()):
            connection.close(CLOSE_RESTART, "shutting_down")
        self.flush_dirty()
        deadline = self.board.limits.close_timeout_seconds + 2 * SWEEP_SECONDS
        with trio.move_on_after(deadline):
            while self.board.connections:  # noqa: ASYNC110
                await trio.sleep(0.01)

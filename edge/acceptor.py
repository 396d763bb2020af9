"""The one port: every connection begins here, and goes where its first lines say.

::

    listener ─▶ [TLS] ─▶ head ─┬─ upgrade, plain ──────▶ pump.adopt(socket, head)
                               ├─ upgrade, TLS ────────▶ a task of its own (edge/stream_ws.py)
                               └─ anything else ───────▶ HTTP (edge/http_server.py)
                                                             │ a later upgrade on it
                                                             └──▶ as above

Invariants: a connection has sent a whole head within `header_timeout_seconds`, or is refused; at most
`connections_allowed` are open, whatever they speak; nothing that one connection does ends the acceptor.
"""

import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
import trio

from edge.errors import EdgeError
from edge.head import check_start, find_end, is_websocket_upgrade, refuse
from edge.http_server import ByteStream, HttpServer
from edge.limits import Limits, connections_allowed
from edge.metrics import Metrics

LISTEN_BACKLOG = 1024
"""A reconnect storm after a restart waits in the kernel instead of being refused."""

REFUSALS_MAX = 32
"""Connections beyond the limit that are told so at once; more are closed without a word. Each holds a
descriptor while it reads the answer, and those that are left belong to the log and the archive."""

RECEIVE_BYTES = 16 * 1024

log = structlog.get_logger()


class SocketPump(Protocol):
    """Who drives WebSockets on plain sockets."""

    @property
    def connections(self) -> int:
        """How many connections it drives."""

    def adopt(self, sock: socket.socket, head: bytes) -> object:
        """Take over a non-blocking socket whose upgrade request was read."""


StreamHandler = Callable[[trio.SSLStream[trio.SocketStream], bytes], Awaitable[None]]


def open_listener(host: str, port: int, limits: Limits) -> trio.SocketListener:
    """Return a bound, listening socket.

    `TCP_USER_TIMEOUT` is inherited by what is accepted: the kernel drops a connection whose peer
    takes nothing, even if no task is there to notice. It comes well after our own deadline, which says why.

    Raises:
        OSError: the address cannot be bound.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            timeout_ms = int(2 * limits.stall_timeout_seconds * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        sock.bind(address)
        sock.listen(LISTEN_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


class Acceptor:
    """Sends each new connection where it belongs."""

    def __init__(
        self,
        pump: SocketPump,
        http_server: HttpServer,
        serve_stream: StreamHandler,
        ssl_context: ssl.SSLContext | None,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._pump = pump
        self._http_server = http_server
        self._serve_stream = serve_stream
        self._ssl_context = ssl_context
        self._limits = limits
        self._metrics = metrics
        self._connections_allowed = connections_allowed(limits, _descriptors_allowed())
        self._here = 0
        self._refusing = 0
        metrics.connections_open = lambda: self.connections

    @property
    def connections(self) -> int:
        """How many connections are open: those that the pump drives, and those with a task here."""
        return self._here + self._pump.connections

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection until it ends or is handed to the pump."""
        if self.connections >= self._connections_allowed:
            self._metrics.connections_refused += 1
            if self._refusing < REFUSALS_MAX:
                self._refusing += 1
                try:
                    await self._refuse(stream, _too_many(self._connections_allowed))
                finally:
                    self._refusing -= 1
            return
        self._here += 1
        try:
            await self._serve(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The peer is gone.
        except* (
            Exception
        ):  # The root of this task: a bug that one client meets must not end the rest.
            log.exception("connection_failed")
        finally:
            self._here -= 1

    async def _serve(self, transport: trio.SocketStream) -> None:
        stream: ByteStream = transport
        if self._ssl_context is not None:
            stream = trio.SSLStream(
                transport, self._ssl_context, server_side=True, https_compatible=True
            )
            with trio.move_on_after(self._limits.tls_timeout_seconds) as handshake:
                await stream.do_handshake()
            if handshake.cancelled_caught:
                return
        try:
            received = await self._read_head(stream)
        except EdgeError as error:
            await self._refuse(stream, error)
            return
        if not received:
            return
        if not is_websocket_upgrade(received):
            self._metrics.connections_accepted["http"] += 1
            upgrade = await self._http_server.serve(stream, received)
            if upgrade is None:
                return
            received = upgrade
        self._metrics.connections_accepted["websocket"] += 1
        if isinstance(stream, trio.SocketStream):
            self._pump.adopt(_detach(stream), received)
        else:
            await self._serve_stream(stream, received)

    async def _read_head(self, stream: ByteStream) -> bytes:
        """Return what was received up to the end of the head, or beyond; nothing if nothing came.

        Raises:
            EdgeError: header_timeout, header_too_large, bad_request.
        """
        received = b""
        with trio.move_on_after(self._limits.header_timeout_seconds):
            while True:
                piece = await stream.receive_some(RECEIVE_BYTES)
                if not piece:
                    return b""
                searched = len(received)
                received += piece
                check_start(received)
                end = find_end(received, searched)
                if (len(received) if end is None else end) > self._limits.header_bytes_max:
                    raise EdgeError(
                        "header_too_large",
                        f"the request head is longer than {self._limits.header_bytes_max} bytes",
                        header_bytes_max=self._limits.header_bytes_max,
                    )
                if end is not None:
                    return received
        if not received:
            # Browsers open connections in advance; one that was never used is closed without a word.
            return b""
        raise EdgeError("header_timeout", "the request head did not end in time")

    async def _refuse(self, stream: ByteStream, error: EdgeError) -> None:
        """Answer and close; whoever does not read the answer is not waited for."""
        self._metrics.errors[error.code] += 1
        transport = stream if isinstance(stream, trio.SocketStream) else stream.transport_stream
        with trio.move_on_after(self._limits.close_timeout_seconds):
            try:
                await stream.send_all(refuse(error))
                await transport.send_eof()
                # Closing with unread bytes would reset the connection and destroy the answer.
                while await transport.receive_some(RECEIVE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await trio.aclose_forcefully(stream)


async def serve_connections(  # noqa: ASYNC128 - trio.serve_listeners calls it
    listeners: list[trio.SocketListener],
    acceptor: Acceptor,
    connections: trio.Nursery,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled; cancelling closes the listeners, and what was accepted goes on.

    Each connection runs in the nursery `connections`. Where descriptors run out all the same, trio
    waits a moment and accepts again.
    """
    await trio.serve_listeners(
        acceptor.handle, listeners, handler_nursery=connections, task_status=task_status
    )


async def serve_accepted(acceptor: Acceptor, stream: trio.SocketStream) -> None:
    """Serve a connection that was accepted elsewhere."""
    try:
        await acceptor.handle(stream)
    finally:
        await trio.aclose_forcefully(stream)


def _detach(stream: trio.SocketStream) -> socket.socket:
    """Return the stream's socket, non-blocking, no longer trio's."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.settimeout(0)
    return sock


def _too_many(allowed: int) -> EdgeError:
    return EdgeError(
        "too_many_connections",
        f"{allowed} connections are open, the most allowed",
        connections_max=allowed,
    )


def _descriptors_allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft

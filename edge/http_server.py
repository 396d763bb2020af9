"""HTTP/1.1 on one connection: Hypercorn's protocol and application tasks, with deadlines of our own.

What differs from Hypercorn's own `TCPServer`, and why:

- Hypercorn shields its sends from cancellation, so nothing outside could end one that is stuck. Here
  each piece that is sent has a deadline of its own; a reader that takes nothing for
  `stall_timeout_seconds` loses the connection.
- Hypercorn starts its idle timer in a task that Quart has cancelled by then, so after the first request
  nothing would end a silent connection. Here the deadline stands on the reader's own scope.
- Closing lingers: after the last byte we half-close and read on for a moment. Closing with unread bytes
  would make the kernel send a reset, and the client could lose the response that says why.
- An upgrade to a WebSocket on a connection that has served HTTP before is not read by Hypercorn's
  WebSocket code (another parser, another limit, unbounded inflation): the connection is handed back with
  the request's bytes, and takes the same way as any other WebSocket.
- No HTTP/2: neither `h2c` nor prior knowledge. One protocol, one set of limits.
- A request that h11 refuses gets a problem document. So does one whose length two readers could tell
  differently (RFC 9112 §6.1), which h11 takes.
- A peer that half-closes after its request (`nc -N`) gets its answer. An event stream ends there: whoever
  has gone altogether looks the same.
- A target in absolute form (RFC 9112 §3.2.2) must name the same host as the `Host` header, which is the one
  that is checked.
"""

import logging
import math
import ssl

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response as StreamResponse
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from edge.errors import EdgeError, encode_problem, problem_headers, problem_of
from edge.head import split_target
from edge.limits import Limits
from edge.metrics import Metrics

RECEIVE_BYTES = 64 * 1024

SEND_PIECE_BYTES = 64 * 1024
"""What must leave within one stall timeout: a slow reader of a large page is not a stalled one."""

KEEP_ALIVE_REQUESTS_MAX = 10_000
"""Then the connection is closed, so that load balancers can spread long-lived clients again."""

EVENT_STREAM = b"text/event-stream"

H11_ERROR_CODES = {431: "header_too_large"}

ByteStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class UpgradeRequestedError(Exception):
    """A request on this connection asks for a WebSocket; `received` is it and what came after."""

    def __init__(self, received: bytes) -> None:
        super().__init__("a WebSocket upgrade")
        self.received = received


class StrictConnection(h11.Connection):
    """h11, which also bounds a head that came in one piece: by itself it bounds unfinished ones only.

    And which refuses what others read differently. `refusal` says why.
    """

    def __init__(self, head_bytes_max: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self._head_bytes_max = head_bytes_max
        self.refusal: EdgeError | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what came next; a request's target is a path, and its `Host` names the host.

        Raises:
            h11.RemoteProtocolError: It is malformed or too large.
        """
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        size = len(event.method) + len(event.target)
        size += sum(len(name) + len(value) + 4 for name, value in event.headers)
        if size > self._head_bytes_max:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        try:
            _check_framing(event)
            host, path = split_target(event.target)
            if host is not None:
                _check_host(host, event)
        except EdgeError as error:
            self.refusal = error
            raise h11.RemoteProtocolError(str(error)) from None
        if host is None:
            return event
        return h11.Request(
            method=event.method,
            target=path,
            headers=event.headers.raw_items(),
            http_version=event.http_version,
        )


def _check_host(host: bytes, request: h11.Request) -> None:
    """Raise `host_not_allowed` if a target in absolute form names another host than the header."""
    named = [value for name, value in request.headers if name == b"host"]
    if [value.lower() for value in named] != [host.lower()]:
        raise EdgeError(
            "host_not_allowed",
            "the request's target names another host than its Host header",
            hint="send the Host header of the address that is asked for",
        )


def _check_framing(request: h11.Request) -> None:
    """Raise `bad_request` for a body whose end a proxy before us may see elsewhere than we do."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise EdgeError(
            "bad_request",
            "a request has either Transfer-Encoding or Content-Length, not both",
            hint="leave Content-Length out of a chunked request",
        )
    if request.http_version < b"1.1":
        raise EdgeError("bad_request", "HTTP/1.0 has no Transfer-Encoding")


class Http1Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1, which gives upgrades away and explains its refusals."""

    streams = False
    """Whether the response that is being sent has no end of its own."""

    def bound(self, head_bytes_max: int) -> None:
        """Refuse heads that are larger; called before anything is received."""
        self.connection = StrictConnection(head_bytes_max)

    @property
    def owes_answer(self) -> bool:
        """Whether a request has come in full and its response has an end that is yet to come."""
        received = self.connection.their_state in {h11.DONE, h11.MUST_CLOSE}
        return self.stream is not None and received and not self.streams

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of a response."""
        if isinstance(event, StreamResponse):
            types = [value for name, value in event.headers if name.lower() == b"content-type"]
            self.streams = any(value.startswith(EVENT_STREAM) for value in types)
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        self.streams = False
        names = {name: value for name, value in event.headers if name == b"upgrade"}
        if event.method == b"GET" and names.get(b"upgrade", b"").lower() == b"websocket":
            head = b"GET %b HTTP/%b\r\n" % (event.target, event.http_version)
            lines = [b"%b: %b\r\n" % header for header in event.headers.raw_items()]
            unread, _ = self.connection.trailing_data
            raise UpgradeRequestedError(head + b"".join(lines) + b"\r\n" + unread)

    async def _send_error_response(self, status_code: int) -> None:
        code = H11_ERROR_CODES.get(status_code, "bad_request")
        refusal = getattr(self.connection, "refusal", None)
        problem = problem_of(refusal or EdgeError(code, "the request cannot be read as HTTP/1.1"))
        body = encode_problem(problem)
        headers = problem_headers(problem) | {
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        lines += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=problem.kind.status, headers=lines))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class HttpConnection:
    """One connection that speaks HTTP/1.1, from its first byte or from one already received."""

    def __init__(self, server: "HttpServer", stream: ByteStream, received: bytes) -> None:
        self._server = server
        self._stream = stream
        self._received = received
        self._protocol: Http1Protocol
        self._tasks: TaskGroup
        self._sending = (
            trio.Lock()
        )  # Two requests' tasks may send while one ends: pieces stay whole.
        self._idle = True
        self._reading = trio.CancelScope()
        self._closing = False
        self._answered = trio.Event()
        """Set when nothing more is owed to a peer that has half-closed."""
        self._half_closed = False
        self._upgrade: bytes | None = None

    async def run(self) -> bytes | None:
        """Serve requests until the connection ends.

        Returns None when it has ended; or, still open, the bytes of a WebSocket upgrade.
        """
        server = self._server
        stream = self._stream
        socket = _transport(stream).socket
        try:
            async with TaskGroup() as self._tasks:
                self._protocol = Http1Protocol(
                    server.app,
                    server.config,
                    server.context,
                    self._tasks,
                    ConnectionState(LifespanState({})),
                    isinstance(stream, trio.SSLStream),
                    parse_socket_addr(socket.family, socket.getpeername()),
                    parse_socket_addr(socket.family, socket.getsockname()),
                    self._handle_event,
                )
                self._protocol.bound(server.limits.header_bytes_max)
                await self._read()
        except* OSError:
            pass  # The peer is gone.
        finally:
            if self._upgrade is None:
                await trio.aclose_forcefully(stream)
        return self._upgrade

    def stop(self) -> None:
        """End the connection now if it rests between two requests; it ends after its response if not."""
        if self._idle:
            self._reading.cancel()

    async def abort(self) -> None:
        """Close at once; whatever is being sent or awaited fails."""
        self._answered.set()
        await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        with self._reading:
            data = self._received
            try:
                while data:
                    if not self._closing:
                        await self._protocol.handle(RawData(data))
                    data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                if self._protocol.owes_answer:
                    self._half_closed = True
                    await self._answered.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except UpgradeRequestedError as request:
                self._upgrade = request.received
                return
        await self._protocol.handle(Closed())

    async def _handle_event(self, event: Event) -> None:
        """Do what the protocol asks for; called by the tasks of this connection."""
        await self._do(event)
        if self._half_closed and not self._protocol.owes_answer:
            self._answered.set()

    async def _do(self, event: Event) -> None:
        if isinstance(event, RawData):
            async with self._sending:
                await self._send(event.data)
        elif isinstance(event, Closed):
            await self._half_close()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated) and not self._closing:
            self._idle = event.idle
            rest_seconds = self._server.limits.keep_alive_timeout_seconds
            self._reading.deadline = trio.current_time() + rest_seconds if event.idle else math.inf

    async def _send(self, data: bytes) -> None:
        pieces = memoryview(data)
        try:
            for start in range(0, len(data), SEND_PIECE_BYTES):
                # Shielded, as a task that is cancelled half-way would leave half a response.
                with trio.CancelScope(shield=True) as scope:
                    scope.deadline = trio.current_time() + self._server.limits.stall_timeout_seconds
                    await self._stream.send_all(pieces[start : start + SEND_PIECE_BYTES])
                if scope.cancelled_caught:
                    self._server.metrics.readers_stalled += 1
                    await self.abort()
                    break
            else:
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        # The peer is gone; the application hears of it as a disconnect. The reader may be waiting not for
        # the peer but for this response to end, with the peer's next request in its hands.
        self._reading.cancel()
        await self._protocol.handle(Closed())

    async def _half_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        limits = self._server.limits
        self._reading.deadline = trio.current_time() + limits.close_timeout_seconds
        try:
            # Shielded, because Quart has cancelled the task that ends a response. Under TLS too: HTTP
            # says where a body ends, so nobody needs TLS to say it again.
            with trio.CancelScope(shield=True):
                await _transport(self._stream).send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            self._reading.cancel()


class HttpServer:
    """What the HTTP connections of one process share."""

    def __init__(self, app: ASGIFramework, limits: Limits, metrics: Metrics) -> None:
        self.app = ASGIWrapper(app)
        self.config = _config(limits)
        self.context = WorkerContext(None)
        self.limits = limits
        self.metrics = metrics
        self._connections: set[HttpConnection] = set()
        self._all_gone = trio.Event()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def serve(self, stream: ByteStream, received: bytes) -> bytes | None:
        """Serve one connection, of which `received` was read already; as `HttpConnection.run`."""
        connection = HttpConnection(self, stream, received)
        self._connections.add(connection)
        try:
            return await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._all_gone.set()

    async def stop(self) -> None:
        """End every connection: idle ones now, the others after their response or the grace time.

        The acceptor must have stopped, and the application must have told its streams to end.
        """
        await self.context.terminated.set()
        if not self._connections:
            return
        for connection in self._connections:
            connection.stop()
        self._all_gone = trio.Event()
        with trio.move_on_after(self.limits.grace_seconds):
            await self._all_gone.wait()
        for connection in list(self._connections):
            await connection.abort()


def _transport(stream: ByteStream) -> trio.SocketStream:
    return stream if isinstance(stream, trio.SocketStream) else stream.transport_stream


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return a server's TLS settings: TLS 1.2 at least, HTTP/1.1 alone.

    Raises:
        OSError, ssl.SSLError: the files cannot be read, or do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def _config(limits: Limits) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("edge.http")
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.header_bytes_max
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS_MAX
    return config

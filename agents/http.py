"""One HTTP call to an agent: POST a body, stream the answer back. The border to httpx2.

`open_caller` yields a `Caller`, which every call of a process goes through. What a call may do is decided here
and by the modules below, once, and an agent cannot talk its way around it:

- which addresses are reached (`network`), and with what spelling of a URL (`target`)
- how long each part may take (`deadlines`), and how large headers and the answer may be
- a redirect is an answer like any other, and is not followed; cookies are not kept; proxies in the
  environment are not asked; nothing compressed is asked for or unpacked

httpx2 is two packages: a client, and the engine below it, httpcore2. The engine and the client's reader of URLs
are used. All that the client would add is what must not happen here (and it logs each URL).

Whatever goes wrong is a `CallError`. A call that is given up, by leaving the block or by cancellation, closes
its connection at once.
"""

import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

import h2.events
import h2.exceptions
import httpcore2
import trio

from agents.addresses import AddressRules
from agents.callerror import CallError
from agents.connections import Connection, Connections
from agents.deadlines import Deadlines, Watch
from agents.network import Resolve, Resolver
from agents.target import Target, read_target

HEADER_BYTES_MAX = 64 * 1024
"""Of an answer. What comes before it is known to be too much is bounded by httpcore2, at 100 KiB."""

RESPONSE_BYTES_MAX = 16 * 2**20
"""Of an answer, should nobody above count."""

PIECES_AT_ONCE_MAX = 64
"""Pieces that came with one read and are handed on without letting other tasks run."""

_is_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e]*").fullmatch

# Those that frame the request, and those that mean something to a connection instead of to an agent.
_OUR_HEADERS = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)

# hpack logs every header it packs, httpcore2 those of answers; nobody's secrets belong into a log.
_TALKATIVE = ("hpack", "httpcore2")


@dataclass(frozen=True, slots=True)
class CallerOptions:
    """What the operator decides for all calls of a process."""

    addresses: AddressRules = field(default_factory=AddressRules)
    connections_max: int = 1_000
    """Calls at once; each has a connection of its own."""
    idle_max: int = 100
    """Connections that are kept open between calls."""
    response_bytes_max: int = RESPONSE_BYTES_MAX
    tls: ssl.SSLContext | None = None
    """Whose certificates are trusted; None: those that the system trusts."""
    user_agent: str = "ringlog"


class CallResponse:
    """An answer whose headers have come."""

    def __init__(
        self, connection: Connection, response: httpcore2.Response, watch: Watch, bytes_max: int
    ) -> None:
        self.status = response.status
        self.headers = _read_headers(response.headers)
        """By their names in lower case; several of one name are joined by commas."""
        self.http_version = bytes(response.extensions["http_version"]).decode("ascii")
        """HTTP/1.1, HTTP/1.0 or HTTP/2."""
        self.complete = False
        """Whether the answer was read to its end."""
        self._connection = connection
        self._response = response
        # httpcore2 promises an iterable only; what it makes of it is always a generator.
        self._pieces = cast("AsyncGenerator[bytes]", aiter(response.stream))  # type: ignore[arg-type]
        self._watch = watch
        self._bytes_max = bytes_max
        self._received = 0
        self._reads = 0
        self._at_once = 0

    def stream(self) -> AsyncIterator[bytes]:
        """Return the body as it comes, in pieces of at most 64 KiB; to be iterated over once.

        Raises:
            CallError: The answer broke off, is late, too large, or compressed.
        """
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            raise CallError("agent_compressed", "the agent compressed its answer unasked")
        return self

    def __aiter__(self) -> "CallResponse":
        return self

    async def __anext__(self) -> bytes:
        # Not a generator: one that is left half-way would want to be closed by whoever left it.
        if self.complete:
            raise StopAsyncIteration
        if self._received:
            self._watch.begin("idle")
        with self._watch.limit(), mapped(self._connection):
            piece = await self._next()
        if not piece:
            self.complete = True
            raise StopAsyncIteration
        self._received += len(piece)
        if self._received > self._bytes_max:
            message = f"the agent sent more than {self._bytes_max} bytes"
            raise CallError("agent_response_too_large", message)
        return piece

    async def _next(self) -> bytes:
        """Return the next piece that holds something, or nothing at the end."""
        wire = self._connection.wire
        assert wire is not None
        while True:
            if wire.reads != self._reads:
                self._reads, self._at_once = wire.reads, 0
            self._at_once += 1
            if self._at_once > PIECES_AT_ONCE_MAX:
                await trio.lowlevel.checkpoint()
                self._at_once = 0
            piece = await anext(self._pieces, None)
            if piece is None:
                return b""
            if piece:
                return piece

    async def aclose(self) -> None:
        """Read no more of it."""
        if not self.complete:
            self._connection.close()
        with trio.CancelScope(shield=True):
            await self._pieces.aclose()
            await self._response.aclose()


class Caller:
    """Makes calls; see `open_caller`."""

    def __init__(self, options: CallerOptions, tls: ssl.SSLContext, resolve: Resolve) -> None:
        self._options = options
        self._connections = Connections(options.addresses, resolve, tls, options.idle_max)
        self._room = trio.Semaphore(options.connections_max)

    @property
    def idle_count(self) -> int:
        """How many connections are kept that no call uses."""
        return self._connections.idle_count

    @asynccontextmanager
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> AsyncIterator[CallResponse]:
        """Send a request and yield its answer, which ends with the block, read or not.

        A connection that was kept and turns out to be closed by the agent is replaced once, and the request sent
        again: agents know repeats by their webhook-id.

        Raises:
            CallError: There is no answer. While the answer is read, see `CallResponse.stream`.
        """
        target = read_target(url)
        request = httpcore2.Request(
            "POST",
            httpcore2.URL(
                scheme=target.scheme, host=target.host, port=target.port, target=target.path
            ),
            headers=_write_headers(target, headers, len(body), self._options.user_agent),
            content=body,
        )
        watch = Watch(deadlines)
        await self._wait_for_room(watch)
        try:
            connection, response = await self._exchange(target, request, watch)
            answer = CallResponse(connection, response, watch, self._options.response_bytes_max)
            try:
                yield answer
            finally:
                await answer.aclose()  # noqa: ASYNC102 - shielded, and closes before it waits
                self._connections.give_back(connection)
        finally:
            self._room.release()

    def close(self) -> None:
        """Close the connections that no call uses."""
        self._connections.close()

    async def _wait_for_room(self, watch: Watch) -> None:
        try:
            with watch.limit():
                await self._room.acquire()
        except CallError as error:
            message = f"all {self._options.connections_max} calls at once are taken"
            raise CallError("agent_calls_full", message) from error

    async def _exchange(
        self, target: Target, request: httpcore2.Request, watch: Watch
    ) -> tuple[Connection, httpcore2.Response]:
        kept = self._connections.take(target)
        if kept is not None:
            assert kept.wire is not None
            received = kept.wire.received
            watch.begin("first_byte")
            try:
                return kept, await _send(kept, request, watch)
            except CallError as error:
                # What HTTP/2 says at the end of a connection is no answer.
                silent = kept.is_http2 or kept.wire.received == received
                if error.code != "agent_disconnected" or not silent:
                    raise
            watch.begin("connect")
        connection = self._connections.open(target, lambda: watch.begin("first_byte"))
        return connection, await _send(connection, request, watch)


@asynccontextmanager
async def open_caller(
    options: CallerOptions | None = None, *, resolve: Resolve | None = None
) -> AsyncIterator[Caller]:
    """Yield what makes calls until the block ends; calls belong inside."""
    options = options or CallerOptions()
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    caller = Caller(options, options.tls or httpcore2.default_ssl_context(), resolve or Resolver())
    try:
        yield caller
    finally:
        caller.close()


async def _send(
    connection: Connection, request: httpcore2.Request, watch: Watch
) -> httpcore2.Response:
    with watch.limit(), mapped(connection):
        response = await connection.send(request)
    size = sum(len(name) + len(value) for name, value in response.headers)
    if size > HEADER_BYTES_MAX:
        connection.close()
        raise CallError(
            "agent_protocol", f"the agent sent more than {HEADER_BYTES_MAX} bytes of headers"
        )
    return response


@contextmanager
def mapped(connection: Connection) -> Iterator[None]:
    """Turn what httpcore2 and the protocols below it raise into a `CallError`."""
    try:
        yield
    except (httpcore2.NetworkError, httpcore2.ConnectionNotAvailable) as error:
        raise CallError("agent_disconnected", "the agent ended the connection") from error
    except (httpcore2.ProtocolError, h2.exceptions.H2Error, ValueError) as error:
        cause = error.args[0] if error.args else None
        wire = connection.wire
        if (wire is not None and wire.ended) or isinstance(cause, h2.events.ConnectionTerminated):
            message = "the agent ended the connection before its answer was complete"
            raise CallError("agent_disconnected", message) from error
        if isinstance(cause, h2.events.StreamReset):
            message = f"the agent gave its answer up (HTTP/2 error {int(cause.error_code or 0)})"
            raise CallError("agent_disconnected", message) from error
        raise CallError("agent_protocol", "the agent's answer is not HTTP") from error


def _write_headers(
    target: Target, headers: Mapping[str, str], length: int, user_agent: str
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request; messages name a header, never its value."""
    fields = {"host": target.authority, "user-agent": user_agent, "accept": "*/*"}
    for name, value in headers.items():
        lower = name.lower()
        if not _is_name(name) or lower in _OUR_HEADERS:
            raise CallError("agent_request_invalid", f"a request cannot have the header {name!r}")
        stripped = value.strip(" \t")
        if not _is_value(stripped):
            message = f"the header {name} has a value that is not printable ASCII"
            raise CallError("agent_request_invalid", message)
        fields[lower] = stripped
    fields |= {"accept-encoding": "identity", "content-length": str(length)}
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]


def _read_headers(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found

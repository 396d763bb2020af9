"""Calls over HTTP, and their answers as they come. The one place that knows the library.

HTTP/1.1, and HTTP/2 where the other side offers it in its handshake. There are no redirects, no cookies and no proxies
of the environment: `httpcore2` has none. Each wait has its own deadline, and all of them together another; what a
response head may hold is bounded by the library (h11: 100 KiB), what a body may hold by who reads it.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore2
import trio

from agents.addresses import Network
from agents.callerror import CallError
from agents.network import CheckedBackend, Resolve, resolve

CONNECTIONS_MAX = 2_000
"""Open at once: one for each answer over HTTP/1.1. Agents have places of their own (`agents/places.py`)."""

KEPT_MAX = 100
KEPT_SECONDS = 30.0
"""Connections that wait for the next call, and how long: most servers close theirs after a minute."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each part of a call may take, in seconds."""

    connect: float
    first_byte: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose head has come; `stream` once."""

    status: int
    headers: Mapping[str, str]
    http_version: str
    body: AsyncGenerator[bytes, None]

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's bytes as they come.

        Raises:
            CallError: it broke, or its time was over.
        """
        return self.body


class Caller:
    """Makes calls over connections that are kept. Made by `open_caller`."""

    def __init__(self, pool: httpcore2.AsyncConnectionPool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, deadlines: Deadlines
    ) -> AsyncIterator[Response]:
        """Post a body and yield the response once its head is there; the connection ends with the block.

        Raises:
            CallError: also out of the block, where its body is read.
        """
        with (
            trio.CancelScope(deadline=trio.current_time() + deadlines.total) as total,
            _mapped(deadlines),
        ):
            request = httpcore2.Request(
                "POST",
                url,
                headers=[
                    (b"host", urlsplit(url).netloc.encode()),
                    *((name.encode(), value.encode()) for name, value in headers.items()),
                ],
                content=body,
                extensions={
                    "timeout": {
                        "connect": deadlines.connect,
                        "write": deadlines.idle,
                    }
                },
            )
            first_byte = deadlines.connect + deadlines.first_byte
            with trio.move_on_after(first_byte) as patience:
                response = await self._pool.handle_async_request(request)
            if patience.cancelled_caught:
                raise _late("first_byte", first_byte)
            try:
                yield Response(
                    response.status,
                    {
                        name.decode("latin-1"): value.decode("latin-1")
                        for name, value in response.headers
                    },
                    response.extensions.get("http_version", b"HTTP/1.1").decode(),
                    _body(response, deadlines),
                )
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await response.aclose()
        if total.cancelled_caught:
            raise _late("total", deadlines.total)


async def _body(response: httpcore2.Response, deadlines: Deadlines) -> AsyncGenerator[bytes, None]:
    stream = response.aiter_stream()
    async with aclosing(stream):
        while True:
            with trio.move_on_after(deadlines.idle) as idle:
                try:
                    data = await anext(stream)
                except StopAsyncIteration:
                    return
            if idle.cancelled_caught:
                raise _late("idle", deadlines.idle)
            if data:
                yield data


class _mapped:  # noqa: N801 - a context manager that reads like a function
    """Raises what the library raises as `CallError`."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, CallError):
            mapped = _map(error, self._deadlines)
            if mapped is not None:
                raise mapped from error


_FAILURES: tuple[tuple[type[Exception], str, str, bool], ...] = (
    (httpcore2.ConnectError, "agent_unreachable", "it refuses connections", True),
    (httpcore2.NetworkError, "agent_unreachable", "the connection broke", True),
    (httpcore2.RemoteProtocolError, "agent_protocol", "what it sends is no HTTP", True),
    (httpcore2.UnsupportedProtocol, "agent_protocol", "it cannot be asked so", False),
    (httpcore2.LocalProtocolError, "agent_protocol", "it cannot be asked so", False),
)
"""What the library raises: its code, what it means where it does not say so itself, and whether to try again."""


def _map(error: Exception, deadlines: Deadlines) -> CallError | None:
    if isinstance(error, httpcore2.ConnectTimeout):
        return _late("connect", deadlines.connect)
    if isinstance(error, httpcore2.TimeoutException):
        return _late("idle", deadlines.idle)
    if (tls := _tls_reason(error)) is not None:
        return CallError("agent_tls", tls, retryable=False)
    for kind, code, default, retryable in _FAILURES:
        if isinstance(error, kind):
            return CallError(code, " ".join(str(error).split()) or default, retryable=retryable)
    return None


def _late(what: str, seconds: float) -> CallError:
    words = {
        "connect": "no connection",
        "first_byte": "no answer",
        "idle": "nothing more of the answer",
        "total": "no end of the answer",
    }
    return CallError(f"agent_timeout_{what}", f"{words[what]} within {seconds:g} s", retryable=True)


def _tls_reason(error: BaseException) -> str | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(getattr(cause, "verify_message", "") or cause.reason or cause)
        cause = cause.__cause__ or cause.__context__
    return None


@asynccontextmanager
async def open_caller(
    *,
    allowed: Sequence[Network] = (),
    resolve: Resolve = resolve,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Caller]:
    """Make calls until the block ends; `allowed` networks may be private ones."""
    context = context or ssl.create_default_context()
    async with httpcore2.AsyncConnectionPool(
        ssl_context=context,
        max_connections=CONNECTIONS_MAX,
        max_keepalive_connections=KEPT_MAX,
        keepalive_expiry=KEPT_SECONDS,
        http2=True,
        network_backend=CheckedBackend(allowed, resolve),
    ) as pool:
        yield Caller(pool)

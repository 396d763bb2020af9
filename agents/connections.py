"""Connections that are kept for the next call to the same host.

A connection serves one call at a time, HTTP/2 too. Calls then end each other neither by what they do nor by
what they suffer: to give one up, its connection is closed, which an agent notices at once and for certain,
and a broken connection breaks one answer. Several calls on one HTTP/2 connection would need what httpcore2
does not have: it resets no stream that is given up, so an agent would go on, and its bytes would use up the
window of all others. What is left of HTTP/2 is its framing and its header compression, and agents that speak
nothing else.
"""

import ssl
from collections.abc import Callable

import httpcore2
import trio

from agents.addresses import AddressRules
from agents.network import Dialer, Resolve, Wire
from agents.target import Target

IDLE_SECONDS = 30.0
"""Of an idle connection. Most servers close them after 5 to 75 seconds, which is noticed before it is used."""

REQUESTS_MAX = 100
"""On one connection: servers end it after 100 to 1,000, for HTTP/2 in the middle of the last answer."""


class Connection:
    """One connection to one host; not connected before its first request."""

    def __init__(self, target: Target, tls: ssl.SSLContext, dialer: Dialer) -> None:
        self.origin = (target.scheme, target.host, target.port)
        self._dialer = dialer
        self._requests = 0
        self._http = httpcore2.AsyncHTTPConnection(
            httpcore2.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=tls,
            http2=True,
            network_backend=dialer,
        )
        self.is_http2 = False
        self.idle_since = 0.0

    @property
    def wire(self) -> Wire | None:
        """Its bytes, once it is connected."""
        return self._dialer.wire

    async def send(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request and return the answer, whose body is still to come. Closed when that fails."""
        self._requests += 1
        try:
            response = await self._http.handle_async_request(request)
        except BaseException:
            self.close()
            raise
        self.is_http2 = response.extensions["http_version"] == b"HTTP/2"
        return response

    def is_alive(self) -> bool:
        """Tell whether another request may be sent, as far as can be seen from here."""
        wire = self.wire
        return (
            wire is not None
            and not wire.ended
            and not wire.is_closed
            and self._requests < REQUESTS_MAX
            and self._http.is_idle()
            and self._http.is_available()
            and not self._http.has_expired()
            and not self._has_leftovers()
        )

    def close(self) -> None:
        """Close it now, whatever the agent does."""
        if self.wire is not None:
            self.wire.close()

    def _has_leftovers(self) -> bool:
        """Tell whether something came after the end of the answer, which the next call would take for its own.

        httpcore2 keeps it and does not say so; where it cannot be looked at, nothing is kept.
        """
        if self.is_http2:
            return False  # every frame names its stream
        state = getattr(getattr(self._http, "_connection", None), "_h11_state", None)
        return state is None or state.trailing_data[0] != b""


class Connections:
    """Opens connections and keeps idle ones, the oldest first."""

    def __init__(
        self, rules: AddressRules, resolve: Resolve, tls: ssl.SSLContext, idle_max: int
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._tls = tls
        self._idle_max = idle_max
        self._idle: list[Connection] = []

    @property
    def idle_count(self) -> int:
        """How many are kept."""
        return len(self._idle)

    def take(self, target: Target) -> Connection | None:
        """Return the connection to this host that was used last, if one is kept and still lives."""
        self._drop_old()
        origin = (target.scheme, target.host, target.port)
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].origin == origin:
                connection = self._idle.pop(index)
                if connection.is_alive():
                    return connection
                connection.close()
        return None

    def open(self, target: Target, connected: Callable[[], None]) -> Connection:
        """Return a new connection; `connected` is called when it stands."""
        dialer = Dialer(self._rules, self._resolve, connected)
        return Connection(target, self._tls, dialer)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end, if it may serve another call."""
        if not connection.is_alive():
            connection.close()
            return
        connection.idle_since = trio.current_time()
        self._idle.append(connection)
        self._drop_old()

    def close(self) -> None:
        """Close what is kept, and keep nothing more."""
        self._idle_max = 0
        self._drop_old()

    def _drop_old(self) -> None:
        oldest = trio.current_time() - IDLE_SECONDS
        while self._idle and (
            len(self._idle) > self._idle_max or self._idle[0].idle_since < oldest
        ):
            self._idle.pop(0).close()

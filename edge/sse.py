"""A session as a stream of server-sent events, for `EventSource` and `curl -N`.

::

    retry: 1000                      how long a browser waits before it reconnects

    event: chunk                     a piece of an answer, or `dispatch`: what becomes of one; without an id, so that
    data: {"type":"chunk",…}         what comes back as Last-Event-ID stays the last message

    id: 43                           the seq, a gap's last one: what comes back as Last-Event-ID
    data: {"type":"message",…}       the stored line, untouched

    : keep-alive                     when nothing else was sent for a while

    event: error                     why it ends, where a reconnect would not help
    data: {"type":"error","code":…}

The stream is a body that Quart iterates, not a generator: a generator could not hold the tail open across
its yields under trio's rules. A reader that stalls is cut by the connection below (`edge/http_server.py`),
which cancels this; meanwhile nothing is read ahead, so a stream holds one page at most.
"""

from contextlib import AsyncExitStack
from types import TracebackType

import trio
from quart.wrappers.response import ResponseBody

from edge.access import open_session, user_of
from edge.auth import Principal
from edge.errors import EdgeError, problem_of
from edge.protocol import encode_error
from edge.services import Services
from runtime import Follower, SessionError, follow, frame_type, is_frame, numbered
from storage import ArchiveUnavailableError

KEEP_ALIVE = b": keep-alive\n\n"


class EventStream(ResponseBody):
    """The events of one session after a cursor, until the reader leaves or may not read on."""

    def __init__(
        self, services: Services, principal: Principal, session: str, after_seq: int
    ) -> None:
        self._services = services
        self._principal = principal
        self._session = session
        self._seq = after_seq
        self._follower: Follower | None = None
        self._refusal: SessionError | EdgeError | None = None
        self._resources = AsyncExitStack()
        self._started = False
        self._ended = False

    async def __aenter__(self) -> "EventStream":
        # The session was looked at before the head went out; what became of it since is an event.
        principal = self._principal
        reader = user_of(principal)
        try:
            server = await open_session(
                self._services.host, principal, self._session, to_follow=True
            )
            self._follower = await self._resources.enter_async_context(
                follow(server, self._seq, reader, frames=True)
            )
        except (SessionError, EdgeError) as error:
            self._refusal = error
        except ArchiveUnavailableError:
            self._ended = True  # the reader asks again, and is answered then
        self._services.metrics.event_streams += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._services.metrics.event_streams -= 1
        await self._resources.aclose()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> bytes:
        # The connection's sends may return without a checkpoint once the peer is gone.
        await trio.lowlevel.checkpoint()
        if self._ended or self._services.closing.begun:
            raise StopAsyncIteration
        if not self._started:
            self._started = True
            return b"retry: %d\n\n" % self._services.limits.sse_retry_ms
        try:
            return await self._next_events()
        except (SessionError, EdgeError) as error:
            self._ended = True
            return b"event: error\ndata: %b\n\n" % encode_error(
                problem_of(error), session=self._session
            )

    async def _next_events(self) -> bytes:
        """Return the messages that came, or a comment after a silent while.

        Raises:
            EdgeError, SessionError: the reader may not read on, or the session is gone.
        """
        self._check_may_stay()
        seconds_left = self._services.auth.seconds_left(self._principal)
        wait_seconds = min(seconds_left, self._services.limits.sse_keep_alive_seconds)
        bodies: list[bytes] = []
        assert self._follower is not None
        with self._services.closing.wait_at_most(wait_seconds):
            bodies = await self._follower.receive()
        if not bodies:
            return KEEP_ALIVE
        # Once more: the key may have been revoked while this waited.
        self._check_may_stay()
        return b"".join(map(self._event, bodies))

    def _event(self, body: bytes) -> bytes:
        if is_frame(body):
            return b"event: %b\ndata: %b\n\n" % (frame_type(body), body)
        ((self._seq, _),) = numbered([body], self._seq + 1)
        return b"id: %d\ndata: %b\n\n" % (self._seq, body)

    def _check_may_stay(self) -> None:
        refusal = self._refusal or self._services.auth.refusal(self._principal)
        if refusal is not None:
            raise refusal

"""A tail: replay from a cursor, then live, with no gap and no repeat, however slow its reader is.

A tail is a cursor, not a queue. While it is live the server hands it each message as it becomes durable.
When its sink has no room it falls behind: it is taken off the live list, and a task reads on from
`next_seq` (from the archive, then from unflushed memory) as the sink takes more. The check that it has
reached the head and the going live are one step without a task switch, so nothing can come between.
Memory for a tail is what its sink holds, never more.
"""

from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from runtime.answer import Showing
from runtime.errors import SessionDeletedError, SessionError, SessionNotFoundError
from runtime.served import Served
from storage import ArchiveUnavailableError

PAGE_MESSAGES_MAX = 500
PAGE_BYTES_MAX = 256 * 1024
"""One page of a replay: large enough to amortise a query, small beside a connection's buffer."""

PAGE_MESSAGES_FIRST = 100
"""Asked of the archive at first; then twice what the page before had room for. The archive measures all that
it is asked for, so 500 messages of 8 kB would be read again for every 32 that a page holds."""

RETRY_SECONDS = 0.5
"""Between tries to read an archive that is away, or behind; the tail waits, it does not end."""


class Sink(Protocol):
    """Where a tail's messages go."""

    def deliver(self, tail: "Tail", body: bytes) -> bool:
        """Take one message, or return False if there is no room for it now."""

    def show(self, tail: "Tail", frame: bytes, place: int) -> bool:
        """Take a frame of the answer that is being given, or return False if there is no room for it now."""

    def page_delivered(self) -> None:
        """A page of a replay was delivered: send it, nobody else will."""

    async def wait_room(self) -> bool:
        """Return True when `deliver` would take a message again, False if it never will."""

    def ended(self, tail: "Tail", error: SessionError) -> None:
        """The session is gone; no more messages come."""

    def moved(self, tail: "Tail") -> None:
        """The session is another node's now: see to it that the tail goes on there."""

    def failed(self, tail: "Tail", error: Exception) -> None:
        """A bug ended the tail: tell the reader, and log it."""


class Tail:
    """One reader's position in one session: `next_seq` is what it gets next.

    `reader` is the user who must be allowed to read, or None where a backend answers for the reader.
    """

    __slots__ = ("_catching_up", "_showing", "closed", "next_seq", "reader", "server", "sink")

    def __init__(
        self, server: Served, sink: Sink, after_seq: int, reader: str | None = None
    ) -> None:
        self.server = server
        self.sink = sink
        self.reader = reader
        self.next_seq = after_seq + 1
        self.closed = False
        self._catching_up = False
        self._showing: Showing | None = None
        server.attach(self)

    def start(self) -> None:
        """Begin delivering: live at once where there is nothing to replay."""
        if not self._catching_up and not self._go_live():
            self._catching_up = True
            self.server.start_soon(self._run)

    def move(self, server: Served) -> None:
        """Go on at another node's server of the same session, from where this came to."""
        assert not self.closed
        self.server.detach(self)
        self.server = server
        server.attach(self)
        self.start()

    def close(self) -> None:
        """Deliver nothing more."""
        if self.closed:
            return
        self.closed = True
        self.server.detach(self)

    def end(self, error: SessionError) -> None:
        """Close, and tell the sink why."""
        if not self.closed:
            self.close()
            self.sink.ended(self, error)

    def fall_behind(self) -> None:
        """Leave the live list and read on from `next_seq` when the sink has room."""
        del self.server.live[self]
        self.start()

    def show(self) -> bool:
        """Show what the reader lacks of the answer that is being given; return False if there is no room for it.

        It has all messages that came before: what is shown is about what follows them.
        """
        answer = self.server.answer
        if self._showing is None:
            if answer is None or answer.end is not None:
                return True
            self._showing = Showing()
        while (following := self._showing.next_frame(answer)) is not None:
            place, frame = following
            if not self.sink.show(self, frame, place):
                return False
            self._showing.shown(place)
        return True

    def _go_live(self) -> bool:
        if self.next_seq <= self.server.durable_seq or not self.show():
            return False
        assert self.next_seq == self.server.durable_seq + 1
        self.server.live[self] = None
        return True

    async def _run(self) -> None:
        try:
            await self._catch_up()
        except Exception as error:  # noqa: BLE001 - a bug that one reader meets ends nobody else
            self.close()
            self.sink.failed(self, error)
        finally:
            self._catching_up = False

    async def _catch_up(self) -> None:
        limit = PAGE_MESSAGES_FIRST
        while await self.sink.wait_room():
            # From here to the end of `_replay_memory` no other task can run: what was not flushed
            # when it was looked at is still in memory when it is read.
            if self.closed or self._go_live():
                return
            if self.next_seq < self.server.first_unflushed_seq:
                limit = await self._replay_archive(limit)
            else:
                self._replay_memory()
            self.sink.page_delivered()
            await trio.lowlevel.checkpoint()

    def _replay_memory(self) -> None:
        for record in self.server.unflushed_from(self.next_seq, PAGE_MESSAGES_MAX):
            assert record.seq == self.next_seq
            if not self.sink.deliver(self, record.body):
                return
            self.next_seq += 1

    async def _replay_archive(self, limit: int) -> int:
        """Deliver a page of at most `limit` messages; return the limit for the next one."""
        server = self.server
        try:
            page = await server.read_stored(self.next_seq - 1, limit, PAGE_BYTES_MAX)
        except ArchiveUnavailableError:
            await trio.sleep(RETRY_SECONDS)
            return limit
        except SessionError as error:
            if error.retry_after_ms is None:
                self.end(error)
            else:
                await trio.sleep(RETRY_SECONDS)
            return limit
        for seq, body in page:
            if self.closed:
                break
            # A gap is one step. It is met again from any seq in it, should there be no room.
            self.next_seq = seq
            if not self.sink.deliver(self, body):
                break
            self.next_seq = seq + 1
        return min(2 * len(page), PAGE_MESSAGES_MAX)


class State(Protocol):
    """What a session is: `SessionInfo`, or the record of it."""

    @property
    def session(self) -> str:
        """Its name."""

    @property
    def user_id(self) -> str:
        """Whose it is."""

    @property
    def members(self) -> tuple[str, ...]:
        """Who else may read it."""

    @property
    def state(self) -> str:
        """Whether it is there."""


def end_tails(tails: Collection[Tail], state: State) -> None:
    """End the tails of who may not read on, now that a session's state is another one."""
    name = state.session
    error: SessionError = SessionNotFoundError(f"no session {name}", session=name)
    readers = {None, state.user_id, *state.members}
    if state.state == "deleted":
        error = SessionDeletedError(name, state.user_id)
        readers = set()
    for tail in [tail for tail in tails if tail.reader not in readers]:
        tail.end(error)


def show_live(live: Iterable[Tail]) -> None:
    """Show everyone who has all messages what is new of the answer."""
    behind = [tail for tail in live if not tail.show()]
    for tail in behind:
        tail.fall_behind()


class Follower:
    """A tail as an async iterator, for readers that pull (SSE, tests); holds at most one page.

    With `frames` it has the frames of answers too, each where it came; see `runtime.answer.is_frame`.
    """

    def __init__(self, *, frames: bool = False) -> None:
        self._frames = frames
        self._bodies: deque[bytes] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._changed = trio.Event()
        self._closed = False

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:  # noqa: ARG002
        """Take a frame as a message, if they are wanted."""
        return not self._frames or self.deliver(tail, frame)

    def deliver(self, tail: Tail, body: bytes) -> bool:  # noqa: ARG002
        """Take one message unless a page is waiting already."""
        if self._bytes >= PAGE_BYTES_MAX:
            return False
        self._bodies.append(body)
        self._bytes += len(body)
        self._wake()
        return True

    def page_delivered(self) -> None:
        """Nothing to send: the reader pulls."""

    async def wait_room(self) -> bool:
        """Return when the reader has taken what was held."""
        while self._bytes >= PAGE_BYTES_MAX and not self._closed:
            await self._changed.wait()
        return not self._closed

    def ended(self, tail: Tail, error: SessionError) -> None:  # noqa: ARG002
        """Raise `error` in the reader once it has read what was delivered."""
        self._error = error
        self._wake()

    def moved(self, tail: Tail) -> None:
        """Have the node find out where it goes on."""
        tail.server.rehome(tail)

    def failed(self, tail: Tail, error: Exception) -> None:  # noqa: ARG002
        """Raise `error` in the reader."""
        self._error = error
        self._wake()

    def close(self) -> None:
        """Release whoever waits for room."""
        self._closed = True
        self._wake()

    async def receive(self) -> list[bytes]:
        """Return the messages that have come, at least one.

        Raises:
            SessionError: the session is gone.
        """
        while not self._bodies:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        bodies = list(self._bodies)
        self._bodies.clear()
        self._bytes = 0
        self._wake()
        return bodies

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def follow(
    server: Served, after_seq: int, reader: str | None = None, *, frames: bool = False
) -> AsyncIterator[Follower]:
    """Follow a session from a cursor: `await follower.receive()` returns what comes next."""
    follower = Follower(frames=frames)
    tail = Tail(server, follower, after_seq, reader)
    tail.start()
    try:
        yield follower
    finally:
        tail.close()
        follower.close()

"""A session that another node owns, as this edge's clients see it.

It outlives links and owners. Where its channel ends, because the link broke or the session moved, it opens another
at whoever owns it then, says from where messages must follow, and repeats in order what had no answer. Every message
that is appended through it has a `client_id` (one is made where the sender gave none), so what is repeated is stored
once. Where the owner itself ended the channel, what had no answer was not accepted, and is sent as if for the first
time. What has no answer when its time is over is answered here: with `unknown` if it may have been accepted, and
with `owner_unavailable` if not.

State, all of it changed by plain methods on the one loop::

    channel      the link and number that it is open on; None while it is looked for
    pending      requests without an answer, in the order in which they were made
    durable_seq  once `following`: the last message that came, with none missing before it
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import trio

from runtime.answer import Answer
from runtime.codec import SessionInfo, decode_session
from runtime.errors import (
    BackpressureError,
    OutcomeUnknownError,
    OwnerUnavailableError,
    SessionDeletedError,
    SessionError,
)
from runtime.gaps import find_gap, numbered
from runtime.history import PAGE_BYTES_MAX, MessagePage
from runtime.links.messages import (
    Acked,
    Append,
    Close,
    Delivered,
    Done,
    Fetch,
    Follow,
    Gone,
    Info,
    MarkRead,
    Open,
    Opened,
    Page,
    Refused,
    Shown,
    Stop,
)
from runtime.links.pending import OnChannel, Outcome, Pending
from runtime.links.refusals import error_of
from runtime.links.shown import ShownAnswer
from runtime.links.surroundings import Channels, Surroundings
from runtime.replies import Reply
from runtime.tail import Tail, end_tails
from storage import MessageRecord

PENDING_BYTES_MAX = 4 * 2**20
"""What one session may have on its way to its owner."""

REQUEST_SECONDS = 10.0
"""How long a request may wait for its answer: longer than a session takes to move, or a node to start."""

RETRY_SECONDS = (0.02, 0.5)
"""Between two tries to reach an owner: the first, and the longest."""

FromChannel = Opened | Acked | Done | Refused | Delivered | Shown | Page | Info | Gone


class RemoteSession:
    """One session of another node; see this module's docstring."""

    def __init__(self, around: Surroundings, workspace: str, session_id: str) -> None:
        self.workspace = workspace
        self.session_id = session_id
        self.durable_seq = 0
        self.live: dict[Tail, None] = {}
        self.tails: set[Tail] = set()
        self.touched_at = trio.current_time()
        self.around = around
        self._info: SessionInfo | None = None
        self._following = False
        self._channels: Channels | None = None
        self._channel = 0
        self._opened = False
        self._placing = False
        self._pause = 0.0
        """Before a channel is looked for: nothing at first, and more each time that one ends soon."""
        self._trouble = ""
        """Why its owner could not be reached, when that was last tried."""
        self._head_seq = 0
        """The highest seq that the owner has told of."""
        self._numbers = count(1)
        self._pending: dict[int, Pending] = {}
        self._pending_bytes = 0
        self._openers: list[Outcome] = []
        self._catching_up = 0
        """How many wait until what they know of the head has come."""
        self._advanced = trio.Event()
        self._shown = ShownAnswer(self)
        self.closed = False

    # What clients ask for.

    @property
    def info(self) -> SessionInfo:
        """The session's state, as its owner told it last."""
        assert self._info is not None
        return self._info

    @property
    def answer(self) -> Answer | None:
        """The answer that is being given, as far as its owner has shown it, or was last."""
        return self._shown.answer

    @property
    def first_unflushed_seq(self) -> int:
        """Nothing is in memory here."""
        return self.durable_seq + 1

    def tick(self) -> None:
        """Nothing to do: the owner takes the time."""

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._pending)

    def is_ready(self, *, to_append: bool = False, to_follow: bool = False) -> bool:  # noqa: ARG002
        """Tell whether a request can be handled now: what is known of the session is what its owner says.

        Who follows must first learn of the head.
        """
        return self._opened and not to_follow and not self.closed

    def check_not_deleted(self) -> None:
        """Raise `SessionDeletedError` if the session was erased."""
        if self.info.state == "deleted":
            raise SessionDeletedError(self.session_id, self.info.user_id)

    async def open(self, *, to_follow: bool) -> None:
        """Return when the owner has told what the session is; `to_follow`: and what its head is.

        Raises:
            SessionNotFoundError, SessionDeletedError: it is not there.
            OwnerUnavailableError: not in time.
            SessionError, StorageError: as the owner's `Node.open`.
        """
        self.touched_at = trio.current_time()
        if not self._opened:
            await self._wait_opened()
        self.check_not_deleted()
        if to_follow:
            head_seq = await self._ask(Follow(0, next(self._numbers)))
            await self._wait_caught_up(head_seq)
        else:
            await trio.lowlevel.checkpoint()

    async def _wait_opened(self) -> None:
        opener = Outcome()
        self._openers.append(opener)
        self._place()
        try:
            with trio.move_on_after(REQUEST_SECONDS) as patience:
                await opener.wait()
        finally:
            if opener in self._openers:
                self._openers.remove(opener)
        if patience.cancelled_caught:
            raise self._unreachable()

    async def _wait_caught_up(self, head_seq: int) -> None:
        self._catching_up += 1
        try:
            with trio.move_on_after(REQUEST_SECONDS):
                while self.durable_seq < head_seq:
                    await self._advanced.wait()
        finally:
            self._catching_up -= 1
        if self.durable_seq < head_seq:
            raise self._unreachable()

    def _unreachable(self) -> OwnerUnavailableError:
        why = f": {self._trouble}" if self._trouble else ""
        return OwnerUnavailableError(f"the owner of {self.session_id} does not answer{why}")

    def append(
        self,
        sender: str,
        client_id: str | None,
        kind: str,
        content: bytes,
        metadata: bytes,
        expected_seq: int | None,
        reply: Reply,
        ref: Any,
    ) -> None:
        """Send a message to the owner; `reply` is told what came of it.

        Raises:
            BackpressureError: too much is on its way already.
        """
        size = len(content) + len(metadata) + 256
        if self._pending_bytes + size > PENDING_BYTES_MAX:
            raise BackpressureError(f"too much waits for the owner of {self.session_id}")
        made_id = self.around.next_id() if client_id is None else client_id
        number = next(self._numbers)
        message = Append(
            0, number, reply.user, sender, made_id, kind, content, metadata, expected_seq
        )
        self._request(message, reply, ref, size).stated_id = client_id

    def mark_read(self, user_id: str, seq: int, reply: Reply, ref: Any) -> None:
        """Send a read cursor to the owner; `reply` is told what came of it."""
        self._request(MarkRead(0, next(self._numbers), reply.user, user_id, seq), reply, ref, 64)

    def stop(self, reply: Reply, ref: Any) -> None:
        """Have the owner stop the answer that is being given; `reply` is told what came of it."""
        self._request(Stop(0, next(self._numbers), reply.user), reply, ref, 64)

    async def move_read_cursor(self, user_id: str, seq: int, user: str | None = None) -> int:
        """Move a read cursor forward; return where it stands."""
        stands_at: int = await self._ask(MarkRead(0, next(self._numbers), user, user_id, seq))
        return stands_at

    async def read_stored(
        self, after_seq: int, limit: int, bytes_max: int
    ) -> list[tuple[int, bytes]]:
        """Return messages after a seq, which have come here: what the owner has beyond is not to be shown yet."""
        page = await self._fetch(None, after_seq, 0, limit, bytes_max)
        rows = list(numbered(page.bodies, page.first_seq))
        # A gap may begin before what has come and end behind it; then it is on its way here.
        if rows:
            await self._wait_caught_up(rows[0][0])
        return [(seq, body) for seq, body in rows if seq <= self.durable_seq]

    async def read_after(self, after_seq: int, limit: int, user: str | None = None) -> MessagePage:
        """Return the messages after a seq, oldest first."""
        return _as_page(await self._fetch(user, after_seq, 0, limit, PAGE_BYTES_MAX))

    async def read_before(
        self, before_seq: int, limit: int, user: str | None = None
    ) -> MessagePage:
        """Return the newest messages below a seq, oldest first."""
        return _as_page(await self._fetch(user, 0, max(1, before_seq), limit, PAGE_BYTES_MAX))

    async def _fetch(
        self, user: str | None, after_seq: int, before_seq: int, limit: int, bytes_max: int
    ) -> Page:
        wanted = Fetch(0, next(self._numbers), user, after_seq, before_seq, limit, bytes_max)
        page: Page = await self._ask(wanted)
        return page

    def unflushed_from(self, seq: int, limit: int) -> Sequence[MessageRecord]:  # noqa: ARG002
        """Nothing is in memory here."""
        return ()

    # Who follows it.

    def attach(self, tail: Tail) -> None:
        """Note that a tail follows this session, whose messages come."""
        assert self._following
        self.tails.add(tail)
        self.around.tails += 1
        # The channel may have ended since the session was opened, when nobody seemed to need it.
        self._place()

    def detach(self, tail: Tail) -> None:
        """Forget a tail."""
        self.tails.discard(tail)
        self.live.pop(tail, None)
        self.around.tails -= 1

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of a tail."""
        self.around.start_soon(task)

    def rehome(self, tail: Tail) -> None:
        """Have the node find out where a tail goes on."""
        self.around.rehome(tail)

    # Where its owner is.

    @property
    def _is_needed(self) -> bool:
        return bool(self._openers or self._pending or self.tails or self._catching_up)

    def _place(self) -> None:
        """See to it that a channel is open, if it is needed."""
        if self._channels is None and not self._placing and self._is_needed and not self.closed:
            self._placing = True
            self.around.start_soon(self._find_place)

    async def _find_place(self) -> None:
        """Open a channel at the owner, however long it takes to find; stop when nobody needs it."""
        shortest, longest = RETRY_SECONDS
        try:
            while True:
                await trio.sleep(self._pause)
                if not self._is_needed or self.closed:
                    return
                self._pause = min(max(2 * self._pause, shortest), longest)
                try:
                    channels = await self.around.find_owner(self.workspace, self.session_id)
                except SessionError as error:
                    self._trouble = str(error)
                    continue
                self._trouble = ""
                self._open_channel(channels)
                return
        finally:
            self._placing = False

    def _open_channel(self, channels: Channels) -> None:
        self._channels = channels
        self._opened = False
        self._channel = channels.open_channel(self)
        after_seq = self.durable_seq if self._following else -1
        channels.link.send(Open(self._channel, self.workspace, self.session_id, after_seq))
        for pending in self._pending.values():
            self._send(pending)

    def channel_lost(self) -> None:
        """The channel is over: what had no answer is repeated on another."""
        if self._channels is not None:
            self._channels.close_channel(self._channel)
            self._channels = None
            self._opened = False
            self._place()

    def close(self) -> None:
        """Nobody needs the session here."""
        self.closed = True
        if self._channels is not None:
            self._channels.link.send(Close(self._channel))
            self._channels.close_channel(self._channel)
            self._channels = None
            self._opened = False

    def is_idle(self, before: float) -> bool:
        """Tell whether nobody has needed it since."""
        return not self._is_needed and self.touched_at < before

    def expire(self, now: float) -> None:
        """Answer what has waited too long."""
        late = [number for number, each in self._pending.items() if each.due_at <= now]
        for number in late:
            pending = self._take(number)
            error: SessionError
            if pending.sent:
                error = OutcomeUnknownError(f"the owner of {self.session_id} has not answered")
            else:
                error = self._unreachable()
            pending.reply.refused(pending.ref, error)

    def _request(self, message: OnChannel, reply: Any, ref: Any, size: int) -> Pending:
        if self.closed:
            raise self._unreachable()
        now = self.touched_at = trio.current_time()
        pending = Pending(message, reply, ref, size, now + REQUEST_SECONDS)
        self._pending[message.number] = pending
        self._pending_bytes += size
        if self._channels is None:
            self._place()
        else:
            self._send(pending)
        return pending

    def _send(self, pending: Pending) -> None:
        assert self._channels is not None
        pending.sent += 1
        if pending.sent == 1:
            pending.known_seq = self._head_seq
        else:
            self.around.repeats += 1
            if isinstance(pending.message, Append):
                pending.message.repeated_after = pending.known_seq
        pending.message.channel = self._channel
        self._channels.link.send(pending.message, pending.size)

    def _take(self, number: int) -> Pending:
        pending = self._pending.pop(number)
        self._pending_bytes -= pending.size
        return pending

    async def _ask(self, message: OnChannel) -> Any:
        answer = Outcome()
        self._request(message, answer, None, 64)
        return await answer.wait()

    # What its owner says.

    def receive(self, message: FromChannel) -> None:
        """Handle what came on the channel."""
        match message:
            case Delivered():
                self._deliver(message.seq, message.body)
            case Acked():
                self._acked(message)
            case Shown():
                self._shown.take(message)
            case Opened():
                self._open_with(message)
            case Info():
                self._change_info(message.info)
            case Done():
                self._done(message)
            case Page():
                if message.number in self._pending:
                    self._take(message.number).reply.answer(message)
            case Refused():
                self._refused(message)
            case Gone():
                # It comes after all answers, so what has none was not accepted on this channel.
                for pending in self._pending.values():
                    pending.not_accepted()
                self.channel_lost()

    def _open_with(self, message: Opened) -> None:
        self._opened = True
        self._pause = RETRY_SECONDS[0]
        self._head_seq = max(self._head_seq, message.head_seq)
        self._change_info(message.info)
        self._shown.opened(message.dispatch)
        for opener in self._take_openers():
            opener.answer(None)

    def _deliver(self, seq: int, body: bytes) -> None:
        next_seq = self.durable_seq + 1
        # A gap's own seq is its last one.
        assert seq == next_seq or find_gap(body) is not None
        self.durable_seq = seq
        self._head_seq = max(self._head_seq, seq)
        self._advanced.set()
        self._advanced = trio.Event()
        for tail in list(self.live):
            assert tail.next_seq == next_seq
            tail.next_seq = seq
            if tail.sink.deliver(tail, body):
                tail.next_seq = seq + 1
            else:
                tail.fall_behind()

    def _acked(self, message: Acked) -> None:
        self._head_seq = max(self._head_seq, message.seq)
        # What was answered here meanwhile, its time being over, is answered no second time.
        if message.number in self._pending:
            pending = self._take(message.number)
            duplicate = message.duplicate and pending.sent == 1
            pending.reply.acked(
                pending.ref, self, message.seq, message.id, pending.stated_id, duplicate
            )

    def _done(self, message: Done) -> None:
        if message.number not in self._pending:
            return
        pending = self._take(message.number)
        if isinstance(pending.message, Follow) and not self._following:
            # What is delivered from here on follows the head that the owner had.
            self._following = True
            self.durable_seq = message.value
        if isinstance(pending.reply, Outcome):
            pending.reply.answer(message.value)
        else:
            pending.reply.done(pending.ref)

    def _refused(self, message: Refused) -> None:
        error = error_of(message)
        if message.number in self._pending:
            self._take(message.number).refuse(error, decided=message.decided)
        elif not message.number:
            self._refused_opening(error)

    def _refused_opening(self, error: Exception) -> None:
        """The session cannot be opened: who waits is told, and who follows it too if it is gone for good."""
        for opener in self._take_openers():
            opener.refused(None, error)
        for number in list(self._pending):
            self._take(number).refuse(error, decided=False)
        if isinstance(error, SessionError) and error.retry_after_ms is None:
            for tail in list(self.tails):
                tail.end(error)
        self.channel_lost()
        if not self._is_needed:
            self.around.forget(self)

    def _take_openers(self) -> list[Outcome]:
        openers, self._openers = self._openers, []
        return openers

    def _change_info(self, body: bytes) -> None:
        """Take the session's new state, and end the tails of who may not read on."""
        self._info = decode_session(body)
        end_tails(self.tails, self._info)


def _as_page(page: Page) -> MessagePage:
    return MessagePage(list(page.bodies), page.head_seq, page.has_more)

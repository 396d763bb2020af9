"""A SessionServer: one active session, with the tails that follow it. All of it is synchronous.

State changes happen in plain methods on the one loop, so no task switch can split them. The order is
always the same: refuse → assign → log; and, when the batch is durable: apply → publish → acknowledge.

The messages that the archive does not hold yet stay in memory (`unflushed`); a tail reads below them
from the archive and from there on out of memory. The server stays active until everything that was
assigned is flushed (`open_records` is 0), so activation never reads a half-flushed session.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runtime.answer import Answer
from runtime.answering import DISPATCH_BYTES_MAX, Answering
from runtime.codec import SessionInfo, digest_of, encode_payload, session_record
from runtime.deduplication import Accepted
from runtime.errors import SessionError
from runtime.history import MessagePage, read_after, read_before
from runtime.pending import Pending, PendingAppend, PendingRecord
from runtime.replies import Reply, WaitingReply
from runtime.session import Session, check_cursor
from runtime.tail import Tail, end_tails
from storage import MessageRecord, Record, RecordType, SessionRecord, record_prefix

if TYPE_CHECKING:
    from runtime.node import Node

ENVELOPE_BYTES = 1_024
"""Upper bound of what `encode_message` and the log add around a payload: six ids, times, braces."""


class Watcher(Protocol):
    """Who has the session open elsewhere."""

    def changed(self, body: bytes) -> None:
        """The session's state is another one, and durable."""

    def moved(self) -> None:
        """The session is another node's now."""


class SessionServer:
    """One active session: its assigned state, its durable head, its unflushed messages, its tails."""

    __slots__ = (
        "_answering",
        "_message_prefix",
        "_unflushed",
        "_unflushed_start",
        "durable_seq",
        "info_lsn_end",
        "live",
        "node",
        "open_records",
        "session",
        "tails",
        "touched",
        "watchers",
    )

    def __init__(self, node: "Node", session: Session) -> None:
        self.node = node
        self.session = session
        self.durable_seq = session.next_seq - 1
        self.info_lsn_end = 0
        self.open_records = 0
        self.touched = node.sweeps
        self.live: dict[Tail, None] = {}
        self.tails: set[Tail] = set()
        self._answering: Answering | None = None
        self.watchers: set[Watcher] | None = None
        """Who must hear of each change of the session, and of its end here; a set once there is one."""
        self._unflushed: list[MessageRecord] = []
        self._unflushed_start = 0
        self._message_prefix = record_prefix(RecordType.MESSAGE, session.workspace)

    @property
    def workspace(self) -> str:
        """The workspace that it is in."""
        return self.session.workspace

    @property
    def info(self) -> SessionInfo:
        """The session's state as assigned; durable once the log has reached `info_lsn_end`."""
        return self.session.info

    @property
    def reads(self) -> dict[str, int]:
        """The read cursors, by user."""
        return self.session.reads

    @property
    def answering(self) -> Answering:
        """The answers of its agent; made for those that have one alone."""
        if self._answering is None:
            self._answering = Answering(self)
        return self._answering

    @property
    def answer(self) -> Answer | None:
        """The answer that is being given, or was last."""
        return None if self._answering is None else self._answering.answer

    def tick(self) -> None:
        """Take the time for the messages that follow."""
        self.node.tick()

    def is_ready(self, *, to_append: bool = False, to_follow: bool = False) -> bool:  # noqa: ARG002
        """Tell whether a request can be handled now: what is assigned of the session's state is durable.

        To append, the session must know its `client_id`s too. It must be sure that it is this node's.
        """
        node = self.node
        return (
            node.is_durable(self.info_lsn_end)
            and (self.session.window is not None or not to_append)
            and node.is_confirmed()
        )

    def check_not_deleted(self) -> None:
        """Raise `SessionDeletedError` if the session was erased."""
        self.session.check_not_deleted()

    # Who follows it.

    def attach(self, tail: "Tail") -> None:
        """Note that a tail follows this session."""
        self.tails.add(tail)
        self.node.tails += 1
        if self.session.window is None:
            self.node.remembering.remember_soon(self)

    def detach(self, tail: "Tail") -> None:
        """Forget a tail."""
        self.tails.discard(tail)
        self.live.pop(tail, None)
        self.node.tails -= 1

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task of a tail; it ends with the node."""
        self.node.start_soon(task)

    def rehome(self, tail: "Tail") -> None:
        """Have the node find out where a tail goes on."""
        self.node.rehome(tail)

    def moved(self) -> None:
        """The session is another node's now, with all that was assigned: send the tails after it."""
        assert self.open_records == 0
        for watcher in list(self.watchers or ()):
            watcher.moved()
        for tail in list(self.tails):
            tail.sink.moved(tail)

    def watch(self, watcher: "Watcher") -> None:
        """Tell `watcher` of each change, from now on."""
        if self.watchers is None:
            self.watchers = set()
        self.watchers.add(watcher)

    def unwatch(self, watcher: "Watcher") -> None:
        """Tell `watcher` of nothing more."""
        if self.watchers is not None:
            self.watchers.discard(watcher)

    async def move_read_cursor(
        self,
        user_id: str,
        seq: int,
        user: str | None = None,  # noqa: ARG002
    ) -> int:
        """Move a read cursor forward; return where it stands, once that is durable.

        Raises:
            AheadOfLogError, StorageError: as `mark_read`.
        """
        self.node.tick()
        reply = WaitingReply()
        self.mark_read(user_id, seq, reply, None)
        stands_at = self.reads.get(user_id, 0)
        await reply.wait()
        return stands_at

    async def read_stored(
        self, after_seq: int, limit: int, bytes_max: int
    ) -> list[tuple[int, bytes]]:
        """Return archived messages after a seq; raises as `Node.read_archive`."""
        return await self.node.read_archive(self, after_seq, limit=limit, bytes_max=bytes_max)

    # What is here was checked here, just before: `user` is for those who ask from elsewhere.

    async def read_after(
        self,
        after_seq: int,
        limit: int,
        user: str | None = None,  # noqa: ARG002
    ) -> MessagePage:
        """Return the messages after a seq, oldest first; raises as `runtime.history.read_after`."""
        return await read_after(self, after_seq, limit)

    async def read_before(
        self,
        before_seq: int,
        limit: int,
        user: str | None = None,  # noqa: ARG002
    ) -> MessagePage:
        """Return the newest messages below a seq, oldest first; raises as `read_after`."""
        return await read_before(self, before_seq, limit)

    # What clients ask for.

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
        """Append a message; `reply.acked` follows when it is durable.

        `content` and `metadata` are valid JSON on one line; ids are checked by the caller.

        Raises:
            SessionError: refused, nothing was changed (a refusal that rests on what is not durable
                yet comes later, as `reply.refused`).
            StorageError: no room (`storage_full`, `backpressure`), or the log is poisoned.
        """
        node = self.node
        session = self.session
        payload = encode_payload(kind, content, metadata)
        digest = digest_of(payload)
        try:
            if client_id is not None:
                accepted = session.find_resend(sender, client_id, digest)
                if accepted is not None:
                    self._ack_resend(accepted, client_id, reply, ref)
                    return
            session.check_append(expected_seq)
            if session.dispatches:
                session.check_not_answering(sender)
        except SessionError as error:
            self._refuse_when_durable(error, reply, ref)
            return
        if session.info.agent_id is None:
            node.admit(len(payload) + ENVELOPE_BYTES)
        else:
            node.admit(len(payload) + ENVELOPE_BYTES + DISPATCH_BYTES_MAX)
            self.answering.wake(sender)
        record = session.assign(sender, client_id, payload, digest, node.stamper)
        self.log(self._message_prefix, record.body, PendingAppend(self, record, reply, ref))

    def stop(self, reply: Reply, ref: Any) -> None:
        """Stop the answer that is being given, and those that are due; `reply.done` follows when that is durable.

        Raises:
            StorageError: as for `append`.
        """
        self.session.check_not_deleted()
        self.node.dispatcher.stop(self)
        self.node.answer_when_durable(lambda to: to.done(ref), reply, ref)

    def mark_read(self, user_id: str, seq: int, reply: Reply, ref: Any) -> None:
        """Move a user's read cursor forward; `reply.done` follows when it is durable.

        Raises:
            AheadOfLogError: beyond the durable head.
            StorageError: as for `append`.
        """
        node = self.node
        session = self.session
        session.check_not_deleted()
        check_cursor(seq, self.durable_seq)
        if seq <= session.reads.get(user_id, 0):
            node.answer_when_durable(lambda to: to.done(ref), reply, ref)
            return
        node.admit(ENVELOPE_BYTES)
        record = session.move_read_cursor(user_id, seq, node.stamper)
        prefix = record_prefix(RecordType.READ, self.session.workspace)
        self.log(prefix, record.body, PendingRecord(self, record, reply, ref))

    def change(self, info: SessionInfo) -> int:
        """Log a new state of the session; return the LSN end at which it is durable."""
        self.node.admit(len(info.body) + ENVELOPE_BYTES)
        self.session.info = info
        if info.state == "deleted":
            self.session.dispatches.clear()
        record = session_record(self.session.workspace, info)
        prefix = record_prefix(RecordType.SESSION, self.session.workspace)
        lsn = self.log(prefix, record.body, PendingRecord(self, record, None, None))
        self.info_lsn_end = lsn + 1
        return self.info_lsn_end

    def log(
        self,
        prefix: bytes,
        body: bytes,
        item: Pending,
    ) -> int:
        """Log a record, for which there is room; return its LSN. `item` is told when it is durable."""
        self.open_records += 1
        self.touched = self.node.sweeps
        self.node.unflushed_bytes += len(body) + ENVELOPE_BYTES
        return self.node.log.append(prefix, body, item)

    def _ack_resend(self, accepted: Accepted, client_id: str, reply: Reply, ref: Any) -> None:
        def answer(to: Reply) -> None:
            to.acked(ref, self, accepted.seq, accepted.id, client_id, True)  # noqa: FBT003

        if accepted.seq <= self.durable_seq:
            answer(reply)
        else:
            self.node.answer_when_durable(answer, reply, ref)

    def _refuse_when_durable(self, error: SessionError, reply: Reply, ref: Any) -> None:
        # A refusal tells the sender what the session holds: it must not tell of what a crash
        # could still take back.
        if self.session.next_seq - 1 == self.durable_seq and self.node.is_durable(
            self.info_lsn_end
        ):
            raise error
        self.node.answer_when_durable(lambda to: to.refused(ref, error), reply, ref)

    # What happens to a record once it is durable.

    def apply(self, record: MessageRecord) -> None:
        """Take a message that is durable now: keep it until it is flushed, and publish it."""
        seq = record.seq
        assert seq == self.durable_seq + 1
        self.durable_seq = seq
        self._unflushed.append(record)
        self.node.push(record)
        if self.live:
            self._publish(seq, record.body)

    def _publish(self, seq: int, body: bytes) -> None:
        behind: list[Tail] | None = None
        for tail in self.live:
            assert tail.next_seq == seq
            if tail.sink.deliver(tail, body):
                tail.next_seq = seq + 1
            elif behind is None:
                behind = [tail]
            else:
                behind.append(tail)
        if behind is not None:
            for tail in behind:
                tail.fall_behind()

    def end_tails(self, record: SessionRecord) -> None:
        """End the tails of who may not read on, now that the session's new state is durable."""
        for watcher in self.watchers or ():
            watcher.changed(record.body)
        end_tails(self.tails, record)

    # What memory holds until the archive does.

    @property
    def first_unflushed_seq(self) -> int:
        """The first seq that the archive does not hold; the head + 1 if it holds all."""
        return self.durable_seq + 1 - (len(self._unflushed) - self._unflushed_start)

    def unflushed_from(self, seq: int, limit: int) -> Sequence[MessageRecord]:
        """Return up to `limit` unflushed messages from `seq` on."""
        start = self._unflushed_start + seq - self.first_unflushed_seq
        assert start >= self._unflushed_start
        return self._unflushed[start : start + limit]

    def flushed(self, records: Sequence[Record]) -> None:
        """The archive holds these records of this session now, the oldest ones: forget them here."""
        self.open_records -= len(records)
        freed = sum([len(record.body) for record in records]) + ENVELOPE_BYTES * len(records)
        self.node.unflushed_bytes -= freed
        messages = [record for record in records if type(record) is MessageRecord]
        if not messages:
            return
        start = self._unflushed_start
        end = start + len(messages)
        assert self._unflushed[start] is messages[0]
        assert self._unflushed[end - 1] is messages[-1]
        # A cut moves what stays, so it waits until that is no more than what goes: then a message is moved
        # once, on average, and no more flushed ones are kept than unflushed ones.
        if end * 2 >= len(self._unflushed):
            del self._unflushed[:end]
            end = 0
        self._unflushed_start = end

    def is_idle(self, sweep: int) -> bool:
        """Tell whether nothing would be lost or noticed if this server went away."""
        return (
            self.open_records == 0
            and not self.tails
            and not self.watchers
            and not self.session.dispatches
            and self.touched < sweep
        )

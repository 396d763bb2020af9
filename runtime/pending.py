"""What waits for its batch: told when that is durable, in log order, or that it is long in coming.

For a message the order is apply, publish, acknowledge, in one step without a task switch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.dispatch import Dispatch
from runtime.errors import OutcomeUnknownError
from runtime.replies import NOBODY, Reply
from storage import ChunkRecord, DispatchRecord, MessageRecord, ReadRecord, SessionRecord

if TYPE_CHECKING:
    from runtime.server import SessionServer


class PendingAppend(msgspec.Struct, gc=False):
    """A message that waits for its batch to be durable."""

    server: "SessionServer"
    record: MessageRecord
    reply: Reply
    ref: Any

    def committed(self) -> None:
        """Apply, publish, acknowledge."""
        record = self.record
        server = self.server
        server.apply(record)
        self.reply.acked(self.ref, server, record.seq, record.id, record.client_id, False)  # noqa: FBT003

    def doubted(self) -> None:
        """Say that it is not known yet whether the message will be durable; nothing more is said then."""
        reply, self.reply = self.reply, NOBODY
        reply.refused(self.ref, unknown_outcome())


class PendingRecord(msgspec.Struct, gc=False):
    """A read cursor or a session change that waits for its batch to be durable."""

    server: "SessionServer"
    record: ReadRecord | SessionRecord
    reply: Reply | None
    ref: Any

    def committed(self) -> None:
        """Hand the record to the flusher, let go of who may not read on, then answer."""
        record = self.record
        self.server.node.push(record)
        if type(record) is SessionRecord:
            self.server.end_tails(record)
        if self.reply is not None:
            self.reply.done(self.ref)

    def doubted(self) -> None:
        """As for a message."""
        if self.reply is not None:
            self.reply.refused(self.ref, unknown_outcome())
            self.reply = None


class PendingDispatch(msgspec.Struct, gc=False):
    """A dispatch's new state that waits for its batch to be durable."""

    server: "SessionServer"
    record: DispatchRecord
    dispatch: Dispatch

    def committed(self) -> None:
        """Show it to readers, and tell the engine."""
        self.server.answering.apply_dispatch(self.record, self.dispatch)

    def doubted(self) -> None:
        """Nobody waits for it."""


class PendingChunk(msgspec.Struct, gc=False):
    """A piece of an answer that waits for its batch to be durable."""

    server: "SessionServer"
    record: ChunkRecord

    def committed(self) -> None:
        """Show it to readers."""
        self.server.answering.apply_chunk(self.record)

    def doubted(self) -> None:
        """Nobody waits for it."""


class PendingAnswer:
    """An answer with no record of its own that rests on what is not durable yet."""

    __slots__ = ("_answer", "_ref", "_reply")

    def __init__(self, answer: Callable[[Reply], None], reply: Reply, ref: Any) -> None:
        self._answer = answer
        self._reply = reply
        self._ref = ref

    def committed(self) -> None:
        """Answer."""
        self._answer(self._reply)

    def doubted(self) -> None:
        """As for a message."""
        reply, self._reply = self._reply, NOBODY
        reply.refused(self._ref, unknown_outcome())


def unknown_outcome() -> OutcomeUnknownError:
    """Return what those are told who have waited long for a second copy."""
    return OutcomeUnknownError("the archive has not answered, where its second copy goes")


Pending = PendingAppend | PendingRecord | PendingDispatch | PendingChunk

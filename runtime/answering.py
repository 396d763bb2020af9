"""The answers of one active session's agent: what is logged of them, and what readers are shown. Synchronous.

As for messages, the order is always the same: log; and, when the batch is durable: apply, publish, and have the engine
act. So the engine never acts on what a crash could take back, and readers are never shown it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.answer import Answer
from runtime.codec import encode_chunk
from runtime.dispatch import (
    AGENT_PREFIX,
    Dispatch,
    DispatchState,
    dispatch_record,
    encode_dispatch,
)
from runtime.pending import PendingChunk, PendingDispatch
from runtime.tail import show_live
from storage import ChunkRecord, DispatchRecord, RecordType, record_prefix

if TYPE_CHECKING:
    from runtime.server import SessionServer

ENVELOPE_BYTES = 1_024
"""Upper bound of what the log adds around a chunk."""

DISPATCH_BYTES_MAX = 16 * 1024
"""Upper bound of a dispatch's record: a few ids and times, and some attempts with their errors."""


class Answering:
    """The answers of one session's agent."""

    __slots__ = ("_server", "answer")

    def __init__(self, server: "SessionServer") -> None:
        self._server = server
        self.answer: Answer | None = None
        """What readers are shown: of the dispatch that is in flight, or is due, or was last."""

    # What is logged.

    def wake(self, sender: str) -> None:
        """Have the agent called for the message that is logged next.

        Its record comes first: a crash may leave a dispatch without its message, for which nobody is called, and never a
        message that no agent hears of.
        """
        if sender.startswith(AGENT_PREFIX):
            return
        server = self._server
        dispatch = server.session.queue_dispatch(server.node.stamper)
        if dispatch is not None:
            self._log(dispatch)
        server.node.dispatcher.message_came(server)

    def change(self, dispatch: Dispatch) -> int:
        """Log a dispatch's new state; return the LSN end at which it is durable.

        Raises:
            StorageError: no room, or the log is poisoned.
        """
        self._server.node.admit(DISPATCH_BYTES_MAX)
        self._server.session.change_dispatch(dispatch)
        return self._log(dispatch) + 1

    def add_chunk(self, dispatch: Dispatch, number: int, chunk: bytes) -> int:
        """Log a piece of an answer, one line of JSON; return the LSN end at which it is durable, and shown.

        Raises:
            StorageError: no room, or the log is poisoned.
        """
        server = self._server
        node = server.node
        node.admit(len(chunk) + ENVELOPE_BYTES)
        session, attempt, stamper = dispatch.session, dispatch.attempt, node.stamper
        body = encode_chunk(session, dispatch.dispatch, attempt, number, stamper.at, chunk)
        record = ChunkRecord(
            server.workspace, session, dispatch.dispatch, attempt, number, stamper.at_ms, body
        )
        prefix = record_prefix(RecordType.CHUNK, server.workspace)
        return server.log(prefix, body, PendingChunk(server, record)) + 1

    def _log(self, dispatch: Dispatch) -> int:
        server = self._server
        record = dispatch_record(server.workspace, dispatch, encode_dispatch(dispatch))
        prefix = record_prefix(RecordType.DISPATCH, server.workspace)
        return server.log(prefix, record.body, PendingDispatch(server, record, dispatch))

    # What is durable.

    def apply_dispatch(self, record: DispatchRecord, dispatch: Dispatch) -> None:
        """Take a dispatch's state that is durable now: show it, and have the engine act on it."""
        server = self._server
        server.node.push(record)
        self._show(dispatch, record.body)
        show_live(list(server.live))
        server.node.dispatcher.dispatch_changed(server, dispatch)

    def apply_chunk(self, record: ChunkRecord) -> None:
        """Take a piece of an answer that is durable now, and show it."""
        self._server.node.push(record)
        assert self.answer is not None
        self.answer.add(record.body)
        show_live(list(self._server.live))

    def restore(self, dispatch: Dispatch, chunks: Sequence[bytes]) -> None:
        """Take over what the archive has of the answer that is being given."""
        assert self.answer is None
        self.answer = Answer(dispatch.dispatch, encode_dispatch(dispatch))
        for chunk in chunks:
            self.answer.add(chunk)

    def _show(self, dispatch: Dispatch, body: bytes) -> None:
        answer = None if self.answer is None or self.answer.end is not None else self.answer
        if answer is None:
            if dispatch.is_open:
                self.answer = Answer(dispatch.dispatch, body)
        elif answer.dispatch != dispatch.dispatch:
            return  # It waits behind the one that is shown.
        elif not dispatch.is_open:
            answer.close(body)
        elif dispatch.state == DispatchState.STREAMING:
            answer.add(body)
        else:
            # Another attempt, or one that is due: what was shown of the last one counts no more.
            self.answer = Answer(dispatch.dispatch, body)

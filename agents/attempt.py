"""One attempt at an answer, once it comes: its pieces are logged, and what becomes of it is one of four outcomes.

It writes to its session alone, by plain calls that no task switch can split: a chunk, a message, and at the end the
dispatch's last state right behind the last message. What was logged before a crash is what the next owner finds.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress

from agents.answer import AnswerParser, Chunk, Piece, Said
from agents.answererror import AnswerError
from runtime import (
    ClientIdReusedError,
    Dispatch,
    DispatchState,
    Ending,
    SessionServer,
    WaitingReply,
    close_dispatch,
    stream_dispatch,
)


def message_key(dispatch: Dispatch, number: int) -> str:
    """Return the `client_id` of a dispatch's message of this number, from 1: it is stored once."""
    return f"{dispatch.dispatch}.{number}"


class Attempt:
    """An attempt that was sent. `check` raises where the session is not this node's any more."""

    def __init__(
        self, server: SessionServer, dispatch: Dispatch, check: Callable[[], None], said: int = 0
    ) -> None:
        self.dispatch = dispatch
        self.said = said
        """Messages of the whole dispatch that are logged."""
        self.chunks = 0
        self.parser: AnswerParser | None = None
        self._server = server
        self._check = check

    @property
    def has_output(self) -> bool:
        """Whether anything of an answer is logged."""
        return bool(self.chunks or self.said)

    def begin(self, headers: Mapping[str, str], *, openai: bool) -> None:
        """The agent answers: what comes is read as this type of content."""
        content_type = headers.get("content-type", "")
        self.parser = AnswerParser(self._message_id, content_type=content_type, openai=openai)

    def stream(self, status: int) -> None:
        """The first of the answer is there."""
        self._change(stream_dispatch(self.dispatch, self._now(), status))

    def take(self, piece: Piece) -> int:
        """Log a piece of the answer; return the LSN end at which it is durable.

        Raises:
            SessionError, StorageError: it cannot be logged now; it can be tried again.
        """
        self._check()
        if isinstance(piece, Chunk):
            lsn_end = self._server.answering.add_chunk(self.dispatch, self.chunks + 1, piece.data)
            self.chunks += 1
            return lsn_end
        return self.say(piece)

    def say(self, said: Said) -> int:
        """Log a message of the agent."""
        self._check()
        self._server.tick()
        key = message_key(self.dispatch, self.said + 1)
        # Nobody waits for this one: what waits is the dispatch, whose record comes behind it.
        reply = WaitingReply()
        # One that is stored already was said by an earlier life of this attempt.
        with suppress(ClientIdReusedError):
            self._server.append(
                self.dispatch.sender, key, said.kind, said.content, said.metadata, None, reply, None
            )
        self.said += 1
        return self._server.node.log.next_lsn

    def keep_partial(self, termination: str) -> None:
        """Log what there is of a message that was not finished."""
        partial = None if self.parser is None else self.parser.partial(termination)
        if partial is not None:
            self.say(partial)

    def close(self, state: DispatchState, code: str | None = None, error: str | None = None) -> int:
        """Log that nothing more comes of the dispatch; return the LSN end at which that is durable."""
        return self._change(
            close_dispatch(self.dispatch, state, self._now(), self.ending(code, error))
        )

    def ending(self, code: str | None = None, error: str | None = None) -> Ending:
        """Return what the attempt came to."""
        size = 0 if self.parser is None else self.parser.bytes
        return Ending(code, error, bytes=size, chunks=self.chunks)

    def fail(self, error: AnswerError) -> int:
        """End with an answer that is wrong: what came before stays."""
        self.keep_partial("interrupted")
        state = DispatchState.INTERRUPTED if self.has_output else DispatchState.FAILED
        return self.close(state, error.code, str(error))

    def _change(self, dispatch: Dispatch) -> int:
        self._check()
        lsn_end = self._server.answering.change(dispatch)
        self.dispatch = dispatch
        return lsn_end

    def _now(self) -> int:
        self._server.tick()
        return self._server.node.stamper.at_ms

    def _message_id(self) -> str:
        return f"{self.dispatch.dispatch}.{self.said + 1}"

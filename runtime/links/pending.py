"""What an edge has asked an owner and has no answer to."""

from typing import Any

import trio

from runtime.errors import OutcomeUnknownError
from runtime.links.messages import Append, Fetch, Follow, MarkRead, Stop

OnChannel = Append | MarkRead | Fetch | Follow | Stop


class Pending:
    """A request without an answer."""

    __slots__ = ("due_at", "known_seq", "message", "ref", "reply", "sent", "size", "stated_id")

    def __init__(self, message: OnChannel, reply: Any, ref: Any, size: int, due_at: float) -> None:
        self.message = message
        self.reply = reply
        self.ref = ref
        self.size = size
        self.due_at = due_at
        self.sent = 0
        self.known_seq = 0
        """The head that was known when it was sent first: if it was stored, then after that."""
        self.stated_id: str | None = None
        """The `client_id` that the sender gave."""

    def not_accepted(self) -> None:
        """The channel that this was sent on last has ended by `Gone`: there it was not accepted.

        Where it was sent on an earlier one too, which ended with its link, it may have been accepted there.
        """
        if self.sent == 1:
            self.sent = 0

    def refuse(self, error: Exception, *, decided: bool) -> None:
        """Answer with a refusal; where a message may have been stored before, it does not say that it was not."""
        if isinstance(self.message, Append) and self.sent > 1 and not decided:
            error = OutcomeUnknownError(f"it was sent before; then the owner refused: {error}")
        self.reply.refused(self.ref, error)


class Outcome:
    """What one task waits for."""

    def __init__(self) -> None:
        self._come = trio.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def answer(self, value: Any) -> None:
        """Give the answer."""
        self._value = value
        self._come.set()

    def refused(self, ref: Any, error: BaseException) -> None:  # noqa: ARG002
        """Give an error instead."""
        self._error = error
        self._come.set()

    async def wait(self) -> Any:
        """Return the answer, or raise the error."""
        await self._come.wait()
        if self._error is not None:
            raise self._error
        return self._value

"""Who asked, and how they hear of it: sockets implement `Reply`, tasks that wait use `WaitingReply`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from runtime.errors import SessionError

if TYPE_CHECKING:
    from runtime.served import Served


@dataclass(frozen=True, slots=True)
class Ack:
    """A message is durable: its seq and id, and whether this was a resend."""

    seq: int
    id: str
    client_id: str | None
    duplicate: bool


class Reply(Protocol):
    """Who asked. Each request gets exactly one of these calls, never before what it says is durable."""

    @property
    def user(self) -> str | None:
        """The user who asks, and must be allowed to; None where a backend answers for it."""

    def acked(
        self,
        ref: Any,
        server: "Served",
        seq: int,
        id: str,
        client_id: str | None,
        duplicate: bool,  # noqa: FBT001
    ) -> None:
        """The message is durable at `seq`."""

    def done(self, ref: Any) -> None:
        """The change is durable."""

    def refused(self, ref: Any, error: SessionError) -> None:
        """The request was refused; nothing was changed by it."""


class Nobody:
    """Who has had an answer already, and gets no other."""

    user = None

    def acked(
        self,
        ref: Any,
        server: "Served",
        seq: int,
        id: str,
        client_id: str | None,
        duplicate: bool,  # noqa: FBT001
    ) -> None:
        """Nothing."""

    def done(self, ref: Any) -> None:
        """Nothing."""

    def refused(self, ref: Any, error: SessionError) -> None:
        """Nothing."""


NOBODY = Nobody()


async def append_durably(
    server: "Served",
    *,
    sender: str,
    client_id: str | None = None,
    kind: str = "text",
    content: bytes,
    metadata: bytes = b"{}",
    expected_seq: int | None = None,
    user: str | None = None,
) -> Ack:
    """Append a message and return when it is durable; for tasks that wait. Raises as `Served.append`."""
    server.tick()
    reply = WaitingReply(user)
    server.append(sender, client_id, kind, content, metadata, expected_seq, reply, None)
    return await reply.wait_ack()


class WaitingReply:
    """A reply that one task waits for."""

    def __init__(self, user: str | None = None) -> None:
        self.user = user
        self._answered = trio.Event()
        self._ack: Ack | None = None
        self._error: SessionError | None = None

    def acked(
        self,
        ref: Any,  # noqa: ARG002
        server: "Served",  # noqa: ARG002
        seq: int,
        id: str,
        client_id: str | None,
        duplicate: bool,  # noqa: FBT001
    ) -> None:
        """Keep the acknowledgement and wake the waiter."""
        self._ack = Ack(seq, id, client_id, duplicate)
        self._answered.set()

    def done(self, ref: Any) -> None:  # noqa: ARG002
        """Wake the waiter."""
        self._answered.set()

    def refused(self, ref: Any, error: SessionError) -> None:  # noqa: ARG002
        """Raise `error` in the waiter."""
        self._error = error
        self._answered.set()

    async def wait(self) -> None:
        """Return when the request is durable, or raise what refused it."""
        await self._answered.wait()
        if self._error is not None:
            raise self._error

    async def wait_ack(self) -> Ack:
        """Return the acknowledgement, or raise what refused the message."""
        await self.wait()
        assert self._ack is not None
        return self._ack

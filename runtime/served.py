"""What a session offers to who serves clients, wherever its owner is.

`runtime.server.SessionServer` is one that this node owns; `runtime.links.remote.RemoteSession` stands for one that
another node owns. Whoever has either asks the same of it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runtime.codec import SessionInfo
from storage import MessageRecord

if TYPE_CHECKING:
    from runtime.answer import Answer
    from runtime.history import MessagePage
    from runtime.replies import Reply
    from runtime.tail import Tail


class Served(Protocol):
    """A session that may be written to and followed."""

    durable_seq: int
    """The last message that may be shown."""
    live: dict["Tail", None]
    """Tails that are handed each message as it becomes durable."""
    tails: set["Tail"]
    """All of them."""

    @property
    def workspace(self) -> str:
        """The workspace that it is in."""

    @property
    def answer(self) -> "Answer | None":
        """The answer that is being given, or was last."""

    @property
    def info(self) -> SessionInfo:
        """The session's state as assigned."""

    @property
    def first_unflushed_seq(self) -> int:
        """The first seq that `unflushed_from` has; before it, ask `read_stored`."""

    def tick(self) -> None:
        """Take the time for the messages that follow."""

    def is_ready(self, *, to_append: bool = False, to_follow: bool = False) -> bool:
        """Tell whether a request can be handled now, without a wait for anything."""

    def append(
        self,
        sender: str,
        client_id: str | None,
        kind: str,
        content: bytes,
        metadata: bytes,
        expected_seq: int | None,
        reply: "Reply",
        ref: Any,
    ) -> None:
        """Append a message; `reply` is told when it is durable."""

    def mark_read(self, user_id: str, seq: int, reply: "Reply", ref: Any) -> None:
        """Move a read cursor forward; `reply` is told when that is durable."""

    def stop(self, reply: "Reply", ref: Any) -> None:
        """Stop the answer that is being given, and those that are due; `reply` is told when that is durable."""

    async def move_read_cursor(self, user_id: str, seq: int, user: str | None = None) -> int:
        """Move a read cursor forward; return where it stands, once that is durable.

        `user` is who asks, and must be allowed to; None where a backend answers for it.
        """

    def check_not_deleted(self) -> None:
        """Raise `SessionDeletedError` if the session was erased."""

    def attach(self, tail: "Tail") -> None:
        """Note that a tail follows this session."""

    def detach(self, tail: "Tail") -> None:
        """Forget a tail."""

    def start_soon(self, task: Any) -> None:
        """Run a task of a tail."""

    def rehome(self, tail: "Tail") -> None:
        """Find out where a tail goes on, now that the session is another node's."""

    def unflushed_from(self, seq: int, limit: int) -> Sequence[MessageRecord]:
        """Return up to `limit` messages out of memory, from `seq` on."""

    async def read_stored(
        self, after_seq: int, limit: int, bytes_max: int
    ) -> list[tuple[int, bytes]]:
        """Return messages after a seq that are not in memory here, ascending: at least the next one."""

    async def read_after(
        self, after_seq: int, limit: int, user: str | None = None
    ) -> "MessagePage":
        """Return a page of the messages after a seq; `user` as above."""

    async def read_before(
        self, before_seq: int, limit: int, user: str | None = None
    ) -> "MessagePage":
        """Return a page of the newest messages below a seq; `user` as above."""

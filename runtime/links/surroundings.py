"""What a remote session needs of the node that its clients are on."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from runtime.links.stream import LinkStream
from runtime.tail import Tail

if TYPE_CHECKING:
    from runtime.links.remote import RemoteSession


class Channels(Protocol):
    """A link, as the sessions see it."""

    link: LinkStream

    def open_channel(self, session: "RemoteSession") -> int:
        """Return a new channel number, whose messages go to the session."""

    def close_channel(self, number: int) -> None:
        """Forget a channel."""


class Surroundings(Protocol):
    """What a remote session needs of the node."""

    tails: int
    repeats: int
    """How many requests were sent again, on another channel."""

    async def find_owner(self, workspace: str, session: str) -> Channels:
        """Return a link to the node that owns a session.

        Raises:
            OwnerUnavailableError, SlotMovedError: not now.
        """

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends with the node."""

    def rehome(self, tail: Tail) -> None:
        """Find out where a tail goes on."""

    def next_id(self) -> str:
        """Return an id that nobody has."""

    async def find_end(self, workspace: str, dispatch: str) -> bytes | None:
        """Return the frame that ended a dispatch; None if it has not ended, as far as the archive knows.

        Raises:
            ArchiveUnavailableError: it is away.
        """

    def forget(self, session: "RemoteSession") -> None:
        """The session is not needed any more, or is not there."""

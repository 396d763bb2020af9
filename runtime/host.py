"""What serves clients asks this of whoever holds the sessions.

`runtime.node.Node` is a node that is alone and holds them all; `runtime.router.Router` holds those of a cluster, each
where it is.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from runtime.catalog import SessionPage
from runtime.codec import SessionInfo
from runtime.served import Served
from runtime.standing import Standing


class SessionCatalog(Protocol):
    """Creating, changing and listing sessions: see `runtime.catalog.Catalog`."""

    async def create(
        self,
        workspace: str,
        session_id: str | None,
        *,
        user_id: str,
        members: tuple[str, ...] = (),
        agent_id: str | None = None,
        metadata: bytes = b"{}",
    ) -> tuple[SessionInfo, bool]:
        """Create a session and return its state, and whether it is new."""

    async def change(
        self,
        workspace: str,
        session_id: str,
        *,
        state: str | None = None,
        members: tuple[str, ...] | None = None,
        metadata: bytes | None = None,
        agent_id: str | None = None,
        clear_agent: bool = False,
        expected_version: int | None = None,
    ) -> SessionInfo:
        """Change a session, and return its state."""

    async def delete(self, workspace: str, session_id: str) -> None:
        """Erase a session."""

    async def list(
        self,
        workspace: str,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_archived: bool = False,
    ) -> SessionPage:
        """Return sessions, newest first."""


class Host(Protocol):
    """The sessions that clients ask for."""

    durability: str
    on_published: list[Callable[[], None]]

    @property
    def catalog(self) -> SessionCatalog:
        """Creating, changing and listing them."""

    def tick(self) -> None:
        """Take the time for the messages that follow."""

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends with the node."""

    def find(self, workspace: str, session_id: str) -> Served | None:
        """Return a session if it is at hand."""

    async def open(
        self, workspace: str, session_id: str, *, to_append: bool = False, to_follow: bool = False
    ) -> Served:
        """Return a session, as it is durable; no checkpoint follows."""

    def not_ready(self) -> list[str]:
        """Return why this node should get no traffic now; empty when it is ready."""

    def standing(self) -> Standing:
        """Return who this node is, and how far it has what the ring gives it."""

"""Sessions wherever they are: those of this node directly, all others over a link to their owner.

A session that is asked for over a link stays so until nobody here needs it, even if its slot comes to this very
node meanwhile (then the link is to itself): so nothing that is on its way is overtaken.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from runtime.catalog import SessionPage, list_sessions
from runtime.codec import SessionInfo, decode_session
from runtime.dispatch import decode_dispatch
from runtime.errors import (
    OwnerUnavailableError,
    SessionError,
    SessionNotFoundError,
    SlotMovedError,
)
from runtime.identifiers import Stamper
from runtime.links.messages import Change, Changed, Create, Settle
from runtime.links.pool import OwnerConnection, Pool
from runtime.links.remote import REQUEST_SECONDS, RETRY_SECONDS, RemoteSession
from runtime.ring import slot_of
from runtime.ringwatch import RingWatch
from runtime.served import Served
from runtime.standing import Standing, ring_standing
from runtime.tail import Tail
from storage import Archive, ArchiveUnavailableError

if TYPE_CHECKING:
    from runtime.member import Member
    from runtime.node import Node

SWEEP_SECONDS = 0.5
"""How often requests whose time is over are looked for."""


class Router:
    """The sessions of a cluster, as the clients of one node see them."""

    def __init__(
        self,
        watch: RingWatch,
        pool: Pool,
        archive: Archive,
        *,
        node: "Node | None",
        durability: str,
        idle_seconds: float,
        nursery: trio.Nursery,
    ) -> None:
        self.node = node
        self.durability = durability
        self.member: Member | None = None
        """This node's part as an owner, if it is one."""
        self.tails = 0
        self.repeats = 0
        self.on_published: list[Callable[[], None]] = []
        self.catalog = RoutedCatalog(self, archive)
        self._archive = archive
        self._watch = watch
        self._pool = pool
        self._idle_seconds = idle_seconds
        self._nursery = nursery
        self._remote: dict[tuple[str, str], RemoteSession] = {}
        self._stamper = Stamper()
        self._ended = False
        self.tick()
        if node is not None:
            node.rehome = self.rehome
            node.on_published.append(self.publish)

    @property
    def remote_sessions(self) -> int:
        """How many sessions of other owners are in use."""
        return len(self._remote)

    @property
    def requests_waiting(self) -> int:
        """How many requests to other owners have no answer yet."""
        return sum(session.waiting for session in self._remote.values())

    @property
    def link_queue_bytes(self) -> int:
        """About how many bytes wait to be sent to owners."""
        return self._pool.queue_bytes

    @property
    def links(self) -> int:
        """How many links to owners are up."""
        return self._pool.connections

    # Host: what serves clients asks.

    def tick(self) -> None:
        """Take the time for the messages that follow."""
        if self.node is not None:
            self.node.tick()
        self._stamper.tick(time.time_ns() // 1_000_000)

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends with the node."""
        if not self._ended:
            self._nursery.start_soon(task)

    def publish(self) -> None:
        """Something was queued for sockets: have each written once."""
        for publish in self.on_published:
            publish()

    def find(self, workspace: str, session_id: str) -> Served | None:
        """Return a session if it is at hand."""
        key = (workspace, session_id)
        if self._remote:
            remote = self._remote.get(key)
            if remote is not None:
                return remote
        return None if self.node is None else self.node.active.get(key)

    async def open(
        self, workspace: str, session_id: str, *, to_append: bool = False, to_follow: bool = False
    ) -> Served:
        """Return a session, as it is durable; no checkpoint follows.

        Raises:
            SessionNotFoundError, SessionDeletedError: it is not there.
            OwnerUnavailableError: its owner does not answer.
            SessionError, StorageError: as `Node.open`.
        """
        key = (workspace, session_id)
        while True:
            remote = self._remote.get(key)
            if remote is None:
                if self._is_here(workspace, session_id):
                    assert self.node is not None
                    with suppress(SlotMovedError):
                        return await self.node.open(workspace, session_id, to_append=to_append)
                remote = self._remote.get(key) or RemoteSession(self, workspace, session_id)
                self._remote[key] = remote
            await remote.open(to_follow=to_follow)
            if self._remote.get(key) is remote and remote.is_ready():
                return remote

    def not_ready(self) -> list[str]:
        """Return why this node should get no traffic now; empty when it is ready."""
        reasons = [] if self.node is None else self.node.not_ready()
        if self.member is not None and self.member.leaving:
            reasons.append("leaving")
        elif self.member is not None and not self.member.settled:
            reasons.append("slots_not_served")
        if not any(self._watch.ring.owners):
            reasons.append("no_owner")
        return reasons

    def standing(self) -> Standing:
        """Return who this node is, and how far it has what the ring gives it."""
        node = self.node
        if node is None:
            return Standing(None, None, ring_standing(self._watch.ring, "", frozenset()))
        served = frozenset() if node.slots is None else node.slots.served
        node_id = node.flusher.node_id
        return Standing(node_id, node.epoch, ring_standing(self._watch.ring, node_id, served))

    # Surroundings: what remote sessions ask.

    async def find_owner(self, workspace: str, session: str) -> OwnerConnection:
        """Return a link to the node that owns a session.

        Raises:
            SlotMovedError: nobody owns it now.
            OwnerUnavailableError: its owner cannot be reached.
        """
        ring = self._watch.ring
        slot = slot_of(workspace, session, len(ring.owners))
        owner = ring.owners[slot]
        # Either it is on its way, or the ring that we know is old: whoever asks again finds it newer.
        self._watch.hurry()
        if not owner:
            raise SlotMovedError(f"session {session} is on its way", slot=slot)
        connection = await self._connect(owner)
        entry = self._watch.ring.node(owner)
        if self._watch.ring.owners[slot] != owner or entry is None or entry.sealed:
            raise SlotMovedError(f"session {session} has moved", slot=slot)
        return connection

    def rehome(self, tail: Tail) -> None:
        """Have a tail of a session that has left this node go on at its new owner."""
        self.start_soon(lambda: self._rehome(tail))

    def next_id(self) -> str:
        """Return an id that nobody has."""
        return self._stamper.next_id()

    async def find_end(self, workspace: str, dispatch: str) -> bytes | None:
        """Return the frame that ended a dispatch; None if it has not ended, as far as the archive knows.

        Raises:
            ArchiveUnavailableError: it is away.
        """
        found = await trio.to_thread.run_sync(self._archive.dispatches.find, workspace, dispatch)
        return None if found is None or decode_dispatch(found.body).is_open else found.body

    def forget(self, session: RemoteSession) -> None:
        """A session is not needed any more, or is not there."""
        session.close()
        key = (session.workspace, session.session_id)
        if self._remote.get(key) is session:
            del self._remote[key]

    async def sweep(self) -> None:
        """Answer what has waited too long, and let go of sessions that nobody needs, for ever."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = trio.current_time()
            for session in list(self._remote.values()):
                session.expire(now)
                if session.is_idle(now - self._idle_seconds):
                    self.forget(session)
            self.publish()

    async def watch_ring(self) -> None:
        """Let go of links to nodes that were taken over from, for ever: they may not know it themselves."""
        while True:
            ring = self._watch.ring
            for node in ring.nodes:
                if node.sealed:
                    self._pool.drop(node.node_id)
            if self._watch.ring is ring:
                await self._watch.wait_changed()

    def end(self) -> None:
        """Start nothing more."""
        self._ended = True

    async def owners(self) -> list[OwnerConnection]:
        """Return links to all nodes that own anything.

        Raises:
            OwnerUnavailableError: one cannot be reached.
        """
        owners = sorted(set(self._watch.ring.owners) - {""})
        return [await self._connect(node_id) for node_id in owners]

    async def _connect(self, node_id: str) -> OwnerConnection:
        entry = self._watch.ring.node(node_id)
        if entry is None:
            # Nodes and slots are read one after the other: it has come in between.
            raise OwnerUnavailableError(f"node {node_id} is not known yet")
        return await self._pool.connect(node_id, entry.address)

    def _is_here(self, workspace: str, session_id: str) -> bool:
        node = self.node
        return (
            node is not None
            and node.slots is not None
            and node.slots.serves((workspace, session_id))
        )

    async def _rehome(self, tail: Tail) -> None:
        info = tail.server.info
        old = tail.server
        while not tail.closed and tail.server is old:
            try:
                server = await self.open(old.workspace, info.session, to_follow=True)
            except ArchiveUnavailableError:
                await trio.sleep(RETRY_SECONDS[-1])
            except SessionError as error:
                if error.retry_after_ms is None:
                    tail.end(error)
                else:
                    await trio.sleep(RETRY_SECONDS[-1])
            else:
                if not tail.closed:
                    _move(tail, server)


def _move(tail: Tail, server: Served) -> None:
    """Have a tail go on at another server, if its reader may read on: what it could miss is only known there."""
    name = server.info.session
    if tail.reader is not None and not server.info.allows(tail.reader):
        tail.end(SessionNotFoundError(f"no session {name}", session=name))
    else:
        tail.move(server)


class RoutedCatalog:
    """Creating, changing and listing the sessions of a cluster."""

    def __init__(self, router: Router, archive: Archive) -> None:
        self._router = router
        self._archive = archive

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
        """Create a session at its owner; as `Catalog.create`."""
        session_id = self._router.next_id() if session_id is None else session_id
        changed = await self._call(
            workspace,
            session_id,
            lambda: Create(0, workspace, session_id, user_id, members, agent_id, metadata),
        )
        return decode_session(changed.info), changed.created

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
        """Change a session at its owner; as `Catalog.change`."""
        changed = await self._call(
            workspace,
            session_id,
            lambda: Change(
                0,
                workspace,
                session_id,
                state,
                members,
                metadata,
                agent_id,
                clear_agent,
                expected_version,
                delete=False,
            ),
        )
        return decode_session(changed.info)

    async def delete(self, workspace: str, session_id: str) -> None:
        """Erase a session at its owner; as `Catalog.delete`."""
        await self._call(
            workspace,
            session_id,
            lambda: Change(0, workspace, session_id, delete=True),
        )

    async def list(
        self,
        workspace: str,
        *,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_archived: bool = False,
    ) -> SessionPage:
        """Return sessions newest first, once each owner has said that the archive has all of its own.

        Raises:
            OwnerUnavailableError: one does not answer.
            InvalidFieldError, ArchiveUnavailableError: as `Catalog.list`.
        """
        for owner in await self._router.owners():
            await owner.call(Settle(0))
        return await list_sessions(
            self._archive,
            workspace,
            user_id=user_id,
            cursor=cursor,
            limit=limit,
            include_archived=include_archived,
        )

    async def _call(
        self, workspace: str, session_id: str, question: Callable[[], Create | Change]
    ) -> Changed:
        """Ask a session's owner, wherever it is by then; each question may be asked twice."""
        seconds, longest = RETRY_SECONDS
        give_up_at = trio.current_time() + REQUEST_SECONDS
        while True:
            try:
                owner = await self._router.find_owner(workspace, session_id)
                changed: Changed = await owner.call(question())
            except SessionError as error:
                moved = isinstance(error, (SlotMovedError, OwnerUnavailableError))
                moved = moved or error.code == SlotMovedError.code
                if not moved or trio.current_time() > give_up_at:
                    raise
                await trio.sleep(seconds)
                seconds = min(2 * seconds, longest)
            else:
                return changed

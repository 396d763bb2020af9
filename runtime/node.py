"""A node: the sessions that are active here, over one commit log and one flusher.

`open_node` (in `runtime.opening`) makes one; everything it starts ends with its block. Every record that the
log held was flushed before, so the archive alone describes a session that is not active.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

import trio

from runtime import archivereader
from runtime.archivereader import ArchiveReader
from runtime.catalog import Catalog
from runtime.codec import decode_record, decode_session
from runtime.dispatcher import Dispatcher, NoDispatcher
from runtime.errors import (
    BackpressureError,
    OutcomeUnknownError,
    OwnerUnavailableError,
    SessionNotFoundError,
    ShuttingDownError,
    SlotMovedError,
)
from runtime.gaps import up_to_hole
from runtime.gathering import SessionKey
from runtime.identifiers import Stamper
from runtime.nodeoptions import NodeOptions, NodeStatistics
from runtime.pending import PendingAnswer, PendingAppend, unknown_outcome
from runtime.remembering import Remembering
from runtime.replies import Reply
from runtime.server import SessionServer
from runtime.session import Session
from runtime.slots import Slots
from runtime.standing import Standing
from runtime.tail import Tail
from storage import (
    LOCAL,
    UNKNOWN_SECONDS,
    Archive,
    ArchiveUnavailableError,
    CommitLog,
    CursorMismatchError,
    Flusher,
    LogPoisonedError,
    Recent,
    Record,
    Replica,
)

P = ParamSpec("P")
T = TypeVar("T")

ARCHIVE_WAIT_SECONDS = 5.0
"""How long a listing waits for the flusher before it says that the archive is away."""

READY_BYTES_MIN = 8 * 1024
"""A node that has less room for unflushed records refuses all but small ones: it is not ready."""

DISK_STALLED_SECONDS = 5.0
"""A write that the disk has had for longer than this is more than slow: clients give up meanwhile."""

SETTLE_SECONDS = 2.0
"""How long a stop waits for the archive to note that nothing is missing."""

SWEEP_PIECE = 1_000
"""Sessions looked at between two checkpoints of the idle sweep."""


class Node:
    """The sessions of this process. Made by `open_node`."""

    def __init__(self, options: NodeOptions, archive: Archive) -> None:
        self.options = options
        self.archive = archive
        self.durability = options.durability
        self.active: dict[SessionKey, SessionServer] = {}
        self.leaving: dict[SessionKey, SessionServer] = {}
        """Sessions of slots that are being given up: they take no requests any more."""
        self.replica: Replica | None = None
        """Where a batch has its second copy; only with `replicated` durability."""
        self.confirmed_until = math.inf
        """Until when nobody takes over from this node, by its own clock."""
        self.slots: Slots | None = None
        """What this node owns of a ring; None where it is alone and owns everything."""
        self.catalog = Catalog(self)
        self.stamper = Stamper()
        self.unflushed_bytes = 0
        self._unflushed_bytes_max = options.unflushed_bytes_max
        self.sweeps = 0
        self.tails = 0
        self.stopping = False
        self.ended = False
        self.on_published: list[Callable[[], None]] = []
        """Called after each batch was applied: whoever has sockets writes to each once per batch."""
        self.rehome: Callable[[Tail], None] = _end_tail
        """Called with each tail of a session that is another node's now."""
        self.observe_ack: Callable[[float], None] = lambda _: None
        """Called after each batch with the seconds that its oldest message waited."""
        self.observe_sync: Callable[[float], None] = lambda _: None
        """Called with the seconds of each fdatasync."""
        self.dispatcher: Dispatcher = NoDispatcher()
        """Who calls agents."""
        self.epoch: int
        self.log: CommitLog
        self.flusher: Flusher
        self.nursery: trio.Nursery
        self.push: Callable[[Record], None]
        self._activating: dict[SessionKey, trio.Event] = {}
        self.remembering = Remembering(self._read_recent)
        self.reader = ArchiveReader(archive, lambda: self.flusher, self.start_soon)
        self._last_session_lsn_end = 0
        self.tick()

    # What session servers use

    def tick(self) -> None:
        """Take the time for the messages that follow."""
        self.stamper.tick(time.time_ns() // 1_000_000)

    def admit(self, size: int) -> None:
        """Check that a record of at most `size` bytes can be accepted now.

        Raises:
            ShuttingDownError, BackpressureError: from here.
            StorageError: from the log.
        """
        if self.stopping:
            raise ShuttingDownError("the node is stopping")
        if self.unflushed_bytes + size > self._unflushed_bytes_max:
            raise BackpressureError(
                "the archive does not keep up", unflushed_bytes=self.unflushed_bytes
            )
        self.log.check_room(size)

    def is_durable(self, lsn_end: int) -> bool:
        """Tell whether everything below `lsn_end` is durable."""
        return lsn_end <= self.log.durable_lsn

    def answer_when_durable(
        self, answer: Callable[[Reply], None], reply: Reply, ref: object
    ) -> None:
        """Call `answer` with who asked when everything that is assigned now is durable.

        Where that takes long already, they are told at once that the outcome is unknown.
        """
        if self.replica is not None and self.replica.doubted:
            reply.refused(ref, unknown_outcome())
            return
        self.log.after_commit(PendingAnswer(answer, reply, ref))

    async def wait_durable(self, lsn_end: int) -> None:
        """Return when everything below `lsn_end` is durable.

        Raises:
            OutcomeUnknownError: its second copy is too long in coming.
            LogPoisonedError: the log failed.
        """
        seconds = math.inf if self.replica is None else UNKNOWN_SECONDS
        with trio.move_on_after(seconds) as patience:
            await self.log.wait_durable(lsn_end)
        if patience.cancelled_caught:
            raise unknown_outcome()

    def is_confirmed(self) -> bool:
        """Tell whether nobody can have taken over from this node yet."""
        until = self.confirmed_until
        return until == math.inf or trio.current_time() < until

    def check_confirmed(self) -> None:
        """Raise `ArchiveUnavailableError` if somebody may have taken over: what is here may be old."""
        if not self.is_confirmed():
            raise ArchiveUnavailableError(
                "this owner has not been able to say there for too long that it lives"
            )

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that ends with the node; a batch may still be published when that has begun."""
        if not self.ended:
            self.nursery.start_soon(task)

    async def read_archive(
        self, server: SessionServer, after_seq: int, *, limit: int, bytes_max: int
    ) -> list[tuple[int, bytes]]:
        """Return archived messages of a session after a seq, ascending: at least the next one.

        Ask only for what was flushed.

        Raises:
            ArchiveUnavailableError: it is away, or it lacks the next message: it went back, or is damaged.
            SessionDeletedError: the message was erased.
        """
        session = server.session
        rows = await self.reader.query(
            self.archive.read_messages,
            session.workspace,
            session.info.session,
            after_seq=after_seq,
            limit=limit,
            bytes_max=bytes_max,
        )
        next_seq = after_seq + 1
        # They ascend, so the last one's seq tells whether any is missing.
        if rows and rows[-1][0] != after_seq + len(rows):
            rows = up_to_hole(rows, next_seq)
        if not rows:
            if self.is_durable(server.info_lsn_end):
                session.check_not_deleted()
            self.flusher.doubt_cursor()
            raise ArchiveUnavailableError(f"it lacks message {next_seq} of {session.info.session}")
        return rows

    # Sessions

    async def open(
        self,
        workspace: str,
        session_id: str,
        *,
        may_be_new: bool = False,
        to_append: bool = False,
        to_follow: bool = False,  # noqa: ARG002 - what is here can always be followed
    ) -> SessionServer:
        """Return the session's server, activating it from the archive if needed.

        What is assigned to the session's state is durable then: whatever is told of it, also by refusing,
        stays true. `may_be_new` expects that there is none: many can be told so by one query, at the price
        of a second one for each that is there. `to_append` sees to it that the session knows its `client_id`s:
        those who only read do not wait for them.

        Raises:
            SessionNotFoundError: no checkpoint has passed since nobody else could have created it.
            SlotMovedError: another node owns it.
            SessionDeletedError, BackpressureError, ArchiveUnavailableError.
            ShuttingDownError: the node ended meanwhile.
        """
        key = (workspace, session_id)
        while True:
            server = self.active.get(key)
            if server is None and self.slots is not None:
                self.slots.find(key)
            self.check_confirmed()
            if server is not None:
                server.touched = self.sweeps
                if not self.is_durable(server.info_lsn_end):
                    await self._wait_settled(server)
                    continue
                server.session.check_not_deleted()
                if not to_append or server.session.window is not None:
                    return server
                await self.remembering.remember(server.session)
            elif (activation := self._activating.get(key)) is not None:
                await activation.wait()
            else:
                server = await self._activate(key, may_be_new=may_be_new)
                if not to_append:
                    return server

    async def _wait_settled(self, server: SessionServer) -> None:
        """Wait until what was changed of a session is durable."""
        try:
            await self.wait_durable(server.info_lsn_end)
        except OutcomeUnknownError as error:
            raise ArchiveUnavailableError(str(error)) from error

    async def _activate(self, key: SessionKey, *, may_be_new: bool) -> SessionServer:
        workspace, session_id = key
        activation = self._activating[key] = trio.Event()
        try:
            claim = None if self.slots is None else self.slots.find(key)
            snapshot = None
            if not may_be_new or await self.reader.exists(key):
                snapshot = await self.reader.read_session(key)
            chunks = await self.reader.read_chunks(key, snapshot)
            if self.slots is not None and self.slots.find(key) is not claim:
                # Somebody else may have written to it meanwhile.
                raise SlotMovedError(f"session {session_id} was elsewhere meanwhile")
            if snapshot is None:
                raise SessionNotFoundError(f"no session {session_id}", session=session_id)
            session = Session(workspace, decode_session(snapshot.record.body))
            session.check_not_deleted()
            session.restore(snapshot)
            if snapshot.head_seq < archivereader.DEDUPLICATION_AT_ONCE:
                session.remember(snapshot.recent)
            server = self.adopt(session)
            self._resume(server, chunks)
            return server
        finally:
            del self._activating[key]
            activation.set()

    def _resume(self, server: SessionServer, chunks: Sequence[bytes]) -> None:
        """Go on with the dispatches that the session was left with."""
        current = server.session.current_dispatch
        if current is None:
            return
        server.answering.restore(current, chunks)
        for dispatch in list(server.session.dispatches.values()):
            self.dispatcher.dispatch_changed(server, dispatch)

    async def _read_recent(self, session: Session) -> list[Recent]:
        return await self.reader.read_recent((session.workspace, session.info.session))

    def adopt(self, session: Session) -> SessionServer:
        """Make a session active; its state must be all that was ever assigned.

        Raises:
            BackpressureError: `active_sessions_max` are active.
        """
        key = (session.workspace, session.info.session)
        assert key not in self.active
        if len(self.active) >= self.options.active_sessions_max:
            raise BackpressureError(f"{len(self.active)} sessions are active, the most allowed")
        server = SessionServer(self, session)
        if self.slots is not None:
            self.slots.find(key).servers[key] = server
        self.active[key] = server
        return server

    def find(self, workspace: str, session_id: str) -> SessionServer | None:
        """Return the session's server if it is active."""
        return self.active.get((workspace, session_id))

    def discard(self, server: SessionServer) -> None:
        """Take back `adopt` for a session of which nothing was logged."""
        assert server.open_records == 0
        self._forget((server.session.workspace, server.info.session))

    def _forget(self, key: SessionKey) -> None:
        del self.active[key]
        if self.slots is not None:
            del self.slots.find(key).servers[key]

    def end_tails(self) -> None:
        """End every tail: what it would say of what comes next, and whether anything does, may be another's."""
        for server in [*self.active.values(), *self.leaving.values()]:
            for tail in list(server.tails):
                tail.end(OwnerUnavailableError("this owner may have been taken over from"))

    def note_session_change(self, lsn_end: int) -> None:
        """Remember how far the archive must be flushed before a listing is up to date."""
        self._last_session_lsn_end = lsn_end

    async def wait_sessions_flushed(self) -> None:
        """Wait until the archive lists every session as it was when this was called.

        Raises:
            ArchiveUnavailableError: it did not within `ARCHIVE_WAIT_SECONDS`.
        """
        self.check_confirmed()
        lsn_end = self._last_session_lsn_end
        try:
            await self.wait_durable(lsn_end)
        except OutcomeUnknownError as error:
            raise ArchiveUnavailableError(str(error)) from error
        with trio.move_on_after(ARCHIVE_WAIT_SECONDS) as scope:
            await self.flusher.wait_flushed(lsn_end)
        if scope.cancelled_caught:
            raise ArchiveUnavailableError("it does not take what was written")

    # State of the node

    def not_ready(self) -> list[str]:
        """Return why this node should get no traffic now; empty when it is ready."""
        reasons = []
        log = self.log.statistics()
        if self.stopping:
            reasons.append("shutting_down")
        if log.poisoned:
            reasons.append("log_poisoned")
        if self.replica is not None and self.replica.stalled is not None:
            reasons.append("archive_unavailable")
        if log.full:
            reasons.append("storage_full")
        if log.write_seconds > DISK_STALLED_SECONDS:
            reasons.append("disk_stalled")
        if self.unflushed_bytes + READY_BYTES_MIN > self._unflushed_bytes_max:
            reasons.append("backpressure")
        return reasons

    def standing(self) -> Standing:
        """Return who this node is; of a ring it knows nothing."""
        return Standing(self.flusher.node_id, self.epoch, None)

    def statistics(self) -> NodeStatistics:
        """Return what this node is doing."""
        return NodeStatistics(
            active_sessions=len(self.active),
            tails=self.tails,
            unflushed_bytes=self.unflushed_bytes,
            unflushed_records=self.flusher.backlog_rows,
            flush_lag_seconds=self.flusher.lag_seconds(),
        )

    async def shutdown(self, flush_seconds: float) -> bool:
        """Take no new work, make durable what was accepted, flush for at most `flush_seconds`.

        Returns whether everything is in the archive. What is not, and is durable, stays in the log for the
        next start; what a disk did not take in time was acknowledged to nobody.
        """
        self.stopping = True
        with trio.move_on_after(flush_seconds) as scope:
            await self.log.sync()
            await self.flusher.flush_all()
        if scope.cancelled_caught:
            return False
        if self.durability == LOCAL:
            with trio.move_on_after(SETTLE_SECONDS):
                await self._settle()
        return True

    async def _settle(self) -> None:
        """Note that whoever comes after this node misses nothing, unless the archive is away just now, or went back."""
        flusher = self.flusher
        settle = partial(self.archive.settle_whole, flusher.node_id, self.epoch, flusher.cursor)
        with suppress(ArchiveUnavailableError, CursorMismatchError):
            # Nobody waits to hear of it, and it is no less true later.
            await trio.to_thread.run_sync(settle, abandon_on_cancel=True)

    # Called by the log and the flusher, on the loop

    def committed(self, items: Sequence[Any]) -> None:
        """A batch is durable: apply, publish and acknowledge it, in log order."""
        for item in items:
            item.committed()
        for publish in self.on_published:
            publish()
        oldest = items[0] if items else None
        if type(oldest) is PendingAppend:
            self.observe_ack(max(0.0, time.time() - oldest.record.at_ms / 1000))

    def doubted(self, items: Sequence[Any]) -> None:
        """What is not durable yet is long in coming: tell those who wait."""
        for item in items:
            item.doubted()
        for publish in self.on_published:
            publish()

    def synced(self, seconds: float) -> None:
        """The log made an fdatasync."""
        self.observe_sync(seconds)

    def flushed(self, records: Sequence[Record], cursor: int) -> None:
        """The archive has committed these records, and everything below `cursor`: free them."""
        by_session: dict[SessionKey, list[Record]] = {}
        for record in records:
            by_session.setdefault((record.workspace, record.session), []).append(record)
        for key, its_records in by_session.items():
            # What recovery flushes belongs to sessions that are not active yet.
            server = self.active.get(key) or self.leaving.get(key)
            if server is not None:
                server.flushed(its_records)
        self.log.release(cursor)

    def reread(self, from_lsn: int, to_lsn: int, bytes_max: int) -> list[Record]:
        """Read records back from the log, for an archive that went back: at least one. Blocking.

        Raises:
            LogPoisonedError: the disk refused to read them.
            StorageError: as `CommitLog.read`.
        """
        records: list[Record] = []
        size = 0
        try:
            for stored in self.log.read(from_lsn, to_lsn):
                size += len(stored.body)
                if records and size > bytes_max:
                    break
                records.append(decode_record(stored))
        except OSError as error:
            raise LogPoisonedError(str(error)) from error
        return records

    async def sweep(self) -> None:
        """Deactivate sessions that nobody used for `idle_seconds`, for ever."""
        while True:
            await trio.sleep(self.options.idle_seconds)
            self.sweeps += 1
            for index, (key, server) in enumerate(list(self.active.items())):
                if index % SWEEP_PIECE == 0:
                    await trio.lowlevel.checkpoint()
                if server.is_idle(self.sweeps - 1) and self.active.get(key) is server:
                    self._forget(key)


def _end_tail(tail: Tail) -> None:
    """There is nobody who would know where the session is: its reader asks again."""
    tail.end(SlotMovedError(f"session {tail.server.info.session} is on its way to another node"))

"""What a node reads of its sessions in the archive: in few queries, few threads, and never less than was flushed."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

import trio

from runtime.dispatch import decode_dispatch
from runtime.gathering import Gathering, SessionKey
from storage import (
    Archive,
    ArchiveUnavailableError,
    CursorMismatchError,
    Flusher,
    Recent,
    SessionSnapshot,
)

P = ParamSpec("P")
T = TypeVar("T")

READERS_MAX = 4
"""Threads that read the archive at once: replays share them, so a reconnect storm stays bounded."""

DEDUPLICATION_LOADED = 1_000
"""Messages whose `client_id`s a session knows before it takes another one; `WINDOW` in memory."""

DEDUPLICATION_AT_ONCE = 100
"""Messages that come with a session itself: 0.1 ms. A session of fewer needs no second query."""

EXISTENCE_BATCH = 1_000
"""Keys in one query: a statement of 100 KB, answered in 2 ms."""

SNAPSHOT_BATCH, RECENT_BATCH = 64, 16
"""Sessions in one query: 20 to 40 ms of the database, for 100 and for 1,000 messages of each."""


class ArchiveReader:
    """The archive, as this node asks it. `flusher` knows how far it was flushed."""

    def __init__(
        self,
        archive: Archive,
        flusher: Callable[[], Flusher],
        start_soon: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._archive = archive
        self._flusher = flusher
        self.limiter = trio.CapacityLimiter(READERS_MAX)
        self._existing = Gathering(self._find_sessions, start_soon, EXISTENCE_BATCH)
        self._snapshots = Gathering(
            partial(self._read_sessions, DEDUPLICATION_AT_ONCE), start_soon, SNAPSHOT_BATCH
        )
        self._recent = Gathering(
            partial(self._read_sessions, DEDUPLICATION_LOADED), start_soon, RECENT_BATCH
        )

    async def query(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking read of the archive in one of `READERS_MAX` worker threads."""
        return await trio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=self.limiter)

    async def exists(self, key: SessionKey) -> bool:
        """Tell whether a session was ever created, also if it was erased.

        Raises:
            ArchiveUnavailableError: the archive is away, or lacks what was flushed.
            ShuttingDownError: the node ended meanwhile.
        """
        return await self._existing.ask(key) or False

    async def read_session(self, key: SessionKey) -> SessionSnapshot | None:
        """Return a session with its last `DEDUPLICATION_AT_ONCE` messages' `client_id`s; raises as `exists`."""
        return await self._snapshots.ask(key)

    async def read_recent(self, key: SessionKey) -> list[Recent]:
        """Return the last `DEDUPLICATION_LOADED` messages' `client_id`s of one that exists; raises as `exists`."""
        snapshot = await self._recent.ask(key)
        assert snapshot is not None
        return snapshot.recent

    async def read_chunks(self, key: SessionKey, snapshot: SessionSnapshot | None) -> list[bytes]:
        """Return what came of the answer that is being given in a session, if one is."""
        if snapshot is None or not snapshot.dispatches:
            return []
        current = decode_dispatch(snapshot.dispatches[0])
        read = self._archive.dispatches.read_chunks
        return await self.query(read, *key, current.dispatch, current.attempt)

    async def _read_sessions(
        self, recent: int, keys: Sequence[SessionKey]
    ) -> dict[SessionKey, SessionSnapshot]:
        return await self._query_as_flushed(self._archive.read_sessions, keys, recent)

    async def _find_sessions(self, keys: Sequence[SessionKey]) -> dict[SessionKey, bool]:
        found = await self._query_as_flushed(self._archive.find_sessions, keys)
        return dict.fromkeys(found, True)

    async def _query_as_flushed(self, call: Callable[..., T], *args: Any) -> T:
        """Ask about sessions an archive that holds all that was flushed, or not at all.

        One that was restored to an older state, or is a standby that took over, would tell of an older
        head: its seqs would be given out a second time.
        """
        flusher = self._flusher()
        try:
            return await self.query(call, *args, flusher.node_id, flusher.cursor)
        except CursorMismatchError as error:
            flusher.doubt_cursor()
            raise ArchiveUnavailableError(
                "it went back, and is being brought up to date"
            ) from error

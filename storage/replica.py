"""The second copy of each batch, made in the archive beside the fdatasync of the first.

::

    begin ──▶ a thread adds the batch to `log_batches` ──▶ finish returns: it is durable there
                  │ no answer: it may be there
                  └──▶ add it again, under the same LSN, until it is there or the epoch is over

While a batch has no answer the replica is *stalled*: the log takes no new appends then. Those who wait for what was
taken before are told after `UNKNOWN_SECONDS` that its outcome is unknown, once; it becomes durable all the same when
the archive is back, and a resend finds it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import uniform
from typing import Any

import trio

from storage.batches import Batch, BatchWriter
from storage.errors import ArchiveUnavailableError, StorageError
from storage.record import StoredRecord
from storage.syncthread import SyncThread

STALLED_SECONDS = 1.0
"""A batch that takes longer than this has met more than a busy archive."""

UNKNOWN_SECONDS = 5.0
"""How long those who wait for a batch are kept in the dark."""

POLL_SECONDS = 0.1

BACKOFF_SECONDS = 0.05
BACKOFF_SECONDS_MAX = 1.0


class Replica:
    """Adds one batch after another to the archive, each until it is there.

    `on_doubt` is told once for a batch that is long in coming, with the items of all that is not durable.
    """

    def __init__(
        self,
        writer: BatchWriter,
        thread: SyncThread,
        records: Sequence[StoredRecord],
        on_doubt: Callable[[list[Any]], None],
    ) -> None:
        self.records = records
        """What was there at the start, from the cursor on."""
        self.stalled: ArchiveUnavailableError | None = None
        """Why the batch under way is not there yet, once that takes long."""
        self.retries = 0
        self.seconds_last = 0.0
        """How long the last batch took."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when `stalled` has become another."""
        self.waiting: Callable[[], list[Any]] = list
        """Returns the items of all that is not durable."""
        self._on_doubt = on_doubt
        self._writer = writer
        self._thread = thread
        self._batch: Batch | None = None
        self._since = 0.0
        self.doubted = False
        """Whether those who waited for the batch under way were told that its outcome is unknown."""

    def begin(self, batch: Batch) -> None:
        """Begin to add a batch."""
        self._batch = batch
        self._since = trio.current_time()
        self.doubted = False
        self._thread.begin(self._writer.add, batch)

    async def finish(self) -> None:
        """Return when the batch is there.

        Raises:
            FencedError: this owner's epoch is over.
        """
        assert self._batch is not None
        backoff = BACKOFF_SECONDS
        while True:
            try:
                await self._thread.finish()
            except ArchiveUnavailableError as error:
                self._stall(error)
            else:
                break
            self.retries += 1
            # Jitter, so that the owners of a cluster do not come back all at once.
            await trio.sleep(backoff * uniform(0.5, 1.0))  # noqa: S311 - not a secret
            backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
            self._thread.begin(self._writer.add, self._batch)
        self._batch = None
        self.doubted = False
        self.seconds_last = trio.current_time() - self._since
        if self.stalled is not None:
            self.stalled = None
            self.on_change()

    async def abandon(self) -> None:
        """Wait for the thread, whatever came of the batch: the log has failed."""
        with suppress(StorageError):
            await self._thread.finish()

    async def watch(self) -> None:
        """Notice batches that take long, for ever; the caller gives this a task."""
        while True:
            await trio.sleep(POLL_SECONDS)
            if self._batch is None:
                continue
            seconds = trio.current_time() - self._since
            if seconds > STALLED_SECONDS and self.stalled is None:
                self._stall(ArchiveUnavailableError("it has not answered for a second"))
            if seconds > UNKNOWN_SECONDS and not self.doubted:
                self.doubted = True
                self._on_doubt(self.waiting())

    async def close(self) -> None:
        """Close the connection; nothing is under way."""
        with suppress(trio.BusyResourceError):
            await self._thread.run_sync(self._writer.close)

    def _stall(self, error: ArchiveUnavailableError) -> None:
        changed = self.stalled is None
        self.stalled = error
        if changed:
            self.on_change()

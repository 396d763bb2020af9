"""The flusher: moves durable records from memory into the archive, in log order.

It holds a queue whose head is the record at LSN `cursor`. A flush takes up to `rows_max` records
from the head into one transaction, `interval_ms` after the oldest came at the latest. Only when
the archive is known to have committed does the cursor move, and only then is `on_flushed` told,
which frees them: so at every moment a record is in memory here or in the archive. An archive that went
back is told in the same way, with no records and the cursor that it was found at.

What a failed flush leads to::

    archive unavailable     retry with backoff, for ever; appends go on, the runtime bounds the memory
    outcome unknown         the same; the retry finds the cursor where it was left, or past the batch:
                            the commit was there after all, go on
    cursor below            the archive was restored: flush again, from the log, what it lost
    another cursor          someone else writes here: fatal
    fenced, row conflict    fatal

Encoding and SQL run elsewhere: in a process of their own (`FlushProcess`) or in a worker thread
(`FlushThread`). Neither is ever abandoned: a COMMIT that was begun is waited for, whatever is cancelled
meanwhile.
"""

import random
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, islice
from typing import Any, Protocol

import msgspec
import trio

from storage.errors import ArchiveUnavailableError, CursorMismatchError, StorageError
from storage.failpoints import failpoint
from storage.record import Record

FREE_ROWS = 2_500
"""Records freed in one go: about 1 ms of the loop. Each other piece waits for a turn of the loop, which a busy
one takes 20 ms for, and the next flush waits for them all."""


class FlushOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much is flushed at once, how soon, and how a failing archive is retried."""

    rows_max: int = 5_000
    """Beyond this a larger transaction is no faster, and takes longer to repeat."""

    bytes_max: int = 8 * 2**20
    """Bodies in one transaction: what is encoded, sent and held twice in memory meanwhile."""

    interval_ms: int = 300
    """How long a record waits for others: the archive's usual lag."""

    backoff_ms: int = 50
    backoff_ms_max: int = 5_000
    """How long an archive that came back may stay unnoticed."""


class FlushTarget(Protocol):
    """Where an archive's writes are done."""

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Do `Archive.flush`; return or raise its outcome, also when cancelled."""
        ...


class SyncFlush(Protocol):
    """What `FlushThread` needs of an archive."""

    def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Commit the records, and the cursor past them, in one transaction."""
        ...


class RunSync(Protocol):
    """Runs a blocking call in a thread that is never abandoned."""

    def __call__(self, call: Callable[[], Any], /) -> Awaitable[Any]:
        """Return what the call returns."""
        ...


class FlushThread:
    """An archive's flush in a worker thread of this process."""

    def __init__(self, archive: SyncFlush, run_sync: RunSync | None = None) -> None:
        self._archive = archive
        # A limiter of its own, so that a flush never waits behind the threads of readers.
        self._run_sync = run_sync or partial(
            trio.to_thread.run_sync, limiter=trio.CapacityLimiter(1)
        )

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Do `Archive.flush` in the thread."""
        await self._run_sync(partial(self._archive.flush, node_id, epoch, cursor, records))


class Flusher:
    """One owner's queue of durable records on their way to the archive.

    Its methods and attributes are for the event loop's thread only.
    """

    def __init__(
        self,
        target: FlushTarget,
        node_id: str,
        epoch: int,
        cursor: int,
        *,
        on_flushed: Callable[[Sequence[Record], int], None],
        reread: Callable[[int, int, int], list[Record]],
        options: FlushOptions = FlushOptions(),  # noqa: B008 - frozen
        run_sync: RunSync | None = None,
    ) -> None:
        self.node_id = node_id
        self.cursor = cursor
        self.last_error: StorageError | None = None
        self.failing_since: float | None = None
        self._target = target
        self._epoch = epoch
        self._on_flushed = on_flushed
        self._reread = reread
        self._options = options
        self._run_sync = run_sync or trio.to_thread.run_sync
        # The head's LSN is `cursor`: a record leaves only when the archive has it.
        self._queue: deque[Record] = deque()
        self._kicked_to = cursor
        # A push that makes the queue this long wakes the task up.
        self._wake_rows = 1
        self._wake = trio.Event()
        self._flushed = trio.Event()
        self._doubted = False
        self._stopped = False
        # The head was pushed no earlier than `_oldest_at`. A mark says that below its LSN end
        # everything had been pushed at its time.
        self._oldest_at = 0.0
        self._marks: deque[tuple[int, float]] = deque()

    @property
    def backlog_rows(self) -> int:
        """How many durable records the archive does not have."""
        return len(self._queue)

    def lag_seconds(self) -> float:
        """Return how long the oldest of them has waited, at most."""
        return trio.current_time() - self._oldest_at if self._queue else 0.0

    def push(self, record: Record) -> None:
        """Take the next durable record, in LSN order."""
        queue = self._queue
        queue.append(record)
        if len(queue) >= self._wake_rows:
            self._wake_up()

    def extend(self, records: Iterable[Record]) -> None:
        """Take the next durable records, in LSN order."""
        self._queue.extend(records)
        if len(self._queue) >= self._wake_rows:
            self._wake_up()

    async def wait_flushed(self, lsn_end: int) -> None:
        """Flush without waiting for more, and return when the archive has all below `lsn_end`.

        Raises:
            ClosedResourceError: the flusher ended before that.
        """
        self._kicked_to = max(self._kicked_to, lsn_end)
        while self.cursor < lsn_end:
            if self._stopped:
                raise trio.ClosedResourceError
            self._wake.set()
            await self._flushed.wait()
        await trio.lowlevel.checkpoint()

    async def flush_all(self) -> None:
        """Return when the archive has everything that was pushed before this call."""
        await self.wait_flushed(self.cursor + len(self._queue))

    def doubt_cursor(self) -> None:
        """Compare the cursor with the archive's, also if there is nothing to flush.

        For who saw an archive that is behind: what it lost is flushed again from the log.
        """
        self._doubted = True
        self._wake.set()

    async def run(self) -> None:
        """Flush, for ever.

        Raises:
            StorageError: what no retry can heal: fenced, another row or cursor in the archive.
        """
        try:
            while True:
                await self._gather()
                await self._flush_head()
        finally:
            self._stopped = True
            self._flushed.set()

    def _wake_up(self) -> None:
        if self._wake_rows == 1:
            self._oldest_at = trio.current_time()
        self._wake_rows = sys.maxsize
        self._wake.set()

    async def _gather(self) -> None:
        """Wait until there is something to flush, and until it is worth it or due."""
        if not self._queue:
            self._wake_rows = 1
            while not self._queue and not self._doubted:
                await self._wake.wait()
                self._wake = trio.Event()
        self._wake_rows = self._options.rows_max
        due_at = self._oldest_at + self._options.interval_ms / 1000
        with trio.move_on_at(due_at):
            while not self._is_worth_it():
                await self._wake.wait()
                self._wake = trio.Event()
        self._wake_rows = sys.maxsize

    def _is_worth_it(self) -> bool:
        enough = len(self._queue) >= self._options.rows_max
        return enough or self._kicked_to > self.cursor or self._doubted

    async def _flush_head(self) -> None:
        """Bring the head of the queue into the archive, however long that takes, and free it."""
        self._marks.append((self.cursor + len(self._queue), trio.current_time()))
        self._doubted = False
        batch = self._take()
        attempts = 0
        while True:
            try:
                if await self._attempt(batch, repeated=attempts > 0):
                    break
            except ArchiveUnavailableError as error:
                self.last_error = error
                if self.failing_since is None:
                    self.failing_since = trio.current_time()
                await trio.sleep(self._backoff_seconds(attempts))
                attempts += 1
        self.last_error = self.failing_since = None
        failpoint("flush.known")
        await self._free(batch)

    async def _attempt(self, batch: list[Record], *, repeated: bool) -> bool:
        """Return whether the archive has the batch now; if not, it came one step nearer.

        An attempt whose outcome is unknown is not looked up but repeated. Where its transaction is
        still under way, the cursor's row makes this one wait for it, and then tells what came of it.
        """
        try:
            await self._target.flush(self.node_id, self._epoch, self.cursor, batch)
        except CursorMismatchError as mismatch:
            if repeated and mismatch.found == self.cursor + len(batch):
                return True
            if mismatch.found >= self.cursor:
                raise
            # What the archive lost must not be removed from the log meanwhile.
            self._on_flushed((), mismatch.found)
            await self._flush_again(mismatch)
            return False
        return True

    async def _flush_again(self, mismatch: CursorMismatchError) -> None:
        """Flush once more what a restored archive lost: a batch of it, out of the log."""
        from_lsn = mismatch.found
        to_lsn = min(from_lsn + self._options.rows_max, self.cursor)
        reread = partial(self._reread, from_lsn, to_lsn, self._options.bytes_max)
        records = await self._run_sync(reread)
        if not records:
            raise mismatch
        try:
            await self._target.flush(self.node_id, self._epoch, from_lsn, records)
        except CursorMismatchError as moved:
            # It went back once more: the next attempt finds out how far.
            if moved.found >= self.cursor:
                raise

    def _take(self) -> list[Record]:
        """Return the head of the queue: as many records as fit in one transaction, at least one."""
        batch = list(islice(self._queue, self._options.rows_max))
        ends = list(accumulate([len(record.body) for record in batch]))
        del batch[max(1, bisect_right(ends, self._options.bytes_max)) :]
        return batch

    async def _free(self, batch: list[Record]) -> None:
        """The archive has the batch: only now may it be forgotten here.

        A piece at a time, so that acknowledgements need not wait for all of it; and to its end even when
        cancelled, so that the cursor is the archive's again.
        """
        for start in range(0, max(1, len(batch)), FREE_ROWS):
            if start:
                await trio.lowlevel.cancel_shielded_checkpoint()
            piece = batch[start : start + FREE_ROWS]
            for _ in piece:
                self._queue.popleft()
            self.cursor += len(piece)
            self._on_flushed(piece, self.cursor)
        while self._marks and self._marks[0][0] <= self.cursor:
            self._oldest_at = self._marks.popleft()[1]
        self._flushed.set()
        self._flushed = trio.Event()

    def _backoff_seconds(self, attempts: int) -> float:
        # Jitter, so that the nodes of a cluster do not come back all at once.
        exponential = self._options.backoff_ms * 2.0 ** min(attempts, 16)
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        return min(exponential, self._options.backoff_ms_max) * jitter / 1000

"""The way from a node to its database server and back, and what the server does with transactions.

A statement goes out, and its answer comes back: at either moment the connection may break, the client die, the server
restart. What a COMMIT came to may never be told, and it may happen long after its client gave up.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from storage import ArchiveUnavailableError, StorageError
from tests.simulation.rows import Rows, Transaction
from tests.simulation.scheduler import CALLER
from tests.simulation.weather import PATIENCE_SECONDS, SLOW_COMMIT_SECONDS_MAX, Weather

T = TypeVar("T")

BEATS = "beats"
"""What a transaction is called that is of no interest."""

ADDS = " adds "
"""What is in the name of a transaction that adds a batch."""

DYING_COMMIT_SECONDS = 1.5
"""When the COMMIT arrives that was the last thing that a process sent."""


class Server:
    """A server, its rows, and the transactions that are open."""

    def __init__(self, weather: Weather, note: Callable[[str], None]) -> None:
        self.rows = Rows()
        self.weather = weather
        self.nursery: trio.Nursery
        self._note = note
        self._open: dict[Transaction, None] = {}

    def restart(self) -> None:
        """Everything that has not committed is gone."""
        for transaction in self._open:
            transaction.end()
        self._open.clear()

    def end_connections(self, name: str) -> None:
        """End the transactions on connections of a name; one whose COMMIT has arrived may be done all the same."""
        for transaction in list(self._open):
            if transaction.connections == name:
                if transaction.is_committing and self.weather.random.random() < 0.5:
                    self._do_commit(transaction)
                self._end(transaction)

    async def read(self, query: Callable[[], T]) -> T:
        await self.weather.travel()
        result = query()
        await self.weather.travel()
        return result

    async def next(self, transaction: Transaction) -> None:
        """The answer to one statement comes back, and the next statement goes out."""
        await self.weather.travel()
        transaction.check_open()

    async def transact(
        self,
        name: str,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        autocommit: bool = False,
    ) -> T:
        """Run a transaction; one that is a single statement may commit by itself."""
        await self.weather.travel()
        transaction = self.rows.begin()
        self._open[transaction] = None
        caller = CALLER.get()
        transaction.name = f"{caller.name if caller else 'operator'} {name}"
        transaction.connections = caller.connections if caller else ""
        try:
            result = await work(transaction)
            if not autocommit:
                await self.next(transaction)
            await self._commit(transaction)
        except (trio.Cancelled, OSError, ArchiveUnavailableError) as error:
            # What cancels is named by its address in memory, which is another one each time.
            reason = error if isinstance(error, ArchiveUnavailableError) else "its client is gone"
            self._note(f"{transaction.name}: {reason}")
            # The client is gone, or takes the server for gone; when the server notices is its own affair.
            if not transaction.lingers:
                self._linger(transaction, commits=False, seconds=self.weather.noticed_after())
            raise
        except StorageError as error:
            self._note(f"{transaction.name}: refused, {error}")
            raise
        finally:
            if not transaction.lingers:
                self._end(transaction)
        await self.weather.travel()
        return result

    async def _commit(self, transaction: Transaction) -> None:
        """Send COMMIT, and return when it was done.

        Raises:
            ArchiveUnavailableError: it was not, or not yet, or who knows.
        """
        caller = CALLER.get()
        beats = transaction.name.endswith(BEATS)
        dies_at = None if caller is None else caller.dies_at
        dies = dies_at is not None and dies_at in transaction.name and not beats
        seconds = self.weather.commit_seconds()
        hangs = caller is not None and caller.hangs_at_batch and ADDS in transaction.name
        if hangs:
            seconds = self.weather.random.uniform(0.5, SLOW_COMMIT_SECONDS_MAX)
        if seconds or dies:
            arrives = dies or hangs or self.weather.commit_arrives()
            self._linger(transaction, commits=arrives, seconds=seconds or DYING_COMMIT_SECONDS)
            if caller is not None and hangs:
                caller.hangs_at_batch = False
                caller.pause()
            if caller is not None and dies:
                caller.kill()
            await trio.sleep(min(seconds, PATIENCE_SECONDS))
            await trio.lowlevel.checkpoint()
            if not transaction.committed:
                raise ArchiveUnavailableError("no answer to COMMIT")
        elif not self._do_commit(transaction):
            raise ArchiveUnavailableError("terminating connection")
        if self.weather.answer_is_lost():
            raise ArchiveUnavailableError("the answer to COMMIT was lost")

    def _linger(self, transaction: Transaction, *, commits: bool, seconds: float) -> None:
        """Leave a transaction to the server, which ends it after a while."""
        transaction.lingers = True
        transaction.is_committing = commits
        self.nursery.start_soon(self._end_later, transaction, commits, seconds)

    async def _end_later(self, transaction: Transaction, commits: bool, seconds: float) -> None:
        await trio.sleep(seconds)
        if commits:
            self._do_commit(transaction)
        self._end(transaction)

    def _do_commit(self, transaction: Transaction) -> bool:
        done = transaction.commit()
        if done and not transaction.name.endswith(BEATS):
            self._note(transaction.name + (" (late)" if transaction.lingers else ""))
        return done

    def _end(self, transaction: Transaction) -> None:
        transaction.end()
        self._open.pop(transaction, None)

"""Rows and transactions as PostgreSQL has them at READ COMMITTED, in memory.

Each statement sees what was committed when it began, and what its own transaction wrote. One that locks or
changes rows takes those that match in that view; where another transaction holds one of them it waits for its end, and
then looks at the newest version again: a row that no longer matches is passed over. Locks are held until the
transaction ends. ``FOR SHARE`` bars ``UPDATE`` and ``FOR UPDATE``, and is barred by them.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import trio

from storage import ArchiveUnavailableError

LOCK_SECONDS = 10.0
"""`lock_timeout` of `storage.postgres`."""

Key = tuple[Hashable, ...]
"""A table's name and a primary key."""

Where = Callable[[Any], bool]


class DeadlockError(AssertionError):
    """Transactions wait for each other in a circle: locks are taken in no fixed order."""


class Rows:
    """All tables: committed rows, which are values, by key; and who holds which."""

    def __init__(self) -> None:
        self.committed: dict[Key, Any] = {}
        self._shared: dict[Key, dict[Transaction, None]] = {}
        self._exclusive: dict[Key, Transaction] = {}
        self._released = trio.lowlevel.ParkingLot()

    def begin(self) -> "Transaction":
        """Begin a transaction."""
        return Transaction(self)

    def barring(self, key: Key, asker: "Transaction", *, share: bool) -> list["Transaction"]:
        """Return who keeps a transaction from locking a row."""
        holder = self._exclusive.get(key)
        barring = [] if holder is None else [holder]
        if not share:
            barring += self._shared.get(key, ())
        return [other for other in barring if other is not asker]

    async def take(self, key: Key, asker: "Transaction", *, share: bool) -> None:
        """Lock a row for a transaction, when nobody else bars it."""
        if self.barring(key, asker, share=share):
            await self._wait(key, asker, share=share)
        if share:
            self._shared.setdefault(key, {})[asker] = None
        else:
            self._exclusive[key] = asker
        asker.held[key] = None

    async def _wait(self, key: Key, asker: "Transaction", *, share: bool) -> None:
        with trio.move_on_after(LOCK_SECONDS) as patience:
            try:
                while not asker.ended and (barring := self.barring(key, asker, share=share)):
                    asker.waits_for = barring
                    _check_no_circle(asker)
                    await self._released.park()
            finally:
                asker.waits_for = []
        asker.check_open()
        if patience.cancelled_caught:
            raise ArchiveUnavailableError(f"lock timeout on {key}")

    def release(self, holder: "Transaction") -> None:
        """Give up all that a transaction holds."""
        for key in holder.held:
            self._shared.get(key, {}).pop(holder, None)
            if self._exclusive.get(key) is holder:
                del self._exclusive[key]
        holder.held.clear()
        self._released.unpark_all()


class Transaction:
    """One transaction; what it writes is nobody else's until it commits."""

    def __init__(self, rows: Rows) -> None:
        self.name = ""
        self.connections = ""
        """What the connection that it runs on is called."""
        self.held: dict[Key, None] = {}
        self.waits_for: list[Transaction] = []
        self.ended = False
        self.committed = False
        self.lingers = False
        """Whether nobody but the server knows of it any more."""
        self.is_committing = False
        """Whether its COMMIT has arrived, and is slow."""
        self._rows = rows
        self._written: dict[Key, Any] = {}

    def read(self, key: Key) -> Any:
        """Return a row as a statement that begins now sees it; None where there is none."""
        return self._written[key] if key in self._written else self._rows.committed.get(key)

    async def lock(self, key: Key, where: Where, *, share: bool = False) -> Any:
        """SELECT … WHERE … FOR UPDATE, or FOR SHARE: return the row, or None if it does not match."""
        if not _matches(self.read(key), where):
            return None
        await self._rows.take(key, self, share=share)
        newest = self.read(key)
        return newest if _matches(newest, where) else None

    async def update(
        self, keys: Iterable[Key], where: Where, change: Callable[[Any], Any]
    ) -> list[Key]:
        """UPDATE … WHERE …: return which rows were changed."""
        seen = [key for key in keys if _matches(self.read(key), where)]
        changed = []
        for key in seen:
            await self._rows.take(key, self, share=False)
            newest = self.read(key)
            if _matches(newest, where):
                self._written[key] = change(newest)
                changed.append(key)
        return changed

    async def delete(self, keys: Iterable[Key], where: Where) -> None:
        """DELETE … WHERE …."""
        await self.update(keys, where, lambda _: None)

    async def insert(self, key: Key, value: Any) -> bool:
        """INSERT … ON CONFLICT DO NOTHING: return whether there was no such row."""
        if self.read(key) is not None:
            return False
        await self._rows.take(key, self, share=False)
        if self.read(key) is not None:
            return False
        self._written[key] = value
        return True

    def commit(self) -> bool:
        """Make what was written everybody's; return False if the server ended the transaction before."""
        if self.ended:
            return False
        for key, value in self._written.items():
            if value is None:
                self._rows.committed.pop(key, None)
            else:
                self._rows.committed[key] = value
        self.committed = True
        self.end()
        return True

    def end(self) -> None:
        """End it; without a commit nothing was written."""
        if not self.ended:
            self.ended = True
            self._rows.release(self)

    def check_open(self) -> None:
        """Raise ArchiveUnavailableError if the server ended it."""
        if self.ended:
            raise ArchiveUnavailableError("terminating connection")


def _matches(row: Any, where: Where) -> bool:
    return row is not None and where(row)


def _check_no_circle(asker: Transaction) -> None:
    waiting = list(asker.waits_for)
    seen = set()
    while waiting:
        other = waiting.pop()
        if other is asker:
            raise DeadlockError
        if other not in seen:
            seen.add(other)
            waiting += other.waits_for

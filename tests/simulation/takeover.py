"""Replication and takeover as designed, in a model: each batch is in the log and in `log_batches` before it is acknowledged.

An owner that is not heard of is taken over: its epoch is sealed, then what `log_batches` holds of it past its cursor is
archived, and its slots change hands, in one transaction that holds the sealed epoch. One that returns takes a new epoch
by compare-and-swap, reads `log_batches` after that, and sets aside exactly the records of its own log that are past the
cursor and of epochs up to `sealed_epoch`. Rows, connections and clocks are those of the whole simulation.

A model, because the protocol was to be checked before it was built: what it calls an owner is written here.
"""

import enum
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import trio

from storage import ArchiveUnavailableError, CursorMismatchError, FencedError
from tests.simulation.archive import OwnerEpoch
from tests.simulation.rows import Key, Transaction
from tests.simulation.scheduler import CALLER
from tests.simulation.server import BEATS, Server

T = TypeVar("T")

RETRY_SECONDS = 0.1

DEAD_SECONDS = 1.2
"""How long a node's heartbeat stands still before it is taken over; a pause or a cut may be longer."""

BEAT_SECONDS = 0.3
FLUSH_SECONDS = 0.3


class Flaw(enum.StrEnum):
    """One part of the protocol taken away."""

    EPOCH_DIFFERENCE = "epoch difference instead of sealed_epoch"
    READ_BEFORE_SEAL = "log_batches read before the seal"
    LOCAL_ONLY = "ack after local only"
    NOTHING_SET_ASIDE = "nothing set aside"
    SEAL_NOT_HELD = "slots change hands without the sealed epoch"
    BATCH_WITHOUT_EPOCH = "batch inserted without the epoch"
    READ_BEFORE_EPOCH = "log_batches read before the new epoch"


class Entry(NamedTuple):
    """A record: a message of the only session in a slot."""

    lsn: int
    slot: int
    seq: int
    text: str


class Observer(Protocol):
    """What a schedule hears of its owners."""

    def note(self, line: str) -> None:
        """Something has happened."""

    def acknowledged(self, name: str, entry: Entry) -> None:
        """A message was said to be durable."""


class Disk:
    """A log: entries with the epoch that wrote them, and how high LSNs went."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, Entry]] = []
        self.next_lsn = 0

    def write(self, epoch: int, entries: list[Entry]) -> None:
        """Make entries durable."""
        self.entries += [(epoch, entry) for entry in entries]
        self.next_lsn = max([self.next_lsn, *(entry.lsn + 1 for entry in entries)])


class Tables:
    """The keys of what the archive holds, in the model."""

    def __init__(self, server: Server, slots: int, names: tuple[str, ...]) -> None:
        self.server = server
        self.names = names
        self.slots = [("slots", slot) for slot in range(slots)]
        self._tops: dict[Key, int] = {}
        committed = server.rows.committed
        for name in names:
            committed["owner_epochs", name] = OwnerEpoch(0, 0)
            committed["flush_cursors", name] = 0
            committed["nodes", name] = 1
        for slot, key in enumerate(self.slots):
            committed[key] = names[slot % len(names)]

    def touch(self, table: str, of: int | str, number: int) -> Key:
        """Return the key of a numbered row that may be written."""
        self._tops[table, of] = max(self._tops.get((table, of), -1), number)
        return (table, of, number)

    def numbered(self, table: str, of: int | str, first: int = 0) -> list[Key]:
        """Return the keys of all rows from a number on that there may be."""
        return [(table, of, number) for number in range(first, self._tops.get((table, of), -1) + 1)]

    def entries(self, slot: int) -> list[Entry]:
        """Return the messages that are committed, by seq."""
        committed = self.server.rows.committed
        keys = self.numbered("messages", slot)
        return [entry for key in keys if (entry := committed.get(key)) is not None]


class Serving:
    """A slot that is served: its head, and the seq of each message that has one."""

    def __init__(self, archived: list[Entry]) -> None:
        self.next_seq = len(archived) + 1
        self.known = {entry.text: entry for entry in archived}


class Owner:
    """One life of one node."""

    dies_at_commit = False

    def __init__(
        self,
        name: str,
        tables: Tables,
        disk: Disk,
        observer: Observer,
        flaw: Flaw | None,
        *,
        replicated: bool,
    ) -> None:
        self.name = name
        self.disk = disk
        self.dead = False
        self.serving: dict[int, Serving] = {}
        self.unflushed: list[Entry] = []
        self._waiting: dict[tuple[int, str], list[Callable[[], None]]] = {}
        self._tables = tables
        self._server = tables.server
        self._observer = observer
        self._flaw = flaw
        self._replicated = replicated
        self._epoch = 0
        self._cursor = 0
        self._next_lsn = 0
        self._gathering: list[Entry] = []
        self._scope = trio.CancelScope()
        self._resumed: trio.Event | None = None
        self._heard: dict[str, tuple[int, float]] = {}

    # A process among others

    async def step(self) -> None:
        while self._resumed is not None:
            await self._resumed.wait()

    def kill(self) -> None:
        self.dead = True
        self._scope.cancel()

    def pause(self) -> None:
        """Make no step until `resume`."""
        if self._resumed is None:
            self._resumed = trio.Event()

    def resume(self) -> None:
        """Go on."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    async def call(self, call: Callable[..., object], args: tuple[object, ...]) -> object:
        raise AssertionError("a model has no threads")

    async def run(self) -> None:
        """Live until killed or fenced.

        Raises:
            FencedError: it was taken over.
        """
        CALLER.set(self)
        with self._scope:
            await self._start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._commit_batches)
                nursery.start_soon(self._flush_for_ever)
                nursery.start_soon(self._beat)

    # Starting, and coming back

    async def _start(self) -> None:
        early = await self._read_batches(self.name, 0)
        owner = await self._take_epoch()
        self._cursor = await self._patiently(
            lambda: self._server.read(lambda: self._read_cursor(self.name))
        )
        batches = await self._read_batches(self.name, self._cursor)
        if self._flaw is Flaw.READ_BEFORE_EPOCH:
            batches = [entry for entry in early if entry.lsn >= self._cursor]
        own = self._recover(owner.sealed_epoch)
        there = {entry.lsn for entry in batches}
        if self._replicated:
            await self._ship([entry for entry in own if entry.lsn not in there])
        merged = {entry.lsn: entry for entry in (*batches, *own)}
        # Rewritten under the new epoch, as all that a recovery keeps.
        survivors = [merged[lsn] for lsn in sorted(merged)]
        self.disk.entries.clear()
        self.disk.write(self._epoch, survivors)
        self._next_lsn = max(self.disk.next_lsn, self._cursor)
        self.unflushed = survivors
        while self.unflushed:
            await self._flush()
        await self._serve_own()
        self._observer.note(f"{self.name} serves under epoch {self._epoch}")

    async def _take_epoch(self) -> OwnerEpoch:
        key = ("owner_epochs", self.name)

        async def take(transaction: Transaction) -> OwnerEpoch | None:
            seen: OwnerEpoch = transaction.read(key)
            await self._server.next(transaction)
            taken = await transaction.update(
                [key],
                lambda row: row.epoch == seen.epoch,
                lambda row: row._replace(epoch=row.epoch + 1),
            )
            return transaction.read(key) if taken else None

        while True:
            owner = await self._patiently(lambda: self._server.transact("takes an epoch", take))
            if owner is not None:
                self._epoch = owner.epoch
                return owner

    def _recover(self, sealed_epoch: int) -> list[Entry]:
        """Return what counts of the log past the cursor."""
        log = [(epoch, entry) for epoch, entry in self.disk.entries if entry.lsn >= self._cursor]
        if self._flaw is Flaw.NOTHING_SET_ASIDE:
            sealed_epoch = 0
        if self._flaw is Flaw.EPOCH_DIFFERENCE:
            last = max((epoch for epoch, _ in log), default=0)
            sealed_epoch = last if self._epoch > last + 1 else 0
        return [entry for epoch, entry in log if epoch > sealed_epoch]

    async def _serve_own(self) -> None:
        """Serve what it owns by the archive, which holds all of it."""
        committed = self._server.rows.committed

        def read() -> dict[int, Serving]:
            return {
                slot: Serving(self._tables.entries(slot))
                for slot, key in enumerate(self._tables.slots)
                if committed[key] == self.name and slot not in self.serving
            }

        self.serving |= await self._patiently(lambda: self._server.read(read))

    # Appending

    def append(self, slot: int, text: str, answer: Callable[[], None]) -> None:
        """Take a message, or join the one that is known; `answer` is called once it is durable."""
        serving = self.serving[slot]
        entry = serving.known.get(text)
        if entry is None:
            entry = Entry(self._next_lsn, slot, serving.next_seq, text)
            self._next_lsn += 1
            serving.next_seq += 1
            serving.known[text] = entry
            self._waiting[slot, text] = []
            self._gathering.append(entry)
        if (slot, text) in self._waiting:
            self._waiting[slot, text].append(answer)
        else:
            self._acknowledge(entry)
            answer()

    async def _commit_batches(self) -> None:
        while True:
            await trio.sleep(0.02)
            if not self._gathering:
                continue
            batch, self._gathering = self._gathering, []
            async with trio.open_nursery() as nursery:
                if self._replicated:
                    nursery.start_soon(self._ship, batch)
                await self._sync(batch)
                if self._flaw is Flaw.LOCAL_ONLY:
                    self._commit(batch)
            if self._flaw is not Flaw.LOCAL_ONLY:
                self._commit(batch)
            self.unflushed += batch

    async def _sync(self, batch: list[Entry]) -> None:
        await self._server.weather.turn_disk()
        await self.step()
        self.disk.write(self._epoch, batch)

    async def _ship(self, batch: list[Entry]) -> None:
        """Insert a batch, under the epoch's lock, in one statement; again until that is known or refused."""
        if not batch:
            return

        async def insert(transaction: Transaction) -> None:
            if self._flaw is not Flaw.BATCH_WITHOUT_EPOCH:
                await self._check_epoch(transaction, self.name, self._epoch)
            for entry in batch:
                await self._insert(transaction, "log_batches", self.name, entry.lsn, entry)

        name = f"ships {batch[0].lsn} to {batch[-1].lsn}"
        await self._patiently(lambda: self._server.transact(name, insert))

    def _commit(self, batch: list[Entry]) -> None:
        for entry in batch:
            self._acknowledge(entry)
            for answer in self._waiting.pop((entry.slot, entry.text)):
                answer()

    def _acknowledge(self, entry: Entry) -> None:
        if not self.dead:
            self._observer.acknowledged(self.name, entry)

    # Flushing

    async def _flush_for_ever(self) -> None:
        while True:
            await trio.sleep(FLUSH_SECONDS)
            if self.unflushed:
                await self._flush()

    async def _flush(self) -> None:
        batch = list(self.unflushed)
        end = batch[-1].lsn + 1

        async def flush(transaction: Transaction) -> None:
            await self._check_epoch(transaction, self.name, self._epoch)
            await self._archive(transaction, self.name, self._cursor, end, batch)

        name = f"flushes {self._cursor} to {end}"
        try:
            await self._patiently(lambda: self._server.transact(name, flush))
        except CursorMismatchError as mismatch:
            # An earlier attempt was committed after all.
            if mismatch.found != end:
                raise
        self._cursor = end
        del self.unflushed[: len(batch)]

    async def _archive(
        self, transaction: Transaction, name: str, cursor: int, end: int, batch: list[Entry]
    ) -> None:
        """Move a node's cursor, add the rows and drop the batches below it."""
        key = ("flush_cursors", name)
        await self._server.next(transaction)
        if not await transaction.update([key], lambda lsn: lsn == cursor, lambda _: end):
            raise CursorMismatchError(cursor, transaction.read(key))
        await self._server.next(transaction)
        for entry in batch:
            await self._insert(transaction, "messages", entry.slot, entry.seq, entry)
        await self._server.next(transaction)
        below = [
            batch_key
            for batch_key in self._tables.numbered("log_batches", name)
            if (held := transaction.read(batch_key)) is not None and held.lsn < end
        ]
        await transaction.update(below, lambda _: True, lambda _: None)

    async def _insert(
        self, transaction: Transaction, table: str, of: int | str, number: int, entry: Entry
    ) -> None:
        """Insert a row, or find it there already; another one under its key is fatal."""
        key = self._tables.touch(table, of, number)
        if not await transaction.insert(key, entry) and transaction.read(key) != entry:
            raise AssertionError(f"{entry} meets {transaction.read(key)}")

    async def _check_epoch(self, transaction: Transaction, name: str, epoch: int) -> None:
        held = await transaction.lock(
            ("owner_epochs", name),
            lambda row: row.epoch == epoch and row.sealed_epoch < epoch,
            share=True,
        )
        if held is None:
            raise FencedError(name, epoch)

    # Living, and noticing who does not

    async def _beat(self) -> None:
        async def beat(transaction: Transaction) -> None:
            await self._check_epoch(transaction, self.name, self._epoch)
            await transaction.update([("nodes", self.name)], lambda _: True, lambda beat: beat + 1)

        while True:
            await trio.sleep(BEAT_SECONDS)
            await self._patiently(lambda: self._server.transact(BEATS, beat))
            beats = await self._patiently(lambda: self._server.read(self._read_beats))
            if self._replicated:
                for name in self._silent(beats):
                    await self._take_over(name)

    def _read_cursor(self, name: str) -> int:
        cursor: int = self._server.rows.committed["flush_cursors", name]
        return cursor

    def _read_beats(self) -> dict[str, int]:
        committed = self._server.rows.committed
        return {name: committed["nodes", name] for name in self._tables.names}

    def _silent(self, beats: dict[str, int]) -> Iterator[str]:
        now = trio.current_time()
        for name, beat in beats.items():
            last, heard_at = self._heard.get(name, (beat, now))
            self._heard[name] = (beat, heard_at if last == beat else now)
            if name != self.name and now - self._heard[name][1] > DEAD_SECONDS:
                yield name

    async def _take_over(self, name: str) -> None:
        """Seal a node's epoch, archive what it left in `log_batches`, and take its slots."""
        early = await self._read_batches(name, 0)
        epoch = await self._seal(name)
        if epoch is None:
            return
        while True:
            cursor = await self._patiently(
                lambda: self._server.read(lambda: self._read_cursor(name))
            )
            batches = await self._read_batches(name, cursor)
            if self._flaw is Flaw.READ_BEFORE_SEAL:
                batches = [entry for entry in early if entry.lsn >= cursor]
            work = self._takeover(name, epoch, cursor, batches)
            try:
                await self._patiently(
                    lambda work=work: self._server.transact(f"takes {name} over", work)  # type: ignore[misc]
                )
            except CursorMismatchError:
                continue
            except FencedError as fenced:
                if fenced.node_id == self.name:
                    raise
                # It has come back by itself; but an attempt whose answer was lost may have been in time.
            await self._serve_own()
            return

    async def _seal(self, name: str) -> int | None:
        """Return the epoch that is sealed now, if the node owns anything and has not come back."""
        key = ("owner_epochs", name)

        async def seal(transaction: Transaction) -> int | None:
            if name not in [transaction.read(slot) for slot in self._tables.slots]:
                return None
            seen: OwnerEpoch = transaction.read(key)
            await self._server.next(transaction)
            sealed = await transaction.update(
                [key],
                lambda row: row.epoch == seen.epoch,
                lambda row: row._replace(sealed_epoch=row.epoch),
            )
            return seen.epoch if sealed else None

        return await self._patiently(lambda: self._server.transact(f"seals {name}", seal))

    def _takeover(
        self, name: str, epoch: int, cursor: int, batches: list[Entry]
    ) -> Callable[[Transaction], Awaitable[None]]:
        async def take(transaction: Transaction) -> None:
            await self._check_epoch(transaction, self.name, self._epoch)
            held = await transaction.lock(
                ("owner_epochs", name),
                lambda row: row == OwnerEpoch(epoch, epoch),
                share=True,
            )
            if held is None and self._flaw is not Flaw.SEAL_NOT_HELD:
                raise FencedError(name, epoch)
            end = batches[-1].lsn + 1 if batches else cursor
            await self._archive(transaction, name, cursor, end, batches)
            await transaction.update(
                self._tables.slots, lambda owner: owner == name, lambda _: self.name
            )

        return take

    async def _read_batches(self, name: str, cursor: int) -> list[Entry]:
        committed = self._server.rows.committed

        def read() -> list[Entry]:
            keys = self._tables.numbered("log_batches", name, cursor)
            return [entry for key in keys if (entry := committed.get(key)) is not None]

        return await self._patiently(lambda: self._server.read(read))

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the archive until it answers."""
        while True:
            try:
                return await ask()
            except ArchiveUnavailableError:
                await trio.sleep(RETRY_SECONDS)

"""The simulated archive's tables, and the statements that several of its transactions have."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from storage import (
    DEAD,
    JOINING,
    ArchiveConflictError,
    ArchiveOwnedError,
    CursorMismatchError,
    FencedError,
    MessageRecord,
    NodeEntry,
    NodeReturnedError,
    Place,
    Record,
    Ring,
    SessionRecord,
    membership,
)
from tests.simulation.mutation import Mutation
from tests.simulation.rows import Key, Transaction
from tests.simulation.server import Server
from tests.simulation.weather import Weather

VERSION = ("cluster", "ring_version")
DURABILITY = ("cluster", "durability")


class OwnerEpoch(NamedTuple):
    level: str
    epoch: int = 0
    sealed_epoch: int = 0
    settled_epoch: int = 0


class NodeRow(NamedTuple):
    address: str
    state: str
    weight: int
    beat: int
    patience_ms: int


class SlotRow(NamedTuple):
    owner: str
    target: str


class BatchRow(NamedTuple):
    first_lsn: int
    lsn_end: int
    payload: bytes
    epoch: int


class Tables:
    """What is in the database, and what several transactions do with it."""

    def __init__(
        self,
        weather: Weather,
        note: Callable[[str], None] = lambda _: None,
        mutation: Mutation | None = None,
    ) -> None:
        self.note = note
        self.server = Server(weather, note)
        self.rows = self.server.rows
        self._mutation = mutation
        self._slots: list[Key] = []
        self._nodes: list[str] = []
        self._tops: dict[tuple[str, str], int] = {}
        """The highest seq that anybody tried to write, by session."""
        self._batches: dict[str, set[int]] = {}
        """The LSNs at which anybody tried to add a batch, by node."""

    async def _register(
        self, transaction: Transaction, node_id: str, place: Place, patience_ms: int
    ) -> None:
        await self.server.next(transaction)
        await transaction.insert(VERSION, 0)
        await self.server.next(transaction)
        await transaction.lock(VERSION, always)
        await self.server.next(transaction)
        if transaction.read(("slots", 0)) is None:
            self._slots = [("slots", slot) for slot in range(place.slots)]
            for key in self._slots:
                await transaction.insert(key, SlotRow("", ""))
        await self.server.next(transaction)
        patience_ms = patience_ms and patience_ms + membership.STARTING_MS
        row = NodeRow(place.address, JOINING, place.weight, 0, patience_ms)
        if node_id not in self._nodes:
            self._nodes.append(node_id)
        if not await transaction.insert(("nodes", node_id), row):
            await transaction.update(
                [("nodes", node_id)],
                always,
                lambda row: row._replace(
                    address=place.address,
                    beat=row.beat + 1,
                    patience_ms=patience_ms,
                    state=JOINING if row.state == DEAD else row.state,
                ),
            )
        await self._move_version(transaction)

    def _check_reachable(self, transaction: Transaction, node_id: str) -> None:
        for other in sorted(self._nodes):
            owner = transaction.read(("owner_epochs", other))
            is_there = transaction.read(("nodes", other)) is not None
            if other == node_id or is_there or owner is None:
                continue
            if owner.sealed_epoch < owner.epoch:
                raise ArchiveOwnedError(other)

    async def _seal(self, transaction: Transaction, node_id: str, epoch: int) -> bool:
        sealed = await transaction.update(
            [("owner_epochs", node_id)],
            lambda row: row.epoch == epoch and row.sealed_epoch < epoch,
            lambda row: row._replace(sealed_epoch=epoch),
        )
        return bool(sealed)

    async def _settle_sealed(self, transaction: Transaction, node_id: str, epoch: int) -> bool:
        settled = await transaction.update(
            [("owner_epochs", node_id)],
            lambda row: row.epoch == epoch and row.sealed_epoch >= epoch,
            lambda row: row._replace(settled_epoch=epoch),
        )
        return bool(settled) or self._mutation is Mutation.SEAL_NOT_HELD

    async def _check_sealed(self, transaction: Transaction, node_id: str, epoch: int) -> None:
        def is_sealed(row: OwnerEpoch) -> bool:
            return row.epoch == epoch and row.sealed_epoch >= epoch

        if self._mutation is Mutation.SEAL_NOT_HELD:
            return
        key = ("owner_epochs", node_id)
        if await transaction.lock(key, is_sealed, share=True) is None:
            raise NodeReturnedError(node_id, epoch)

    async def _check_epoch(
        self, transaction: Transaction, node_id: str, epoch: int, *, locks: bool = True
    ) -> None:
        def is_held(row: OwnerEpoch) -> bool:
            return row.epoch == epoch and row.sealed_epoch < epoch

        if self._mutation is Mutation.NO_EPOCH_CHECK:
            return
        key = ("owner_epochs", node_id)
        if self._mutation is Mutation.EPOCH_WITHOUT_LOCK or not locks:
            row = transaction.read(key)
            held = row is not None and is_held(row)
        else:
            held = await transaction.lock(key, is_held, share=True) is not None
        if not held:
            raise FencedError(node_id, epoch)

    async def _hand_over(
        self,
        transaction: Transaction,
        slots: Sequence[int],
        where: Callable[[SlotRow], bool],
        owner: str,
    ) -> list[int]:
        await self.server.next(transaction)
        await transaction.lock(VERSION, always)
        await self.server.next(transaction)
        keys = [self._slots[slot] for slot in slots]
        changed = await transaction.update(keys, where, lambda row: row._replace(owner=owner))
        if changed:
            await self._move_version(transaction)
        return sorted(self._slots.index(key) for key in changed)

    async def _change_node(self, transaction: Transaction, node_id: str, **changes: object) -> None:
        await self.server.next(transaction)
        await transaction.update([("nodes", node_id)], always, lambda row: row._replace(**changes))

    async def _move_version(self, transaction: Transaction) -> int:
        await self.server.next(transaction)
        version: int = transaction.read(VERSION) + 1
        await transaction.update([VERSION], always, lambda _: version)
        return version

    async def _write(self, transaction: Transaction, record: Record) -> None:
        if isinstance(record, SessionRecord):
            key: Key = ("sessions", record.workspace, record.session)
            if not await transaction.insert(key, record):
                await transaction.update(
                    [key], lambda row: row.version < record.version, lambda _: record
                )
        elif isinstance(record, MessageRecord):
            name = (record.workspace, record.session)
            self._tops[name] = max(self._tops.get(name, 0), record.seq)
            key = ("messages", *name, record.seq)
            if not await transaction.insert(key, record) and transaction.read(key) != record:
                raise ArchiveConflictError("messages", "/".join(map(str, key[1:])))

    def _check_cursor(self, node_id: str, cursor: int) -> None:
        found = self.rows.committed.get(("flush_cursors", node_id), 0)
        if found < cursor:
            raise CursorMismatchError(cursor, found)

    def _batch_keys(self, node_id: str) -> list[Key]:
        return [("log_batches", node_id, lsn) for lsn in sorted(self._batches.get(node_id, ()))]

    def _ring(
        self, version: int, read: Callable[[Key], object], read_slot: Callable[[Key], object]
    ) -> Ring:
        entries = []
        for node_id in sorted(self._nodes):
            node, owner = read(("nodes", node_id)), read(("owner_epochs", node_id))
            if isinstance(node, NodeRow) and isinstance(owner, OwnerEpoch):
                sealed = owner.sealed_epoch >= owner.epoch
                entry = NodeEntry(
                    node_id,
                    node.address,
                    node.state,
                    node.weight,
                    node.beat,
                    owner.epoch,
                    sealed=sealed,
                    patience_ms=node.patience_ms,
                    level=owner.level,
                )
                entries.append(entry)
        slots = [row for key in self._slots if isinstance(row := read_slot(key), SlotRow)]
        return Ring(
            version,
            tuple(entries),
            tuple(row.owner for row in slots),
            tuple(row.target for row in slots),
        )


def always(row: object) -> bool:
    return True


def retargeted(target: str) -> Callable[[SlotRow], SlotRow]:
    return lambda row: row._replace(target=target)

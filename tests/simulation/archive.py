"""The archive, in memory: the product's transactions, statement by statement, on rows that lock as PostgreSQL's do.

Each method is one of `storage.Archive`, and a coroutine: between any two of its statements others take their turns.
`test_archive_model.py` compares the methods with the real archive's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from storage import (
    JOINING,
    ArchiveConflictError,
    CursorMismatchError,
    FencedError,
    MessageRecord,
    NodeEntry,
    Ownership,
    Place,
    PlannedChange,
    Record,
    Ring,
    RingChangedError,
    SessionRecord,
    SessionSnapshot,
)
from tests.simulation.mutation import Mutation
from tests.simulation.rows import Key, Transaction
from tests.simulation.server import BEATS, Server
from tests.simulation.weather import Weather

VERSION = ("cluster", "ring_version")
DURABILITY = ("cluster", "durability")


class OwnerEpoch(NamedTuple):
    epoch: int
    sealed_epoch: int


class NodeRow(NamedTuple):
    address: str
    state: str
    weight: int
    beat: int


class SlotRow(NamedTuple):
    owner: str
    target: str


class SimulatedArchive:
    """One database, and every node's way to it."""

    def __init__(
        self,
        weather: Weather,
        note: Callable[[str], None] = lambda _: None,
        mutation: Mutation | None = None,
    ) -> None:
        self.server = Server(weather, note)
        self.rows = self.server.rows
        self._mutation = mutation
        self._slots: list[Key] = []
        self._nodes: list[str] = []
        self._tops: dict[tuple[str, str], int] = {}
        """The highest seq that anybody tried to write, by session."""

    # What is done to the server

    def copy(self) -> dict[Key, object]:
        """Return all that is committed: a backup."""
        return dict(self.rows.committed)

    def restore(self, copy: dict[Key, object]) -> bool:
        """Put a backup in the place of what there is, unless that would undo a change of the ring."""
        if copy.get(VERSION) != self.rows.committed.get(VERSION):
            return False
        self.server.restart()
        self.rows.committed = dict(copy)
        return True

    def put_session(self, record: SessionRecord) -> None:
        """Let a session be there from the beginning."""
        self.rows.committed["sessions", record.workspace, record.session] = record

    def messages(self, workspace: str, session: str) -> list[MessageRecord]:
        """Return what is committed, by seq."""
        top = self._tops.get((workspace, session), 0)
        keys = [("messages", workspace, session, seq) for seq in range(1, top + 1)]
        return [self.rows.committed[key] for key in keys if key in self.rows.committed]

    def ring(self) -> Ring:
        """Return what is committed of the ring, at one moment."""
        read = self.rows.committed.get
        return self._ring(read(VERSION, 0), read, read)

    def epoch_of(self, node_id: str) -> OwnerEpoch:
        """Return a node's epoch as it is committed."""
        return self.rows.committed.get(("owner_epochs", node_id)) or OwnerEpoch(0, 0)

    def cursor_of(self, node_id: str) -> int:
        """Return a node's cursor as it is committed."""
        cursor: int = self.rows.committed.get(("flush_cursors", node_id), 0)
        return cursor

    # Ownership and flushing

    async def begin_epoch(
        self, node_id: str, level: str, above_epoch: int = 0, place: Place | None = None
    ) -> Ownership:
        async def begin(transaction: Transaction) -> Ownership:
            await transaction.insert(DURABILITY, level)
            await self.server.next(transaction)
            await transaction.lock(DURABILITY, _always)
            await self.server.next(transaction)
            owner = ("owner_epochs", node_id)
            await transaction.insert(owner, OwnerEpoch(0, 0))
            await self.server.next(transaction)
            await transaction.insert(("flush_cursors", node_id), 0)
            await self.server.next(transaction)
            await transaction.update(
                [owner],
                _always,
                lambda row: row._replace(epoch=max(row.epoch, above_epoch) + 1),
            )
            await self.server.next(transaction)
            taken = Ownership(
                transaction.read(owner).epoch, transaction.read(("flush_cursors", node_id))
            )
            if place is not None:
                await self._register(transaction, node_id, place)
            return taken

        return await self.server.transact("takes an epoch", begin)

    async def retire_node(self, node_id: str, epoch: int) -> bool:
        async def retire(transaction: Transaction) -> bool:
            sealed = await transaction.update(
                [("owner_epochs", node_id)],
                lambda row: row.epoch == epoch and row.sealed_epoch < epoch,
                lambda row: row._replace(sealed_epoch=epoch),
            )
            return bool(sealed)

        return await self.server.transact(f"retire {node_id[-4:]}", retire)

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        async def move(transaction: Transaction) -> None:
            await self._check_epoch(transaction, node_id, epoch)
            await self.server.next(transaction)
            moved = await transaction.update(
                [("flush_cursors", node_id)],
                lambda lsn: lsn == cursor or self._mutation is Mutation.CURSOR_NOT_COMPARED,
                lambda _: cursor + len(records),
            )
            if not moved:
                await self.server.next(transaction)
                found = transaction.read(("flush_cursors", node_id)) or 0
                raise CursorMismatchError(cursor, found)

        async def write(transaction: Transaction) -> None:
            for record in records:
                await self._write(transaction, record)

        async def both(transaction: Transaction) -> None:
            await move(transaction)
            await self.server.next(transaction)
            await write(transaction)

        if self._mutation is Mutation.CURSOR_OUTSIDE:
            await self.server.transact(f"moves the cursor from {cursor}", move)
            await self.server.transact(f"writes {len(records)} rows", write)
        else:
            await self.server.transact(f"flushes {cursor} to {cursor + len(records)}", both)

    # The ring

    async def read_ring(self) -> Ring:
        read = self.rows.committed.get
        version = await self.server.read(lambda: read(VERSION, 0))
        nodes: dict[Key, object] = await self.server.read(
            lambda: {
                key: read(key)
                for node_id in self._nodes
                for key in (("nodes", node_id), ("owner_epochs", node_id))
            }
        )
        return await self.server.read(lambda: self._ring(version, nodes.get, read))

    async def read_ring_version(self) -> int:
        version: int = await self.server.read(lambda: self.rows.committed.get(VERSION, 0))
        return version

    async def change_ring(self, change: PlannedChange) -> int:
        async def make(transaction: Transaction) -> int:
            found = await transaction.lock(VERSION, _always)
            if found != change.seen_version:
                raise RingChangedError(change.seen_version, found)
            for node_id, state in change.states:
                await self._change_node(transaction, node_id, state=state)
            for node_id, weight in change.weights:
                await self._change_node(transaction, node_id, weight=weight)
            await self.server.next(transaction)
            for slot, target in change.targets:
                await transaction.update([self._slots[slot]], _always, _retargeted(target))
            return await self._move_version(transaction)

        return await self.server.transact(change.action, make)

    async def claim_slots(self, node_id: str, epoch: int, slots: Sequence[int]) -> list[int]:
        early = self._mutation is Mutation.CLAIM_BEFORE_RELEASE

        async def claim(transaction: Transaction) -> list[int]:
            await self._check_epoch(transaction, node_id, epoch)
            return await self._hand_over(
                transaction,
                slots,
                lambda row: (early or row.owner == "") and row.target == node_id,
                node_id,
            )

        return await self.server.transact(f"claims {list(slots)}", claim)

    async def release_slots(
        self, node_id: str, epoch: int, cursor: int, slots: Sequence[int]
    ) -> list[int]:
        async def release(transaction: Transaction) -> list[int]:
            await self._check_epoch(transaction, node_id, epoch)
            await self.server.next(transaction)
            found = transaction.read(("flush_cursors", node_id)) or 0
            if found < cursor:
                raise CursorMismatchError(cursor, found)
            return await self._hand_over(transaction, slots, lambda row: row.owner == node_id, "")

        return await self.server.transact(f"releases {list(slots)} at {cursor}", release)

    async def beat(self, node_id: str, epoch: int) -> None:
        async def beat(transaction: Transaction) -> None:
            await self._check_epoch(transaction, node_id, epoch)
            await self.server.next(transaction)
            await transaction.update(
                [("nodes", node_id)], _always, lambda row: row._replace(beat=row.beat + 1)
            )

        await self.server.transact(BEATS, beat)

    async def read_beats(self) -> dict[str, int]:
        read = self.rows.committed
        return await self.server.read(
            lambda: {
                node_id: read["nodes", node_id].beat
                for node_id in sorted(self._nodes)
                if ("nodes", node_id) in read
            }
        )

    # Reading

    async def read_session(
        self,
        workspace: str,
        session: str,
        dedup_limit: int = 1_000,
        node_id: str = "",
        cursor: int = 0,
    ) -> SessionSnapshot | None:
        def read() -> SessionSnapshot | None:
            self._check_cursor(node_id, cursor)
            record = self.rows.committed.get(("sessions", workspace, session))
            if record is None:
                return None
            last = self.messages(workspace, session)[-dedup_limit:]
            return SessionSnapshot(
                record=record,
                head_seq=last[-1].seq if last else 0,
                recent=[
                    (each.sender, each.client_id, each.seq, each.id, each.digest)
                    for each in last
                    if each.client_id is not None
                ],
                reads={},
            )

        return await self.server.read(read)

    async def read_messages(
        self,
        workspace: str,
        session: str,
        after_seq: int = 0,
        limit: int = 1_000,
        bytes_max: int = 0,
    ) -> list[tuple[int, bytes]]:
        return await self.server.read(
            lambda: [
                (each.seq, each.body)
                for each in self.messages(workspace, session)
                if each.seq > after_seq
            ][:limit]
        )

    async def secret(self, name: str) -> bytes:
        return await self.server.read(lambda: bytes(32))

    # Statements that several transactions have

    async def _register(self, transaction: Transaction, node_id: str, place: Place) -> None:
        await self.server.next(transaction)
        await transaction.insert(VERSION, 0)
        await self.server.next(transaction)
        await transaction.lock(VERSION, _always)
        await self.server.next(transaction)
        if transaction.read(("slots", 0)) is None:
            self._slots = [("slots", slot) for slot in range(place.slots)]
            for key in self._slots:
                await transaction.insert(key, SlotRow("", ""))
        await self.server.next(transaction)
        row = NodeRow(place.address, JOINING, place.weight, 0)
        if node_id not in self._nodes:
            self._nodes.append(node_id)
        if not await transaction.insert(("nodes", node_id), row):
            await transaction.update(
                [("nodes", node_id)],
                _always,
                lambda row: row._replace(address=place.address, beat=row.beat + 1),
            )
        await self._move_version(transaction)

    async def _check_epoch(self, transaction: Transaction, node_id: str, epoch: int) -> None:
        def is_held(row: OwnerEpoch) -> bool:
            return row.epoch == epoch and row.sealed_epoch < epoch

        if self._mutation is Mutation.NO_EPOCH_CHECK:
            return
        key = ("owner_epochs", node_id)
        if self._mutation is Mutation.EPOCH_WITHOUT_LOCK:
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
        await transaction.lock(VERSION, _always)
        await self.server.next(transaction)
        keys = [self._slots[slot] for slot in slots]
        changed = await transaction.update(keys, where, lambda row: row._replace(owner=owner))
        if changed:
            await self._move_version(transaction)
        return sorted(self._slots.index(key) for key in changed)

    async def _change_node(self, transaction: Transaction, node_id: str, **changes: object) -> None:
        await self.server.next(transaction)
        await transaction.update([("nodes", node_id)], _always, lambda row: row._replace(**changes))

    async def _move_version(self, transaction: Transaction) -> int:
        await self.server.next(transaction)
        version: int = transaction.read(VERSION) + 1
        await transaction.update([VERSION], _always, lambda _: version)
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

    def _ring(
        self, version: int, read: Callable[[Key], object], read_slot: Callable[[Key], object]
    ) -> Ring:
        entries = []
        for node_id in sorted(self._nodes):
            node, owner = read(("nodes", node_id)), read(("owner_epochs", node_id))
            if isinstance(node, NodeRow) and isinstance(owner, OwnerEpoch):
                sealed = owner.sealed_epoch >= owner.epoch
                entries.append(NodeEntry(node_id, *node, owner.epoch, sealed=sealed))
        slots = [row for key in self._slots if isinstance(row := read_slot(key), SlotRow)]
        return Ring(
            version,
            tuple(entries),
            tuple(row.owner for row in slots),
            tuple(row.target for row in slots),
        )


def _always(row: object) -> bool:
    return True


def _retargeted(target: str) -> Callable[[SlotRow], SlotRow]:
    return lambda row: row._replace(target=target)

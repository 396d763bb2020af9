"""The archive, in memory: the product's transactions, statement by statement, on rows that lock as PostgreSQL's do.

Each method is one of `storage.Archive`, and a coroutine: between any two of its statements others take their turns.
`test_archive_model.py` compares the methods with the real archive's.
"""

from collections.abc import Awaitable, Callable, Sequence

from storage import (
    REPLICATED,
    CorruptLogError,
    CursorMismatchError,
    FencedError,
    Heartbeat,
    MessageRecord,
    NodeReturnedError,
    NodeState,
    Ownership,
    Place,
    PlannedChange,
    Record,
    Ring,
    RingChangedError,
    SessionRecord,
    SessionSnapshot,
    StoredRecord,
)
from storage.batches import PAGE_ROWS, Batch
from storage.frame import Frame, decode_records
from storage.postgres import connection_name
from tests.simulation.losses import SimulatedLosses
from tests.simulation.mutation import Mutation
from tests.simulation.rows import Key, Transaction
from tests.simulation.scheduler import CALLER
from tests.simulation.server import BEATS
from tests.simulation.tables import (
    DURABILITY,
    VERSION,
    BatchRow,
    OwnerEpoch,
    always,
    retargeted,
)

UNGUARDED = {Mutation.READ_BEFORE_SEAL, Mutation.GIVEN_AWAY_FIRST}
"""Those that the archive would not let pass: what is taken away is taken away there too."""


class _HeardOfError(Exception):
    """A node is not silent: rolls a transaction back."""


class SimulatedArchive(SimulatedLosses):
    """One database, and every node's way to it."""

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
            await transaction.lock(DURABILITY, always)
            await self.server.next(transaction)
            self._check_reachable(transaction, node_id)
            await self.server.next(transaction)
            owner = ("owner_epochs", node_id)
            await transaction.insert(owner, OwnerEpoch(level))
            await self.server.next(transaction)
            await transaction.insert(("flush_cursors", node_id), 0)
            await self.server.next(transaction)
            await transaction.update(
                [owner],
                always,
                lambda row: row._replace(epoch=max(row.epoch, above_epoch) + 1),
            )
            await self.server.next(transaction)
            found: OwnerEpoch = transaction.read(owner)
            cursor = transaction.read(("flush_cursors", node_id))
            taken = Ownership(found.epoch, cursor, found.sealed_epoch)
            if place is not None:
                patience_ms = place.patience_ms if level == REPLICATED else 0
                await self._register(transaction, node_id, place, patience_ms)
            return taken

        return await self.server.transact("takes an epoch", begin)

    async def retire_node(self, node_id: str, epoch: int, beat: int | None = None) -> bool:
        async def retire(transaction: Transaction) -> bool:
            sealed = await self._seal(transaction, node_id, epoch)
            if sealed and beat is not None:
                await self.server.next(transaction)
                row = transaction.read(("nodes", node_id))
                if row is None or row.beat != beat:
                    raise _HeardOfError
            if sealed:
                await self.server.next(transaction)
                if transaction.read(("nodes", node_id)) is not None:
                    await self.server.next(transaction)
                    await transaction.lock(VERSION, always)
                    await self._move_version(transaction)
            return sealed

        try:
            return await self.server.transact(f"seals {node_id[-4:]}", retire)
        except _HeardOfError:
            return False

    async def list_nodes(self) -> list[NodeState]:
        def read() -> list[NodeState]:
            keys = sorted(key for key in self.rows.committed if key[0] == "owner_epochs")
            names = [str(key[1]) for key in keys]
            owners = {name: self.epoch_of(name) for name in names}
            return [
                NodeState(
                    name, owner.epoch, owner.sealed_epoch >= owner.epoch, self.cursor_of(name)
                )
                for name, owner in owners.items()
            ]

        return await self.server.read(read)

    async def list_batch_owners(self) -> list[str]:
        def read() -> list[str]:
            found = [key for key in self.rows.committed if key[0] == "log_batches"]
            return sorted({str(key[1]) for key in found})

        return await self.server.read(read)

    async def read_level(self) -> str:
        return await self.server.read(lambda: self.rows.committed.get(DURABILITY, ""))

    async def read_cursor(self, node_id: str) -> Ownership:
        def read() -> Ownership:
            owner = self.epoch_of(node_id)
            return Ownership(owner.epoch, self.cursor_of(node_id), owner.sealed_epoch)

        return await self.server.read(read)

    async def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        async def check(transaction: Transaction) -> None:
            await self._check_epoch(transaction, node_id, epoch)

        await self._flush(node_id, cursor, records, check, "flushes")

    async def flush_sealed(
        self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]
    ) -> None:
        async def check(transaction: Transaction) -> None:
            await self._check_sealed(transaction, node_id, epoch)

        await self._flush(node_id, cursor, records, check, f"inherits {node_id[-4:]}:")

    async def _flush(
        self,
        node_id: str,
        cursor: int,
        records: Sequence[Record],
        check: Callable[[Transaction], Awaitable[None]],
        name: str,
    ) -> None:
        lsn_end = cursor + len(records)

        async def move(transaction: Transaction) -> None:
            await check(transaction)
            await self.server.next(transaction)
            moved = await transaction.update(
                [("flush_cursors", node_id)],
                lambda lsn: lsn == cursor or self._mutation is Mutation.CURSOR_NOT_COMPARED,
                lambda _: lsn_end,
            )
            if not moved:
                await self.server.next(transaction)
                found = transaction.read(("flush_cursors", node_id)) or 0
                raise CursorMismatchError(cursor, found)
            await self.server.next(transaction)
            await transaction.delete(
                self._batch_keys(node_id), lambda batch: batch.lsn_end <= lsn_end
            )

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
            await self.server.transact(f"{name} {cursor} to {lsn_end}", both)

    # What owners add before they acknowledge, and what others do with it

    def open_batch_writer(self, node_id: str, epoch: int) -> "SimulatedBatchWriter":
        return SimulatedBatchWriter(self, node_id, epoch)

    async def add_batch(self, node_id: str, epoch: int, batch: Batch) -> None:
        async def add(transaction: Transaction) -> None:
            locks = self._mutation is not Mutation.BATCH_WITHOUT_LOCK
            await self._check_epoch(transaction, node_id, epoch, locks=locks)
            self._batches.setdefault(node_id, set()).add(batch.first_lsn)
            key = ("log_batches", node_id, batch.first_lsn)
            row = BatchRow(*batch, epoch)
            if not await transaction.insert(key, row) and not await transaction.update(
                [key], row.__eq__, lambda old: old
            ):
                raise FencedError(node_id, epoch)

        name = f"adds {batch.first_lsn} to {batch.lsn_end}"
        await self.server.transact(name, add, autocommit=True)

    async def read_batches(self, node_id: str, from_lsn: int) -> list[StoredRecord]:
        read = self.rows.committed.get
        found: list[BatchRow] = await self.server.read(
            lambda: [row for key in self._batch_keys(node_id) if (row := read(key)) is not None]
        )
        records: list[StoredRecord] = []
        next_lsn = from_lsn
        for row in [row for row in found if row.lsn_end > from_lsn][:PAGE_ROWS]:
            if row.first_lsn > next_lsn:
                cursor = await self.server.read(lambda: self.cursor_of(node_id))
                if cursor > from_lsn:
                    raise CursorMismatchError(from_lsn, cursor)
                where = f"log_batches of node {node_id}"
                raise CorruptLogError(where, next_lsn, "the batch is missing")
            count = row.lsn_end - row.first_lsn
            frame = Frame(0, count, row.first_lsn, row.first_lsn, 0, row.payload)
            records += [each for each in decode_records(frame, {}) if each.lsn >= next_lsn]
            next_lsn = row.lsn_end
        return records

    def name_connections(self, node_id: str) -> None:
        caller = CALLER.get()
        if caller is not None:
            caller.connections = connection_name(node_id)

    async def seal_node(self, node_id: str, epoch: int, beat: int | None = None) -> bool:
        name = connection_name(node_id)

        def end() -> None:
            owner = self.epoch_of(node_id)
            if owner.epoch == epoch and owner.sealed_epoch < epoch:
                self.server.end_connections(name)

        await self.server.read(end)
        return await self.retire_node(node_id, epoch, beat)

    async def take_over(self, epoch: int, change: PlannedChange) -> int:
        node_id = change.node_id

        async def take(transaction: Transaction) -> int:
            if not await self._settle_sealed(transaction, node_id, epoch):
                raise NodeReturnedError(node_id, epoch)
            await self.server.next(transaction)
            cursor = transaction.read(("flush_cursors", node_id)) or 0
            await self.server.next(transaction)
            rows = [transaction.read(key) for key in self._batch_keys(node_id)]
            added = max((row.lsn_end for row in rows if row is not None), default=0)
            if added > cursor and self._mutation not in UNGUARDED:
                raise CursorMismatchError(added, cursor)
            await self.server.next(transaction)
            version = await self._change(transaction, change)
            await self.server.next(transaction)
            await transaction.update(
                self._slots, lambda row: row.owner == node_id, lambda row: row._replace(owner="")
            )
            return version

        return await self.server.transact(f"takes over {node_id[-4:]}", take)

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

    async def open_notices(self) -> None:
        """Tell nobody: whoever wants to know asks."""

    async def read_ring_version(self) -> int:
        version: int = await self.server.read(lambda: self.rows.committed.get(VERSION, 0))
        return version

    async def change_ring(self, change: PlannedChange) -> int:
        async def make(transaction: Transaction) -> int:
            return await self._change(transaction, change)

        return await self.server.transact(change.action, make)

    async def _change(self, transaction: Transaction, change: PlannedChange) -> int:
        for node_id, epoch in change.removed:
            await self._seal(transaction, node_id, epoch)
            await self.server.next(transaction)
            await self._settle_sealed(transaction, node_id, epoch)
            await self.server.next(transaction)
        found = await transaction.lock(VERSION, always)
        if found != change.seen_version:
            raise RingChangedError(change.seen_version, found)
        for node_id, state in change.states:
            await self._change_node(transaction, node_id, state=state)
        for node_id, weight in change.weights:
            await self._change_node(transaction, node_id, weight=weight)
        for node_id, _ in change.removed:
            await self.server.next(transaction)
            await transaction.delete([("nodes", node_id)], always)
        await self.server.next(transaction)
        for slot, target in change.targets:
            await transaction.update([self._slots[slot]], always, retargeted(target))
        return await self._move_version(transaction)

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

    async def beat(self, node_id: str, epoch: int, patience_ms: int = 0) -> None:
        async def beat(transaction: Transaction) -> None:
            await self._check_epoch(transaction, node_id, epoch)
            await self.server.next(transaction)
            await transaction.update(
                [("nodes", node_id)],
                always,
                lambda row: row._replace(beat=row.beat + 1, patience_ms=patience_ms),
            )

        await self.server.transact(BEATS, beat)

    async def read_beats(self) -> dict[str, Heartbeat]:
        read = self.rows.committed
        return await self.server.read(
            lambda: {
                node_id: Heartbeat(self.epoch_of(node_id).epoch, read["nodes", node_id].beat)
                for node_id in sorted(self._nodes)
                if ("nodes", node_id) in read
            }
        )

    # Reading

    async def read_sessions(
        self,
        keys: Sequence[tuple[str, str]],
        dedup_limit: int = 1_000,
        node_id: str = "",
        cursor: int = 0,
    ) -> dict[tuple[str, str], SessionSnapshot]:
        def read() -> dict[tuple[str, str], SessionSnapshot]:
            self._check_cursor(node_id, cursor)
            found = {}
            for workspace, session in keys:
                record = self.rows.committed.get(("sessions", workspace, session))
                if record is None:
                    continue
                last = self.messages(workspace, session)[-dedup_limit:]
                found[workspace, session] = SessionSnapshot(
                    record=record,
                    head_seq=last[-1].seq if last else 0,
                    recent=[
                        (each.sender, each.client_id, each.seq, each.id, each.digest)
                        for each in last
                        if each.client_id is not None
                    ],
                    reads={},
                )
            return found

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


class SimulatedBatchWriter:
    """One owner's connection for its batches: an `add` is a coroutine, as all that waits for the server."""

    def __init__(self, archive: SimulatedArchive, node_id: str, epoch: int) -> None:
        self._archive = archive
        self._owner = (node_id, epoch)

    async def add(self, batch: Batch) -> None:
        await self._archive.add_batch(*self._owner, batch)

    def close(self) -> None:
        pass

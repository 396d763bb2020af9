"""The archive: the SQL database that every durable record ends up in.

The log is where a record becomes durable; the archive is where it is kept, and the only place that
knows how far it came: the flush cursor moves in the same transaction that adds the rows. So a
flush that was applied and a flush that was not can always be told apart by reading the cursor
back, and applying one twice is refused before it can add anything.

Every method blocks and may be called from any thread. What the database does not answer, or
answers with anything but a refusal of a row's own data, is an `ArchiveUnavailableError`: call
again later. If it came out of `flush`, its COMMIT may have happened all the same: ask
`read_cursor`.
"""

from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, text

from storage import agents, batches, history, keys, losses, membership, ownership
from storage.agents import AgentKey, AgentRow, AgentTable
from storage.batches import REPLICATED, BatchWriter
from storage.dialect import Dialect, RingNotices
from storage.dispatches import DispatchReader
from storage.errors import CorruptLogError, CursorMismatchError, NodeReturnedError
from storage.history import SEQ_END, History, SessionKey, SessionSnapshot
from storage.keys import ApiKey
from storage.losses import Loss
from storage.membership import Heartbeat, Membership, Place, PlannedChange, Ring, RingChange
from storage.ownership import NodeState, Ownership
from storage.record import Record, SessionRecord, StoredRecord
from storage.rows import RowsRefusedError, RowWriter
from storage.transactions import Transactions

PAGE_BYTES_MAX = 8 * 2**20
"""Bytes of bodies in one page unless told otherwise: what a reader takes into memory."""

_DEAD_LETTERS = text("SELECT count(*) FROM dead_letters")
_PING = text("SELECT 1")


class ArchiveStatistics(msgspec.Struct, frozen=True):
    """What the archive counts: rows that the database refused and that were set aside."""

    dead_letters: int


class _HeardOfError(Exception):
    """A node is not silent: rolls a transaction back."""


def _check_silent(connection: Connection, node_id: str, beat: int | None) -> None:
    """Raise if a node was heard of since `beat`. It holds its epoch when it beats, and so does who asks here."""
    if beat not in {None, membership.read_beat(connection, node_id)}:
        raise _HeardOfError


class Archive:
    """An archive, opened and migrated."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        transactions = Transactions(dialect)
        self._transaction, self._read = transactions.begin, transactions.read
        self._rows = RowWriter(dialect)
        self._history = History(dialect)
        self._agents = AgentTable(dialect.rows_sql)
        self._mark = losses.prepare_mark(dialect.rows_sql)
        self.dispatches = DispatchReader(self._read)
        """Calls to agents."""
        self._membership = Membership(
            dialect.rows_sql, dialect.joined_slots_sql, dialect.notify_sql
        )

    # Ownership and flushing

    def begin_epoch(
        self, node_id: str, level: str, above_epoch: int = 0, place: Place | None = None
    ) -> Ownership:
        """Take a new epoch for this node, higher than `above_epoch`, and return its cursor too.

        A node without a `place` in a ring is alone, and tolerates no other; one that has one, only those that
        it can reach, as they can reach it from now on.

        `above_epoch` is the highest epoch that the node's own log knows: an archive that was
        restored to an older state must not hand the same one out again.

        Raises:
            DurabilityMismatchError: the cluster runs at another level.
            RingSizeError: its ring has another number of slots than `place` says.
            ArchiveOwnedError: another node owns the archive, and was not retired.
            ArchiveUnavailableError: the database does not answer.
        """
        with self._transaction("epoch") as connection:
            ownership.settle_level(connection, level)
            taken = ownership.take_epoch(
                connection, node_id, level, above_epoch, alone=place is None
            )
            if place is not None:
                if level != REPLICATED:
                    # What it acknowledges is nowhere but on its own disk.
                    place = msgspec.structs.replace(place, patience_ms=0)
                self._membership.register(connection, node_id, place)
            return taken

    def read_cursor(self, node_id: str) -> Ownership:
        """Return the epoch and the cursor as they stand."""
        return self._read(lambda connection: ownership.read_ownership(connection, node_id))

    def read_level(self) -> str:
        """Return the cluster's durability level; "" before the first owner has started."""
        return self._read(ownership.read_level)

    def list_nodes(self) -> list[NodeState]:
        """Return every node that ever started on this archive, by id."""
        return self._read(ownership.list_nodes)

    def retire_node(
        self, node_id: str, epoch: int, beat: int | None = None, *, lost: bool = False
    ) -> bool:
        """End a node's epoch for good, so that another node may begin.

        Return False if there was nothing to end: its epoch is another one by now, or sealed; or, with `beat`, it was
        heard of since. `lost`: what it acknowledged may be missing here, also if it stopped in good order.
        """
        try:
            with self._transaction("seal") as connection:
                if lost:
                    losses.unsettle(connection, node_id, epoch)
                sealed = ownership.seal_epoch(connection, node_id, epoch)
                if sealed:
                    _check_silent(connection, node_id, beat)
                    self._membership.note_sealed(connection, node_id)
                return sealed
        except _HeardOfError:
            return False

    def flush(self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]) -> None:
        """Move the records at LSN `cursor` and above into the archive, all or nothing.

        Raises:
            FencedError: another epoch owns this node's log, or the node was retired.
            CursorMismatchError: the cursor is not where it was left.
            ArchiveConflictError: another row stands under the key of one of these.
            ArchiveUnavailableError: the database failed; whether it committed is unknown.
        """
        self._flush(
            node_id,
            cursor,
            records,
            lambda connection: ownership.check_epoch(connection, node_id, epoch),
            "flush",
        )

    # What owners add before they acknowledge, and what others do with it

    def open_batch_writer(self, node_id: str, epoch: int) -> BatchWriter:
        """Return what adds this owner's batches.

        Raises:
            ArchiveSettingsError: it is a database on the owner's own disk.
        """
        return self._dialect.open_batch_writer(node_id, epoch)

    def read_batches(self, node_id: str, from_lsn: int) -> list[StoredRecord]:
        """Return records from `from_lsn` on that were added and not flushed: a page; none when that is all.

        Raises:
            CorruptLogError: they are damaged, or not without a hole.
            CursorMismatchError: somebody has flushed some of them meanwhile.
        """

        def read(connection: Connection) -> list[StoredRecord]:
            try:
                return batches.read_batches(connection, node_id, from_lsn)
            except CorruptLogError:
                cursor = ownership.read_ownership(connection, node_id).cursor
                if cursor > from_lsn:
                    raise CursorMismatchError(from_lsn, cursor) from None
                raise

        return self._read(read)

    def list_batch_owners(self) -> list[str]:
        """Return the nodes that added something that is not flushed."""
        return self._read(batches.list_owners)

    def name_connections(self, node_id: str) -> None:
        """Have others find this process's connections by its node; for its first use of the archive."""
        self._dialect.name_connections(node_id)

    def seal_node(self, node_id: str, epoch: int, beat: int | None = None) -> bool:
        """Do `retire_node`, and end whatever transaction of the node hangs."""
        self._read(lambda connection: self._dialect.end_connections(connection, node_id, epoch))
        return self.retire_node(node_id, epoch, beat)

    def flush_sealed(
        self, node_id: str, epoch: int, cursor: int, records: Sequence[Record]
    ) -> None:
        """Do `flush` for a node whose last epoch, `epoch`, is sealed.

        Raises:
            NodeReturnedError: it has begun another one.
            CursorMismatchError, ArchiveConflictError, ArchiveUnavailableError: as `flush`.
        """
        self._flush(
            node_id,
            cursor,
            records,
            lambda connection: ownership.check_sealed(connection, node_id, epoch),
            "inherit",
        )

    def take_over(self, epoch: int, change: PlannedChange) -> int:
        """Give what a node owns to nobody, and make a change that gives it to others; return the ring's version.

        The node is the one that `change` names; its last epoch, `epoch`, is sealed, and settled from here on.

        Raises:
            NodeReturnedError: it has begun another one.
            CursorMismatchError: not all that it added is flushed.
            RingChangedError: the ring is not as it was when the change was worked out.
        """
        with self._transaction("takeover") as connection:
            if not ownership.settle_sealed(connection, change.node_id, epoch):
                raise NodeReturnedError(change.node_id, epoch)
            cursor = ownership.read_ownership(connection, change.node_id).cursor
            added = batches.read_batches_end(connection, change.node_id)
            if added > cursor:
                raise CursorMismatchError(added, cursor)
            return self._membership.take_over(connection, change)

    # What was acknowledged as `local` by an owner that was given up

    def list_losses(self) -> list[Loss]:
        """Return the owners that were given up, and may have acknowledged what is missing without a mark."""
        return self._read(losses.list_losses)

    def mark_lost(self, loss: Loss, keys: Sequence[SessionKey], at_ms: int) -> bool:
        """Leave seqs out in these sessions, all of them the owner's, and mark that (`storage.losses`).

        Those that are marked already stay as they are. Return False if all were, and may be served again.
        """
        with self._transaction() as connection:
            return losses.mark(connection, self._mark, loss, keys, at_ms)

    def settle_loss(self, loss: Loss) -> None:
        """Note that every session that was the owner's is marked."""
        with self._transaction() as connection:
            losses.settle(connection, loss)

    def settle_whole(self, node_id: str, epoch: int, cursor: int) -> None:
        """Note that all that a node acknowledged is here; it must not acknowledge more in this epoch.

        Raises:
            CursorMismatchError: it is not: not all below `cursor` is here.
        """
        with self._transaction() as connection:
            losses.settle_whole(connection, node_id, epoch, cursor)

    # The ring

    def read_ring(self) -> Ring:
        """Return the nodes and the slots, as they are at its version, or have become since."""
        return self._read(self._membership.read)

    def read_ring_version(self) -> int:
        """Return the ring's version, to see whether anything changed."""
        return self._read(membership.read_version)

    def open_notices(self) -> RingNotices | None:
        """Return what tells of changes of the ring; None of a database that tells nobody.

        Raises:
            ArchiveUnavailableError: it does not answer.
        """
        return self._dialect.open_notices()

    def change_ring(self, change: PlannedChange) -> int:
        """Make a planned change; return the version that it led to.

        Raises:
            RingChangedError: the ring is not as it was when the change was worked out.
        """
        with self._transaction("change") as connection:
            return self._membership.change(connection, change)

    def list_ring_changes(self, limit: int = membership.HISTORY_MAX) -> list[RingChange]:
        """Return the last planned changes, newest first."""
        return self._read(lambda connection: membership.list_changes(connection, limit))

    def claim_slots(self, node_id: str, epoch: int, slots: Sequence[int]) -> list[int]:
        """Take slots that are nobody's and meant for this node; return those that it got.

        Raises:
            FencedError: another epoch began, or the node was retired.
        """
        with self._transaction("claim") as connection:
            return self._membership.claim(connection, node_id, epoch, slots)

    def release_slots(
        self, node_id: str, epoch: int, cursor: int, slots: Sequence[int]
    ) -> list[int]:
        """Give slots up, of which the archive must hold everything below `cursor`; return those given up.

        Raises:
            FencedError: another epoch began, or the node was retired.
            CursorMismatchError: the archive does not hold it.
        """
        with self._transaction("release") as connection:
            return self._membership.release(connection, node_id, epoch, cursor, slots)

    def beat(self, node_id: str, epoch: int, patience_ms: int = 0) -> None:
        """Say that a node is alive, and for how long others are to wait for its next beat.

        Raises:
            FencedError: another epoch began, or the node was retired.
        """
        with self._transaction("beat") as connection:
            membership.beat(connection, node_id, epoch, patience_ms)

    def read_beats(self) -> dict[str, Heartbeat]:
        """Return how often each node was heard of, by its id: one that lives is heard of every second."""
        return self._read(membership.read_beats)

    # Reading

    def read_sessions(
        self,
        keys: Sequence[SessionKey],
        dedup_limit: int = 1_000,
        node_id: str = "",
        cursor: int = 0,
    ) -> dict[SessionKey, SessionSnapshot]:
        """Return what is known of sessions; nothing of one that was never created.

        With `node_id` and `cursor`: only if the archive still holds what that node had flushed.

        Raises:
            CursorMismatchError: it does not: it was restored to an older state.
        """
        return self._read(
            lambda connection: self._history.read_sessions(
                connection, keys, dedup_limit, node_id, cursor
            )
        )

    def find_sessions(
        self, keys: Sequence[SessionKey], node_id: str = "", cursor: int = 0
    ) -> set[SessionKey]:
        """Return which of these sessions were ever created, also those that were erased.

        With `node_id` and `cursor`: as `read_sessions`.

        Raises:
            CursorMismatchError: as `read_sessions`.
        """
        return self._read(
            lambda connection: self._history.find_sessions(connection, keys, node_id, cursor)
        )

    def read_messages(
        self,
        workspace: str,
        session: str,
        after_seq: int = 0,
        limit: int = 1_000,
        bytes_max: int = PAGE_BYTES_MAX,
        before_seq: int | None = None,
    ) -> list[tuple[int, bytes]]:
        """Return (seq, body) of the messages above `after_seq`, ascending.

        With `before_seq`: the newest below it instead of the oldest. At most `limit` of them, and
        fewer where their bodies would exceed `bytes_max`, but never none if there is one.
        """
        newest = before_seq is not None
        bounds = (after_seq, SEQ_END if before_seq is None else before_seq)
        return self._read(
            lambda connection: self._history.read_messages(
                connection, workspace, session, bounds, limit, bytes_max, newest=newest
            )
        )

    def list_sessions(
        self,
        workspace: str,
        user_id: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 50,
        *,
        include_archived: bool = False,
    ) -> list[SessionRecord]:
        """Return sessions newest first, then by id, beginning after (created_at_ms, session).

        With `user_id`: those that the user owns or is a member of.
        """
        return self._read(
            lambda connection: history.list_sessions(
                connection, workspace, user_id, after, limit, include_archived=include_archived
            )
        )

    def list_session_keys(
        self, after: SessionKey = ("", ""), limit: int = 5_000
    ) -> list[SessionKey]:
        """Return (workspace, session) of sessions that were not erased, ascending, beginning after `after`."""
        return self._read(lambda connection: self._history.list_keys(connection, after, limit))

    # Keys and secrets

    def create_key(self, key: ApiKey) -> None:
        """Store a new API key."""
        with self._transaction() as connection:
            keys.create_key(connection, key)

    def list_keys(self) -> list[ApiKey]:
        """Return every API key, revoked ones too, oldest first."""
        return self._read(keys.list_keys)

    def revoke_key(self, id: str, revoked_at_ms: int) -> bool:
        """Revoke a key; return whether there was such a key that was not revoked yet."""
        with self._transaction() as connection:
            return keys.revoke_key(connection, id, revoked_at_ms)

    def secret(self, name: str) -> bytes:
        """Return a secret of the cluster, made at its first use and the same for everyone."""
        with self._transaction() as connection:
            return keys.read_secret(connection, name)

    # Agents

    def create_agent(self, row: AgentRow) -> int | None:
        """Store a new agent and return its version; None, and nothing is changed, if there is one of that id.

        The version is 1, or follows that of a deleted agent of this id: none is given out twice.
        """
        with self._transaction() as connection:
            return agents.create_agent(connection, row)

    def read_agents(self, keys: Sequence[AgentKey]) -> dict[AgentKey, AgentRow]:
        """Return agents by (workspace, id), of those that exist and are not deleted."""
        return self._read(lambda connection: self._agents.read(connection, keys))

    def list_agents(
        self, workspace: str | None, after: AgentKey = ("", ""), limit: int = 1_000
    ) -> list[AgentRow]:
        """Return the agents of a workspace, or of all, ascending by (workspace, id), beginning after `after`."""
        return self._read(
            lambda connection: agents.list_agents(connection, workspace, after, limit)
        )

    def change_agent(self, row: AgentRow, expected: AgentRow) -> bool:
        """Replace an agent; return False if it is not as `expected` any more, in its version or its secrets."""
        with self._transaction() as connection:
            return agents.change_agent(connection, row, expected)

    def delete_agent(self, key: AgentKey, version: int, deleted_at_ms: int) -> bool:
        """Hide an agent and erase its secrets; return False if it is not at `version` any more."""
        with self._transaction() as connection:
            return agents.delete_agent(connection, key, version, deleted_at_ms)

    # Operation

    def statistics(self) -> ArchiveStatistics:
        """Count what an operator should look at."""
        return ArchiveStatistics(
            dead_letters=self._read(lambda connection: connection.scalar(_DEAD_LETTERS)) or 0
        )

    def ping(self) -> None:
        """Return if the database answers, raise ArchiveUnavailableError if it does not."""
        self._read(lambda connection: connection.scalar(_PING))

    def close(self) -> None:
        """Close every connection."""
        self._dialect.close()

    def _flush(
        self,
        node_id: str,
        cursor: int,
        records: Sequence[Record],
        check: Callable[[Connection], None],
        name: str,
    ) -> None:
        """Move the cursor and add the rows, in one transaction that begins with `check`."""

        def flush(write: Callable[[Connection, Sequence[Record]], None]) -> None:
            with self._transaction(name) as connection:
                check(connection)
                lsn_end = cursor + len(records)
                ownership.move_cursor(connection, node_id, cursor, lsn_end)
                if self._dialect.replicates:
                    batches.trim(connection, node_id, lsn_end)
                write(connection, records)

        try:
            flush(self._rows.write)
        except RowsRefusedError:
            flush(self._rows.write_carefully)

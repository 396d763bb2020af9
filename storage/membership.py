"""Who is in the cluster, and who owns which slot.

A slot has an owner, who alone gives out seqs in its sessions, and a target, who should own it. A planned
change sets targets; then the owner releases a slot (when all that it logged for it is in the archive), which
leaves it to nobody, and the target claims it. So at no time has a slot two owners: each step is one update of
one row, and names who it must belong to.

Claiming and releasing hold the node's epoch (`ownership.check_epoch`), as a flush does: what was taken over
from a node cannot be claimed or released by it any more.

Every change of these tables, but for a heartbeat, moves the ring's version: whoever has read the ring at this
version knows it as it is.

Every function here runs in the caller's transaction.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, TextClause, delete, insert, select, text, update
from sqlalchemy.sql.functions import count

from storage.errors import CursorMismatchError, RingChangedError, RingSizeError
from storage.ownership import check_epoch, read_ownership, seal_epoch, settle_sealed
from storage.schema import cluster, nodes, owner_epochs, ring_changes, slots

RING_VERSION = "ring_version"
"""The name of the ring's version in `cluster`."""

JOINING, ACTIVE, DRAINING, DRAINED = "joining", "active", "draining", "drained"
DEAD = "dead"
"""States of a node. Only an active one is given slots; one that joins, or is drained, has none and waits; one
that was taken over is dead until it starts again."""

STARTING_MS = 60_000
"""For how much longer others wait for a node that starts than for one that serves."""

HISTORY_MAX = 1_000
"""Changes that a listing returns at most."""

_FIRST_VERSION = text("""
    INSERT INTO cluster (name, value) VALUES ('ring_version', '0') ON CONFLICT (name) DO NOTHING
""")

_FIRST_BEAT = text("""
    INSERT INTO nodes (node_id, address, state, weight, beat, patience_ms)
    VALUES (:node_id, :address, 'joining', :weight, 0, :patience_ms)
    ON CONFLICT (node_id) DO UPDATE SET
        address = excluded.address, beat = nodes.beat + 1, patience_ms = excluded.patience_ms,
        state = CASE WHEN nodes.state = 'dead' THEN 'joining' ELSE nodes.state END
""")

_FIRST_SLOTS = (
    "INSERT INTO slots (slot, owner, target) SELECT CAST(value ->> 0 AS BIGINT), '', '' FROM {rows}"
)

_SLOTS = "SELECT owner, target, {joined} AS slots FROM slots GROUP BY owner, target"

_CLAIM = """
    UPDATE slots SET owner = :node_id
    WHERE owner = '' AND target = :node_id AND slot IN (SELECT CAST(value ->> 0 AS BIGINT) FROM {rows})
    RETURNING slot
"""

_RELEASE = """
    UPDATE slots SET owner = ''
    WHERE owner = :node_id AND slot IN (SELECT CAST(value ->> 0 AS BIGINT) FROM {rows})
    RETURNING slot
"""

_ABANDON = text("UPDATE slots SET owner = '' WHERE owner = :node_id")

_RETARGET = """
    UPDATE slots SET target = wanted.target
    FROM (SELECT CAST(value ->> 0 AS BIGINT) AS slot, value ->> 1 AS target FROM {rows}) AS wanted
    WHERE slots.slot = wanted.slot
"""


class Place(msgspec.Struct, frozen=True):
    """How a node takes part in a ring: where links to it end, and what share it should have at first.

    `slots` is the size of the ring that the first node of a cluster makes, and that all others must know it by:
    another size would put sessions elsewhere. `patience_ms` is for how long its beat must stand still before others
    take it over by themselves; 0: never.
    """

    address: str
    weight: int = 1
    slots: int = 4_096
    patience_ms: int = 0


class NodeEntry(msgspec.Struct, frozen=True):
    """A node: where its links end, how much of the ring it should have, and how often it was heard of."""

    node_id: str
    address: str
    state: str
    weight: int
    beat: int
    epoch: int
    sealed: bool
    patience_ms: int = 0
    level: str = ""


class Heartbeat(NamedTuple):
    """How often a node was heard of, and its epoch then."""

    epoch: int
    beat: int


class Ring(msgspec.Struct, frozen=True):
    """The cluster at one version: its nodes by id, and each slot's owner and target ("" for nobody)."""

    version: int
    nodes: tuple[NodeEntry, ...]
    owners: tuple[str, ...]
    targets: tuple[str, ...]

    def node(self, node_id: str) -> NodeEntry | None:
        """Return a node by its id."""
        return next((node for node in self.nodes if node.node_id == node_id), None)


class RingChange(msgspec.Struct, frozen=True):
    """A planned change, once it was made: at which version, who asked for what, how many slots it moves."""

    version: int
    at_ms: int
    actor: str
    action: str
    node_id: str
    slots_moved: int


class PlannedChange(msgspec.Struct, frozen=True):
    """A change that was worked out from the ring at `seen_version`, and is only good for that.

    `states` and `weights` are by node; `targets` name slots whose target becomes another; `removed` names
    nodes that own nothing, with their epochs, which are over then.
    """

    seen_version: int
    at_ms: int
    actor: str
    action: str
    node_id: str
    targets: Sequence[tuple[int, str]] = ()
    states: Sequence[tuple[str, str]] = ()
    weights: Sequence[tuple[str, int]] = ()
    removed: Sequence[tuple[str, int]] = ()


class Membership:
    """The statements about nodes and slots, made once for one dialect."""

    def __init__(self, rows_sql: str, joined_slots_sql: str, notify_sql: str) -> None:
        def prepare(sql: str) -> TextClause:
            return text(sql.format(rows=rows_sql, joined=joined_slots_sql))

        self._first_slots = prepare(_FIRST_SLOTS)
        self._slots = prepare(_SLOTS)
        self._claim = prepare(_CLAIM)
        self._release = prepare(_RELEASE)
        self._retarget = prepare(_RETARGET)
        self._notify = prepare(notify_sql) if notify_sql else None

    def register(self, connection: Connection, node_id: str, place: Place) -> None:
        """Note that a node has started. The first of all brings the slots with it.

        Raises:
            RingSizeError: there are more of them, or fewer, than this node was started with.
        """
        connection.execute(_FIRST_VERSION)
        # Whoever registers at the same time waits here, and sees what this one did.
        self._lock_version(connection)
        found = connection.scalar(select(count()).select_from(slots)) or 0
        if not found:
            connection.execute(self._first_slots, {"rows": _rows(range(place.slots))})
        elif found != place.slots:
            raise RingSizeError(found, place.slots)
        parameters = {
            "node_id": node_id,
            "address": place.address,
            "weight": place.weight,
            # It does not beat before it serves: recovering may take longer than it is waited for then.
            "patience_ms": place.patience_ms and place.patience_ms + STARTING_MS,
        }
        connection.execute(_FIRST_BEAT, parameters)
        self._move_version(connection)

    def read(self, connection: Connection) -> Ring:
        """Return the ring as it is, at the version that it has, or has passed already."""
        version = read_version(connection)
        rows = connection.execute(
            select(
                nodes,
                owner_epochs.c.epoch,
                owner_epochs.c.sealed_epoch,
                owner_epochs.c.level,
            )
            .join(owner_epochs, owner_epochs.c.node_id == nodes.c.node_id, isouter=True)
            .order_by(nodes.c.node_id)
        )
        entries = tuple(
            NodeEntry(
                row.node_id,
                row.address,
                row.state,
                row.weight,
                row.beat,
                row.epoch or 0,
                sealed=row.epoch is not None and row.sealed_epoch >= row.epoch,
                patience_ms=row.patience_ms,
                level=row.level or "",
            )
            for row in rows
        )
        held: dict[int, tuple[str, str]] = {}
        for owner, target, joined in connection.execute(self._slots):
            held |= dict.fromkeys(map(int, joined.split(",")), (owner, target))
        assert sorted(held) == list(range(len(held)))
        owners = tuple(held[slot][0] for slot in range(len(held)))
        targets = tuple(held[slot][1] for slot in range(len(held)))
        return Ring(version, entries, owners, targets)

    def change(self, connection: Connection, change: PlannedChange) -> int:
        """Make a planned change, and return the version that it led to.

        Raises:
            RingChangedError: the ring is not as it was when the change was worked out.
        """
        for node_id, epoch in change.removed:
            # Else it would count as a node that nobody can reach, and no other could begin. Before the version is
            # locked: whoever holds an epoch may be about to lock that.
            seal_epoch(connection, node_id, epoch)
            # It owned nothing.
            settle_sealed(connection, node_id, epoch)
        found = self._lock_version(connection)
        if found != change.seen_version:
            raise RingChangedError(change.seen_version, found)
        for node_id, state in change.states:
            where = nodes.c.node_id == node_id
            connection.execute(update(nodes).where(where).values(state=state))
        for node_id, weight in change.weights:
            where = nodes.c.node_id == node_id
            connection.execute(update(nodes).where(where).values(weight=weight))
        for node_id, _ in change.removed:
            connection.execute(delete(nodes).where(nodes.c.node_id == node_id))
        if change.targets:
            rows = msgspec.json.encode(list(change.targets)).decode()
            connection.execute(self._retarget, {"rows": rows})
        version = self._move_version(connection)
        connection.execute(
            insert(ring_changes).values(
                version=version,
                at_ms=change.at_ms,
                actor=change.actor,
                action=change.action,
                node_id=change.node_id,
                slots_moved=len(change.targets),
            )
        )
        return version

    def note_sealed(self, connection: Connection, node_id: str) -> None:
        """Have those who watch the ring learn that a node of it was sealed."""
        known = connection.scalar(select(nodes.c.node_id).where(nodes.c.node_id == node_id))
        if known is not None:
            self._lock_version(connection)
            self._move_version(connection)

    def take_over(self, connection: Connection, change: PlannedChange) -> int:
        """Give what a node owned to nobody, and make the change; return the version that it led to.

        Raises:
            RingChangedError: as `change`.
        """
        version = self.change(connection, change)
        connection.execute(_ABANDON, {"node_id": change.node_id})
        return version

    def claim(
        self, connection: Connection, node_id: str, epoch: int, wanted: Iterable[int]
    ) -> list[int]:
        """Take slots that are nobody's and meant for this node; return those that are its own now.

        Raises:
            FencedError: the node's epoch is over.
        """
        check_epoch(connection, node_id, epoch)
        return self._hand_over(connection, self._claim, node_id, wanted)

    def release(
        self, connection: Connection, node_id: str, epoch: int, cursor: int, given: Iterable[int]
    ) -> list[int]:
        """Give slots up, whose records are all below `cursor`; return those that were this node's.

        Raises:
            FencedError: the node's epoch is over.
            CursorMismatchError: the archive does not hold everything below `cursor`.
        """
        check_epoch(connection, node_id, epoch)
        found = read_ownership(connection, node_id).cursor
        if found < cursor:
            raise CursorMismatchError(cursor, found)
        return self._hand_over(connection, self._release, node_id, given)

    def _hand_over(
        self, connection: Connection, statement: TextClause, node_id: str, named: Iterable[int]
    ) -> list[int]:
        # Everyone who changes slots does it behind this one row, so that none waits for another crosswise.
        self._lock_version(connection)
        parameters = {"node_id": node_id, "rows": _rows(named)}
        changed = list(connection.scalars(statement, parameters))
        if changed:
            self._move_version(connection)
        return sorted(changed)

    def _lock_version(self, connection: Connection) -> int:
        value = connection.scalar(
            select(cluster.c.value).where(cluster.c.name == RING_VERSION).with_for_update()
        )
        return int(value or 0)

    def _move_version(self, connection: Connection) -> int:
        version = read_version(connection) + 1
        connection.execute(
            update(cluster).where(cluster.c.name == RING_VERSION).values(value=str(version))
        )
        if self._notify is not None:
            connection.execute(self._notify)
        return version


def read_version(connection: Connection) -> int:
    """Return the ring's version; 0 before there is a ring."""
    value = connection.scalar(select(cluster.c.value).where(cluster.c.name == RING_VERSION))
    return int(value or 0)


def read_beat(connection: Connection, node_id: str) -> int | None:
    """Return how often a node was heard of."""
    found: int | None = connection.scalar(select(nodes.c.beat).where(nodes.c.node_id == node_id))
    return found


def beat(connection: Connection, node_id: str, epoch: int, patience_ms: int) -> None:
    """Say that a node is alive, and for how long others are to wait for its next beat.

    Raises:
        FencedError: its epoch is over.
    """
    check_epoch(connection, node_id, epoch)
    connection.execute(
        update(nodes)
        .where(nodes.c.node_id == node_id)
        .values(beat=nodes.c.beat + 1, patience_ms=patience_ms)
    )


def read_beats(connection: Connection) -> dict[str, Heartbeat]:
    """Return how often each node was heard of."""
    rows = connection.execute(
        select(nodes.c.node_id, nodes.c.beat, owner_epochs.c.epoch).join(
            owner_epochs, owner_epochs.c.node_id == nodes.c.node_id
        )
    )
    return {row.node_id: Heartbeat(row.epoch, row.beat) for row in rows}


def list_changes(connection: Connection, limit: int) -> list[RingChange]:
    """Return the last planned changes, newest first."""
    rows = connection.execute(
        select(ring_changes).order_by(ring_changes.c.version.desc()).limit(limit)
    )
    return [RingChange(*row) for row in rows]


def _rows(numbers: Iterable[int]) -> str:
    return msgspec.json.encode([(number,) for number in numbers]).decode()

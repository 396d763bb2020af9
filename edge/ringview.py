"""The ring as operators see it: the same values on the command line and over HTTP."""

from collections import Counter
from collections.abc import Iterable

from msgspec import UNSET

from edge.http_bodies import (
    RingChanged,
    RingEntry,
    RingHistory,
    RingMove,
    RingNode,
    RingPair,
    RingPlan,
    RingState,
)
from runtime import (
    Move,
    Plan,
    RollCall,
    SessionCount,
    by_pair,
    format_time,
    progress_of,
    slot_ranges,
)
from storage import Ring, RingChange


def view_ring(ring: Ring, beats: RollCall | None = None) -> RingState:
    """Return the ring and its nodes; with `beats`, who of them lives."""
    owned, meant = Counter(ring.owners), Counter(ring.targets)
    nodes = [
        RingNode(
            node_id=node.node_id,
            state=node.state,
            weight=node.weight,
            slots=owned[node.node_id],
            slots_meant=meant[node.node_id],
            link=node.address,
            epoch=node.epoch,
            retired=node.sealed,
            alive=UNSET if beats is None else beats.lives(node),
        )
        for node in ring.nodes
    ]
    return RingState(nodes, ring.version, len(ring.owners), progress_of(ring).slots)


def view_history(changes: Iterable[RingChange]) -> RingHistory:
    """Return changes that were made."""
    return RingHistory(
        [
            RingEntry(
                change.version,
                format_time(change.at_ms),
                change.actor,
                change.action,
                change.node_id,
                change.slots_moved,
            )
            for change in changes
        ]
    )


def view_pairs(moves: Iterable[Move], count: SessionCount | None = None) -> list[RingPair]:
    """Return what moves from whom to whom; with `count`, how many sessions each time."""
    return [
        RingPair(
            source,
            target,
            len(slots),
            slot_ranges(slots),
            UNSET if count is None else sum(count.by_slot[slot] for slot in slots),
        )
        for (source, target), slots in by_pair(moves).items()
    ]


def view_plan(plan: Plan, count: SessionCount, *, listed: bool) -> RingPlan:
    """Return what a change would move; with `listed`, also which sessions, as many as were kept."""
    sessions = [
        RingMove(workspace, session, move.slot, move.source, move.target)
        for workspace, session, move in count.kept
    ]
    return RingPlan(
        action=plan.change.action,
        node_id=plan.change.node_id,
        version=plan.ring.version,
        slots=len(plan.ring.owners),
        slots_moved=len(plan.moves),
        pairs=view_pairs(plan.moves, count),
        sessions_moved=count.moving(plan.moves),
        sessions_whole=count.whole,
        sessions=sessions if listed else UNSET,
    )


def view_change(plan: Plan, version: int) -> RingChanged:
    """Return a change that was made."""
    return RingChanged(
        action=plan.change.action,
        node_id=plan.change.node_id,
        version=version,
        slots=len(plan.ring.owners),
        slots_moved=len(plan.moves),
        pairs=view_pairs(plan.moves),
    )

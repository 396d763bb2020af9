"""Changing the ring for whoever asks, on the command line or over HTTP: worked out, looked at, carried out.

In this order: work the change out → listen whether the nodes that it counts on live → make it, worked out anew
where the ring has changed meanwhile. Making it is one transaction in the archive; the nodes learn of it there and
move their slots by themselves. Everything here blocks, and waits for nothing but the archive: those who ask
wait between two looks at the heartbeats, each in their own way.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

from runtime.planning import (
    PlanError,
    plan_drain,
    plan_join,
    plan_rebalance,
    plan_remove,
    plan_undrain,
    plan_weight,
    planned_moves,
)
from runtime.ring import Move, slot_of
from storage import DRAINING, Archive, Heartbeat, NodeEntry, PlannedChange, Ring, RingChangedError

TRIES_MAX = 10
"""How often a change is worked out anew because the ring has changed meanwhile: nodes that move slots do that."""

LISTEN_LOOKS = 10
LISTEN_SECONDS = 0.25
"""Between two looks at the heartbeats. All of them take 2.5 seconds; one that lives beats every second."""

SESSIONS_PAGE = 5_000
"""Sessions that are counted by one query, which takes some milliseconds."""

Action = Literal["join", "drain", "undrain", "weight", "remove", "rebalance"]

_PLANS: Mapping[Action, Callable[..., PlannedChange]] = {
    "join": plan_join,
    "drain": plan_drain,
    "undrain": plan_undrain,
    "weight": plan_weight,
    "remove": plan_remove,
    "rebalance": plan_rebalance,
}


class NoRingError(PlanError):
    """No node has a place in a ring, or this one has none: it owns every session by itself."""

    code = "no_ring"
    hint = "start an owner with --link HOST:PORT"


class SilentNodesError(PlanError):
    """Nodes that would get slots do not live, as it seems; `details` names them."""

    code = "nodes_silent"
    hint = 'start them; or, to give them slots all the same: --force (over HTTP "force": true)'

    def __init__(self, message: str, nodes: list[str]) -> None:
        super().__init__(message)
        self.details = {"nodes": nodes}


class Ask(NamedTuple):
    """A change that somebody asks for; `node_id` and `weight` where the action takes them."""

    action: Action
    node_id: str = ""
    weight: int = 0


class Plan(NamedTuple):
    """A change, the ring that it was worked out from, and what changes hands once it is carried out."""

    ring: Ring
    change: PlannedChange
    moves: list[Move]

    @property
    def given(self) -> Counter[str]:
        """How many slots each node is given that were meant for another."""
        return Counter(target for _, target in self.change.targets if target)

    @property
    def looked_at(self) -> set[str]:
        """The nodes of which it matters whether they live."""
        return {*self.given, *(node_id for node_id, _ in self.change.removed)}


class RollCall:
    """What was heard of the nodes since the first look."""

    def __init__(self, beats: Mapping[str, Heartbeat]) -> None:
        self._first = beats
        self._heard: set[str] = set()

    def hear(self, beats: Mapping[str, Heartbeat]) -> None:
        """Look again; every node whose beat has moved lives."""
        self._heard |= {
            node_id for node_id, beat in beats.items() if self._first.get(node_id) != beat
        }

    def heard(self, nodes: Collection[str]) -> bool:
        """Tell whether all of these were heard of."""
        return self._heard.issuperset(nodes)

    def lives(self, node: NodeEntry) -> bool:
        """Tell whether a node was heard of, by now or by the time that its entry was read."""
        if node.node_id in self._heard:
            return True
        first = self._first.get(node.node_id)
        return first is None or first.beat != node.beat


class Progress(NamedTuple):
    """How far the nodes are with what was asked of them: slots on their way, nodes that still drain."""

    slots: int
    draining: list[str]

    @property
    def done(self) -> bool:
        """Whether everything is where it should be."""
        return not self.slots and not self.draining


def read_ring(archive: Archive) -> Ring:
    """Return the ring.

    Raises:
        NoRingError: there is none.
    """
    ring = archive.read_ring()
    if not ring.owners:
        raise NoRingError("no node of this archive has a place in a ring")
    return ring


def work_out(ring: Ring, ask: Ask, actor: str) -> Plan:
    """Return what a change would do to this ring.

    Raises:
        PlanError: it makes no sense.
    """
    plan: Callable[..., PlannedChange] = partial(
        _PLANS[ask.action], at_ms=time.time_ns() // 1_000_000, actor=actor
    )
    if ask.action == "rebalance":
        change = plan(ring)
    elif ask.action == "weight":
        change = plan(ring, ask.node_id, ask.weight)
    else:
        change = plan(ring, ask.node_id)
    return Plan(ring, change, planned_moves(ring, change))


def carry_out(archive: Archive, ask: Ask, actor: str, beats: RollCall | None) -> tuple[Plan, int]:
    """Make a change; return it as it was made, and the ring's version since.

    Without `beats` nobody looks whether the nodes live that it counts on.

    Raises:
        PlanError: it makes no sense, or not any more; or it counts on nodes that do not live.
        RingChangedError: the ring changes all the time.
    """
    tries = 0
    while True:
        plan = work_out(read_ring(archive), ask, actor)
        if beats is not None:
            check_lives(plan, beats)
        try:
            return plan, archive.change_ring(plan.change)
        except RingChangedError:
            tries += 1
            if tries >= TRIES_MAX:
                raise


def check_lives(plan: Plan, beats: RollCall) -> None:
    """Check that nodes live that are given something, and that those do not that are taken out.

    Raises:
        PlanError: a node that is to be removed lives.
        SilentNodesError: nodes that would get slots were not heard of.
    """
    nodes = {node.node_id: node for node in plan.ring.nodes}
    for node_id, _ in plan.change.removed:
        if beats.lives(nodes[node_id]):
            raise PlanError(f"node {node_id} lives", "stop its process first")
    silent = sorted(node_id for node_id in plan.given if not beats.lives(nodes[node_id]))
    if silent:
        slots = sum(plan.given[node_id] for node_id in silent)
        raise SilentNodesError(
            f"{slots} slots would go to nodes that do not live: {', '.join(silent)}", silent
        )


def progress_of(ring: Ring) -> Progress:
    """Return how far the nodes are."""
    slots = sum(a != b for a, b in zip(ring.owners, ring.targets, strict=True))
    return Progress(slots, [node.node_id for node in ring.nodes if node.state == DRAINING])


class SessionCount:
    """Counts the archive's sessions by slot, page by page; keeps some of those in slots that move."""

    def __init__(
        self, archive: Archive, moves: Iterable[Move], slots: int, *, keep: int, workspace: str = ""
    ) -> None:
        """Keep at most `keep` sessions, of one workspace where it is named."""
        self.by_slot = [0] * slots
        self.counted = 0
        self.whole = False
        """Whether every session was counted."""
        self.kept: list[tuple[str, str, Move]] = []
        """workspace, session, and what its slot does."""
        self._archive = archive
        self._moves = {move.slot: move for move in moves}
        self._keep = keep
        self._workspace = workspace
        self._after = ("", "")

    def read_page(self) -> bool:
        """Count some more; return whether there may be others."""
        keys = self._archive.list_session_keys(self._after, SESSIONS_PAGE)
        slots = len(self.by_slot)
        for workspace, session in keys:
            slot = slot_of(workspace, session, slots)
            self.by_slot[slot] += 1
            move = self._moves.get(slot)
            if move is not None and self._keeps(workspace):
                self.kept.append((workspace, session, move))
        self.counted += len(keys)
        self.whole = len(keys) < SESSIONS_PAGE
        if keys:
            self._after = keys[-1]
        return not self.whole

    def _keeps(self, workspace: str) -> bool:
        return len(self.kept) < self._keep and self._workspace in {"", workspace}

    def moving(self, moves: Iterable[Move]) -> int:
        """Return how many sessions are in the slots that move."""
        return sum(self.by_slot[move.slot] for move in moves)


def slot_ranges(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Return slots, each once, as ranges (first, last), ascending."""
    ordered = sorted(slots)
    if not ordered:
        return []
    gaps = [(a, b) for a, b in pairwise(ordered) if b != a + 1]
    firsts = [ordered[0], *(b for _, b in gaps)]
    lasts = [*(a for a, _ in gaps), ordered[-1]]
    return list(zip(firsts, lasts, strict=True))


def by_pair(moves: Iterable[Move]) -> dict[tuple[str, str], list[int]]:
    """Return the slots that move, by who has them and who gets them."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for move in moves:
        pairs.setdefault((move.source, move.target), []).append(move.slot)
    return dict(sorted(pairs.items()))

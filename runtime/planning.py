"""What a change of the cluster means for its slots, worked out before anything moves. Pure.

A plan is made from the ring at one version and is good for that one only: whoever carries it out finds out if
somebody was quicker, and works it out again.
"""

from collections.abc import Collection, Iterable, Mapping

from runtime.ring import Move, assign, moves
from storage import ACTIVE, DEAD, DRAINED, DRAINING, JOINING, NodeEntry, PlannedChange, Ring

WEIGHT_MAX = 100
"""Of one node: its places on the ring are worked out one by one."""


class PlanError(Exception):
    """The change makes no sense for the ring as it is; nothing was changed."""

    code = "ring_refused"
    hint = "look at `ringlog ring show`"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.hint


class UnknownNodeError(PlanError):
    """There is no such node in the ring."""

    code = "node_not_found"


def plan_join(ring: Ring, node_id: str, *, at_ms: int, actor: str) -> PlannedChange:
    """Give a node that waits its share.

    Raises:
        PlanError: it is not there, or has a share.
    """
    node = _node(ring, node_id)
    if node.state in {ACTIVE, DRAINING}:
        raise PlanError(f"node {node_id} is {node.state}")
    return _plan(ring, "join", node_id, {node_id: ACTIVE}, {}, at_ms=at_ms, actor=actor)


def plan_drain(ring: Ring, node_id: str, *, at_ms: int, actor: str) -> PlannedChange:
    """Give a node's slots to the others.

    Raises:
        PlanError: it is not there, has no share, or is the last that could own anything.
    """
    node = _node(ring, node_id)
    if node.state != ACTIVE:
        raise PlanError(f"node {node_id} is {node.state}, not active")
    if [each.node_id for each in ring.nodes if each.state == ACTIVE] == [node_id]:
        raise PlanError(f"node {node_id} is the last owner", "let another owner join first")
    return _plan(ring, "drain", node_id, {node_id: DRAINING}, {}, at_ms=at_ms, actor=actor)


def plan_leave(ring: Ring, node_id: str, alive: Collection[str], *, at_ms: int) -> PlannedChange:
    """Give what a node owns to those that live, until it comes back and asks for its share.

    What others own stays theirs: this moves no more than it must.

    Raises:
        PlanError: it has no share, or nobody else lives who could own anything.
    """
    node = _node(ring, node_id)
    if node.state != ACTIVE:
        raise PlanError(f"node {node_id} is {node.state}, not active")
    targets = _targets_for_others(ring, node_id, alive, range(len(ring.targets)))
    return PlannedChange(
        ring.version, at_ms, node_id, "leave", node_id, targets, states=[(node_id, JOINING)]
    )


def plan_takeover(
    ring: Ring, node_id: str, alive: Collection[str], at_ms: int, actor: str
) -> PlannedChange | None:
    """Give what a node owns, and what is meant for it, to those that live; None if there is nothing.

    Raises:
        PlanError: nobody lives who could own anything.
    """
    node = _node(ring, node_id)
    if node_id not in ring.owners and node_id not in ring.targets:
        return None
    targets = _targets_for_others(ring, node_id, alive, range(len(ring.targets)))
    state = DRAINED if node.state == DRAINING else DEAD
    return PlannedChange(
        ring.version, at_ms, actor, "takeover", node_id, targets, states=[(node_id, state)]
    )


def check_takeover(ring: Ring, node_id: str, alive: Collection[str]) -> None:
    """Check that somebody could take over from a node.

    Raises:
        PlanError: nobody lives who could own anything.
    """
    _targets_for_others(ring, node_id, alive, ())


def plan_retarget(
    ring: Ring, node_id: str, alive: Collection[str], *, at_ms: int, actor: str
) -> PlannedChange | None:
    """Give what is meant for a silent node, and not its own yet, to those that live; None if there is nothing.

    Raises:
        PlanError: nobody lives who could own anything.
    """
    waiting = [
        slot
        for slot, (owner, target) in enumerate(zip(ring.owners, ring.targets, strict=True))
        if target == node_id and owner != node_id
    ]
    if not waiting:
        return None
    targets = _targets_for_others(ring, node_id, alive, waiting)
    return PlannedChange(ring.version, at_ms, actor, "retarget", node_id, targets)


def plan_undrain(ring: Ring, node_id: str, *, at_ms: int, actor: str) -> PlannedChange:
    """Give a node that is draining, or was drained, its share again.

    Raises:
        PlanError: it is not there, or was not drained.
    """
    node = _node(ring, node_id)
    if node.state not in {DRAINING, DRAINED}:
        raise PlanError(f"node {node_id} is {node.state}, not draining or drained")
    return _plan(ring, "undrain", node_id, {node_id: ACTIVE}, {}, at_ms=at_ms, actor=actor)


def plan_weight(ring: Ring, node_id: str, weight: int, *, at_ms: int, actor: str) -> PlannedChange:
    """Change how large a node's share is beside the others'.

    Raises:
        PlanError: it is not there, or no node may have this weight.
    """
    _node(ring, node_id)
    if not 1 <= weight <= WEIGHT_MAX:
        raise PlanError(f"a weight is a whole number from 1 to {WEIGHT_MAX}")
    return _plan(ring, "weight", node_id, {}, {node_id: weight}, at_ms=at_ms, actor=actor)


def plan_remove(ring: Ring, node_id: str, *, at_ms: int, actor: str) -> PlannedChange:
    """Take a node that has nothing out of the ring. One that is started again comes as a new one.

    Raises:
        PlanError: it is not there, owns or awaits something, or is the last one.
    """
    node = _node(ring, node_id)
    if [each.node_id for each in ring.nodes if each.state == ACTIVE] == [node_id]:
        raise PlanError(f"node {node_id} is the last owner", "let another owner join first")
    if node.state == ACTIVE:
        raise PlanError(
            f"node {node_id} is active", f"drain it first: ringlog ring drain {node_id} --wait"
        )
    owned, meant = ring.owners.count(node_id), ring.targets.count(node_id)
    if node.state == DRAINING or owned or meant:
        raise PlanError(
            f"node {node_id} is {node.state}: it owns {owned} slots, and {meant} are meant for it",
            "wait until it has given up what it owns: ringlog ring wait",
        )
    if len(ring.nodes) == 1:
        raise PlanError(f"node {node_id} is the last one", "let another owner join first")
    return PlannedChange(
        ring.version, at_ms, actor, "remove", node_id, removed=[(node_id, node.epoch)]
    )


def plan_rebalance(ring: Ring, *, at_ms: int, actor: str) -> PlannedChange:
    """Give every slot the target that it would have if the ring were made anew."""
    return _plan(ring, "rebalance", "", {}, {}, at_ms=at_ms, actor=actor)


def plan_drained(ring: Ring, node_id: str, *, at_ms: int) -> PlannedChange | None:
    """Note that a node has drained, if it has: it owns nothing, and nothing is meant for it."""
    node = ring.node(node_id)
    if node is None or node.state != DRAINING:
        return None
    if node_id in ring.owners or node_id in ring.targets:
        return None
    return PlannedChange(
        ring.version, at_ms, node_id, "drained", node_id, states=[(node_id, DRAINED)]
    )


def planned_moves(ring: Ring, change: PlannedChange) -> list[Move]:
    """Return the slots that change hands once a change is carried out, and what moves now is done."""
    targets = list(ring.targets)
    for slot, target in change.targets:
        targets[slot] = target
    return moves(ring.owners, targets)


def _targets_for_others(
    ring: Ring, node_id: str, alive: Collection[str], slots: Iterable[int]
) -> list[tuple[int, str]]:
    """Return a new target for those of the slots that are meant for a node; what is meant for others stays."""
    shares = {
        node.node_id: node.weight
        for node in ring.nodes
        if node.state == ACTIVE and node.node_id in alive and node.node_id != node_id
    }
    if not shares:
        raise PlanError(f"no owner but {node_id} lives")
    slots = list(slots)
    if not slots:
        return []
    wanted = assign(shares, len(ring.targets))
    return [(slot, wanted[slot]) for slot in slots if ring.targets[slot] == node_id]


def _plan(
    ring: Ring,
    action: str,
    node_id: str,
    states: Mapping[str, str],
    weights: Mapping[str, int],
    *,
    at_ms: int,
    actor: str,
) -> PlannedChange:
    shares = {
        node.node_id: weights.get(node.node_id, node.weight)
        for node in ring.nodes
        if states.get(node.node_id, node.state) == ACTIVE
    }
    wanted = assign(shares, len(ring.targets))
    return PlannedChange(
        ring.version,
        at_ms,
        actor,
        action,
        node_id,
        targets=[(move.slot, move.target) for move in moves(ring.targets, wanted)],
        states=list(states.items()),
        weights=list(weights.items()),
    )


def _node(ring: Ring, node_id: str) -> NodeEntry:
    node = ring.node(node_id)
    if node is None:
        raise UnknownNodeError(f"there is no node {node_id} in the ring")
    return node

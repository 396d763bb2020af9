from collections import Counter

import pytest

from runtime import (
    PlanError,
    plan_drain,
    plan_join,
    plan_rebalance,
    plan_undrain,
    plan_weight,
    planned_moves,
)
from runtime.planning import UnknownNodeError, plan_drained, plan_leave, plan_remove
from runtime.ring import assign
from storage import ACTIVE, DRAINED, DRAINING, JOINING, NodeEntry, PlannedChange, Ring

SLOTS = 256
A, B, C = "a", "b", "c"


def ring(**states: str) -> Ring:
    """Return a ring at rest: each active node has its share."""
    nodes = tuple(
        NodeEntry(name, "x:1", state, 1, 0, 1, sealed=False) for name, state in states.items()
    )
    shares = {name: 1 for name, state in states.items() if state == ACTIVE}
    slots = assign(shares, SLOTS)
    return Ring(7, nodes, slots, slots)


def after(before: Ring, change: PlannedChange) -> Counter[str]:
    """Return how many slots are meant for whom then."""
    targets = list(before.targets)
    for slot, target in change.targets:
        assert targets[slot] != target
        targets[slot] = target
    return Counter(targets)


def test_a_node_that_joins_gets_its_share_and_only_what_it_gets_moves() -> None:
    before = ring(a=ACTIVE, b=ACTIVE, c=JOINING)
    change = plan_join(before, C, at_ms=5, actor="ops")
    assert (change.seen_version, change.at_ms, change.actor) == (7, 5, "ops")
    assert (change.action, change.node_id, list(change.states)) == ("join", C, [(C, ACTIVE)])
    assert after(before, change)[C] == pytest.approx(SLOTS / 3, rel=0.1)
    assert sum(target == C for _, target in change.targets) > 0.8 * len(change.targets)


def test_a_node_that_drains_gives_up_everything_and_gets_it_back_as_it_was() -> None:
    before = ring(a=ACTIVE, b=ACTIVE, c=ACTIVE)
    drain = plan_drain(before, C, at_ms=0, actor="ops")
    assert after(before, drain)[C] == 0
    assert list(drain.states) == [(C, DRAINING)]
    targets = list(before.targets)
    for slot, target in drain.targets:
        targets[slot] = target
    nodes = ring(a=ACTIVE, b=ACTIVE, c=DRAINING).nodes
    drained = Ring(8, nodes, tuple(targets), tuple(targets))
    undrain = plan_undrain(drained, C, at_ms=0, actor="ops")
    for slot, target in undrain.targets:
        targets[slot] = target
    assert tuple(targets) == before.targets


def test_a_heavier_node_gets_more() -> None:
    before = ring(a=ACTIVE, b=ACTIVE)
    change = plan_weight(before, A, 3, at_ms=0, actor="ops")
    assert list(change.weights) == [(A, 3)]
    assert after(before, change)[A] == pytest.approx(SLOTS * 3 / 4, rel=0.1)


def test_a_ring_at_rest_needs_no_rebalancing() -> None:
    assert plan_rebalance(ring(a=ACTIVE, b=ACTIVE), at_ms=0, actor="ops").targets == []


def test_the_moves_of_a_plan_are_those_from_who_owns_a_slot_now() -> None:
    before = ring(a=ACTIVE, b=ACTIVE)
    change = plan_drain(before, B, at_ms=0, actor="ops")
    moves = planned_moves(before, change)
    assert {(move.source, move.target) for move in moves} == {(B, A)}
    assert len(moves) == Counter(before.owners)[B]


@pytest.mark.parametrize(
    ("plan", "node", "states"),
    [
        (plan_drain, A, {"a": ACTIVE, "b": DRAINED}),
        (plan_drain, B, {"a": ACTIVE, "b": DRAINED}),
        (plan_drain, "x", {"a": ACTIVE, "b": ACTIVE}),
        (plan_join, A, {"a": ACTIVE}),
        (plan_undrain, A, {"a": ACTIVE}),
    ],
)
def test_what_makes_no_sense_is_refused(plan: object, node: str, states: dict[str, str]) -> None:
    with pytest.raises(PlanError):
        plan(ring(**states), node, at_ms=0, actor="ops")  # type: ignore[operator]


@pytest.mark.parametrize("weight", [0, -1, 101])
def test_a_weight_has_bounds(weight: int) -> None:
    with pytest.raises(PlanError):
        plan_weight(ring(a=ACTIVE), A, weight, at_ms=0, actor="ops")


def test_a_node_has_drained_when_nothing_is_its_own_or_meant_for_it() -> None:
    rest = ring(a=ACTIVE)
    nodes = ring(a=ACTIVE, b=DRAINING).nodes
    done = Ring(9, nodes, rest.owners, rest.targets)
    change = plan_drained(done, B, at_ms=0)
    assert change is not None
    assert list(change.states) == [(B, DRAINED)]
    still = Ring(9, nodes, (B, *rest.owners[1:]), rest.targets)
    assert plan_drained(still, B, at_ms=0) is None
    assert plan_drained(done, A, at_ms=0) is None


def test_a_node_that_leaves_gives_what_it_has_to_those_that_live_and_moves_nothing_else() -> None:
    before = ring(a=ACTIVE, b=ACTIVE, c=ACTIVE)
    change = plan_leave(before, C, {A, C}, at_ms=0)
    mine = [slot for slot, owner in enumerate(before.owners) if owner == C]
    assert sorted(slot for slot, _ in change.targets) == mine
    assert {target for _, target in change.targets} == {A}
    assert list(change.states) == [(C, JOINING)]


def test_a_node_that_nobody_could_follow_does_not_leave() -> None:
    with pytest.raises(PlanError):
        plan_leave(ring(a=ACTIVE, b=ACTIVE), A, {A}, at_ms=0)


@pytest.mark.parametrize("state", [DRAINED, JOINING])
def test_a_node_that_has_nothing_is_removed_with_its_epoch_and_nothing_moves(state: str) -> None:
    change = plan_remove(ring(a=ACTIVE, b=state), B, at_ms=5, actor="ops")
    assert (change.action, change.node_id, change.seen_version) == ("remove", B, 7)
    assert list(change.removed) == [(B, 1)]
    assert not change.targets
    assert not change.states


@pytest.mark.parametrize(
    ("node", "states", "message", "hint"),
    [
        (A, {"a": ACTIVE, "b": ACTIVE}, "node a is active", "ringlog ring drain a --wait"),
        (A, {"a": ACTIVE, "b": DRAINED}, "node a is the last owner", "another owner join"),
        (A, {"a": JOINING}, "node a is the last one", "another owner join"),
        (A, {"a": DRAINING, "b": ACTIVE}, "node a is draining", "ringlog ring wait"),
    ],
)
def test_a_node_that_is_needed_is_not_removed(
    node: str, states: dict[str, str], message: str, hint: str
) -> None:
    with pytest.raises(PlanError, match=message) as refusal:
        plan_remove(ring(**states), node, at_ms=0, actor="ops")
    assert hint in refusal.value.hint


@pytest.mark.parametrize("what", ["owners", "targets"])
def test_a_node_that_owns_or_awaits_a_slot_is_not_removed(what: str) -> None:
    rest = ring(a=ACTIVE, b=DRAINED)
    lists = {"owners": rest.owners, "targets": rest.targets}
    lists[what] = (B, *lists[what][1:])
    left = Ring(9, rest.nodes, lists["owners"], lists["targets"])
    with pytest.raises(PlanError, match=r"owns 1 slots|1 are meant"):
        plan_remove(left, B, at_ms=0, actor="ops")


def test_a_node_that_is_not_in_the_ring_is_told_apart_from_one_that_is_refused() -> None:
    with pytest.raises(UnknownNodeError) as refusal:
        plan_drain(ring(a=ACTIVE, b=ACTIVE), "x", at_ms=0, actor="ops")
    assert refusal.value.code == "node_not_found"

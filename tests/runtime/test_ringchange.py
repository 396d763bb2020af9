"""Changing the ring for an operator, on SQLite and on PostgreSQL."""

import pytest

from runtime import (
    Ask,
    NoRingError,
    PlanError,
    RollCall,
    SessionCount,
    SilentNodesError,
    by_pair,
    carry_out,
    plan_join,
    progress_of,
    read_ring,
    slot_of,
    slot_ranges,
    work_out,
)
from runtime.ring import Move
from runtime.ringchange import TRIES_MAX
from storage import (
    ACTIVE,
    DRAINED,
    DRAINING,
    Archive,
    Place,
    PlannedChange,
    Ring,
    RingChangedError,
    SessionRecord,
)

A, B, C = "node-a", "node-b", "node-c"
SLOTS = 64


def start(archive: Archive, node_id: str) -> int:
    """Start a node; return its epoch."""
    return archive.begin_epoch(node_id, "local", 0, Place("127.0.0.1:1", 1, SLOTS)).epoch


def settle(archive: Archive) -> None:
    """Have everything moved where it should be, as the nodes do it."""
    ring = archive.read_ring()
    epochs = {node.node_id: node.epoch for node in ring.nodes}
    moving = [slot for slot, target in enumerate(ring.targets) if ring.owners[slot] != target]
    for node_id, epoch in epochs.items():
        archive.release_slots(node_id, epoch, 0, moving)
    for node_id, epoch in epochs.items():
        archive.claim_slots(node_id, epoch, moving)


@pytest.fixture
def cluster(archive: Archive) -> Archive:
    """Two nodes that have their share, and a third that waits for one."""
    for node_id in (A, B, C):
        start(archive, node_id)
    for node_id in (A, B):
        archive.change_ring(plan_join(archive.read_ring(), node_id, at_ms=0, actor=node_id))
    settle(archive)
    return archive


def all_live(archive: Archive) -> RollCall:
    """Listen to nodes that all live."""
    beats = RollCall(archive.read_beats())
    for node in archive.read_ring().nodes:
        archive.beat(node.node_id, node.epoch)
    beats.hear(archive.read_beats())
    return beats


def silence(archive: Archive) -> RollCall:
    """Listen, and hear nothing."""
    beats = RollCall(archive.read_beats())
    beats.hear(archive.read_beats())
    return beats


def sessions(archive: Archive, *names: tuple[str, str], state: str = "active") -> None:
    """Have sessions in the archive."""
    rows = [SessionRecord(w, s, "u", (), state, 1, 1, 1, b"{}") for w, s in names]
    node = archive.read_cursor(A)
    archive.flush(A, node.epoch, node.cursor, rows)


def test_an_archive_without_a_ring_says_so(archive: Archive) -> None:
    with pytest.raises(NoRingError) as refusal:
        read_ring(archive)
    assert "--link" in refusal.value.hint
    with pytest.raises(NoRingError):
        carry_out(archive, Ask("rebalance"), "ops", None)


def test_a_change_is_made_in_the_name_of_who_asked(cluster: Archive) -> None:
    plan, version = carry_out(cluster, Ask("weight", A, 3), "key-1 (ops)", all_live(cluster))

    ring = cluster.read_ring()
    assert ring.version == version
    assert ring.node(A).weight == 3  # type: ignore[union-attr]
    [last] = cluster.list_ring_changes(1)
    assert (last.version, last.actor, last.action) == (version, "key-1 (ops)", "weight")
    assert last.slots_moved == len(plan.moves) > 0
    assert {(move.source, move.target) for move in plan.moves} == {(B, A)}


@pytest.mark.parametrize(
    "ask", [Ask("drain", B), Ask("weight", A, 9), Ask("join", C)], ids=lambda ask: ask.action
)
def test_nothing_is_given_to_nodes_that_do_not_live_unless_it_is_forced(
    cluster: Archive, ask: Ask
) -> None:
    before = cluster.read_ring()
    with pytest.raises(SilentNodesError) as refusal:
        carry_out(cluster, ask, "ops", silence(cluster))
    assert cluster.read_ring() == before
    given = set(work_out(before, ask, "ops").given)
    assert set(refusal.value.details["nodes"]) == given
    assert all(node in str(refusal.value) for node in given)

    carry_out(cluster, ask, "ops", None)
    assert cluster.read_ring().version > before.version


def test_what_gives_nothing_to_a_silent_node_is_made(cluster: Archive) -> None:
    beats = RollCall(cluster.read_beats())
    cluster.beat(A, cluster.read_ring().node(A).epoch)  # type: ignore[union-attr]
    beats.hear(cluster.read_beats())
    assert beats.heard({A})
    assert not beats.heard({A, B})
    carry_out(cluster, Ask("drain", B), "ops", beats)
    assert cluster.read_ring().node(B).state == DRAINING  # type: ignore[union-attr]


def test_a_node_that_comes_while_one_listens_is_heard(cluster: Archive) -> None:
    beats = silence(cluster)
    ring = cluster.read_ring()
    assert not any(beats.lives(node) for node in ring.nodes)
    start(cluster, B)
    start(cluster, "node-d")
    living = {node.node_id for node in cluster.read_ring().nodes if beats.lives(node)}
    assert living == {B, "node-d"}


def test_a_node_that_was_drained_is_removed_once_it_is_silent(cluster: Archive) -> None:
    carry_out(cluster, Ask("drain", B), "ops", None)
    with pytest.raises(PlanError, match="draining"):
        carry_out(cluster, Ask("remove", B), "ops", silence(cluster))
    settle(cluster)
    ring = cluster.read_ring()
    cluster.change_ring(PlannedChange(ring.version, 0, B, "drained", B, states=[(B, DRAINED)]))

    with pytest.raises(PlanError, match="lives"):
        carry_out(cluster, Ask("remove", B), "ops", all_live(cluster))
    late = silence(cluster)
    start(cluster, B)
    with pytest.raises(PlanError, match="lives"):
        carry_out(cluster, Ask("remove", B), "ops", late)
    carry_out(cluster, Ask("remove", B), "ops", silence(cluster))
    assert {node.node_id for node in cluster.read_ring().nodes} == {A, C}


class Restless(Archive):
    """An archive whose ring somebody else changes whenever one is about to."""

    left = 0

    def change_ring(self, change: PlannedChange) -> int:
        if self.left > 0:
            self.left -= 1
            ring = self.read_ring()
            super().change_ring(PlannedChange(ring.version, 0, "other", "x", A))
        return super().change_ring(change)


def test_a_change_is_worked_out_anew_while_the_ring_changes(cluster: Archive) -> None:
    cluster.__class__ = Restless
    assert isinstance(cluster, Restless)
    cluster.left = TRIES_MAX - 1
    carry_out(cluster, Ask("drain", B), "ops", None)
    assert cluster.read_ring().node(B).state == DRAINING  # type: ignore[union-attr]
    cluster.left = TRIES_MAX
    with pytest.raises(RingChangedError):
        carry_out(cluster, Ask("undrain", B), "ops", None)


def test_progress_is_what_is_on_its_way_and_who_still_drains(cluster: Archive) -> None:
    assert progress_of(cluster.read_ring()) == (0, [])
    assert progress_of(cluster.read_ring()).done
    plan, _ = carry_out(cluster, Ask("drain", B), "ops", None)
    assert progress_of(cluster.read_ring()) == (len(plan.moves), [B])
    settle(cluster)
    progress = progress_of(cluster.read_ring())
    assert (progress, progress.done) == ((0, [B]), False)


def test_sessions_are_counted_by_slot_and_those_that_move_are_named(
    cluster: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [(workspace, f"s-{n}") for workspace in ("acme", "beta") for n in range(40)]
    sessions(cluster, *names)
    sessions(cluster, ("acme", "gone"), state="deleted")
    moves = work_out(cluster.read_ring(), Ask("drain", B), "ops").moves
    leaving = {move.slot for move in moves}
    expected = {name for name in names if slot_of(*name, SLOTS) in leaving}
    assert 0 < len(expected) < len(names)

    monkeypatch.setattr("runtime.ringchange.SESSIONS_PAGE", 7)
    count = SessionCount(cluster, moves, SLOTS, keep=1_000)
    pages = 1
    while count.read_page():
        pages += 1
        assert not count.whole
    assert count.whole
    assert pages == 12
    assert (count.counted, sum(count.by_slot)) == (80, 80)
    assert count.moving(moves) == len(expected)
    assert {(workspace, session) for workspace, session, _ in count.kept} == expected
    assert {move for *_, move in count.kept} <= set(moves)

    few = SessionCount(cluster, moves, SLOTS, keep=2, workspace="beta")
    while few.read_page():
        pass
    assert [workspace for workspace, *_ in few.kept] == ["beta", "beta"]
    assert few.counted == 80


@pytest.mark.parametrize(
    ("slots", "ranges"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([3, 1, 2], [(1, 3)]),
        ([0, 1, 7, 9, 10, 4095], [(0, 1), (7, 7), (9, 10), (4095, 4095)]),
    ],
)
def test_slots_are_told_as_ranges(slots: list[int], ranges: list[tuple[int, int]]) -> None:
    assert slot_ranges(slots) == ranges


def test_moves_are_told_by_pair() -> None:
    moves = [Move(3, A, B), Move(1, "", B), Move(4, A, B)]
    assert by_pair(moves) == {("", B): [1], (A, B): [3, 4]}


def test_a_plan_names_who_is_given_what(cluster: Archive) -> None:
    ring = cluster.read_ring()
    plan = work_out(ring, Ask("join", C), "ops")
    assert set(plan.given) >= {C}
    assert sum(plan.given.values()) == len(plan.change.targets)
    assert plan.looked_at == set(plan.given)
    assert isinstance(plan.ring, Ring)
    assert ring.node(C).state != ACTIVE  # type: ignore[union-attr]

"""Nodes and slots, on SQLite and on PostgreSQL."""

import threading

import pytest

from storage import (
    ACTIVE,
    JOINING,
    Archive,
    ArchiveOwnedError,
    CursorMismatchError,
    FencedError,
    Place,
    PlannedChange,
    Ring,
    RingChangedError,
    RingSizeError,
    open_archive,
)
from tests.storage.archive_records import message

A, B = "node-a", "node-b"


def start(archive: Archive, node_id: str, *, slots: int = 4) -> int:
    """Take an epoch and a place; return the epoch."""
    return archive.begin_epoch(node_id, "local", 0, Place("127.0.0.1:1", 1, slots)).epoch


def target(archive: Archive, *targets: str) -> int:
    """Mean each slot for a node."""
    ring = archive.read_ring()
    return archive.change_ring(
        PlannedChange(ring.version, 7, "me", "join", A, targets=list(enumerate(targets)))
    )


def test_the_first_node_makes_the_ring_and_one_of_another_size_is_refused(archive: Archive) -> None:
    assert archive.read_ring() == Ring(0, (), (), ())
    start(archive, A)
    ring = archive.read_ring()
    assert ring.owners == ring.targets == ("", "", "", "")
    [node] = ring.nodes
    assert (node.node_id, node.state, node.weight, node.epoch) == (A, JOINING, 1, 1)
    assert not node.sealed
    # Also where it was let in before: its epoch is not ended by what may not start.
    for name in (B, A):
        with pytest.raises(RingSizeError, match="has 4 slots, this node was started for 8"):
            start(archive, name, slots=8)
    after = archive.read_ring()
    assert (after.version, len(after.owners)) == (ring.version, 4)
    assert [each.epoch for each in after.nodes] == [1]
    archive.beat(A, 1)


def test_a_node_that_starts_again_keeps_its_state_and_its_slots(archive: Archive) -> None:
    epoch = start(archive, A)
    target(archive, A, A, A, A)
    archive.claim_slots(A, epoch, [0, 1, 2, 3])
    ring = archive.read_ring()
    archive.change_ring(PlannedChange(ring.version, 0, "me", "x", A, states=[(A, ACTIVE)]))
    epoch = start(archive, A)
    ring = archive.read_ring()
    assert epoch == 2
    assert ring.owners == (A, A, A, A)
    assert ring.nodes[0].state == ACTIVE


def test_a_slot_is_claimed_only_from_nobody_and_by_whom_it_is_meant_for(archive: Archive) -> None:
    epoch_a, epoch_b = start(archive, A), start(archive, B)
    target(archive, A, A, B, B)
    assert archive.claim_slots(A, epoch_a, [0, 1, 2, 3]) == [0, 1]
    assert archive.claim_slots(A, epoch_a, [0, 1, 2, 3]) == []
    target(archive, B, A, B, B)
    assert archive.claim_slots(B, epoch_b, [0, 1, 2, 3]) == [2, 3]
    assert archive.release_slots(A, epoch_a, 0, [0]) == [0]
    assert archive.claim_slots(B, epoch_b, [0]) == [0]
    assert archive.read_ring().owners == (B, A, B, B)


def test_what_a_node_does_not_own_it_cannot_release(archive: Archive) -> None:
    epoch_a, epoch_b = start(archive, A), start(archive, B)
    target(archive, A, A, B, B)
    archive.claim_slots(A, epoch_a, [0, 1])
    assert archive.release_slots(B, epoch_b, 0, [0, 1, 2]) == []
    assert archive.read_ring().owners == (A, A, "", "")


def test_a_slot_is_not_released_before_the_archive_has_what_was_written_in_it(
    archive: Archive,
) -> None:
    epoch = start(archive, A)
    target(archive, A, A, A, A)
    archive.claim_slots(A, epoch, [0])
    with pytest.raises(CursorMismatchError):
        archive.release_slots(A, epoch, 1, [0])
    assert archive.read_ring().owners[0] == A
    archive.flush(A, epoch, 0, [message(1)])
    assert archive.release_slots(A, epoch, 1, [0]) == [0]


@pytest.mark.parametrize("end", ["another life", "retired"])
def test_a_node_whose_epoch_is_over_neither_claims_nor_releases_nor_lives(
    archive: Archive, end: str
) -> None:
    epoch = start(archive, A)
    target(archive, A, A, A, A)
    archive.claim_slots(A, epoch, [0])
    if end == "retired":
        archive.retire_node(A, epoch)
    else:
        start(archive, A)
    with pytest.raises(FencedError):
        archive.claim_slots(A, epoch, [1])
    with pytest.raises(FencedError):
        archive.release_slots(A, epoch, 0, [0])
    with pytest.raises(FencedError):
        archive.beat(A, epoch)
    assert archive.read_ring().owners == (A, "", "", "")


def test_a_change_is_refused_if_the_ring_has_changed_since_it_was_worked_out(
    archive: Archive,
) -> None:
    start(archive, A)
    ring = archive.read_ring()
    target(archive, A, A, A, A)
    with pytest.raises(RingChangedError) as refusal:
        archive.change_ring(PlannedChange(ring.version, 0, "me", "drain", A))
    assert refusal.value.seen == ring.version


def test_changes_are_remembered_newest_first(archive: Archive) -> None:
    start(archive, A)
    first = target(archive, A, A, A, A)
    ring = archive.read_ring()
    second = archive.change_ring(
        PlannedChange(ring.version, 9, "ops", "weight", A, weights=[(A, 3)])
    )
    newest, oldest = archive.list_ring_changes()
    assert (oldest.version, oldest.actor, oldest.action, oldest.slots_moved) == (
        first,
        "me",
        "join",
        4,
    )
    assert (newest.version, newest.at_ms, newest.node_id, newest.slots_moved) == (second, 9, A, 0)
    assert archive.list_ring_changes(1) == [newest]
    assert archive.read_ring().nodes[0].weight == 3


def test_every_change_moves_the_version_and_a_beat_does_not(archive: Archive) -> None:
    epoch = start(archive, A)
    seen = [archive.read_ring_version()]
    for step in (
        lambda: target(archive, A, A, A, A),
        lambda: archive.claim_slots(A, epoch, [0]),
        lambda: archive.release_slots(A, epoch, 0, [0]),
        lambda: start(archive, B),
    ):
        step()
        seen.append(archive.read_ring_version())
    assert seen == sorted(set(seen))
    before = archive.read_ring()
    archive.beat(A, epoch)
    after = archive.read_ring()
    assert after.version == before.version
    assert after.nodes[0].beat == before.nodes[0].beat + 1


def test_nodes_that_claim_at_once_never_both_get_a_slot(archive_url: str) -> None:
    archives = [open_archive(archive_url) for _ in range(2)]
    try:
        epochs = [start(archives[0], node, slots=64) for node in (A, B)]
        won: dict[str, list[int]] = {A: [], B: []}

        def claim(node: str, epoch: int, archive: Archive) -> None:
            for slot in range(64):
                ring = archive.read_ring()
                try:
                    archive.change_ring(
                        PlannedChange(ring.version, 0, node, "take", node, targets=[(slot, node)])
                    )
                except RingChangedError:
                    continue
                won[node] += archive.claim_slots(node, epoch, [slot])

        threads = [
            threading.Thread(target=claim, args=(node, epoch, archive))
            for node, epoch, archive in zip((A, B), epochs, archives, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not set(won[A]) & set(won[B])
        owners = archives[0].read_ring().owners
        assert {slot for slot, owner in enumerate(owners) if owner == A} == set(won[A])
        assert {slot for slot, owner in enumerate(owners) if owner == B} == set(won[B])
    finally:
        for archive in archives:
            archive.close()


def test_a_node_that_nobody_can_reach_tolerates_no_other_and_no_other_it(archive: Archive) -> None:
    alone = archive.begin_epoch(A, "local").epoch
    with pytest.raises(ArchiveOwnedError):
        start(archive, B)
    archive.retire_node(A, alone)
    start(archive, B)
    with pytest.raises(ArchiveOwnedError):
        archive.begin_epoch(A, "local")
    start(archive, A)


def test_a_node_that_becomes_alone_is_reached_by_nobody_any_more(archive: Archive) -> None:
    start(archive, A)
    epoch = start(archive, B)
    archive.retire_node(B, epoch)
    archive.begin_epoch(A, "local")
    with pytest.raises(ArchiveOwnedError):
        start(archive, B)


def test_a_node_that_was_removed_leaves_nothing_that_keeps_others_out(archive: Archive) -> None:
    epoch = start(archive, A)
    start(archive, B)
    seen = archive.read_ring().version
    archive.change_ring(PlannedChange(seen, 0, "ops", "remove", A, removed=[(A, epoch)]))

    ring = archive.read_ring()
    assert [node.node_id for node in ring.nodes] == [B]
    assert ring.version == seen + 1
    assert A not in archive.read_beats()
    with pytest.raises(FencedError):
        archive.beat(A, epoch)
    start(archive, "node-c")
    [change] = archive.list_ring_changes()
    assert (change.action, change.node_id, change.actor) == ("remove", A, "ops")


def test_a_node_that_was_removed_comes_back_as_a_new_one(archive: Archive) -> None:
    epoch = start(archive, A)
    ring = archive.read_ring()
    archive.change_ring(
        PlannedChange(ring.version, 0, "ops", "x", A, states=[(A, ACTIVE)], weights=[(A, 7)])
    )
    ring = archive.read_ring()
    archive.change_ring(PlannedChange(ring.version, 0, "ops", "remove", A, removed=[(A, epoch)]))

    again = start(archive, A)
    [node] = archive.read_ring().nodes
    assert (node.state, node.weight, node.epoch, node.sealed) == (JOINING, 1, again, False)
    assert again > epoch
    archive.beat(A, again)


def test_a_node_that_starts_meanwhile_is_not_removed(archive: Archive) -> None:
    epoch = start(archive, A)
    seen = archive.read_ring().version
    again = start(archive, A)
    with pytest.raises(RingChangedError):
        archive.change_ring(PlannedChange(seen, 0, "ops", "remove", A, removed=[(A, epoch)]))
    archive.beat(A, again)

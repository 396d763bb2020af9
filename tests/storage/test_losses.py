"""Seqs that are left out after an owner was given up: marked once, whoever does it and however often."""

import pytest

from storage import (
    LOST_SEQS,
    Archive,
    CursorMismatchError,
    Loss,
    NodeReturnedError,
    Place,
    PlannedChange,
    Record,
    open_archive,
)
from tests.contracts.archive import NODE
from tests.storage.archive_records import messages, read_session, session_row
from tests.storage.sql import refuse_rows

W = "default"
PLACE = Place("127.0.0.1:1", slots=4)


def given_up(archive: Archive, place: Place | None = None) -> Loss:
    """Let an owner write to three sessions, and be given up."""
    ownership = archive.begin_epoch(NODE, "local", place=place)
    records: list[Record] = [
        *(session_row(name) for name in ("s1", "s2", "s3")),
        *messages(1, 3, session="s1"),
        *messages(1, 1, session="s2"),
    ]
    archive.flush(NODE, ownership.epoch, 0, records)
    assert archive.list_losses() == []
    assert archive.retire_node(NODE, ownership.epoch)
    return Loss(NODE, ownership.epoch, alone=place is None)


def heads(archive: Archive) -> list[int]:
    """Return the heads of the three sessions."""
    found = [read_session(archive, W, name) for name in ("s1", "s2", "s3")]
    return [0 if each is None else each.head_seq for each in found]


def test_what_is_left_out_is_read_where_it_would_have_been(archive: Archive) -> None:
    loss = given_up(archive)
    assert archive.list_losses() == [loss]
    assert archive.mark_lost(loss, [(W, "s1"), (W, "s3")], 5)
    assert heads(archive) == [3 + LOST_SEQS, 1, LOST_SEQS]
    rows = archive.read_messages(W, "s1", 2)
    gap = b'{"type":"gap","session":"s1","from":4,"to":%d,"reason":"lost"}' % (3 + LOST_SEQS)
    assert rows == [(3, b'{"seq":3}'), (3 + LOST_SEQS, gap)]
    [(_, whole)] = archive.read_messages(W, "s3")
    assert b'"from":1,"to":%d' % LOST_SEQS in whole
    snapshot = read_session(archive, W, "s1")
    assert snapshot is not None
    assert [recent[1] for recent in snapshot.recent] == ["c-1", "c-2", "c-3"]


def test_marking_again_changes_nothing_and_ends_when_it_is_settled(
    archive: Archive, archive_url: str
) -> None:
    loss = given_up(archive)
    keys = [(W, name) for name in ("s1", "s2", "s3")]
    other = open_archive(archive_url)
    assert archive.mark_lost(loss, keys[:2], 5)
    assert other.mark_lost(loss, keys, 6)
    marked = [3 + LOST_SEQS, 1 + LOST_SEQS, LOST_SEQS]
    assert heads(archive) == marked
    archive.settle_loss(loss)
    assert other.list_losses() == []
    assert not other.mark_lost(loss, keys, 7)
    other.close()
    # A second loss is another one.
    again = archive.begin_epoch(NODE, "local").epoch
    assert archive.retire_node(NODE, again)
    assert archive.mark_lost(Loss(NODE, again, alone=True), keys, 8)
    assert heads(archive) == [head + LOST_SEQS for head in marked]


def test_a_message_that_was_set_aside_counts(archive: Archive, archive_url: str) -> None:
    refuse_rows(archive_url, "messages", "seq = 3")
    loss = given_up(archive)
    assert archive.statistics().dead_letters == 1
    assert archive.mark_lost(loss, [(W, "s1")], 5)
    assert heads(archive)[0] == 3 + LOST_SEQS


def test_what_stopped_whole_has_lost_nothing(archive: Archive) -> None:
    ownership = archive.begin_epoch(NODE, "local")
    archive.flush(NODE, ownership.epoch, 0, messages(1, 3))
    archive.settle_whole(NODE, ownership.epoch, 3)
    assert archive.retire_node(NODE, ownership.epoch)
    assert archive.list_losses() == []


def test_what_stopped_whole_and_was_restored_without_its_log_may_have(archive: Archive) -> None:
    ownership = archive.begin_epoch(NODE, "local")
    archive.settle_whole(NODE, ownership.epoch, 0)
    assert archive.retire_node(NODE, ownership.epoch, lost=True)
    assert archive.list_losses() == [Loss(NODE, ownership.epoch, alone=True)]


def test_an_archive_that_went_back_does_not_have_the_whole(archive: Archive) -> None:
    ownership = archive.begin_epoch(NODE, "local")
    archive.flush(NODE, ownership.epoch, 0, messages(1, 3))
    with pytest.raises(CursorMismatchError):
        archive.settle_whole(NODE, ownership.epoch, 5)
    assert archive.retire_node(NODE, ownership.epoch)
    assert archive.list_losses() == [Loss(NODE, ownership.epoch, alone=True)]


def test_what_was_sealed_before_it_stopped_may_have(archive: Archive) -> None:
    loss = given_up(archive)
    archive.settle_whole(NODE, loss.epoch, 0)
    assert archive.list_losses() == [loss]


def test_who_gives_slots_away_settles_what_was_lost(archive: Archive) -> None:
    loss = given_up(archive, PLACE)
    ring = archive.read_ring()
    change = PlannedChange(ring.version, 0, "test", "takeover", NODE)
    archive.take_over(loss.epoch, change)
    assert archive.list_losses() == []
    assert not archive.mark_lost(loss, [(W, "s1")], 5)
    assert heads(archive) == [3, 1, 0]
    epoch = archive.begin_epoch(NODE, "local", place=PLACE).epoch
    with pytest.raises(NodeReturnedError):
        archive.take_over(loss.epoch, change)
    assert archive.retire_node(NODE, epoch)
    assert archive.list_losses() == [Loss(NODE, epoch)]


def test_a_node_that_is_removed_owned_nothing(archive: Archive) -> None:
    epoch = archive.begin_epoch(NODE, "local", place=PLACE).epoch
    version = archive.read_ring_version()
    change = PlannedChange(version, 0, "test", "remove", NODE, removed=[(NODE, epoch)])
    archive.change_ring(change)
    assert archive.list_losses() == []


def test_a_node_that_is_retired_and_removed_owned_nothing(archive: Archive) -> None:
    epoch = archive.begin_epoch(NODE, "local", place=PLACE).epoch
    assert archive.retire_node(NODE, epoch)
    assert archive.list_losses() == [Loss(NODE, epoch)]
    version = archive.read_ring_version()
    change = PlannedChange(version, 0, "test", "remove", NODE, removed=[(NODE, epoch)])
    archive.change_ring(change)
    assert archive.list_losses() == []


def test_what_was_alone_when_it_was_given_up_stays_so_until_it_is_settled(archive: Archive) -> None:
    alone = given_up(archive)
    epoch = archive.begin_epoch(NODE, "local", place=PLACE).epoch
    assert archive.list_losses() == [alone]
    assert archive.retire_node(NODE, epoch)
    assert archive.list_losses() == [Loss(NODE, epoch, alone=True)]
    archive.settle_loss(Loss(NODE, epoch, alone=True))
    epoch = archive.begin_epoch(NODE, "local", place=PLACE).epoch
    assert archive.retire_node(NODE, epoch)
    assert archive.list_losses() == [Loss(NODE, epoch)]


def test_with_a_second_copy_nothing_is_lost(postgres_url: str) -> None:
    archive = open_archive(postgres_url)
    epoch = archive.begin_epoch(NODE, "replicated").epoch
    assert archive.retire_node(NODE, epoch)
    assert archive.list_losses() == []
    archive.close()

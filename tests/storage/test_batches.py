"""Batches in the archive: added under the owner's epoch or not at all, read back whole, gone once flushed."""

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest
import trio
from sqlalchemy import text

from storage import (
    Archive,
    ArchiveSettingsError,
    ArchiveUnavailableError,
    CorruptLogError,
    CursorMismatchError,
    FencedError,
    NodeReturnedError,
    Place,
    PlannedChange,
    open_archive,
)
from storage.batches import PAGE_ROWS, Batch
from storage.frame import append_record
from storage.ownership import check_epoch
from storage.record import StoredRecord
from tests.contracts.archive import NODE
from tests.storage.archive_records import messages
from tests.storage.logs import record
from tests.storage.sql import run_sql

pytestmark = pytest.mark.postgres

PLACE = Place("127.0.0.1:1", 1, slots=8)


@pytest.fixture
def archive(postgres_url: str) -> Iterator[Archive]:
    opened = open_archive(postgres_url)
    assert opened.begin_epoch(NODE, "replicated", 0, PLACE).epoch == 1
    yield opened
    opened.close()


def batch(first_lsn: int, count: int = 2) -> Batch:
    payload = bytearray()
    for lsn in range(first_lsn, first_lsn + count):
        append_record(payload, record(lsn))
    return Batch(first_lsn, first_lsn + count, bytes(payload))


def add(archive: Archive, *batches: Batch, epoch: int = 1) -> None:
    writer = archive.open_batch_writer(NODE, epoch)
    try:
        for each in batches:
            writer.add(each)
    finally:
        writer.close()


def expected(begin: int, end: int) -> list[StoredRecord]:
    return [record(lsn) for lsn in range(begin, end)]


def test_batches_are_read_from_wherever_the_cursor_is(archive: Archive) -> None:
    add(archive, batch(0), batch(2, 3), batch(5, 1))
    for cursor in range(7):
        assert archive.read_batches(NODE, cursor) == expected(cursor, 6)
    assert archive.read_batches("another", 0) == []


def test_many_batches_are_read_a_page_at_a_time(archive: Archive) -> None:
    add(archive, *[batch(2 * place) for place in range(PAGE_ROWS + 1)])
    assert archive.read_batches(NODE, 0) == expected(0, 2 * PAGE_ROWS)
    assert archive.read_batches(NODE, 2 * PAGE_ROWS) == expected(2 * PAGE_ROWS, 2 * PAGE_ROWS + 2)


def test_a_batch_that_is_added_again_is_there_once(archive: Archive) -> None:
    add(archive, batch(0), batch(0), batch(2), batch(2))
    assert archive.read_batches(NODE, 0) == expected(0, 4)


def test_another_batch_at_the_same_lsn_is_refused(archive: Archive) -> None:
    add(archive, batch(0))
    with pytest.raises(FencedError):
        add(archive, batch(0, 3))
    assert archive.read_batches(NODE, 0) == expected(0, 2)


@pytest.mark.parametrize("end", ["another life", "sealed"])
def test_nothing_is_added_in_an_epoch_that_is_over(archive: Archive, end: str) -> None:
    if end == "sealed":
        assert archive.seal_node(NODE, 1)
    else:
        archive.begin_epoch(NODE, "replicated", 0, PLACE)
    with pytest.raises(FencedError):
        add(archive, batch(0))
    assert archive.read_batches(NODE, 0) == []


@pytest.mark.parametrize("end", ["another life", "sealed"])
async def test_whoever_ends_an_epoch_waits_for_a_batch_that_is_being_added(
    archive: Archive, postgres_url: str, end: str
) -> None:
    """Else it could be added after they have looked."""
    ended = trio.Event()

    async def end_epoch() -> None:
        if end == "sealed":
            # Not `seal_node`, which ends the connection that it would wait for.
            await trio.to_thread.run_sync(archive.retire_node, NODE, 1)
        else:
            begin = partial(archive.begin_epoch, NODE, "replicated", 0, PLACE)
            await trio.to_thread.run_sync(begin)
        ended.set()

    with psycopg.connect(postgres_url) as blocker:
        # The batch has its owner's row by then, and waits for whoever has its place in the table.
        blocker.execute(
            "INSERT INTO log_batches VALUES (%s, 0, 1, 1, 0, '')",
            (NODE,),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, add, archive, batch(0))
            await _wait_for_locks(postgres_url, 1)
            nursery.start_soon(end_epoch)
            await _wait_for_locks(postgres_url, 2)
            assert not ended.is_set()
            await trio.to_thread.run_sync(blocker.rollback)
    assert ended.is_set()
    assert archive.read_batches(NODE, 0) == expected(0, 2)


async def test_a_batch_waits_for_whoever_ends_its_epoch_and_is_refused(
    archive: Archive, postgres_url: str
) -> None:
    refused = trio.Event()

    def add_it() -> None:
        with pytest.raises(FencedError):
            add(archive, batch(0))
        trio.from_thread.run_sync(refused.set)

    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE owner_epochs SET sealed_epoch = 1 WHERE node_id = %s", (NODE,))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, add_it)
            await _wait_for_locks(postgres_url, 1)
            assert not refused.is_set()
            await trio.to_thread.run_sync(other.commit)
    assert archive.read_batches(NODE, 0) == []


def test_a_flush_takes_away_what_it_brought_in(archive: Archive) -> None:
    add(archive, batch(0), batch(2, 3), batch(5))
    archive.flush(NODE, 1, 0, messages(1, 4))
    assert archive.read_batches(NODE, 4) == expected(4, 7)
    assert run_sql(archive_url(archive), "SELECT first_lsn FROM log_batches ORDER BY 1") == [
        (2,),
        (5,),
    ]


def test_a_hole_is_told_and_not_passed_over(archive: Archive) -> None:
    add(archive, batch(0), batch(4))
    with pytest.raises(CorruptLogError, match="at byte 2: the batch is missing"):
        archive.read_batches(NODE, 0)
    with pytest.raises(CorruptLogError):
        archive.read_batches(NODE, 3)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("payload = set_byte(payload, 9, 0)", "checksum"),
        ("lsn_end = 3", "holds 2 records, not 3"),
    ],
)
def test_damage_is_told(archive: Archive, damage: str, reason: str) -> None:
    add(archive, batch(0))
    run_sql(archive_url(archive), f"UPDATE log_batches SET {damage}")
    with pytest.raises(CorruptLogError, match=reason):
        archive.read_batches(NODE, 0)


def test_no_answer_is_told_and_the_next_batch_has_a_new_connection(archive: Archive) -> None:
    writer = archive.open_batch_writer(NODE, 1)
    writer.add(batch(0))
    run_sql(
        archive_url(archive),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with pytest.raises(ArchiveUnavailableError):
        writer.add(batch(2))
    writer.add(batch(2))
    writer.close()
    assert archive.read_batches(NODE, 0) == expected(0, 4)


def test_sqlite_adds_no_batches(sqlite_url: str) -> None:
    opened = open_archive(sqlite_url)
    with pytest.raises(ArchiveSettingsError, match="PostgreSQL is needed"):
        opened.open_batch_writer(NODE, 1)
    opened.close()


# Taking over


def test_what_a_sealed_node_added_is_flushed_for_it(archive: Archive) -> None:
    add(archive, batch(0, 3))
    assert archive.seal_node(NODE, 1)
    archive.flush_sealed(NODE, 1, 0, messages(1, 3))
    assert archive.read_cursor(NODE).cursor == 3
    assert archive.read_batches(NODE, 3) == []
    with pytest.raises(CursorMismatchError):
        archive.flush_sealed(NODE, 1, 0, messages(1, 3))


def test_nothing_is_done_for_a_node_that_lives_or_has_come_back(archive: Archive) -> None:
    change = _takeover(archive)
    for _ in range(2):
        with pytest.raises(NodeReturnedError):
            archive.flush_sealed(NODE, 1, 0, messages(1, 3))
        with pytest.raises(NodeReturnedError):
            archive.take_over(1, change)
        # It was sealed, and began again.
        archive.seal_node(NODE, 1)
        archive.begin_epoch(NODE, "replicated", 0, PLACE)
    assert archive.read_cursor(NODE).cursor == 0


def test_slots_are_not_given_away_before_all_is_flushed(archive: Archive) -> None:
    _own(archive)
    add(archive, batch(0, 3))
    archive.seal_node(NODE, 1)
    with pytest.raises(CursorMismatchError):
        archive.take_over(1, _takeover(archive))
    assert set(archive.read_ring().owners) == {NODE}
    archive.flush_sealed(NODE, 1, 0, messages(1, 3))
    archive.take_over(1, _takeover(archive))
    ring = archive.read_ring()
    assert (set(ring.owners), set(ring.targets)) == ({""}, {"other"})
    node = ring.node(NODE)
    assert node is not None
    assert (node.state, node.sealed) == ("dead", True)


def test_a_dead_node_that_begins_again_joins(archive: Archive) -> None:
    archive.seal_node(NODE, 1)
    archive.take_over(1, _takeover(archive))
    archive.begin_epoch(NODE, "replicated", 0, PLACE)
    node = archive.read_ring().node(NODE)
    assert node is not None
    assert (node.state, node.sealed) == ("joining", False)


def test_a_node_that_was_heard_of_meanwhile_is_not_sealed(archive: Archive) -> None:
    seen = archive.read_beats()[NODE].beat
    archive.beat(NODE, 1)
    assert not archive.seal_node(NODE, 1, seen)
    archive.beat(NODE, 1)
    assert archive.seal_node(NODE, 1, seen + 2)
    with pytest.raises(FencedError):
        archive.beat(NODE, 1)


def test_a_node_is_waited_for_longer_while_it_starts(archive: Archive) -> None:
    place = Place("127.0.0.1:1", 1, 8, patience_ms=3_000)
    epoch = archive.begin_epoch(NODE, "replicated", 0, place).epoch
    assert _patience(archive) > 30_000
    archive.beat(NODE, epoch, 3_000)
    assert _patience(archive) == 3_000


def test_a_reader_that_somebody_overtakes_is_not_told_of_damage(archive: Archive) -> None:
    add(archive, batch(0), batch(2))
    archive.flush(NODE, 1, 0, messages(1, 2))
    with pytest.raises(CursorMismatchError):
        archive.read_batches(NODE, 0)
    assert archive.read_batches(NODE, 2) == expected(2, 4)
    assert archive.list_batch_owners() == [NODE]


def test_the_connections_of_a_node_that_began_again_are_left_alone(
    archive: Archive, postgres_url: str
) -> None:
    archive.name_connections(NODE)
    archive.begin_epoch(NODE, "replicated", 0, PLACE)
    observer = open_archive(postgres_url)
    with archive._dialect.writer.begin() as connection:
        assert not observer.seal_node(NODE, 1)
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    observer.close()


async def test_a_node_that_is_removed_while_it_starts_keeps_nobody_waiting_crosswise(
    archive: Archive, postgres_url: str
) -> None:
    place = Place("127.0.0.1:1", 1, slots=8)
    archive.begin_epoch(NODE, "replicated", 0, place)
    version = archive.read_ring_version()
    removal = PlannedChange(version, 0, "ops", "remove", NODE, removed=[(NODE, 2)])
    async with trio.open_nursery() as nursery:
        with archive._dialect.writer.begin() as connection:
            check_epoch(connection, NODE, 2)
            nursery.start_soon(trio.to_thread.run_sync, archive.change_ring, removal)
            await _wait_for_locks(postgres_url, 1)
            # Goes on as a claim does, or a start: what waits for the epoch does not hold this.
            connection.execute(text("SELECT value FROM cluster FOR UPDATE NOWAIT"))
    assert archive.read_ring().nodes == ()


def test_the_ring_tells_that_a_node_was_sealed(archive: Archive) -> None:
    before = archive.read_ring_version()
    assert not archive.seal_node(NODE, 7)
    assert archive.read_ring_version() == before
    assert archive.seal_node(NODE, 1)
    assert archive.read_ring_version() == before + 1


def test_a_transaction_that_hangs_is_ended_with_its_epoch(
    archive: Archive, postgres_url: str
) -> None:
    """A node that is frozen in the middle of a flush holds its epoch's row."""
    archive.name_connections(NODE)
    observer = open_archive(postgres_url)
    with archive._dialect.writer.connect() as frozen:
        begun = frozen.begin()
        frozen.exec_driver_sql("SELECT 1 FROM owner_epochs FOR SHARE")
        assert observer.seal_node(NODE, 1)
        frozen.invalidate()
        begun.close()
    observer.close()


def _patience(archive: Archive) -> int:
    node = archive.read_ring().node(NODE)
    assert node is not None
    return node.patience_ms


def _own(archive: Archive) -> None:
    ring = archive.read_ring()
    targets = [(slot, NODE) for slot in range(len(ring.owners))]
    archive.change_ring(PlannedChange(ring.version, 0, "test", "join", NODE, targets))
    archive.claim_slots(NODE, 1, range(len(ring.owners)))


def _takeover(archive: Archive) -> PlannedChange:
    ring = archive.read_ring()
    targets = [(slot, "other") for slot in range(len(ring.owners))]
    return PlannedChange(
        ring.version, 0, "test", "takeover", NODE, targets, states=[(NODE, "dead")]
    )


def archive_url(archive: Archive) -> str:
    parameters = dict(archive._dialect._parameters)  # type: ignore[attr-defined]
    parameters = {name: parameters[name] for name in ("host", "port", "user", "dbname")}
    return psycopg.conninfo.make_conninfo(**parameters)


async def _wait_for_locks(url: str, count: int) -> None:
    """Return once so many statements wait for a lock in the database."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with trio.fail_after(10):
        while await trio.to_thread.run_sync(run_sql, url, waiting) != [(count,)]:
            await trio.sleep(0.01)

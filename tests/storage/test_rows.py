"""What happens to rows that the database refuses, and to batches that are applied twice."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import Archive, ArchiveConflictError, ArchiveUnavailableError, Ownership, Record
from tests.contracts.archive import NODE
from tests.storage.archive_records import message, messages, read, read_session, session_row
from tests.storage.sql import accept_rows, refuse_rows, run_sql

REFUSED = b'{"refused":true}'
IS_REFUSED = "body LIKE '%refused%'"


def flush(archive: Archive, records: Sequence[Record]) -> None:
    ownership = archive.begin_epoch(NODE, "local")
    archive.flush(NODE, ownership.epoch, ownership.cursor, records)
    assert archive.read_cursor(NODE).cursor == ownership.cursor + len(records)


def flush_again(archive: Archive, url: str, records: Sequence[Record]) -> None:
    """Flush what the cursor is past already, as if it had gone back without the rows."""
    run_sql(url, "UPDATE flush_cursors SET lsn = 0")
    flush(archive, records)


@pytest.mark.parametrize(
    "refused", [[1], [100], [37], [1, 2, 3], [50, 51, 99], list(range(1, 101))]
)
def test_refused_rows_are_set_aside_and_replayed_in_their_place(
    archive: Archive, archive_url: str, refused: list[int]
) -> None:
    refuse_rows(archive_url, "messages", IS_REFUSED)
    batch = [
        message(seq, body=REFUSED + b"%d" % seq) if seq in refused else message(seq)
        for seq in range(1, 101)
    ]
    flush(archive, [session_row(), *batch])
    page = archive.read_messages("default", "s1", 0, 1_000)
    assert page == [(record.seq, record.body) for record in batch]
    newest = archive.read_messages("default", "s1", 0, 10, before_seq=101)
    assert newest == page[-10:]
    assert archive.statistics().dead_letters == len(refused)
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.head_seq == 100
    assert [seq for _, _, seq, _, _ in snapshot.recent] == list(range(1, 101))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_mixture_of_refused_and_standing_rows_replays_whole(
    archive: Archive, archive_url: str, data: st.DataObject
) -> None:
    if not run_sql(archive_url, "SELECT 1 FROM owner_epochs"):
        refuse_rows(archive_url, "messages", IS_REFUSED)
    session = f"s{archive.read_cursor(NODE).epoch}"
    refused = data.draw(st.lists(st.booleans(), min_size=1, max_size=40))
    batch = [
        message(i + 1, session=session, body=REFUSED if is_refused else b"{}")
        for i, is_refused in enumerate(refused)
    ]
    standing = data.draw(st.integers(0, len(batch)))
    flush(archive, batch[:standing])
    flush(archive, batch)
    page = archive.read_messages("default", session, 0, 1_000)
    assert page == [(record.seq, record.body) for record in batch]


def test_a_body_that_a_text_column_cannot_hold_is_set_aside(
    archive: Archive, archive_url: str
) -> None:
    bodies = [b"{}", b'{"a":"\xff\xfe"}', b"{}"]
    flush(archive, [message(i + 1, body=body) for i, body in enumerate(bodies)])
    assert [body for _, body in archive.read_messages("default", "s1")] == bodies


def test_a_dead_letter_says_why_without_quoting_the_row(archive: Archive, archive_url: str) -> None:
    refuse_rows(archive_url, "messages", IS_REFUSED)
    flush(archive, [message(1, body=REFUSED)])
    [(error,)] = run_sql(archive_url, "SELECT error FROM dead_letters")
    assert "refused" in error
    assert '{"refused"' not in error
    assert "\n" not in error


def test_a_refused_session_or_read_cursor_keeps_its_bytes_and_stops_nothing(
    archive: Archive, archive_url: str
) -> None:
    refuse_rows(archive_url, "sessions", "user_id = 'mallory'")
    refuse_rows(archive_url, "read_cursors", "user_id = 'mallory'")
    bad = session_row("s2", user_id="mallory")
    flush(archive, [session_row("s1"), bad, session_row("s3"), read("mallory", 1), read("bob", 2)])
    assert [row.session for row in archive.list_sessions("default")] == ["s1", "s3"]
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.reads == {"bob": 2}
    found = run_sql(archive_url, "SELECT table_name, body FROM dead_letters ORDER BY table_name")
    assert [(table, bytes(body)) for table, body in found] == [
        ("read_cursors", read("mallory", 1).body),
        ("sessions", bad.body),
    ]


def test_a_batch_that_is_applied_twice_changes_nothing(archive: Archive, archive_url: str) -> None:
    refuse_rows(archive_url, "messages", IS_REFUSED)
    batch: list[Record] = [
        session_row(members=("bob",)),
        *messages(1, 20),
        message(21, body=REFUSED),
        message(22, client_id=None),
        read("bob", 9),
    ]
    flush(archive, batch)
    tables = ("sessions", "session_members", "messages", "read_cursors", "dead_letters")
    before = {table: run_sql(archive_url, f"SELECT * FROM {table}") for table in tables}
    flush_again(archive, archive_url, batch)
    after = {table: run_sql(archive_url, f"SELECT * FROM {table}") for table in tables}
    assert after == before


def test_a_row_that_is_accepted_the_second_time_replays_once(
    archive: Archive, archive_url: str
) -> None:
    refuse_rows(archive_url, "messages", IS_REFUSED)
    batch = [message(1), message(2, body=REFUSED), message(3)]
    flush(archive, batch)
    accept_rows(archive_url, "messages")
    flush_again(archive, archive_url, batch)
    page = archive.read_messages("default", "s1")
    assert page == [(record.seq, record.body) for record in batch]
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is None or snapshot.head_seq == 3


@pytest.mark.parametrize(
    "other",
    [
        message(2, body=b"{}"),
        message(2, sender="mallory"),
        message(2, client_id="c-9"),
        message(2, client_id=None),
        message(2, digest=8),
    ],
)
def test_any_difference_from_the_standing_row_is_a_conflict(
    archive: Archive, other: Record
) -> None:
    flush(archive, messages(1, 3))
    with pytest.raises(ArchiveConflictError) as refusal:
        flush(archive, [message(4), other])
    assert (refusal.value.table, refusal.value.key) == ("messages", "default/s1/2")
    assert archive.read_cursor(NODE).cursor == 3
    assert [seq for seq, _ in archive.read_messages("default", "s1")] == [1, 2, 3]


def test_two_rows_of_one_batch_under_one_key_are_a_conflict(archive: Archive) -> None:
    with pytest.raises(ArchiveConflictError):
        flush(archive, [message(1), message(2), message(2, body=b"{}")])
    assert archive.read_messages("default", "s1") == []


def test_another_refused_row_under_the_same_key_is_a_conflict(
    archive: Archive, archive_url: str
) -> None:
    refuse_rows(archive_url, "messages", IS_REFUSED)
    flush(archive, [message(1, body=REFUSED)])
    with pytest.raises(ArchiveConflictError) as refusal:
        flush(archive, [message(1, body=REFUSED + b" ")])
    assert refusal.value.table == "dead_letters"


def test_a_failure_that_is_no_refusal_sets_nothing_aside(
    archive: Archive, archive_url: str
) -> None:
    ownership = archive.begin_epoch(NODE, "local")
    run_sql(archive_url, "ALTER TABLE messages RENAME TO gone")
    with pytest.raises(ArchiveUnavailableError, match="messages"):
        archive.flush(NODE, ownership.epoch, ownership.cursor, messages(1, 3))
    run_sql(archive_url, "ALTER TABLE gone RENAME TO messages")
    assert archive.read_cursor(NODE) == Ownership(1, 0)
    assert archive.statistics().dead_letters == 0
    archive.flush(NODE, ownership.epoch, ownership.cursor, messages(1, 3))
    assert len(archive.read_messages("default", "s1")) == 3

"""The archive as a whole, on SQLite and on PostgreSQL."""

import random
import threading
from pathlib import Path

import pytest

from storage import (
    ApiKey,
    Archive,
    ArchiveOwnedError,
    ArchiveUnavailableError,
    CursorMismatchError,
    DurabilityMismatchError,
    MessageRecord,
    open_archive,
)
from storage.archiveopening import probe_archive
from tests.contracts.archive import NODE, FlushContract
from tests.storage.archive_records import message, messages, read, read_session, session_row
from tests.storage.sql import run_sql

NAUGHTY_BODIES = [
    b"{}",
    b'{"text":"\\u0000"}',
    b'{\t"tab":\t1 ,\r"return" : 2}',
    b'{"backslashes":"\\\\ \\n \\t \\" \\\\N"}',
    rb"\N \. \t",
    '{"text":"é ñ 漢字 😀 \u2028 \ufeff \u202e \U0010ffff"}'.encode(),
    b'{"quotes":"\'; DROP TABLE messages; --"}',
    b'{"percent":"%s %d %(name)s :name ?1 $1"}',
    b'{"big":' + b"9" * 400 + b',"huge":1e999,"twice":1,"twice":2}',
    b'{"long":"' + b"x" * 100_000 + b'"}',
    bytes(range(0x20, 0x7F)) + b"\x01\x02\x7f",
]


class TestFlush(FlushContract):
    """The contract, on both databases."""


def flush(archive: Archive, *records: object, node: str = NODE) -> None:
    """Flush at the cursor, whoever held it last."""
    ownership = archive.begin_epoch(node, "local")
    archive.flush(node, ownership.epoch, ownership.cursor, records)  # type: ignore[arg-type]


def seqs(rows: list[tuple[int, bytes]]) -> list[int]:
    return [seq for seq, _ in rows]


# Messages


def test_bodies_come_back_byte_for_byte(archive: Archive) -> None:
    flush(archive, *(message(i + 1, body=body) for i, body in enumerate(NAUGHTY_BODIES)))
    assert [body for _, body in archive.read_messages("default", "s1")] == NAUGHTY_BODIES


def test_ids_and_numbers_of_every_size_come_back(archive: Archive) -> None:
    name = "aZ9._:@~+=-" * 11
    records = [
        MessageRecord(name, name, 2**63 - 2 - i, name, name, name, digest, 2**53, b"{}")
        for i, digest in enumerate((-(2**63), 2**63 - 1, 0))
    ]
    flush(archive, session_row(name, workspace=name), *records)
    snapshot = read_session(archive, name, name)
    assert snapshot is not None
    assert snapshot.head_seq == 2**63 - 2
    assert snapshot.recent == [
        (name, name, record.seq, name, record.digest) for record in reversed(records)
    ]


def test_a_page_begins_above_its_cursor_and_ends_at_its_limit(archive: Archive) -> None:
    flush(archive, *messages(1, 20), *messages(1, 5, session="s2"))
    assert seqs(archive.read_messages("default", "s1", 7, 4)) == [8, 9, 10, 11]
    assert seqs(archive.read_messages("default", "s1", 18, 10)) == [19, 20]
    assert archive.read_messages("default", "s1", 20, 10) == []
    assert archive.read_messages("other", "s1", 0, 10) == []
    assert archive.read_messages("default", "unknown", 0, 10) == []


def test_a_page_below_a_seq_holds_the_newest_ascending(archive: Archive) -> None:
    flush(archive, *messages(1, 20))
    assert seqs(archive.read_messages("default", "s1", 0, 3, before_seq=15)) == [12, 13, 14]
    assert seqs(archive.read_messages("default", "s1", 13, 3, before_seq=15)) == [14]
    assert seqs(archive.read_messages("default", "s1", 0, 3, before_seq=2)) == [1]


@pytest.mark.parametrize(("bytes_max", "count"), [(1, 1), (299, 2), (300, 3), (301, 3), (10**9, 9)])
def test_a_page_is_bounded_by_bytes_but_never_empty(
    archive: Archive, bytes_max: int, count: int
) -> None:
    # 100 bytes each, fewer characters.
    body = '{"é":"'.encode().ljust(98, b"x") + b'"}'
    assert len(body) == 100
    flush(archive, *(message(seq, body=body) for seq in range(1, 10)))
    page = archive.read_messages("default", "s1", 0, 100, bytes_max)
    assert seqs(page) == list(range(1, count + 1))
    newest = archive.read_messages("default", "s1", 0, 100, bytes_max, before_seq=10)
    assert seqs(newest) == list(range(10 - count, 10))


# Sessions


def test_an_unknown_session_is_none(archive: Archive) -> None:
    flush(archive, session_row("s1"))
    assert read_session(archive, "default", "s2") is None
    assert read_session(archive, "other", "s1") is None


def test_sessions_are_found_many_at_once_also_those_that_were_erased(archive: Archive) -> None:
    flush(archive, session_row("s1"), session_row("s2", workspace="other"))
    flush(archive, session_row("s3", state="deleted", version=2))
    names = ["s1", "s2", "s3", *(f"new{n}" for n in range(500)), "aZ9._:@~+=|-"]
    keys = [(workspace, name) for workspace in ("default", "other") for name in names]
    assert archive.find_sessions(keys) == {("default", "s1"), ("other", "s2"), ("default", "s3")}
    assert archive.find_sessions([("default", "new1")]) == set()


def test_sessions_are_not_looked_for_in_an_archive_that_lacks_what_was_flushed(
    archive: Archive, archive_url: str
) -> None:
    flush(archive, session_row("s1"), *messages(1, 5))
    keys = [("default", "s1"), ("default", "s2")]
    assert archive.find_sessions(keys, NODE, 6) == {("default", "s1")}
    run_sql(archive_url, "UPDATE flush_cursors SET lsn = 5")
    for asked in (keys, keys[1:]):
        with pytest.raises(CursorMismatchError) as refused:
            archive.find_sessions(asked, NODE, 6)
        assert (refused.value.expected, refused.value.found) == (6, 5)
    run_sql(archive_url, "DELETE FROM flush_cursors")
    with pytest.raises(CursorMismatchError):
        archive.find_sessions(keys, NODE, 6)


def test_a_session_is_not_read_from_an_archive_that_lacks_what_was_flushed(
    archive: Archive, archive_url: str
) -> None:
    flush(archive, session_row("s1"), *messages(1, 5))
    for session in ("s1", "s2"):
        assert read_session(archive, "default", session, 10, NODE, 6) == read_session(
            archive, "default", session, 10
        )
    run_sql(archive_url, "UPDATE flush_cursors SET lsn = 5")
    for session in ("s1", "s2"):
        with pytest.raises(CursorMismatchError) as refused:
            read_session(archive, "default", session, 10, NODE, 6)
        assert (refused.value.expected, refused.value.found) == (6, 5)
    run_sql(archive_url, "DELETE FROM flush_cursors")
    with pytest.raises(CursorMismatchError):
        read_session(archive, "default", "s1", 10, NODE, 6)


def test_a_session_comes_back_with_its_head_reads_and_recent_client_ids(archive: Archive) -> None:
    row = session_row("s1", members=("bob", "carol"))
    flush(
        archive,
        row,
        *messages(1, 5),
        message(6, client_id=None),
        message(7, sender="bob", digest=-3),
        read("alice", 6),
        read("bob", 2),
        *messages(1, 9, session="s2"),
    )
    snapshot = read_session(archive, "default", "s1", dedup_limit=4)
    assert snapshot is not None
    assert snapshot.record == row
    assert snapshot.head_seq == 7
    assert snapshot.recent == [
        ("alice", "c-4", 4, "id-4", 7),
        ("alice", "c-5", 5, "id-5", 7),
        ("bob", "c-7", 7, "id-7", -3),
    ]
    assert snapshot.reads == {"alice": 6, "bob": 2}


def test_a_session_without_messages_has_head_zero(archive: Archive) -> None:
    flush(archive, session_row("s1"))
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert (snapshot.head_seq, snapshot.recent, snapshot.reads) == (0, [], {})


def test_the_highest_version_of_a_session_wins_in_whatever_order(archive: Archive) -> None:
    flush(archive, session_row(version=2, members=("bob",)), session_row(version=1))
    flush(archive, session_row(version=1, members=("carol",)))
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.record == session_row(version=2, members=("bob",))
    assert archive.list_sessions("default", "carol") == []
    flush(archive, session_row(version=3, members=("carol",)), session_row(version=4))
    assert archive.list_sessions("default", "bob") == []
    assert archive.list_sessions("default", "alice") == [session_row(version=4)]


def test_a_read_cursor_only_moves_up(archive: Archive) -> None:
    flush(archive, session_row(), read("bob", 3), read("bob", 5), read("bob", 4))
    flush(archive, read("bob", 2))
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.reads == {"bob": 5}


def test_sessions_are_listed_newest_first_page_by_page(archive: Archive) -> None:
    # Two of each time, and ids whose order differs between byte order and most locales.
    names = ["b", "A", "a", "B", "_", "~", "10", "9"]
    rows = [session_row(name, created_at_ms=1_000 + i // 2) for i, name in enumerate(names)]
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    flush(archive, *shuffled, session_row("elsewhere", workspace="other"))
    expected = sorted(rows, key=lambda row: (-row.created_at_ms, row.session))
    for user in (None, "alice"):
        found = []
        after = None
        while page := archive.list_sessions("default", user, after, 3):
            assert len(page) <= 3
            found += page
            after = (page[-1].created_at_ms, page[-1].session)
        assert found == expected


def test_a_user_is_shown_the_sessions_they_own_or_are_a_member_of(archive: Archive) -> None:
    flush(
        archive,
        session_row("s1", user_id="alice", members=("bob", "alice"), created_at_ms=1),
        session_row("s2", user_id="bob", created_at_ms=2),
        session_row("s3", user_id="carol", created_at_ms=3),
    )
    listed = {
        user: [row.session for row in archive.list_sessions("default", user)]
        for user in ("alice", "bob", "carol", "dave")
    }
    assert listed == {"alice": ["s1"], "bob": ["s2", "s1"], "carol": ["s3"], "dave": []}


def test_archived_sessions_are_listed_on_demand_and_deleted_ones_never(archive: Archive) -> None:
    flush(
        archive,
        session_row("s1", created_at_ms=1),
        session_row("s2", created_at_ms=2, state="archived"),
        session_row("s3", created_at_ms=3, state="deleted"),
    )
    for user in (None, "alice"):
        assert [row.session for row in archive.list_sessions("default", user)] == ["s1"]
        every = archive.list_sessions("default", user, include_archived=True)
        assert [row.session for row in every] == ["s2", "s1"]


def test_deleting_a_session_erases_what_it_held_and_leaves_a_tombstone(archive: Archive) -> None:
    flush(archive, session_row("s1"), *messages(1, 5), read("bob", 3))
    flush(archive, session_row("s2"), *messages(1, 2, session="s2"))
    tombstone = session_row("s1", state="deleted", version=2)
    flush(archive, message(6), read("carol", 1), tombstone)
    assert archive.read_messages("default", "s1") == []
    snapshot = read_session(archive, "default", "s1")
    assert snapshot is not None
    assert snapshot.record == tombstone
    assert (snapshot.head_seq, snapshot.reads) == (0, {})
    assert seqs(archive.read_messages("default", "s2")) == [1, 2]


# Keys and secrets


def test_api_keys_are_kept_and_revoked_once(archive: Archive) -> None:
    first = ApiKey("k1", "backend", b"\x00\xff" * 16, ("read", "write"), "default", 1)
    second = ApiKey("k2", "operator", b"h" * 32, (), "other", 2)
    archive.create_key(second)
    archive.create_key(first)
    assert archive.list_keys() == [first, second]
    assert archive.revoke_key("k1", 9)
    assert not archive.revoke_key("k1", 10)
    assert not archive.revoke_key("k3", 10)
    assert [key.revoked_at_ms for key in archive.list_keys()] == [9, None]


def test_everyone_gets_the_same_secret_also_when_asking_at_once(archive: Archive) -> None:
    found: list[bytes] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        found.append(archive.secret("user_tokens"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert archive.secret("another") != found[0]


# Opening


def test_an_archive_keeps_what_it_held_when_it_is_opened_again(archive_url: str) -> None:
    first = open_archive(archive_url)
    flush(first, session_row(), *messages(1, 3))
    first.close()
    second = open_archive(archive_url)
    assert seqs(second.read_messages("default", "s1")) == [1, 2, 3]
    second.close()


def test_a_node_of_another_durability_level_is_refused(archive: Archive) -> None:
    archive.begin_epoch(NODE, "local")
    with pytest.raises(DurabilityMismatchError) as refusal:
        archive.begin_epoch("node-2", "replicated")
    assert (refusal.value.found, refusal.value.wanted) == ("local", "replicated")
    assert "local" in refusal.value.hint
    assert archive.read_cursor("node-2").epoch == 0


def test_of_nodes_that_begin_at_once_on_an_empty_archive_one_wins(archive_url: str) -> None:
    open_archive(archive_url).close()
    barrier = threading.Barrier(4)
    won: list[str] = []
    refused: list[str] = []

    def begin(node: str) -> None:
        archive = open_archive(archive_url)
        barrier.wait()
        try:
            archive.begin_epoch(node, "local")
            won.append(node)
        except ArchiveOwnedError as error:
            refused.append(error.node_id)
        finally:
            archive.close()

    threads = [threading.Thread(target=begin, args=(f"node-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert refused == won * 3


def test_nodes_are_listed_with_what_they_flushed_and_whether_they_are_retired(
    archive: Archive,
) -> None:
    assert archive.list_nodes() == []
    flush(archive, *messages(1, 3))
    assert archive.list_nodes() == [(NODE, 1, False, 3)]
    assert archive.retire_node(NODE, 1)
    archive.begin_epoch("node-0", "local")
    assert archive.list_nodes() == [("node-0", 1, False, 0), (NODE, 1, True, 3)]


def test_an_open_archive_answers_a_ping(archive: Archive) -> None:
    archive.ping()


def test_probing_changes_nothing_and_tells_the_revision(archive_url: str) -> None:
    open_archive(archive_url).close()
    state = probe_archive(archive_url)
    assert state.found == state.known


def test_probing_a_missing_file_does_not_make_it(tmp_path: Path) -> None:
    assert probe_archive(f"sqlite:///{tmp_path}/archive.db").found is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "sqlite:///", "sqlite:///:memory:", "archive.db", "sqlite:////proc/x/y"]
)
def test_a_url_that_names_no_database_is_refused_in_words(url: str) -> None:
    with pytest.raises(ArchiveUnavailableError) as refusal:
        open_archive(url)
    assert "\n" not in str(refusal.value)


def test_the_names_of_sessions_are_listed_page_by_page_without_those_erased(
    archive: Archive,
) -> None:
    names = [(workspace, f"s-{n:02}") for workspace in ("acme", "Beta") for n in range(7)]
    rows = [session_row(session, workspace=workspace) for workspace, session in names]
    flush(archive, *rows, session_row("gone", workspace="acme", state="deleted"))
    found: list[tuple[str, str]] = []
    while page := archive.list_session_keys(found[-1] if found else ("", ""), limit=3):
        assert len(page) <= 3
        found += page
    assert found == sorted(names)
    assert archive.list_session_keys(limit=100) == found

import sqlite3
from pathlib import Path

import pytest

from bench.archived import Archived, ArchivedRowError, read_archived
from bench.checker import Replayed

BODY = (
    '{"type":"message","session":"%s","seq":%d,"id":"i","sender":"a","client_id":"c",'
    '"kind":"text","content":{"big": 1e999},"metadata":{"m":1},"at":"t"}'
)


def archive(path: Path, *rows: tuple[str, int, str]) -> str:
    with sqlite3.connect(path / "a.db") as database:
        database.execute("CREATE TABLE messages (session, seq, id, sender, client_id, body)")
        database.executemany("INSERT INTO messages VALUES (?, ?, 'i', 'a', 'c', ?)", rows)
    database.close()
    return f"sqlite:///{path}/a.db"


def test_sessions_come_one_by_one_with_their_messages_by_seq(tmp_path: Path) -> None:
    rows = [(s, n, BODY % (s, n)) for s, n in (("x-1", 2), ("x-2", 1), ("x-1", 1), ("y", 1))]
    found = dict(read_archived(archive(tmp_path, *rows), "x-"))
    assert {s: [row.message.seq for row in rows] for s, rows in found.items()} == {
        "x-1": [1, 2],
        "x-2": [1],
    }


def test_content_and_metadata_are_the_bytes_in_the_row(tmp_path: Path) -> None:
    ((_, rows),) = read_archived(archive(tmp_path, ("x", 1, BODY % ("x", 1))), "x")
    message = Replayed(1, "i", "a", "c", b'{"big": 1e999}', "text", b'{"m":1}')
    assert rows == [Archived(message, b'{"m":1}')]


def test_a_row_that_contradicts_its_body_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchivedRowError):
        list(read_archived(archive(tmp_path, ("x", 2, BODY % ("x", 1))), "x"))

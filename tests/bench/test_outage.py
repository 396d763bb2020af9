import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bench import outage
from bench.outage import OutageError, archive_file, hold_archive, unflushed_bytes_max


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "archive.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE rows (n)")
    return path


def write(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as connection, connection:
        connection.execute("INSERT INTO rows VALUES (1)")


def count(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        rows: int = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    return rows


async def test_a_held_archive_can_be_read_and_not_written(database: Path) -> None:
    write(database)
    async with hold_archive(database):
        assert count(database) == 1
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write(database)
    write(database)
    assert count(database) == 2


async def test_an_archive_that_another_holds_is_an_error(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LOCK_SECONDS_MAX", 0.0)
    async with hold_archive(database):
        with pytest.raises(OutageError, match="held back"):
            async with hold_archive(database):
                pass


def test_only_an_sqlite_archive_is_a_file() -> None:
    assert archive_file("sqlite:////tmp/a.db") == Path("/tmp/a.db")
    assert archive_file("postgresql://ringlog@127.0.0.1/ringlog") is None


def test_the_limit_grows_with_the_run_and_stays_one_that_the_server_takes() -> None:
    assert 2**28 < unflushed_bytes_max(2, 200) < unflushed_bytes_max(10, 200) < 64 * 2**30
    assert unflushed_bytes_max(3600, 200) == 64 * 2**30

"""What is SQLite's own: the file, its lock, its settings."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage import (
    Archive,
    ArchiveSettingsError,
    ArchiveUnavailableError,
    open_archive,
    probe_archive,
)
from storage.sqlite import SqliteDialect
from tests.contracts.archive import NODE
from tests.storage.archive_records import messages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def archive(path: Path) -> Iterator[Archive]:
    opened = open_archive(f"sqlite:///{path}")
    yield opened
    opened.close()


def test_only_the_owner_may_read_the_files(archive: Archive, path: Path) -> None:
    archive.begin_epoch(NODE, "local")
    files = list(path.parent.glob("archive.db*"))
    assert {file.name for file in files} == {"archive.db", "archive.db-wal", "archive.db-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_closing_leaves_one_file(archive: Archive, path: Path) -> None:
    archive.begin_epoch(NODE, "local")
    archive.close()
    assert [file.name for file in path.parent.iterdir()] == ["archive.db"]


def test_every_connection_commits_durably(path: Path) -> None:
    dialect = SqliteDialect(path)
    for engine in (dialect.writer, dialect.reader):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    dialect.close()


def test_a_new_file_that_another_process_writes_to_is_waited_for(path: Path) -> None:
    # As when several start at once: SQLite does not wait by itself before it turns its log on.
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        commit = threading.Timer(0.2, other.execute, ["COMMIT"])
        commit.start()
        open_archive(f"sqlite:///{path}").close()
        commit.join()


def test_an_sqlite_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("storage.sqlite.VERSION_MIN", (99, 0, 0))
    with pytest.raises(ArchiveSettingsError, match=r"99\.0\.0"):
        open_archive(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_refused_unchanged(path: Path) -> None:
    path.write_bytes(b"my diary\n" * 1_000)
    with pytest.raises(ArchiveUnavailableError, match="not a database"):
        open_archive(f"sqlite:///{path}")
    assert path.read_bytes() == b"my diary\n" * 1_000


def test_what_to_do_about_a_file_is_said_about_a_file(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    for url, look in (
        (f"sqlite:///{path}", probe_archive),
        (f"sqlite:///{path}", open_archive),
        (f"sqlite:///{tmp_path}/none/archive.db", open_archive),
    ):
        with pytest.raises(ArchiveUnavailableError) as refused:
            look(url)
        assert "SQLite file" in refused.value.hint


def test_opening_waits_less_for_another_process_than_writing_does(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr("storage.sqlite.OPEN_BUSY_SECONDS", 0.05)
    monkeypatch.setattr("storage.sqlite.BUSY_SECONDS", 1_000.0)
    archive = open_archive(f"sqlite:///{path}")
    with archive._dialect.writer.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 1_000_000
    archive.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for look in (open_archive, probe_archive):
            with pytest.raises(ArchiveUnavailableError, match="locked"):
                look(f"sqlite:///{path}")


def test_while_another_process_writes_reads_go_on_and_writes_fail_in_time(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr("storage.sqlite.BUSY_SECONDS", 0.05)
    archive = open_archive(f"sqlite:///{path}")
    archive.begin_epoch(NODE, "local")
    archive.flush(NODE, 1, 0, messages(1, 3))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveUnavailableError, match="locked"):
            archive.flush(NODE, 1, 3, messages(4, 5))
        assert len(archive.read_messages("default", "s1")) == 3
        other.execute("ROLLBACK")
    archive.flush(NODE, 1, 3, messages(4, 5))
    assert len(archive.read_messages("default", "s1")) == 5
    archive.close()


def test_a_full_disk_fails_the_flush_whole_and_it_works_when_there_is_room(
    archive: Archive, path: Path
) -> None:
    archive.begin_epoch(NODE, "local")
    archive.flush(NODE, 1, 0, messages(1, 3))
    dialect = archive._dialect
    with dialect.writer.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ArchiveUnavailableError, match="full"):
        archive.flush(NODE, 1, 3, messages(4, 2_000))
    assert archive.read_cursor(NODE).cursor == 3
    assert archive.statistics().dead_letters == 0
    with dialect.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    archive.flush(NODE, 1, 3, messages(4, 2_000))
    assert len(archive.read_messages("default", "s1", 0, 5_000)) == 2_000

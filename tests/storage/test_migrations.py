"""The migrations: they make what the statements are built on, once, whoever starts at the same time."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from bench.postgres import PostgresServer
from storage import ArchiveTooNewError, ArchiveUnavailableError, open_archive
from storage.archiveopening import probe_archive
from storage.migrations import known_revisions, newest_revision
from storage.schema import REVISION, metadata
from tests.storage.sql import run_sql

ROOT = Path(__file__).parents[2]

SQLITE_SCHEMA = "SELECT type, name, sql FROM sqlite_master ORDER BY name"

POSTGRES_SCHEMA = """
    SELECT table_name || '.' || column_name, data_type, is_nullable, collation_name
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
    ORDER BY 1
"""


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, archive_url: str) -> Iterator[str]:
    """The URL of a database without any table, on each database in turn."""
    if archive_url.startswith("sqlite"):
        yield archive_url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


def test_the_schema_names_the_newest_revision() -> None:
    assert newest_revision() == REVISION
    assert REVISION in known_revisions()


def test_migrating_leads_to_the_tables_of_the_schema(empty_url: str, tmp_path: Path) -> None:
    query = POSTGRES_SCHEMA
    driver_url = empty_url.replace("postgresql://", "postgresql+psycopg://")
    if empty_url.startswith("sqlite"):
        query = SQLITE_SCHEMA
    engine = create_engine(driver_url)
    metadata.create_all(engine)
    described = [tuple(_normalised(value) for value in row) for row in run_sql(empty_url, query)]
    metadata.drop_all(engine)
    engine.dispose()
    open_archive(empty_url).close()
    run_sql(empty_url, "DROP TABLE alembic_version")
    migrated = [tuple(_normalised(value) for value in row) for row in run_sql(empty_url, query)]
    assert migrated == described


def _normalised(value: object) -> object:
    return " ".join(value.split()) if isinstance(value, str) else value


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    program = (
        "import sys; from storage import open_archive; import storage.migrations;"
        "print('ready', flush=True); sys.stdin.readline();"
        "archive = open_archive(sys.argv[1]); archive.ping();"
        "print(archive.begin_epoch('node', 'local').epoch); archive.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30) for process in processes]
    assert [errors for _, errors in answers] == [""] * 4
    assert sorted(output for output, _ in answers) == ["1\n", "2\n", "3\n", "4\n"]
    assert run_sql(empty_url, "SELECT version_num FROM alembic_version") == [(REVISION,)]


def test_an_archive_of_a_later_version_is_refused_untouched(empty_url: str) -> None:
    open_archive(empty_url).close()
    run_sql(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    for attempt in (open_archive, probe_archive):
        with pytest.raises(ArchiveTooNewError) as refusal:
            attempt(empty_url)
        assert (refusal.value.found, refusal.value.known) == ("9999", REVISION)
    assert run_sql(empty_url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    # The last table that the first migration makes.
    run_sql(empty_url, "CREATE TABLE secrets (squatter INTEGER)")
    with pytest.raises(ArchiveUnavailableError, match="secrets"):
        open_archive(empty_url)
    assert probe_archive(empty_url).found is None
    run_sql(empty_url, "DROP TABLE secrets")
    open_archive(empty_url).close()
    assert probe_archive(empty_url).found == REVISION


def test_opening_a_migrated_archive_does_not_import_alembic(sqlite_url: str) -> None:
    open_archive(sqlite_url).close()
    program = (
        "import sys; from storage import open_archive; open_archive(sys.argv[1]).close();"
        "print([name for name in ('alembic', 'psycopg') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, sqlite_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout == "[]\n"

"""Archives to test on: SQLite in a file, and PostgreSQL in a private server."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgres import PostgresServer, open_postgres
from storage import Archive, open_archive

# A shell starts what it puts into the background with SIGINT ignored, and so would be what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for each test process, started when the first test asks for it."""
    with open_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database to copy from."""
    name = postgres_server.create_database()
    open_archive(postgres_server.url(name)).close()
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_database(
    postgres_server: PostgresServer, postgres_template: str
) -> Iterator[tuple[PostgresServer, str]]:
    """A database of the test's own, migrated and empty, and the server it is on."""
    name = postgres_server.create_database(postgres_template)
    yield postgres_server, name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_database: tuple[PostgresServer, str]) -> str:
    """The URL of a migrated, empty PostgreSQL database."""
    server, name = postgres_database
    return server.url(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/archive.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def archive_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty archive, on each database in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def archive(archive_url: str) -> Iterator[Archive]:
    """An empty archive, on each database in turn."""
    opened = open_archive(archive_url)
    yield opened
    opened.close()

"""An archive that is held back can be read and not written, on each database."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from bench import blockade, outage
from bench.blockade import hold
from bench.outage import OutageError
from storage import Archive


def count(url: str) -> int:
    with connect(url) as connection:
        return int(
            connection.execute(sqlalchemy.text("SELECT count(*) FROM sessions")).scalar_one()
        )


def write(url: str) -> None:
    with connect(url) as connection, connection.begin():
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO sessions (workspace, session, user_id, members, state, created_at_ms,"
                " updated_at_ms, version, body) VALUES ('w', 's', 'u', '[]', 'active', 1, 1, 1, '{}')"
            )
        )


@contextmanager
def connect(url: str) -> Iterator[sqlalchemy.Connection]:
    """Connect with no patience for locks."""
    impatient: dict[str, object] = {"timeout": 0}
    if not url.startswith("sqlite"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        impatient = {"options": "-c lock_timeout=50"}
    engine = sqlalchemy.create_engine(url, connect_args=impatient, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


async def test_a_held_archive_can_be_read_and_not_written(
    archive_url: str, archive: Archive
) -> None:
    async with hold(archive_url):
        assert count(archive_url) == 0
        with pytest.raises(OperationalError, match="lock"):
            write(archive_url)
    write(archive_url)
    assert count(archive_url) == 1


async def test_an_archive_that_another_holds_is_an_error(
    archive_url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "LOCK_SECONDS_MAX", 0.01)
    monkeypatch.setattr(blockade, "LOCK_SECONDS_MAX", 0.01)
    async with hold(archive_url):
        with pytest.raises(OutageError, match="held back"):
            async with hold(archive_url):
                pass


async def test_a_database_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(OutageError, match="held back"):
        async with hold("postgresql://ringlog@127.0.0.1:1/ringlog"):
            pass

"""An archive that fails under a server with real clients: they feel nothing, and it holds all in the end."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from bench.channel import user_url
from bench.postgres import PostgresServer, PrivatePostgresServer
from bench.server import Server, sqlite_url
from tests.crash.rounds import Load, replay_session
from tests.e2e.under_load import (
    SESSION,
    flush_process,
    more,
    run_under_load,
    until,
    until_ended,
    until_readiness,
)
from tests.fakes.proxy import Cut, open_cutting_proxy

pytestmark = pytest.mark.timeout(120)

Database = tuple[PostgresServer, str]


@pytest.mark.postgres
async def test_a_postgres_that_crashes_mid_flush_is_outlasted(
    tmp_path: Path, postgres_database: Database
) -> None:
    postgres, name = postgres_database
    if not isinstance(postgres, PrivatePostgresServer):
        pytest.fail("RINGLOG_TEST_PG_DSN names a server that a test may not stop: unset it")

    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        for _ in range(4):
            # In this thread: the database dies with the thread that started it.
            postgres.stop(immediate=True)
            shown = load.shown
            await more(load, 200)
            await until(lambda: load.shown > shown)  # noqa: B023 - waited for here
            postgres.start()
            await more(load, 200)

    try:
        result = await run_under_load(tmp_path, postgres.url(name), disturb)
    finally:
        postgres.ensure_running()
    assert result.reconnects == 0


async def test_a_flush_process_that_is_killed_again_and_again_is_replaced(
    tmp_path: Path, archive_url: str
) -> None:
    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        for _ in range(5):
            await more(load, 200)
            victim = flush_process(server)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            await until(lambda: flush_process(server) not in {None, victim})  # noqa: B023 - waited for here
        last = flush_process(server)
        assert last is not None
        await more(load, 200)
        await server.stop()
        assert not Path(f"/proc/{last}").exists()
        await server.start()

    result = await run_under_load(tmp_path, archive_url, disturb)
    assert result.reconnects > 0


@pytest.mark.postgres
async def test_commits_whose_requests_or_replies_are_lost_leave_no_hole_and_no_double(
    tmp_path: Path, postgres_database: Database
) -> None:
    postgres, name = postgres_database

    with open_cutting_proxy(postgres.port) as proxy:

        async def disturb(server: Server, load: Load) -> None:
            await server.start()
            for cuts in range(1, 9):
                await more(load)
                proxy.cut = Cut.REPLY if cuts % 3 else Cut.REQUEST
                await until(lambda: proxy.cuts == cuts)  # noqa: B023 - waited for here

        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
        result = await run_under_load(tmp_path, url, disturb)
    assert result.reconnects == 0


async def test_an_outage_beyond_the_limit_refuses_writes_alone_and_ends_by_itself(
    tmp_path: Path,
) -> None:
    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        with sqlite3.connect(tmp_path / "archive.db", isolation_level=None) as lock:
            lock.execute("BEGIN IMMEDIATE")  # the archive takes nothing from now on
            await until_readiness(server, "backpressure")
            replay = await replay_session(user_url(server.url, "owner"), SESSION)
            assert [message.seq for message in replay] == list(range(1, len(replay) + 1))
            assert len(replay) > 100
            lock.execute("ROLLBACK")
        lock.close()
        assert await more(load, 500) < 10
        await until_readiness(server, '"ready"')

    settings = {"unflushed-bytes-max": "1MiB"}
    result = await run_under_load(tmp_path, sqlite_url(tmp_path), disturb, settings=settings)
    assert result.reconnects == 0


async def test_an_archive_that_was_put_back_to_a_copy_gets_everything_again(
    tmp_path: Path,
) -> None:
    """The copy knows neither the epochs nor the sessions that came after it."""
    archive = tmp_path / "archive.db"

    async def disturb(server: Server, load: Load) -> None:
        await server.start()
        await more(load)
        await server.stop()
        shutil.copy(archive, tmp_path / "copy.db")
        flushing = None
        for _ in range(2):
            await server.start()
            await more(load, 300)
            flushing = flush_process(server)
            await server.kill()
        assert flushing is not None
        await until_ended(flushing)  # it has the file open that is about to be replaced
        for leftover in tmp_path.glob("archive.db-*"):
            leftover.unlink()
        shutil.copy(tmp_path / "copy.db", archive)
        await server.start()
        await more(load)

    settings = {"retention-seconds": "3600", "retention-bytes": "1GiB"}
    await run_under_load(tmp_path, sqlite_url(tmp_path), disturb, settings=settings)

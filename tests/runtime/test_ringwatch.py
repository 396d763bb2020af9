"""Learning of changes of the ring: from the archive's notices where there are any, and by asking."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio

from runtime import ringwatch
from runtime.ringwatch import RingWatch
from storage import Archive, Place, PlannedChange, open_archive

PLACE = Place("127.0.0.1:1", slots=4)

HOURS = 3_600.0


@asynccontextmanager
async def watching(archive: Archive) -> AsyncIterator[RingWatch]:
    watch = RingWatch(archive, archive.read_ring())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()


async def change_weight(archive: Archive) -> int:
    ring = await trio.to_thread.run_sync(archive.read_ring)
    change = PlannedChange(ring.version, 0, "test", "weight", "n", weights=[("n", ring.version)])
    return await trio.to_thread.run_sync(archive.change_ring, change)


async def until_known(watch: RingWatch, version: int) -> None:
    with trio.fail_after(15):
        while watch.ring.version < version:
            await watch.wait_changed()
    assert watch.ring.nodes[0].weight == version - 1


async def test_a_change_is_learnt_of_by_asking(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive, "open_notices", lambda _: None)
    archive.begin_epoch("n", "local", place=PLACE)
    async with watching(archive) as watch:
        for _ in range(3):
            await until_known(watch, await change_weight(archive))


@pytest.mark.postgres
async def test_postgres_tells_of_changes_and_nobody_asks(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringwatch, "LISTENING_POLL_SECONDS", HOURS)
    monkeypatch.setattr(ringwatch, "POLL_SECONDS", HOURS)
    archive, other = open_archive(postgres_url), open_archive(postgres_url)
    other.begin_epoch("n", "local", place=PLACE)
    async with watching(archive) as watch:
        for _ in range(5):
            await until_known(watch, await change_weight(other))
    archive.close()
    other.close()


@pytest.mark.postgres
async def test_what_changed_while_nobody_listened_is_learnt_of_afterwards(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringwatch, "LISTENING_POLL_SECONDS", HOURS)
    monkeypatch.setattr(ringwatch, "POLL_SECONDS", HOURS)
    archive, other = open_archive(postgres_url), open_archive(postgres_url)
    other.begin_epoch("n", "local", place=PLACE)
    async with watching(archive) as watch:
        await until_known(watch, await change_weight(other))
        with psycopg.connect(postgres_url) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            ).fetchall()
        assert ended == [(True,)]
        await until_known(watch, await change_weight(other))
    archive.close()
    other.close()

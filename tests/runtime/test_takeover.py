"""An owner that is gone: what it acknowledged goes on elsewhere, and nothing that it says later counts."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from runtime import PlanError, Router, SessionError
from runtime.takeover import take_over
from storage import Archive, FencedError, FlushOptions, StorageError, open_archive
from tests.runtime.clusters import Member, open_edge, open_member, until_settled
from tests.runtime.test_cluster import W, append, contents

pytestmark = pytest.mark.postgres

NEVER = FlushOptions(interval_ms=3_600_000)
"""What is acknowledged stays out of the archive's tables, but for what is waited for."""

PATIENCE_MS = 2_000

NAMES = [f"s{number}" for number in range(16)]


@contextmanager
def opened(url: str) -> Iterator[Archive]:
    archive = open_archive(url)
    try:
        yield archive
    finally:
        archive.close()


@asynccontextmanager
async def owner(
    data_dir: Path, url: str, durability: str = "replicated", patience_ms: int = PATIENCE_MS
) -> AsyncIterator[Member]:
    """Run an owner that shares nothing with others but the database."""
    data_dir.mkdir(exist_ok=True)
    with opened(url) as archive:
        async with open_member(
            data_dir, archive, durability=durability, patience_ms=patience_ms, flush=NEVER
        ) as member:
            yield member


@asynccontextmanager
async def doomed(data_dir: Path, url: str, durability: str = "replicated") -> AsyncIterator["Life"]:
    """Run an owner that can be killed: all its tasks end at once, and nothing is flushed."""
    life = Life()

    async def live() -> None:
        with life.scope:
            async with owner(data_dir, url, durability) as life.member:
                life.begun.set()
                await trio.sleep_forever()
        life.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await life.begun.wait()
        yield life
        life.scope.cancel()


class Life:
    """One life of an owner."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.begun = trio.Event()
        self.ended = trio.Event()
        self.member: Member

    async def kill(self) -> str:
        """End it, and return whose it was."""
        self.scope.cancel()
        await self.ended.wait()
        return self.member.node_id


async def write_everywhere(router: Router, count: int = 5) -> None:
    """Append to sessions of every owner."""
    for name in NAMES:
        await router.catalog.create(W, name, user_id="alice")
        server = await router.open(W, name, to_append=True)
        for number in range(count):
            assert await append(server, number) == number + 1


async def check_everywhere(router: Router, count: int = 5) -> None:
    """Read what was written, write once more, and write what was written again."""
    for name in NAMES:
        with trio.fail_after(20):
            server = await router.open(W, name, to_append=True)
        assert await contents(server) == list(range(count))
        assert await append(server, count - 1) == count
        assert await append(server, count) == count + 1


async def until_given_away(archive: Archive, node_id: str) -> None:
    """Wait until a node owns nothing and others have all that it had."""
    with trio.fail_after(30):
        while True:
            ring = await trio.to_thread.run_sync(archive.read_ring)
            if node_id not in ring.owners and "" not in ring.owners:
                return
            await trio.sleep(0.05)


async def test_what_a_dead_owner_acknowledged_goes_on_elsewhere_though_its_disk_is_lost(
    tmp_path: Path, postgres_url: str
) -> None:
    with opened(postgres_url) as archive:
        async with (
            owner(tmp_path / "stays", postgres_url) as stays,
            doomed(tmp_path / "goes", postgres_url) as goes,
            open_edge(archive) as edge,
        ):
            await until_settled(archive, [stays, goes.member])
            await write_everywhere(edge)
            dead = await goes.kill()
            shutil.rmtree(tmp_path / "goes")
            await until_given_away(archive, dead)
            await check_everywhere(edge)
            assert stays.cluster.member is not None
            assert stays.cluster.member.takeovers == 1
            ring = await trio.to_thread.run_sync(archive.read_ring)
            entry = ring.node(dead)
            assert entry is not None
            assert (entry.state, entry.sealed) == ("dead", True)
            [change, *_] = await trio.to_thread.run_sync(archive.list_ring_changes)
            assert (change.action, change.node_id, change.actor) == (
                "takeover",
                dead,
                stays.node_id,
            )


async def test_an_owner_that_was_taken_over_from_comes_back_with_nothing_old(
    tmp_path: Path, postgres_url: str
) -> None:
    with opened(postgres_url) as archive:
        async with owner(tmp_path / "stays", postgres_url) as stays, open_edge(archive) as edge:
            async with doomed(tmp_path / "goes", postgres_url) as goes:
                await until_settled(archive, [stays, goes.member])
                await write_everywhere(edge)
                dead = await goes.kill()
            await until_given_away(archive, dead)
            await check_everywhere(edge)
            async with owner(tmp_path / "goes", postgres_url) as back:
                assert back.node_id == dead
                ring = await until_settled(archive, [stays, back])
                assert set(ring.owners) == {stays.node_id, dead}
                await check_everywhere(edge, 6)


async def test_an_owner_that_comes_back_in_time_keeps_what_it_had(
    tmp_path: Path, postgres_url: str
) -> None:
    with opened(postgres_url) as archive:
        async with owner(tmp_path / "stays", postgres_url) as stays, open_edge(archive) as edge:
            for _ in range(3):
                async with doomed(tmp_path / "goes", postgres_url) as goes:
                    ring = await until_settled(archive, [stays, goes.member])
                    assert goes.member.node_id in ring.owners
            async with owner(tmp_path / "goes", postgres_url) as back:
                await until_settled(archive, [stays, back])
                await write_everywhere(edge)
            async with owner(tmp_path / "goes", postgres_url) as back:
                await until_settled(archive, [stays, back])
                await check_everywhere(edge)
            assert stays.cluster.member is not None
            assert stays.cluster.member.takeovers == 0


async def test_an_owner_in_local_durability_is_waited_for(
    tmp_path: Path, postgres_url: str
) -> None:
    with opened(postgres_url) as archive:
        async with (
            owner(tmp_path / "stays", postgres_url, "local") as stays,
            open_edge(archive) as edge,
        ):
            async with doomed(tmp_path / "goes", postgres_url, "local") as goes:
                await until_settled(archive, [stays, goes.member])
                await write_everywhere(edge)
                dead = await goes.kill()
            await trio.sleep(PATIENCE_MS / 1_000 + 3)
            ring = await trio.to_thread.run_sync(archive.read_ring)
            assert dead in ring.owners
            async with owner(tmp_path / "goes", postgres_url, "local") as back:
                await until_settled(archive, [stays, back])
                await check_everywhere(edge)


async def test_a_sealed_owner_that_runs_on_acknowledges_nothing_more(
    tmp_path: Path, postgres_url: str
) -> None:
    ended: list[BaseException] = []

    async def run(member_ready: trio.Event, members: list[Member]) -> None:
        try:
            async with owner(tmp_path / "sealed", postgres_url) as member:
                members.append(member)
                member_ready.set()
                await trio.sleep_forever()
        except* StorageError as group:
            ended.extend(group.exceptions)

    with opened(postgres_url) as archive:
        async with owner(tmp_path / "stays", postgres_url) as stays, trio.open_nursery() as nursery:
            ready = trio.Event()
            members: list[Member] = []
            nursery.start_soon(run, ready, members)
            await ready.wait()
            [sealed] = members
            await until_settled(archive, [stays, sealed])
            [name] = [name for name in NAMES if _is_at(sealed, name)][:1]
            await sealed.router.catalog.create(W, name, user_id="alice")
            server = await sealed.node.open(W, name, to_append=True)
            assert await append(server, 0) == 1
            epoch = sealed.node.epoch
            seal = partial(archive.retire_node, sealed.node_id, epoch)
            assert await trio.to_thread.run_sync(seal)
            acknowledged = False
            with trio.move_on_after(5):
                try:
                    await append(server, 1)
                    acknowledged = True
                except (SessionError, StorageError):
                    pass
            assert not acknowledged
            await until_given_away(archive, sealed.node_id)
            with trio.fail_after(10):
                while not ended:
                    await trio.sleep(0.05)
            found = await stays.router.open(W, name)
            assert await contents(found) == [0]
    assert all(_is_fenced(error) for error in ended)


def _is_at(member: Member, name: str) -> bool:
    assert member.node.slots is not None
    return member.node.slots.serves((W, name))


def _is_fenced(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_fenced, error.exceptions))
    return isinstance(error, FencedError)


async def test_nobody_is_sealed_whom_nobody_could_take_over_from(
    tmp_path: Path, postgres_url: str
) -> None:
    with opened(postgres_url) as archive:
        async with owner(tmp_path / "only", postgres_url) as only:
            ring = await until_settled(archive, [only])
            entry = ring.node(only.node_id)
            assert entry is not None
            with pytest.raises(PlanError):
                await take_over(archive, trio.to_thread.run_sync, entry, None, set(), "test", 0)
            ring = await trio.to_thread.run_sync(archive.read_ring)
            assert [node.sealed for node in ring.nodes] == [False]

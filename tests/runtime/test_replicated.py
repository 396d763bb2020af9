"""`replicated` durability: acknowledged when the archive has it too, and never silently less."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

import runtime.node
import storage.replica
from runtime import (
    Node,
    NodeOptions,
    SessionError,
    WaitingReply,
    append_durably,
    follow,
    open_node,
)
from runtime.errors import OutcomeUnknownError, OwnerUnavailableError
from storage import (
    Archive,
    ArchiveSettingsError,
    ArchiveUnavailableError,
    DurabilityMismatchError,
    FlushOptions,
    open_archive,
)
from tests.runtime.clusters import SMALL_LOG, open_member
from tests.runtime.test_cluster import W, append, contents

pytestmark = pytest.mark.postgres

NEVER = FlushOptions(interval_ms=3_600_000)


@pytest.fixture
def archive(postgres_url: str) -> Iterator[Archive]:
    opened = open_archive(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.replica, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr(storage.replica, "UNKNOWN_SECONDS", 0.4)
    monkeypatch.setattr(storage.replica, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(runtime.node, "UNKNOWN_SECONDS", 0.4)


def replicated(data_dir: Path, flush: FlushOptions = NEVER) -> NodeOptions:
    return NodeOptions(data_dir=data_dir, log=SMALL_LOG, durability="replicated", flush=flush)


@contextmanager
def held(url: str, table: str) -> Iterator[None]:
    """Let nobody write to a table meanwhile."""
    with psycopg.connect(url) as blocker:
        blocker.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        yield


@asynccontextmanager
async def killed(options: NodeOptions, archive: Archive) -> AsyncIterator[Node]:
    """Run a node whose tasks all end at once with the block."""
    with trio.CancelScope() as scope:
        async with open_node(options, archive) as node:
            yield node
            scope.cancel()
            await trio.lowlevel.checkpoint()


async def test_a_message_is_acknowledged_when_the_archive_has_it_too(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    async with open_node(replicated(tmp_path), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        reply = WaitingReply()
        with held(postgres_url, "log_batches"):
            server.append("alice", "c0", "text", b"0", b"{}", None, reply, None)
            with trio.move_on_after(0.3) as patience:
                await reply.wait_ack()
            assert patience.cancelled_caught
            assert server.durable_seq == 0
        with trio.fail_after(5):
            assert (await reply.wait_ack()).seq == 1
        stored = await trio.to_thread.run_sync(
            archive.read_batches, node.flusher.node_id, node.flusher.cursor
        )
        assert b'"content":0' in stored[-1].body


@pytest.mark.usefixtures("impatient")
async def test_while_the_archive_is_away_nothing_new_is_taken_and_what_was_is_unknown(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    async with open_node(replicated(tmp_path), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        replies = [WaitingReply() for _ in range(3)]
        with held(postgres_url, "log_batches"):
            for number, reply in enumerate(replies):
                server.append(
                    "alice", f"c{number}", "text", b"%d" % number, b"{}", None, reply, None
                )
                await trio.sleep(0.02)
            again = WaitingReply()
            server.append("alice", "c0", "text", b"0", b"{}", None, again, None)
            for reply in (*replies, again):
                with trio.fail_after(5), pytest.raises(OutcomeUnknownError):
                    await reply.wait_ack()
            with pytest.raises(ArchiveUnavailableError):
                await append(server, 3)
            # Who asks again is told the same, at once.
            again = WaitingReply()
            server.append("alice", "c0", "text", b"0", b"{}", None, again, None)
            with trio.fail_after(5), pytest.raises(OutcomeUnknownError):
                await again.wait_ack()
            with pytest.raises(ArchiveUnavailableError):
                await node.catalog.create(W, "another", user_id="alice")
            assert node.not_ready() == ["archive_unavailable"]
            assert server.durable_seq == 0
        with trio.fail_after(5):
            while node.not_ready():
                await trio.sleep(0.01)
            for number in range(3):
                ack = await append_durably(
                    server, sender="alice", client_id=f"c{number}", content=b"%d" % number
                )
                assert (ack.seq, ack.duplicate) == (number + 1, True)
            assert await append(server, 3) == 4
        assert await contents(server) == [0, 1, 2, 3]


@pytest.mark.usefixtures("impatient")
async def test_a_change_of_a_session_does_not_wait_for_ever_either(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    async with open_node(replicated(tmp_path), archive) as node:
        with held(postgres_url, "log_batches"), trio.fail_after(5):
            with pytest.raises(OutcomeUnknownError):
                await node.catalog.create(W, "s", user_id="alice")
            with pytest.raises(ArchiveUnavailableError):
                await node.open(W, "s")
        with trio.fail_after(5):
            while node.not_ready():
                await trio.sleep(0.01)
        _, created = await node.catalog.create(W, "s", user_id="alice")
        assert not created


async def test_a_log_that_lost_its_last_batches_has_them_back_from_the_archive(
    tmp_path: Path, archive: Archive
) -> None:
    data_dir, older = tmp_path / "data", tmp_path / "older"
    data_dir.mkdir()
    async with killed(replicated(data_dir), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        await append(server, 0)
        shutil.copytree(data_dir, older)
        for number in range(1, 5):
            await append(server, number)
    shutil.rmtree(data_dir)
    older.rename(data_dir)
    async with open_node(replicated(data_dir), archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await contents(server) == [0, 1, 2, 3, 4]
        assert await append(server, 4) == 5
        assert await append(server, 5) == 6


async def test_what_the_archive_lacks_is_shipped_before_anything_is_served(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    async with killed(replicated(tmp_path), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        await append(server, 0)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DELETE FROM log_batches")
    async with open_node(replicated(tmp_path), archive) as node:
        assert node.flusher.cursor == node.log.next_lsn
        assert await contents(await node.open(W, "s")) == [0]


async def test_what_a_lone_node_acknowledged_is_there_for_the_one_that_takes_its_place(
    tmp_path: Path, archive: Archive
) -> None:
    """Its disk is lost, and it was retired."""
    lost, other = tmp_path / "lost", tmp_path / "other"
    lost.mkdir()
    other.mkdir()
    async with killed(replicated(lost), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        for number in range(5):
            await append(server, number)
        dead = node.flusher.node_id
    shutil.rmtree(lost)
    assert await trio.to_thread.run_sync(archive.retire_node, dead, 1)
    async with open_node(replicated(other), archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await contents(server) == [0, 1, 2, 3, 4]
        assert await append(server, 5) == 6


async def test_what_the_last_owner_of_a_ring_acknowledged_is_there_for_a_lone_node(
    tmp_path: Path, archive: Archive
) -> None:
    lost, other = tmp_path / "lost", tmp_path / "other"
    lost.mkdir()
    other.mkdir()
    with trio.CancelScope() as scope:
        async with open_member(lost, archive, durability="replicated", flush=NEVER) as member:
            await member.router.catalog.create(W, "s", user_id="alice")
            server = await member.router.open(W, "s", to_append=True)
            for number in range(5):
                await append(server, number)
            dead = member.node_id
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await trio.to_thread.run_sync(archive.retire_node, dead, 1)
    async with open_node(replicated(other), archive) as node:
        assert await contents(await node.open(W, "s")) == [0, 1, 2, 3, 4]


async def test_the_level_is_the_clusters_and_needs_another_disk(
    tmp_path: Path, archive: Archive, sqlite_url: str
) -> None:
    async with open_node(replicated(tmp_path), archive):
        pass
    with pytest.raises(DurabilityMismatchError):
        async with open_node(NodeOptions(data_dir=tmp_path, log=SMALL_LOG), archive):
            pass
    embedded = open_archive(sqlite_url)
    data_dir = tmp_path / "embedded"
    data_dir.mkdir()
    with pytest.raises(ArchiveSettingsError):
        async with open_node(replicated(data_dir), embedded):
            pass
    embedded.close()


async def test_an_owner_that_may_have_been_taken_over_from_tells_nothing_old(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    options = {"durability": "replicated", "patience_ms": 2_000, "flush": NEVER}
    async with open_member(tmp_path, archive, **options) as member:  # type: ignore[arg-type]
        with trio.fail_after(10):
            await member.router.catalog.create(W, "s", user_id="alice")
            server = await member.router.open(W, "s", to_append=True)
            await append(server, 0)
            async with follow(server, 0) as follower:
                assert len(await follower.receive()) == 1
                with held(postgres_url, "nodes"):
                    with pytest.raises(OwnerUnavailableError):
                        await follower.receive()
                    assert not server.is_ready()
                    assert not server.is_ready(to_append=True)
                    with pytest.raises(ArchiveUnavailableError):
                        await member.node.open(W, "s")
                while not server.is_ready():
                    await trio.sleep(0.02)
                assert await contents(await member.router.open(W, "s")) == [0]


class Counted(WaitingReply):
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0

    def acked(self, *answer: Any) -> None:
        self.told += 1
        super().acked(*answer)

    def refused(self, ref: Any, error: SessionError) -> None:
        self.told += 1
        super().refused(ref, error)


@pytest.mark.usefixtures("impatient")
async def test_who_was_told_that_it_is_unknown_is_told_nothing_more(
    tmp_path: Path, archive: Archive, postgres_url: str
) -> None:
    async with open_node(replicated(tmp_path), archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        replies = [Counted() for _ in range(3)]
        with held(postgres_url, "log_batches"), trio.fail_after(5):
            for number, reply in enumerate(replies):
                server.append("alice", f"c{number}", "text", b"0", b"{}", None, reply, None)
                await trio.sleep(0.02)
            for reply in replies:
                with pytest.raises(OutcomeUnknownError):
                    await reply.wait_ack()
        with trio.fail_after(5):
            while server.durable_seq < 3:
                await trio.sleep(0.01)
        assert [reply.told for reply in replies] == [1, 1, 1]

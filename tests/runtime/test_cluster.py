"""Several nodes in one process: sessions are reached from anywhere, and move without losing anything."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import trio

from runtime import (
    ClusterOptions,
    Host,
    Served,
    SessionNotFoundError,
    WaitingReply,
    append_durably,
    follow,
    open_cluster,
    plan_drain,
    plan_undrain,
)
from runtime.errors import OutcomeUnknownError
from runtime.links.remote import RemoteSession
from runtime.ring import slot_of
from storage import Archive, open_archive
from tests.fakes.directory import StallingDirectory
from tests.runtime.clusters import (
    SLOTS,
    Member,
    change,
    open_edge,
    open_member,
    open_members,
    until_settled,
)

W = "default"


async def append(server: Served, number: int) -> int:
    ack = await append_durably(
        server, sender="alice", client_id=f"c{number}", content=b"%d" % number
    )
    return ack.seq


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.05)


async def contents(server: Served) -> list[int]:
    """Return the contents of all messages, whose seqs must have no gap."""
    found: list[int] = []
    while True:
        page = await server.read_after(len(found), 100)
        for seq, body in enumerate(page.bodies, len(found) + 1):
            message = json.loads(body)
            assert message["seq"] == seq
            found.append(message["content"])
        if not page.has_more:
            return found


async def test_sessions_are_divided_and_reached_through_any_node(
    tmp_path: Path, archive: Archive
) -> None:
    async with open_members(tmp_path, archive, 3) as members, open_edge(archive) as edge:
        ring = await until_settled(archive, members)
        assert set(Counter(ring.owners)) == {member.node_id for member in members}
        hosts = [edge, *(member.router for member in members)]
        for number in range(12):
            name = f"s{number}"
            info, created = await hosts[number % 4].catalog.create(W, name, user_id="alice")
            assert created
            assert info.session == name
            for step, host in enumerate(hosts):
                server = await host.open(W, name, to_append=True)
                assert await append(server, step) == step + 1
            for host in hosts:
                assert await contents(await host.open(W, name)) == [0, 1, 2, 3]
        page = await edge.catalog.list(W, user_id="alice")
        assert {info.session for info in page.sessions} == {f"s{n}" for n in range(12)}


class Traffic:
    """Writers and readers of some sessions, and what the readers were shown."""

    def __init__(self, names: list[str]) -> None:
        self.shown: dict[str, list[int]] = {name: [] for name in names}
        self.written = dict.fromkeys(names, 0)
        self.stopped = False

    async def write(self, host: Host, name: str) -> None:
        """Append numbers, five at once, and wait for their acknowledgements."""
        while not self.stopped:
            server = await host.open(W, name, to_append=True)
            replies = [self._send(server, name) for _ in range(5)]
            for reply in replies:
                await reply.wait_ack()
            await trio.sleep(0.005)

    def _send(self, server: Served, name: str) -> WaitingReply:
        reply = WaitingReply()
        number = self.written[name]
        server.append("alice", f"c{number}", "text", b"%d" % number, b"{}", None, reply, None)
        self.written[name] += 1
        return reply

    async def read(self, host: Host, name: str) -> None:
        """Follow a session from its beginning."""
        server = await host.open(W, name, to_follow=True)
        async with follow(server, 0) as follower:
            while True:
                bodies = await follower.receive()
                self.shown[name] += [json.loads(body)["content"] for body in bodies]

    async def until_shown(self) -> None:
        """Wait until the readers have what was written."""
        with trio.fail_after(10):
            while any(len(self.shown[name]) < count for name, count in self.written.items()):
                await trio.sleep(0.02)


async def drain_and_undrain(archive: Archive, members: list[Member]) -> None:
    """Take everything from the first of two nodes, then give it its share again."""
    first = members[0].node_id
    ring = await until_settled(archive, members)
    await change(archive, plan_drain(ring, first, at_ms=0, actor="test"))
    await trio.sleep(0.05)
    ring = await until_settled(archive, members)
    assert set(ring.owners) == {members[1].node_id}
    await change(archive, plan_undrain(ring, first, at_ms=0, actor="test"))
    await trio.sleep(0.05)
    await until_settled(archive, members)


async def test_a_drain_under_load_loses_doubles_and_reorders_nothing(
    tmp_path: Path, archive: Archive
) -> None:
    traffic = Traffic([f"s{number}" for number in range(10)])
    async with open_members(tmp_path, archive, 2) as members, open_edge(archive) as edge:
        hosts = [edge, *(member.router for member in members)]
        async with trio.open_nursery() as readers:
            for place, name in enumerate(traffic.written):
                await edge.catalog.create(W, name, user_id="alice")
                readers.start_soon(traffic.read, hosts[place % 3], name)
            async with trio.open_nursery() as writers:
                for place, name in enumerate(traffic.written):
                    writers.start_soon(traffic.write, hosts[place % 2], name)
                for _ in range(3):
                    await trio.sleep(0.3)
                    await drain_and_undrain(archive, members)
                traffic.stopped = True
            await traffic.until_shown()
            readers.cancel_scope.cancel()
        for name, count in traffic.written.items():
            assert traffic.shown[name] == list(range(count))
            assert await contents(await edge.open(W, name)) == list(range(count))
        assert sum(traffic.written.values()) > 100


def send(server: Served, numbers: range) -> list[WaitingReply]:
    """Append numbers, all at once."""
    replies = []
    for number in numbers:
        reply = WaitingReply()
        server.append("alice", f"c{number}", "text", b"%d" % number, b"{}", None, reply, None)
        replies.append(reply)
    return replies


async def test_what_was_accepted_before_a_move_is_answered_by_the_old_owner(
    tmp_path: Path, archive: Archive
) -> None:
    async with open_members(tmp_path, archive, 2) as members, open_edge(archive) as edge:
        await edge.catalog.create(W, "s", user_id="alice")
        server = await edge.open(W, "s", to_append=True)
        owner = next(member for member in members if member.node.find(W, "s") is not None)
        replies = send(server, range(3_000))
        ring = await trio.to_thread.run_sync(archive.read_ring)
        await change(archive, plan_drain(ring, owner.node_id, at_ms=0, actor="test"))
        acks = [await reply.wait_ack() for reply in replies]
        assert [ack.seq for ack in acks] == list(range(1, 3_001))
        await trio.sleep(0.1)
        await until_settled(archive, members)
        assert await contents(await edge.open(W, "s")) == list(range(3_000))


async def test_what_comes_while_a_session_is_given_up_is_stored_once_by_the_next_owner(
    tmp_path: Path, archive: Archive
) -> None:
    """The old owner answers what it has accepted before it ends the channel, however long its disk takes.

    More is accepted, and more comes then, than any owner remembers `client_id`s.
    """
    disk = StallingDirectory()
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_dir.mkdir()
    second_dir.mkdir()
    async with (
        open_member(first_dir, archive, directory=disk) as first,
        open_member(second_dir, archive) as second,
    ):
        ring = await until_settled(archive, [first, second])
        name = next(
            name
            for name in (f"s{number}" for number in range(100))
            if ring.owners[slot_of(W, name, SLOTS)] == first.node_id
        )
        async with open_edge(archive) as edge:
            await edge.catalog.create(W, name, user_id="alice")
            server = await edge.open(W, name, to_append=True)
            disk.stalled = True
            replies = send(server, range(1_500))
            with trio.fail_after(5):
                while first.node.log.next_lsn < first.node.log.durable_lsn + 1_500:
                    await trio.sleep(0.01)
                await change(archive, plan_drain(ring, first.node_id, at_ms=0, actor="test"))
                while (W, name) not in first.node.leaving:
                    await trio.sleep(0.01)
            replies += send(server, range(1_500, 3_000))
            # Longer than they take to come, and than the owner takes to look at them again.
            await trio.sleep(0.3)
            disk.answer()
            assert [(await reply.wait_ack()).seq for reply in replies] == list(range(1, 3_001))
            assert await contents(await edge.open(W, name)) == list(range(3_000))
            assert second.node.find(W, name) is not None


async def test_a_repeat_that_the_owner_may_have_forgotten_is_not_stored_again(
    tmp_path: Path, archive: Archive
) -> None:
    async with open_members(tmp_path, archive, 1) as members, open_edge(archive) as edge:
        await edge.catalog.create(W, "s", user_id="alice")
        [member] = members
        there = await member.router.open(W, "s", to_append=True)
        for number in range(2_001):
            there.append("bob", f"b{number}", "text", b"0", b"{}", None, WaitingReply(), None)
        here = await edge.open(W, "s", to_append=True)
        assert isinstance(here, RemoteSession)
        # As if it was sent first when the head was 0, and the answer was lost.
        here._head_seq = 0
        lost = WaitingReply()
        here.append("alice", "c1", "text", b"1", b"{}", None, lost, None)
        [pending] = here._pending.values()
        await lost.wait_ack()
        pending.message.number = next(here._numbers)
        here._pending[pending.message.number] = pending
        pending.reply = again = WaitingReply()
        for number in range(2_001):
            there.append("bob", f"d{number}", "text", b"0", b"{}", None, WaitingReply(), None)
        here._send(pending)
        with pytest.raises(OutcomeUnknownError):
            await again.wait()
        assert len(await contents(here)) == 2 * 2_001 + 1


async def test_a_member_who_was_removed_can_no_longer_read_write_or_mark(
    tmp_path: Path, archive: Archive
) -> None:
    """Also where the edge has not heard of it yet: the owner looks again."""
    async with open_members(tmp_path, archive, 1), open_edge(archive) as edge:
        await edge.catalog.create(W, "s", user_id="alice", members=("bob",))
        server = await edge.open(W, "s", to_append=True)
        assert await append(server, 1) == 1
        await edge.catalog.change(W, "s", members=())
        with pytest.raises(SessionNotFoundError):
            await append_durably(server, sender="bob", content=b"1", user="bob")
        with pytest.raises(SessionNotFoundError):
            await server.read_after(0, 10, "bob")
        with pytest.raises(SessionNotFoundError):
            await server.read_before(9, 10, "bob")
        with pytest.raises(SessionNotFoundError):
            await server.move_read_cursor("bob", 1, "bob")
        assert len((await server.read_after(0, 10, "alice")).bodies) == 1


async def test_an_edge_that_comes_first_says_so_and_waits_for_an_owner(
    tmp_path: Path, archive: Archive, nursery: trio.Nursery
) -> None:
    said = trio.Event()
    served = trio.Event()

    async def run_edge() -> None:
        options = ClusterOptions(waiting=said.set)
        async with open_cluster(options, archive, None) as cluster:
            await cluster.router.catalog.create(W, "s", user_id="alice")
            served.set()

    nursery.start_soon(run_edge)
    with trio.fail_after(20):
        await said.wait()
        assert not served.is_set()
        async with open_members(tmp_path, archive, 1):
            await served.wait()


async def test_an_owner_that_leaves_before_it_has_heard_of_anybody_listens_first(
    tmp_path: Path, archive: Archive
) -> None:
    async with open_members(tmp_path, archive, 2) as (stays, leaves):
        assert leaves.cluster.member is not None
        with trio.fail_after(20):
            assert await leaves.cluster.member.leave()
        ring = await trio.to_thread.run_sync(archive.read_ring)
        # What it had is the other's, or about to be; none is left behind with a node that is gone.
        assert leaves.node_id not in ring.owners
        assert set(ring.targets) == {stays.node_id}


@pytest.mark.postgres
async def test_slots_that_need_not_go_any_more_are_not_stuck(
    tmp_path: Path, postgres_url: str
) -> None:
    """The archive takes changes of the ring, and nothing that is flushed."""
    archive = open_archive(postgres_url)
    async with open_members(tmp_path, archive, 2) as (member, _):
        part = member.cluster.member
        assert part is not None
        with psycopg.connect(postgres_url) as other:
            other.execute("LOCK TABLE sessions, messages IN EXCLUSIVE MODE")
            for number in range(20):
                await member.router.catalog.create(W, f"s{number}", user_id="alice")
            ring = await trio.to_thread.run_sync(archive.read_ring)
            await change(archive, plan_drain(ring, member.node_id, at_ms=0, actor="test"))
            await until(lambda: part.stuck is not None)

            ring = await trio.to_thread.run_sync(archive.read_ring)
            await change(archive, plan_undrain(ring, member.node_id, at_ms=0, actor="test"))
            await until(lambda: part.stuck is None)
    archive.close()

"""An owner that acknowledged as `local`, and is given up: what may be lost is told, and no seq is given out again."""

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime import (
    Follower,
    Host,
    Node,
    NodeOptions,
    Served,
    follow,
    open_node,
)
from runtime.gaps import find_gap, numbered, up_to_hole
from runtime.planning import plan_remove
from storage import LOST_SEQS, Archive, FlushOptions, Place, open_archive
from tests.runtime.clusters import (
    SLOTS,
    SMALL_LOG,
    change,
    open_edge,
    open_member,
    open_members,
    until_settled,
)
from tests.runtime.steps import flush
from tests.runtime.test_cluster import W, append
from tests.runtime.test_takeover import NAMES, doomed, owner, until_given_away

GAP = b'{"type":"gap","session":"s","from":4,"to":9,"reason":"lost"}'
MESSAGE = b'{"type":"message"}'


def test_a_gap_is_one_step() -> None:
    gap = find_gap(GAP)
    assert gap is not None
    assert (gap.first, gap.last) == (4, 9)
    assert find_gap(MESSAGE) is None
    bodies = [MESSAGE, GAP, MESSAGE]
    assert [seq for seq, _ in numbered(bodies, 3)] == [3, 9, 10]
    assert [seq for seq, _ in numbered([GAP, MESSAGE], 7)] == [9, 10]


@pytest.mark.parametrize(
    ("seqs", "next_seq", "whole"),
    [
        ([3, 9, 10], 3, [3, 9, 10]),
        ([9, 10], 4, [9, 10]),
        ([9, 10], 9, [9, 10]),
        ([9, 10], 3, []),
        ([2, 9, 10], 2, [2]),
        ([3, 9, 11], 3, [3, 9]),
        ([8, 10], 8, [8]),
        ([10, 11], 4, []),
    ],
)
def test_what_is_missing_outside_a_gap_is_noticed(
    seqs: Sequence[int], next_seq: int, whole: Sequence[int]
) -> None:
    rows = [(seq, GAP if seq == 9 else MESSAGE) for seq in seqs]
    assert [seq for seq, _ in up_to_hole(rows, next_seq)] == whole


def seen(bodies: Sequence[bytes]) -> list[Any]:
    """Return the seq of each message, and the ends of each gap."""
    found = map(json.loads, bodies)
    return [
        each["seq"] if each["type"] == "message" else (each["from"], each["to"]) for each in found
    ]


async def received(follower: Follower, count: int) -> list[Any]:
    bodies: list[bytes] = []
    with trio.fail_after(20):
        while len(bodies) < count:
            bodies += await follower.receive()
    return seen(bodies)


async def check_pages(server: Served) -> None:
    """Read a session in every direction that has three messages, a gap, and one message more."""
    gap, last = (4, 3 + LOST_SEQS), 4 + LOST_SEQS
    whole = [1, 2, 3, gap, last]

    async def after(seq: int, limit: int = 10) -> tuple[list[Any], bool]:
        page = await server.read_after(seq, limit)
        assert page.head_seq == last
        return seen(page.bodies), page.has_more

    async def before(seq: int, limit: int = 10) -> tuple[list[Any], bool]:
        page = await server.read_before(seq, limit)
        return seen(page.bodies), page.has_more

    assert await after(0) == (whole, False)
    assert await after(2, 2) == ([3, gap], True)
    assert await after(3) == ([gap, last], False)
    assert await after(77) == ([gap, last], False)
    assert await after(3 + LOST_SEQS) == ([last], False)
    assert await before(last + 1) == ([gap, last], True)
    assert await before(last + 1, 1) == ([last], True)
    assert await before(77) == ([gap], True)
    assert await before(gap[0]) == ([1, 2, 3], False)
    for seq, expected in ((0, whole), (3, [gap, last]), (77, [gap, last]), (last, [])):
        async with follow(server, seq) as follower:
            assert await received(follower, len(expected)) == expected


@pytest.mark.postgres
async def test_who_follows_an_owner_that_is_given_up_is_told_what_may_be_lost(
    tmp_path: Path, postgres_url: str
) -> None:
    archive = open_archive(postgres_url)
    async with (
        owner(tmp_path / "stays", postgres_url, "local") as stays,
        doomed(tmp_path / "goes", postgres_url, "local") as goes,
        open_edge(archive) as edge,
        trio.open_nursery() as nursery,
    ):
        await until_settled(archive, [stays, goes.member])
        slots = goes.member.node.slots
        assert slots is not None
        lost = [name for name in NAMES if slots.serves((W, name))]
        assert 0 < len(lost) < len(NAMES)
        for name in NAMES:
            await write(edge, name, range(3))
        for member in (stays, goes.member):
            await flush(member.node)
        followers = {
            name: await nursery.start(keep_following, await edge.open(W, name, to_follow=True))
            for name in lost
        }
        # What follows stays in the log of its owner alone.
        for name in NAMES:
            await write(edge, name, range(3, 5))
        for follower in followers.values():
            assert await received(follower, 2) == [4, 5]
        epoch = goes.member.node.epoch
        dead = await goes.kill()
        shutil.rmtree(tmp_path / "goes")
        assert await trio.to_thread.run_sync(archive.retire_node, dead, epoch)
        await until_given_away(archive, dead)
        for name in NAMES:
            server = await edge.open(W, name, to_append=True, to_follow=True)
            # The same message as one that is lost: it is stored now.
            expected = 4 + LOST_SEQS if name in lost else 5
            assert await append(server, 4) == expected
            if name in lost:
                assert await received(followers[name], 2) == [(4, 3 + LOST_SEQS), expected]
                await check_pages(server)
                await check_pages(await stays.router.open(W, name))
            else:
                rows = await trio.to_thread.run_sync(archive.read_messages, W, name)
                assert [seq for seq, _ in rows] == [1, 2, 3]
        nursery.cancel_scope.cancel()
    archive.close()


async def write(host: Host, name: str, numbers: range) -> None:
    await host.catalog.create(W, name, user_id="alice")
    server = await host.open(W, name, to_append=True)
    for number in numbers:
        assert await append(server, number) == number + 1


async def keep_following(
    server: Served, task_status: trio.TaskStatus[Follower] = trio.TASK_STATUS_IGNORED
) -> None:
    async with follow(server, server.durable_seq) as follower:
        task_status.started(follower)
        await trio.sleep_forever()


NEVER = FlushOptions(interval_ms=3_600_000)


@asynccontextmanager
async def alone(data_dir: Path, archive: Archive) -> AsyncIterator[Node]:
    """Run a node that is alone, and dies at the end of the block without a flush."""
    data_dir.mkdir(exist_ok=True)
    options = NodeOptions(data_dir=data_dir, log=SMALL_LOG, flush=NEVER)
    async with open_node(options, archive) as node:
        yield node


async def write_and_die(data_dir: Path, archive: Archive) -> tuple[str, int]:
    """Acknowledge five messages of which the archive has three; return the node's id and epoch."""
    async with alone(data_dir, archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        for number in range(3):
            await append(server, number)
        await flush(node)
        for number in range(3, 5):
            assert await append(server, number) == number + 1
        return node.flusher.node_id, node.epoch


async def test_a_node_that_follows_one_whose_disk_is_lost_gives_no_seq_out_again(
    tmp_path: Path, archive: Archive
) -> None:
    node_id, epoch = await write_and_die(tmp_path / "goes", archive)
    assert archive.retire_node(node_id, epoch)
    async with alone(tmp_path / "comes", archive) as node:
        server = await node.open(W, "s", to_append=True)
        async with follow(server, 5) as follower:
            assert await received(follower, 1) == [(4, 3 + LOST_SEQS)]
        assert await append(server, 4) == 4 + LOST_SEQS
        await check_pages(server)
        await flush(node)
        await check_pages(server)
    # Once is enough.
    async with alone(tmp_path / "comes", archive) as node:
        assert (await node.open(W, "s")).durable_seq == 4 + LOST_SEQS


async def test_a_node_that_was_alone_comes_back_into_a_ring_and_gives_no_seq_out_again(
    tmp_path: Path, archive: Archive
) -> None:
    node_id, epoch = await write_and_die(tmp_path / "goes", archive)
    assert archive.retire_node(node_id, epoch)
    async with open_member(tmp_path / "goes", archive) as member:
        await until_settled(archive, [member])
        server = await member.node.open(W, "s", to_append=True)
        assert await append(server, 4) == 4 + LOST_SEQS


async def test_a_node_that_follows_a_ring_alone_gives_no_seq_out_again(
    tmp_path: Path, archive: Archive
) -> None:
    (tmp_path / "goes").mkdir()
    async with open_member(tmp_path / "goes", archive, flush=NEVER) as member:
        await until_settled(archive, [member])
        await member.node.catalog.create(W, "s", user_id="alice")
        server = await member.node.open(W, "s", to_append=True)
        for number in range(5):
            await append(server, number)
            if number == 2:
                await flush(member.node)
    assert archive.retire_node(member.node_id, member.node.epoch)
    async with alone(tmp_path / "comes", archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await append(server, 4) == 4 + LOST_SEQS
        await check_pages(server)


async def test_who_owned_nothing_and_is_retired_and_removed_marks_nobody(
    tmp_path: Path, archive: Archive
) -> None:
    async with open_members(tmp_path, archive, 1) as [member]:
        await write(member.router, "s", range(3))
        await flush(member.node)
        epoch = archive.begin_epoch("gone", "local", place=Place("127.0.0.1:1", slots=SLOTS)).epoch
        assert archive.retire_node("gone", epoch)
        ring = archive.read_ring()
        await change(archive, plan_remove(ring, "gone", at_ms=0, actor="test"))
    async with open_member(tmp_path / "node-0", archive) as member:
        await until_settled(archive, [member])
        server = await member.node.open(W, "s", to_append=True)
        assert await append(server, 3) == 4


async def test_a_node_that_was_given_up_and_comes_back_is_no_exception(
    tmp_path: Path, archive: Archive
) -> None:
    node_id, epoch = await write_and_die(tmp_path / "goes", archive)
    assert archive.retire_node(node_id, epoch)
    async with alone(tmp_path / "goes", archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await append(server, 4) == 4 + LOST_SEQS
        await check_pages(server)


async def test_before_a_gap_that_begins_a_session_is_nothing(
    tmp_path: Path, archive: Archive
) -> None:
    async with alone(tmp_path / "goes", archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        await flush(node)
        await append(await node.open(W, "s", to_append=True), 0)
    assert archive.retire_node(node.flusher.node_id, node.epoch)
    async with alone(tmp_path / "comes", archive) as node:
        server = await node.open(W, "s")
        page = await server.read_before(server.durable_seq + 1, 10)
        assert (seen(page.bodies), page.has_more) == ([(1, LOST_SEQS)], False)


async def test_a_node_that_stopped_in_good_order_has_lost_nothing(
    tmp_path: Path, archive: Archive
) -> None:
    async with alone(tmp_path / "goes", archive) as node:
        await node.catalog.create(W, "s", user_id="alice")
        server = await node.open(W, "s", to_append=True)
        for number in range(5):
            await append(server, number)
        assert await node.shutdown(10)
    assert archive.retire_node(node.flusher.node_id, node.epoch)
    async with alone(tmp_path / "comes", archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await append(server, 5) == 6


async def test_a_node_that_is_only_restarted_leaves_nothing_out(
    tmp_path: Path, archive: Archive
) -> None:
    await write_and_die(tmp_path / "goes", archive)
    async with alone(tmp_path / "goes", archive) as node:
        server = await node.open(W, "s", to_append=True)
        assert await append(server, 5) == 6

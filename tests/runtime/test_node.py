import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from runtime import (
    AheadOfLogError,
    BackpressureError,
    ConflictError,
    SessionArchivedError,
    SessionNotFoundError,
    SessionServer,
    ShuttingDownError,
    WaitingReply,
    append_durably,
)
from runtime.codec import make_session
from runtime.history import PAGE_BYTES_MAX
from runtime.identifiers import IDENTIFIER_LENGTH_MAX, KIND_LENGTH_MAX
from storage import ArchiveUnavailableError, FlushOptions, RealDirectory, highest_epoch
from storage.record import RECORD_LENGTH_BYTES
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, deactivate, flush, make, replay, send
from tests.storage.sql import run_sql


async def test_what_is_acknowledged_is_replayed_after_a_restart(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        acks = [await append_durably(server, sender="alice", content=b"%d" % n) for n in range(20)]
        assert [ack.seq for ack in acks] == list(range(1, 21))
    async with open_test_node() as node:
        assert await replay(node) == [(n + 1, n) for n in range(20)]


async def test_what_a_restored_archive_lost_is_flushed_again_under_an_epoch_above_all_of_the_log(
    open_test_node: OpenNode, tmp_path: Path
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append_durably(server, sender="alice", client_id="c1", content=b"1")
    older = (tmp_path / "archive.db").read_bytes()
    for n in (2, 3):
        async with open_test_node() as node:
            server = await node.open(W, "s1", to_append=True)
            await append_durably(server, sender="alice", client_id=f"c{n}", content=b"%d" % n)
            await flush(node)
    (tmp_path / "archive.db").write_bytes(older)
    async with open_test_node() as node:
        assert await replay(node) == [(1, 1), (2, 2), (3, 3)]
        server = await node.open(W, "s1", to_append=True)
        assert (await append_durably(server, sender="alice", client_id="c3", content=b"3")).seq == 3
        with RealDirectory(tmp_path / "log", read_only=True) as directory:
            assert highest_epoch(directory) == 4


async def test_no_session_is_activated_from_an_archive_that_went_back(
    open_test_node: OpenNode, tmp_path: Path
) -> None:
    """A standby that took over lacks the last commits: seqs that it does not know are taken all the same."""
    async with open_test_node() as node:
        for session in ("s1", "s2"):
            server = await make(node, session)
            for n in range(1, 6):
                await append_durably(server, sender="alice", client_id=f"c{n}", content=b"%d" % n)
            await deactivate(node)
        url = f"sqlite:///{tmp_path}/archive.db"
        run_sql(url, "DELETE FROM messages WHERE seq > 2 OR session = 's2'")
        run_sql(url, "DELETE FROM sessions WHERE session = 's2'")
        run_sql(url, "UPDATE flush_cursors SET lsn = 3")
        # Nothing is flushed now: it is the activation that finds out.
        with pytest.raises(ArchiveUnavailableError):
            await node.open(W, "s1")
        # It is brought up to date from here on; until then s2 must not be taken for a new session.
        with suppress(ArchiveUnavailableError):
            _, created = await node.catalog.create(W, "s2", user_id="alice")
            assert not created
        with trio.fail_after(5):
            while not node.active:
                with suppress(ArchiveUnavailableError):
                    await node.open(W, "s1")
        for session in ("s1", "s2"):
            server = await node.open(W, session, to_append=True)
            again = await append_durably(server, sender="alice", client_id="c4", content=b"4")
            assert (again.seq, again.duplicate) == (4, True)
            assert (await append_durably(server, sender="alice", content=b"6")).seq == 6
            assert await replay(node, session) == [(n, n) for n in range(1, 7)]


async def test_a_conflict_is_answered_only_once_its_reason_is_durable(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        pending = send(server, "c1", expected=0)
        refused = send(server, "c2", expected=0)
        assert server.durable_seq == 0
        with pytest.raises(ConflictError) as conflict:
            await refused.wait_ack()
        assert conflict.value.details["head_seq"] == 1
        assert server.durable_seq == 1
        await pending.wait_ack()
        with pytest.raises(ConflictError):
            send(server, "c3", expected=0)


async def test_what_rests_on_a_change_of_the_session_is_refused_only_once_that_is_durable(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        old = server.info
        server.change(
            make_session(
                old.session,
                user_id=old.user_id,
                members=(),
                agent_id=None,
                metadata=b"{}",
                state="archived",
                created_at_ms=old.created_at_ms,
                updated_at_ms=old.updated_at_ms,
                version=old.version + 1,
            )
        )
        reply = send(server, "c1")
        assert not node.is_durable(server.info_lsn_end)
        with pytest.raises(SessionArchivedError):
            await reply.wait_ack()
        assert node.is_durable(server.info_lsn_end)


async def test_pages_join_the_archive_and_unflushed_memory(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        for n in range(1, 6):
            await append_durably(server, sender="alice", content=b"%d" % n)
        await flush(node)
        assert server.first_unflushed_seq == 6
        for reply in [send(server, None, b"%d" % n) for n in range(6, 11)]:
            await reply.wait_ack()

        page = await server.read_after(0, 100)
        assert [json.loads(body)["seq"] for body in page.bodies] == list(range(1, 11))
        assert (page.head_seq, page.has_more) == (10, False)
        page = await server.read_after(3, 4)
        assert [json.loads(body)["seq"] for body in page.bodies] == [4, 5, 6, 7]
        assert page.has_more
        page = await server.read_before(8, 4)
        assert [json.loads(body)["seq"] for body in page.bodies] == [4, 5, 6, 7]
        page = await server.read_before(3, 4)
        assert [json.loads(body)["seq"] for body in page.bodies] == [1, 2]
        assert not page.has_more
        with pytest.raises(AheadOfLogError):
            await server.read_after(11, 1)


async def test_an_unknown_session_is_not_found_and_leaves_nothing_behind(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        with pytest.raises(SessionNotFoundError):
            await node.open(W, "nope")
        assert not node.active


async def test_many_activations_at_once_read_the_archive_once(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        await make(node)
        await deactivate(node)
        servers: list[SessionServer] = []

        async def activate() -> None:
            servers.append(await node.open(W, "s1"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(activate)
        assert len({id(server) for server in servers}) == 1


async def test_a_session_is_deactivated_only_when_all_is_flushed(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await flush(node)
        reply = send(server, "c1")
        assert not server.is_idle(node.sweeps + 1)
        await reply.wait_ack()
        await flush(node)
        assert server.is_idle(node.sweeps + 1)
        assert node.unflushed_bytes == 0


async def test_an_idle_session_is_swept_and_comes_back(open_test_node: OpenNode) -> None:
    async with open_test_node(idle_seconds=0.05) as node:
        server = await make(node)
        await append_durably(server, sender="alice", content=b"1")
        with trio.fail_after(5):
            while node.active:
                await trio.sleep(0.02)
        assert await replay(node) == [(1, 1)]


async def test_a_repeat_is_answered_with_the_first_answer_whatever_would_refuse_it_by_now(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        first = await send(server, "c1", expected=0).wait_ack()
        again = await send(server, "c1", expected=0).wait_ack()
        await node.catalog.change(W, "s1", state="archived")
        late = await send(server, "c1", expected=0).wait_ack()
        assert (again.seq, again.id, again.duplicate) == (first.seq, first.id, True)
        assert late == again


async def test_a_record_is_never_larger_than_the_room_that_was_asked_for(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = "x" * IDENTIFIER_LENGTH_MAX
    async with open_test_node() as node:
        asked: list[int] = []
        taken: list[int] = []
        admit, append = node.admit, node.log.append

        def admitted(size: int) -> None:
            asked.append(size)
            admit(size)

        def appended(prefix: bytes, body: bytes, item: object) -> int:
            taken.append(RECORD_LENGTH_BYTES + len(prefix) + len(body))
            return append(prefix, body, item)

        monkeypatch.setattr(node, "admit", admitted)
        monkeypatch.setattr(node.log, "append", appended)
        await node.catalog.create(longest, longest, user_id=longest)
        server = await node.open(longest, longest)
        reply = WaitingReply()
        kind = "k" * KIND_LENGTH_MAX
        server.append(longest, longest, kind, b"1" * 5_000, b"{}", None, reply, None)
        await reply.wait_ack()
        await server.move_read_cursor(longest, 1)
        await node.catalog.change(longest, longest, members=(longest,), metadata=b"[1]")
        assert len(asked) == len(taken) == 4
        assert all(size <= room for size, room in zip(taken, asked, strict=True))


async def test_too_much_unflushed_is_refused_and_nothing_is_lost(open_test_node: OpenNode) -> None:
    async with open_test_node(unflushed_bytes_max=20_000) as node:
        server = await make(node)
        replies: list[WaitingReply] = []
        with suppress(BackpressureError):
            replies.extend(send(server, None, b"%d" % n) for n in range(100))
        assert 5 < len(replies) < 20
        assert node.not_ready() == ["backpressure"]
        for reply in replies:
            await reply.wait_ack()
        await flush(node)
        assert node.not_ready() == []
        await send(server, None).wait_ack()
        assert len(await replay(node)) == len(replies) + 1


async def test_a_flushed_message_leaves_memory_while_others_of_its_session_wait(
    open_test_node: OpenNode,
) -> None:
    flush_hundreds = FlushOptions(rows_max=100, interval_ms=60_000)
    async with open_test_node(flush=flush_hundreds) as node:
        server = await make(node)
        await flush(node)
        replies = [send(server, None, b"%d" % n) for n in range(150)]
        await replies[-1].wait_ack()
        assert server.first_unflushed_seq == 1
        body = server.unflushed_from(1, 1)[0].body
        with trio.fail_after(10):
            while server.first_unflushed_seq == 1:
                await trio.sleep(0.01)
        assert server.first_unflushed_seq == 101
        with trio.fail_after(10):
            while sys.getrefcount(body) > 2:  # this name, and the argument
                await trio.sleep(0.01)


async def test_what_is_refused_for_want_of_room_changes_nothing(open_test_node: OpenNode) -> None:
    flush_never = FlushOptions(interval_ms=60_000)
    async with open_test_node(unflushed_bytes_max=20_000, flush=flush_never) as node:
        server = await make(node)
        with pytest.raises(BackpressureError):
            send(server, "c1", b'"%b"' % (b"x" * 20_000))
        assert server.session.next_seq == 1
        replies: list[WaitingReply] = []
        with suppress(BackpressureError):
            replies.extend(send(server, None, b"%d" % n) for n in range(100))
        for reply in replies:
            await reply.wait_ack()
        before = (server.session.next_seq, server.info, server.open_records, node.unflushed_bytes)
        with pytest.raises(BackpressureError):
            send(server, "c1")
        with pytest.raises(BackpressureError):
            await server.move_read_cursor("alice", 1)
        with pytest.raises(BackpressureError):
            await node.catalog.change(W, "s1", state="archived")
        after = (server.session.next_seq, server.info, server.open_records, node.unflushed_bytes)
        assert (after, server.reads) == (before, {})
        await flush(node)
        assert node.unflushed_bytes == 0
        assert (await send(server, "c1").wait_ack()).seq == len(replies) + 1
        assert await server.move_read_cursor("alice", 1) == 1


async def test_a_stopping_node_takes_no_work_and_flushes_what_it_took(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        reply = send(server, "c1")
        assert await node.shutdown(5)
        await reply.wait_ack()
        assert server.first_unflushed_seq == 2
        with pytest.raises(ShuttingDownError):
            send(server, "c2")
        assert node.not_ready() == ["shutting_down"]


async def test_a_page_is_bounded_by_bytes_in_both_directions(open_test_node: OpenNode) -> None:
    body_bytes, count = 200_000, 45
    async with open_test_node() as node:
        server = await make(node)
        for flushed in (False, True):
            for _ in range(0 if flushed else count):
                await send(server, None, b'"%b"' % (b"x" * body_bytes)).wait_ack()
            if flushed:
                await flush(node)
            after = await server.read_after(0, 1_000)
            before = await server.read_before(count + 1, 1_000)
            for page in (after, before):
                assert (
                    PAGE_BYTES_MAX - 2 * body_bytes < sum(map(len, page.bodies)) <= PAGE_BYTES_MAX
                )
                assert page.has_more
            assert json.loads(after.bodies[0])["seq"] == 1
            assert json.loads(before.bodies[-1])["seq"] == count
            seqs = [json.loads(body)["seq"] for body in before.bodies]
            assert seqs == list(range(count + 1 - len(seqs), count + 1))
            older = await server.read_before(seqs[0], 1_000)
            assert json.loads(older.bodies[-1])["seq"] == seqs[0] - 1


async def test_a_page_out_of_archive_and_memory_has_one_bound(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.history.PAGE_BYTES_MAX", 10_000)
    async with open_test_node(flush=FlushOptions(interval_ms=60_000)) as node:
        server = await make(node)
        for flushed in (True, False):
            for reply in [send(server, None, b'"%b"' % (b"x" * 800)) for _ in range(8)]:
                await reply.wait_ack()
            if flushed:
                await flush(node)
        page = await server.read_after(0, 1_000)
        assert 8 < len(page.bodies) < 16
        assert sum(map(len, page.bodies)) <= 10_000
        assert page.has_more


async def test_a_read_cursor_moves_forward_to_the_head_at_most_and_survives_a_restart(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        for _ in range(3):
            await append_durably(server, sender="alice", content=b"1")
        assert await server.move_read_cursor("bob", 2) == 2
        assert await server.move_read_cursor("bob", 1) == 2
        with pytest.raises(AheadOfLogError):
            await server.move_read_cursor("bob", 4)
        # Where nothing is to be written, no room is needed.
        node.stopping = True
        assert await server.move_read_cursor("bob", 2) == 2
        with pytest.raises(ShuttingDownError):
            await server.move_read_cursor("bob", 3)
        node.stopping = False
    async with open_test_node() as node:
        assert (await node.open(W, "s1")).reads == {"bob": 2}

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import (
    Node,
    SessionDeletedError,
    SessionError,
    SessionServer,
    Tail,
    follow,
)
from runtime.tail import PAGE_BYTES_MAX
from storage import ArchiveUnavailableError, FlushOptions
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, flush, make, send
from tests.storage.sql import run_sql


class SlowSink:
    """Takes `room` messages, then none until it is given room again."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.seqs: list[int] = []
        self.error: SessionError | None = None
        self._changed = trio.Event()

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        raise AssertionError

    def deliver(self, tail: Tail, body: bytes) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.seqs.append(json.loads(body)["seq"])
        return True

    def page_delivered(self) -> None:
        pass

    async def wait_room(self) -> bool:
        while self.room == 0:
            await self._changed.wait()
        return True

    def moved(self, tail: Tail) -> None:
        raise AssertionError

    def failed(self, tail: Tail, error: Exception) -> None:
        raise error

    def ended(self, tail: Tail, error: SessionError) -> None:
        self.error = error

    def give(self, room: int) -> None:
        self.room += room
        self._changed.set()
        self._changed = trio.Event()


async def append(server: SessionServer, count: int) -> None:
    for reply in [send(server, None) for _ in range(count)]:
        await reply.wait_ack()


async def settle(node: Node, sink: SlowSink, seqs: int) -> None:
    with trio.fail_after(5):
        while len(sink.seqs) < seqs:
            await trio.sleep(0.001)


async def test_a_tail_at_the_head_is_live_at_once(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        sink = SlowSink(10)
        tail = Tail(server, sink, 0)
        tail.start()
        assert tail in server.live
        await append(server, 3)
        assert sink.seqs == [1, 2, 3]


async def test_a_tail_replays_archive_then_memory_then_goes_live(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 700)
        await flush(node)
        await append(server, 50)
        sink = SlowSink(10_000)
        tail = Tail(server, sink, 0)
        tail.start()
        await settle(node, sink, 750)
        await append(server, 5)
        assert sink.seqs == list(range(1, 756))
        assert tail in server.live


async def test_a_slow_reader_falls_behind_and_catches_up_without_gap_or_repeat(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        sink = SlowSink(3)
        tail = Tail(server, sink, 0)
        tail.start()
        await append(server, 10)
        assert sink.seqs == [1, 2, 3]
        assert tail not in server.live
        for total in range(4, 11):
            sink.give(1)
            await settle(node, sink, total)
            await append(server, 1)
        sink.give(100)
        await settle(node, sink, 17)
        await append(server, 1)
        assert sink.seqs == list(range(1, 19))


async def test_all_who_have_no_room_for_one_message_fall_behind_and_catch_up(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        sinks = [SlowSink(1), SlowSink(100), SlowSink(1), SlowSink(1)]
        for sink in sinks:
            Tail(server, sink, 0).start()
        await append(server, 3)
        assert [sink.seqs for sink in sinks] == [[1], [1, 2, 3], [1], [1]]
        for sink in sinks:
            sink.give(100)
        for sink in sinks:
            await settle(node, sink, 3)
        await append(server, 1)
        for sink in sinks:
            await settle(node, sink, 4)
            assert sink.seqs == [1, 2, 3, 4]


async def test_a_change_of_members_ends_no_tail_for_which_a_backend_answers(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        owners, backends = SlowSink(100), SlowSink(100)
        Tail(server, owners, 0, "alice").start()
        Tail(server, backends, 0).start()
        await node.catalog.change(W, "s1", members=("bob",))
        await node.catalog.change(W, "s1", members=())
        await append(server, 1)
        for sink in (owners, backends):
            assert (sink.seqs, sink.error) == ([1], None)


async def test_a_tail_does_not_go_live_before_its_cursor_has_caught_up(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 5)
        sink = SlowSink(2)
        tail = Tail(server, sink, 0)
        tail.start()
        await settle(node, sink, 2)
        await append(server, 1)
        assert tail not in server.live
        sink.give(50)
        await settle(node, sink, 6)
        assert sink.seqs == [1, 2, 3, 4, 5, 6]


async def test_a_long_backlog_is_freed_as_far_as_it_is_flushed_and_no_further(
    open_test_node: OpenNode,
) -> None:
    options = FlushOptions(rows_max=1_500, interval_ms=60_000)
    async with open_test_node(flush=options) as node:
        server = await make(node)
        for _ in range(6):
            await append(server, 480)
        with trio.fail_after(5):
            await node.flusher.wait_flushed(1_500)
        # The first of the records was the session's own.
        assert server.first_unflushed_seq == 1_500
        page = await server.read_after(0, 5_000)
        assert [json.loads(body)["seq"] for body in page.bodies] == list(range(1, 2_881))
        sink = SlowSink(5_000)
        Tail(server, sink, 0).start()
        await settle(node, sink, 2_880)
        assert sink.seqs == list(range(1, 2_881))


async def test_a_replay_asks_the_archive_for_little_more_than_fits_into_a_page(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        body_bytes, count = 16_000, 200
        for _ in range(count):
            await send(server, None, content=b'"%b"' % (b"x" * body_bytes)).wait_ack()
        await flush(node)
        asked: list[int] = []
        read = node.archive.read_messages

        def counted(
            workspace: str, session: str, after_seq: int, limit: int, bytes_max: int
        ) -> list[tuple[int, bytes]]:
            asked.append(limit)
            return read(workspace, session, after_seq, limit, bytes_max=bytes_max)

        monkeypatch.setattr(node.archive, "read_messages", counted)
        sink = SlowSink(count)
        Tail(server, sink, 0).start()
        await settle(node, sink, count)
        assert sink.seqs == list(range(1, count + 1))
        assert max(asked[1:]) <= 2 * PAGE_BYTES_MAX // body_bytes


async def test_a_hole_in_the_archive_stops_who_reads_there_and_nobody_else(
    open_test_node: OpenNode, tmp_path: Path
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 5)
        await flush(node)
        url = f"sqlite:///{tmp_path}/archive.db"
        lost = run_sql(url, "SELECT * FROM messages WHERE seq = 3")[0]
        run_sql(url, "DELETE FROM messages WHERE seq = 3")
        sink, live = SlowSink(100), SlowSink(100)
        Tail(server, sink, 0).start()
        Tail(server, live, 5).start()
        await settle(node, sink, 2)
        assert len((await server.read_after(0, 100)).bodies) == 2
        assert len((await server.read_after(3, 100)).bodies) == 2
        with pytest.raises(ArchiveUnavailableError, match="message 3 of s1"):
            await server.read_after(2, 100)
        await append(server, 1)
        await flush(node)
        assert (sink.seqs, live.seqs) == ([1, 2], [6])
        run_sql(url, f"INSERT INTO messages VALUES {lost}".replace("None", "NULL"))
        await settle(node, sink, 6)
        assert sink.seqs == [1, 2, 3, 4, 5, 6]


async def test_a_reader_finds_out_that_the_archive_went_back(
    open_test_node: OpenNode, tmp_path: Path
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 5)
        await flush(node)
        url = f"sqlite:///{tmp_path}/archive.db"
        run_sql(url, "DELETE FROM messages WHERE seq > 2")
        run_sql(url, "UPDATE flush_cursors SET lsn = 3")
        sink = SlowSink(100)
        Tail(server, sink, 0).start()
        await settle(node, sink, 5)
        assert sink.seqs == [1, 2, 3, 4, 5]


class BrokenSink(SlowSink):
    """Has a bug."""

    failure: Exception | None = None

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        raise AssertionError

    def deliver(self, tail: Tail, body: bytes) -> bool:
        raise KeyError("a bug")

    def moved(self, tail: Tail) -> None:
        raise AssertionError

    def failed(self, tail: Tail, error: Exception) -> None:
        self.failure = error


async def test_a_bug_that_one_reader_meets_ends_its_tail_and_nobody_elses(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 3)
        broken, sink = BrokenSink(1), SlowSink(100)
        Tail(server, broken, 0).start()
        Tail(server, sink, 0).start()
        await settle(node, sink, 3)
        assert isinstance(broken.failure, KeyError)
        await append(server, 1)
        assert sink.seqs == [1, 2, 3, 4]
        assert len(server.tails) == node.tails == 1


async def test_a_closed_tail_gets_nothing_more(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        sink = SlowSink(100)
        tail = Tail(server, sink, 0)
        tail.start()
        await append(server, 1)
        tail.close()
        await append(server, 1)
        assert sink.seqs == [1]
        assert not server.tails


async def test_a_tail_that_is_closed_while_it_waits_for_room_does_not_come_back(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        sink = SlowSink(1)
        tail = Tail(server, sink, 0)
        tail.start()
        await append(server, 1)
        await append(server, 1)
        tail.close()
        again = SlowSink(100)
        Tail(server, again, 1).start()
        sink.give(100)
        await settle(node, again, 1)
        await append(server, 1)
        assert (sink.seqs, again.seqs) == ([1], [2, 3])
        assert tail not in server.live


async def test_a_tail_that_is_closed_while_it_reads_the_archive_delivers_nothing_of_it(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 3)
        await flush(node)
        read, may_go_on, began = node.read_archive, trio.Event(), trio.Event()
        ended = trio.Event()

        async def held(*arguments: Any, **limits: Any) -> list[tuple[int, bytes]]:
            page = await read(*arguments, **limits)
            began.set()
            await may_go_on.wait()
            ended.set()
            return page

        monkeypatch.setattr(node, "read_archive", held)
        sink = SlowSink(100)
        tail = Tail(server, sink, 0)
        tail.start()
        await began.wait()
        tail.close()
        tail.end(SessionDeletedError("s1", "alice"))
        may_go_on.set()
        await ended.wait()
        await append(server, 1)
        assert (sink.seqs, sink.error) == ([], None)


async def test_what_is_in_memory_only_is_not_looked_for_in_the_archive(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_test_node(flush=FlushOptions(interval_ms=60_000)) as node:
        server = await make(node)
        await flush(node)
        await append(server, 3)

        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("the archive was asked")

        monkeypatch.setattr(node, "read_archive", fail)
        sink = SlowSink(100)
        Tail(server, sink, 0).start()
        await settle(node, sink, 3)
        page = await server.read_after(0, 100)
        assert (sink.seqs, len(page.bodies)) == ([1, 2, 3], 3)


async def test_a_reader_that_comes_too_late_for_an_erased_session_is_told(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 3)
        await node.catalog.delete(W, "s1")
        await flush(node)
        sink = SlowSink(100)
        Tail(server, sink, 0).start()
        with trio.fail_after(5):
            while sink.error is None:
                await trio.sleep(0.001)
        assert isinstance(sink.error, SessionDeletedError)
        await append(await make(node, "s2"), 1)


async def test_a_follower_holds_a_page_at_most_and_gets_the_rest_as_it_reads(
    open_test_node: OpenNode,
) -> None:
    body_bytes, count = 20_000, 40
    async with open_test_node() as node:
        server = await make(node)
        for _ in range(count):
            await send(server, None, content=b'"%b"' % (b"x" * body_bytes)).wait_ack()
        async with follow(server, 0) as follower:
            seqs: list[int] = []
            while len(seqs) < count:
                await trio.sleep(0.02)
                assert follower._bytes < PAGE_BYTES_MAX + 2 * body_bytes
                with trio.fail_after(5):
                    seqs += [json.loads(body)["seq"] for body in await follower.receive()]
            assert seqs == list(range(1, count + 1))


async def test_a_follower_raises_the_bug_that_ended_its_tail(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    async with open_test_node() as node:
        server = await make(node)
        await append(server, 1)
        monkeypatch.setattr(SessionServer, "unflushed_from", fail)
        monkeypatch.setattr(node, "read_archive", fail)
        async with follow(server, 0) as follower:
            with trio.fail_after(5), pytest.raises(KeyError):
                await follower.receive()


async def test_readers_of_an_erased_session_are_told(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append(server, 1)
        async with follow(server, 0) as follower:
            assert len(await follower.receive()) == 1
            await node.catalog.delete(W, "s1")
            with pytest.raises(SessionDeletedError):
                await follower.receive()


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "room", "flush", "yield"]), st.integers(1, 40)),
        max_size=25,
    ),
    start=st.integers(0, 20),
)
def test_any_interleaving_of_appends_flushes_and_reads_is_seen_once_in_order(
    open_test_node: OpenNode, steps: list[tuple[str, int]], start: int
) -> None:
    async def scenario() -> None:
        async with open_test_node() as node:
            with suppress(SessionError):
                await node.catalog.delete(W, "s1")
            server = await make(node, node.stamper.next_id())
            await append(server, 20)
            sink = SlowSink()
            Tail(server, sink, start).start()
            total = 20
            for step, amount in steps:
                if step == "append":
                    total += amount
                    await append(server, amount)
                elif step == "room":
                    sink.give(amount)
                elif step == "flush":
                    await flush(node)
                else:
                    for _ in range(amount):
                        await trio.lowlevel.checkpoint()
            sink.give(10_000)
            await settle(node, sink, total - start)
            assert sink.seqs == list(range(start + 1, total + 1))

    trio.run(scenario)

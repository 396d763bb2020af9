"""What is logged and shown of answers, by an engine that does what the test says."""

import json
from typing import Any

import pytest
import trio

from runtime import (
    AgentBusyError,
    Dispatch,
    DispatchState,
    Ending,
    Follower,
    Node,
    Served,
    SessionServer,
    append_durably,
    close_dispatch,
    follow,
    retry_dispatch,
    send_dispatch,
    stream_dispatch,
)
from storage import RecordType
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, deactivate, flush

S = DispatchState


class Recorder:
    """A dispatcher that only writes down what it is told."""

    def __init__(self) -> None:
        self.changes: list[Dispatch] = []
        self.woken = 0

    def message_came(self, server: SessionServer) -> None:
        self.woken += 1

    def dispatch_changed(self, server: SessionServer, dispatch: Dispatch) -> None:
        self.changes.append(dispatch)

    def stop(self, server: SessionServer) -> None:
        for dispatch in list(server.session.dispatches.values()):
            server.answering.change(close_dispatch(dispatch, S.CANCELLED, now(server), Ending()))


def now(server: SessionServer) -> int:
    return server.node.stamper.at_ms


async def make(node: Node, agent: str | None = "bot") -> tuple[SessionServer, Recorder]:
    recorder = node.dispatcher = Recorder()
    await node.catalog.create(W, "s", user_id="alice", agent_id=agent)
    return await node.open(W, "s", to_append=True), recorder


async def say(server: Served, text: str = "hi", sender: str = "alice") -> int:
    ack = await append_durably(server, sender=sender, content=json.dumps({"text": text}).encode())
    return ack.seq


async def begin(server: SessionServer, policy: str = "queue") -> Dispatch:
    """Send the dispatch that is due, and let its answer begin."""
    current = server.session.current_dispatch
    assert current is not None
    head = server.session.next_seq - 1
    sent = send_dispatch(current, now(server), to_seq=head, policy=policy)
    server.answering.change(sent)
    streaming = stream_dispatch(sent, now(server), 200)
    await server.node.wait_durable(server.answering.change(streaming))
    return streaming


async def chunks(server: SessionServer, dispatch: Dispatch, first: int, last: int) -> None:
    lsn_end = 0
    for number in range(first, last + 1):
        lsn_end = server.answering.add_chunk(dispatch, number, b'{"x":%d}' % number)
    await server.node.wait_durable(lsn_end)


async def end(server: SessionServer, dispatch: Dispatch, state: DispatchState = S.DONE) -> None:
    closed = close_dispatch(dispatch, state, now(server), Ending())
    await server.node.wait_durable(server.answering.change(closed))


async def received(follower: Follower, count: int = 1) -> list[Any]:
    """What comes, at least so many, in short: seqs, chunk numbers and states."""
    found: list[Any] = []
    with trio.fail_after(10):
        while len(found) < count:
            for frame in map(json.loads, await follower.receive()):
                kind = frame["type"]
                found.append(
                    frame["seq"]
                    if kind == "message"
                    else f"{frame['attempt']}.{frame['n']}"
                    if kind == "chunk"
                    else frame["state"]
                )
    return found


async def shows(follower: Follower, *expected: Any) -> None:
    """Exactly this comes, and nothing more soon."""
    assert await received(follower, len(expected)) == list(expected)
    with trio.move_on_after(0.02):
        raise AssertionError(await follower.receive())


async def test_a_message_causes_one_dispatch_and_those_before_it_is_sent_no_other(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, recorder = await make(node)
        for _ in range(3):
            await say(server)
        (dispatch,) = recorder.changes
        assert (dispatch.state, dispatch.from_seq, dispatch.agent_id) == (S.QUEUED, 1, "bot")
        assert recorder.woken == 3


async def test_a_dispatch_is_in_the_log_before_its_message(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        before = node.log.next_lsn
        await say(server)
        kinds = [record.type for record in node.log.read(before, node.log.next_lsn)]
        assert kinds == [RecordType.DISPATCH, RecordType.MESSAGE]


async def test_a_chunk_is_shown_only_when_it_is_durable(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        dispatch = await begin(server)
        async with follow(server, 1, frames=True) as reader:
            await shows(reader, "sent", "streaming")
            lsn_end = server.answering.add_chunk(dispatch, 1, b"{}")
            assert server.answer is not None
            assert len(server.answer.frames) == 2
            assert not node.is_durable(lsn_end)
            await node.wait_durable(lsn_end)
            await shows(reader, "1.1")


async def test_an_agents_own_messages_and_those_without_an_agent_cause_none(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, recorder = await make(node)
        await say(server, sender="agent:bot")
        await node.catalog.create(W, "t", user_id="alice")
        await say(await node.open(W, "t", to_append=True))
        assert recorder.changes == []


async def test_what_comes_while_the_agent_answers_causes_the_next_one(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, recorder = await make(node)
        await say(server)
        first = await begin(server)
        await say(server)
        await say(server)
        assert [each.state for each in server.session.dispatches.values()] == [
            S.STREAMING,
            S.QUEUED,
        ]
        assert recorder.changes[-1].from_seq == 2
        await end(server, first)
        current = server.session.current_dispatch
        assert current is not None
        assert current.state == S.QUEUED


async def test_an_agent_that_takes_none_meanwhile_has_messages_refused_and_nothing_changed(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        dispatch = await begin(server, policy="reject")
        with pytest.raises(AgentBusyError):
            await say(server)
        assert server.durable_seq == 1
        assert await say(server, sender="agent:bot") == 2
        await end(server, dispatch)
        assert await say(server) == 3


async def test_readers_see_an_answer_from_its_start_then_live_then_its_end(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        async with follow(server, 0, frames=True) as early:
            await shows(early, 1, "queued")
            dispatch = await begin(server)
            await chunks(server, dispatch, 1, 3)
            await shows(early, "sent", "streaming", "1.1", "1.2", "1.3")
            async with follow(server, 0, frames=True) as late:
                await shows(late, 1, "sent", "streaming", "1.1", "1.2", "1.3")
                await chunks(server, dispatch, 4, 4)
                await say(server, "the answer", sender="agent:bot")
                await end(server, dispatch)
                for each in (early, late):
                    await shows(each, "1.4", 2, "done")
        async with follow(server, 0, frames=True) as after:
            await shows(after, 1, 2)


async def test_what_was_shown_of_an_attempt_that_is_repeated_counts_no_more(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        first = await begin(server)
        await chunks(server, first, 1, 2)
        again = retry_dispatch(first, now(server), now(server), Ending("agent_unreachable"))
        await node.wait_durable(server.answering.change(again))
        second = await begin(server)
        await chunks(server, second, 1, 1)
        async with follow(server, 1, frames=True) as reader:
            await shows(reader, "sent", "streaming", "2.1")


async def test_a_slow_reader_gets_the_rest_of_an_answer_as_it_reads(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.tail.PAGE_BYTES_MAX", 400)
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        async with follow(server, 0, frames=True) as reader:
            dispatch = await begin(server)
            await chunks(server, dispatch, 1, 20)
            expected = [f"1.{n}" for n in range(1, 21)]
            found: list[Any] = []
            while "1.20" not in found:
                found += await received(reader)
            assert [each for each in found if str(each).startswith("1.")] == expected
            await chunks(server, dispatch, 21, 40)
            await say(server, "whole", sender="agent:bot")
            await end(server, dispatch)
            # It had not read on: what is left of the answer is its message, and that it has ended.
            found = []
            while "done" not in found:
                found += await received(reader)
            assert found[-2:] == [2, "done"]


async def test_an_open_answer_outlives_the_process_and_its_sessions_rest(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        dispatch = await begin(server)
        await chunks(server, dispatch, 1, 3)
        await flush(node)
        assert not server.is_idle(node.sweeps + 1)
        await chunks(server, dispatch, 4, 5)
    async with open_test_node() as node:
        recorder = node.dispatcher = Recorder()
        server = await node.open(W, "s", to_append=True)
        assert recorder.changes == [dispatch]
        async with follow(server, 1, frames=True) as reader:
            await shows(reader, "streaming", "1.1", "1.2", "1.3", "1.4", "1.5")
        await end(server, dispatch, S.INTERRUPTED)
        await deactivate(node)
        assert (
            await trio.to_thread.run_sync(
                node.archive.dispatches.read_chunks, W, "s", dispatch.dispatch, 1
            )
            == []
        )
        server = await node.open(W, "s")
        assert server.session.dispatches == {}
        assert server.answer is None
        stored = await trio.to_thread.run_sync(node.archive.dispatches.find, W, dispatch.dispatch)
        assert stored is not None
        assert b'"state":"interrupted"' in stored.body


async def test_sessions_with_open_dispatches_are_found_again(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        await flush(node)
        assert await trio.to_thread.run_sync(node.archive.dispatches.list_open) == [(W, "s")]
        await end(server, await begin(server))
        await flush(node)
        assert await trio.to_thread.run_sync(node.archive.dispatches.list_open) == []


async def test_erasing_a_session_erases_its_dispatches(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server, _ = await make(node)
        await say(server)
        dispatch = await begin(server)
        await chunks(server, dispatch, 1, 3)
        await node.catalog.delete(W, "s")
        await flush(node)
        find = node.archive.dispatches.find
        assert await trio.to_thread.run_sync(find, W, dispatch.dispatch) is None
        read = node.archive.dispatches.read_chunks
        assert await trio.to_thread.run_sync(read, W, "s", dispatch.dispatch, 1) == []

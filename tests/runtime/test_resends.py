"""A repeat of a message: known while it is pending, after a restart, and after its session was at rest."""

import pytest
import trio

from runtime import ClientIdReusedError, SessionError, Tail, WaitingReply, append_durably
from runtime.archivereader import DEDUPLICATION_AT_ONCE
from tests.runtime.conftest import OpenNode
from tests.runtime.steps import W, deactivate, make, remembers, replay, send


class Idle:
    """A reader that nothing comes for."""

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        raise AssertionError

    def deliver(self, tail: Tail, body: bytes) -> bool:
        return True

    def page_delivered(self) -> None:
        raise AssertionError

    async def wait_room(self) -> bool:
        return True

    def moved(self, tail: Tail) -> None:
        raise AssertionError

    def failed(self, tail: Tail, error: Exception) -> None:
        raise error

    def ended(self, tail: Tail, error: SessionError) -> None:
        raise error


async def test_a_resend_gets_the_original_answer_after_a_restart(open_test_node: OpenNode) -> None:
    async with open_test_node() as node:
        server = await make(node)
        first = await append_durably(server, sender="alice", client_id="c1", content=b"1")
    async with open_test_node() as node:
        server = await node.open(W, "s1", to_append=True)
        again = await append_durably(server, sender="alice", client_id="c1", content=b"1")
        assert (again.seq, again.id, again.duplicate) == (first.seq, first.id, True)
        with pytest.raises(ClientIdReusedError):
            await append_durably(server, sender="alice", client_id="c1", content=b"2")
        assert await replay(node) == [(1, 1)]


async def test_a_resend_gets_the_original_answer_after_deactivation(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await append_durably(server, sender="alice", client_id="c1", content=b"1")
        await deactivate(node)
        server = await node.open(W, "s1", to_append=True)
        assert server.durable_seq == 1
        assert (
            await append_durably(server, sender="alice", client_id="c1", content=b"1")
        ).duplicate


async def test_the_last_thousand_client_ids_are_known_after_deactivation(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        for reply in [send(server, f"c{n}") for n in range(1_000)]:
            await reply.wait_ack()
        await deactivate(node)
        server = await node.open(W, "s1", to_append=True)
        for n in (0, 1, 999):
            ack = await send(server, f"c{n}").wait_ack()
            assert (ack.seq, ack.duplicate) == (n + 1, True)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101])
async def test_a_short_session_knows_its_client_ids_as_it_is_opened(
    open_test_node: OpenNode, length: int
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        for n in range(1, length + 1):
            send(server, f"c{n}", b"%d" % n)
        await deactivate(node)
        server = await node.open(W, "s1")
        assert remembers(server) is (length < DEDUPLICATION_AT_ONCE)
        server = await node.open(W, "s1", to_append=True)
        for n in range(1, length + 1):
            again = await append_durably(
                server, sender="alice", client_id=f"c{n}", content=b"%d" % n
            )
            assert (again.seq, again.duplicate) == (n, True)


async def test_a_session_that_is_followed_knows_its_client_ids_soon_after(
    open_test_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.archivereader.DEDUPLICATION_AT_ONCE", 1)
    async with open_test_node() as node:
        server = await make(node)
        first = await append_durably(server, sender="alice", client_id="c1", content=b"1")
        await deactivate(node)
        server = await node.open(W, "s1")
        Tail(server, Idle(), 1).start()
        assert not remembers(server)
        with trio.fail_after(5):
            while not remembers(server):
                await trio.sleep(0.01)
        again = await append_durably(server, sender="alice", client_id="c1", content=b"1")
        assert (again.seq, again.duplicate) == (first.seq, True)


async def test_two_sends_of_one_message_in_one_batch_are_stored_once(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        first, second = send(server, "c1"), send(server, "c1")
        ack, again = await first.wait_ack(), await second.wait_ack()
        assert (ack.duplicate, again.duplicate) == (False, True)
        assert ack.seq == again.seq == 1
        assert await replay(node) == [(1, 1)]


async def test_a_resend_of_a_pending_message_is_not_answered_before_it_is_durable(
    open_test_node: OpenNode,
) -> None:
    async with open_test_node() as node:
        server = await make(node)
        await node.log.sync()
        answered: list[int] = []

        class Watch(WaitingReply):
            def acked(self, *args: object, **kwargs: object) -> None:
                answered.append(server.durable_seq)
                super().acked(*args, **kwargs)  # type: ignore[arg-type]

        first, second = Watch(), Watch()
        for reply in (first, second):
            server.append("alice", "c1", "text", b"1", b"{}", None, reply, None)
        assert answered == []
        await second.wait_ack()
        assert answered == [1, 1]

"""A remote session against an owner that the test plays: what it says, and what is said to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from runtime import SessionError, SessionNotFoundError, Tail, WaitingReply
from runtime.codec import make_session
from runtime.errors import OutcomeUnknownError, OwnerUnavailableError, SlotMovedError
from runtime.links.messages import (
    Acked,
    Append,
    Delivered,
    Done,
    Fetch,
    Follow,
    FromOwner,
    Gone,
    Info,
    Open,
    Opened,
    Page,
    Refused,
)
from runtime.links.remote import REQUEST_SECONDS, RemoteSession

W, S = "default", "s"


def info(*members: str) -> bytes:
    return make_session(
        S,
        user_id="alice",
        members=members,
        agent_id=None,
        metadata=b"{}",
        state="active",
        created_at_ms=0,
        updated_at_ms=0,
        version=1,
    ).body


class Link:
    """Gathers what is sent, instead of a LinkStream."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed = False

    def send(self, message: Any, size: int = 0) -> None:
        self.sent.append(message)

    def take(self, kind: type) -> Any:
        """Return the only message of a kind that was sent since it was last looked for."""
        [found] = [message for message in self.sent if isinstance(message, kind)]
        self.sent = [message for message in self.sent if message is not found]
        return found


class Around:
    """A node with one owner, which may be away."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.tails = 0
        self.repeats = 0
        self.link = Link()
        self.away: SessionError | None = None
        self.asked = 0
        self.forgotten: list[RemoteSession] = []
        self._nursery = nursery
        self._channels = 0

    async def find_owner(self, workspace: str, session: str) -> "Around":
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.away is not None:
            raise self.away
        return self

    def open_channel(self, session: RemoteSession) -> int:
        self._channels += 1
        return self._channels

    def close_channel(self, number: int) -> None:
        pass

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(task)

    def rehome(self, tail: Tail) -> None:
        raise AssertionError

    def next_id(self) -> str:
        return "made-here"

    def forget(self, session: RemoteSession) -> None:
        self.forgotten.append(session)


class Reader:
    """A sink that takes everything."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.error: SessionError | None = None

    def show(self, tail: Tail, frame: bytes, place: int) -> bool:
        raise AssertionError

    def deliver(self, tail: Tail, body: bytes) -> bool:
        self.bodies.append(body)
        return True

    def page_delivered(self) -> None:
        pass

    async def wait_room(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def ended(self, tail: Tail, error: SessionError) -> None:
        self.error = error

    def moved(self, tail: Tail) -> None:
        raise AssertionError

    def failed(self, tail: Tail, error: Exception) -> None:
        raise error


@asynccontextmanager
async def remote() -> AsyncIterator[tuple[RemoteSession, Around]]:
    async with trio.open_nursery() as nursery:
        around = Around(nursery)
        yield RemoteSession(around, W, S), around  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


async def say(session: RemoteSession, *messages: FromOwner) -> None:
    """Let the owner say this, all in one frame."""
    for message in messages:
        session.receive(message)  # type: ignore[arg-type]
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def opened(head_seq: int = 0) -> AsyncIterator[tuple[RemoteSession, Around]]:
    """Open a session on channel 1."""
    async with remote() as (session, around), trio.open_nursery() as nursery:
        nursery.start_soon(_open, session)
        await trio.testing.wait_all_tasks_blocked()
        assert around.link.take(Open).after_seq == -1
        await say(session, Opened(1, info(), head_seq))
        yield session, around


async def _open(session: RemoteSession, *, to_follow: bool = False) -> None:
    await session.open(to_follow=to_follow)


@asynccontextmanager
async def followed(head_seq: int) -> AsyncIterator[tuple[RemoteSession, Around]]:
    """Open a session, and follow it from its head."""
    async with opened(head_seq) as (session, around), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _open(session, to_follow=True))
        await trio.testing.wait_all_tasks_blocked()
        await say(session, Done(1, around.link.take(Follow).number, head_seq))
        yield session, around


def append(session: RemoteSession, client_id: str | None = "c1") -> WaitingReply:
    reply = WaitingReply("alice")
    session.append("alice", client_id, "text", b"1", b"{}", None, reply, None)
    return reply


async def reopened(session: RemoteSession, around: Around, channel: int, head_seq: int) -> Open:
    """Break the link, and open the next channel."""
    session.channel_lost()
    return await opened_again(session, around, channel, head_seq)


async def opened_again(session: RemoteSession, around: Around, channel: int, head_seq: int) -> Open:
    """Answer the session, which opens the next channel."""
    with trio.fail_after(5):
        while not any(isinstance(message, Open) for message in around.link.sent):
            await trio.sleep(0.01)
    opening: Open = around.link.take(Open)
    await say(session, Opened(channel, info(), head_seq))
    return opening


async def test_a_message_without_a_client_id_is_given_one_that_its_sender_does_not_see() -> None:
    async with opened() as (session, around):
        reply = append(session, None)
        sent = around.link.take(Append)
        assert (sent.client_id, sent.user, sent.repeated_after) == ("made-here", "alice", -1)
        await say(session, Acked(1, sent.number, 1, "id", False))
        assert (await reply.wait_ack()).client_id is None


async def test_what_had_no_answer_is_repeated_in_order_and_says_after_what() -> None:
    async with opened(head_seq=7) as (session, around):
        first, second = append(session, "c1"), append(session, "c2")
        around.link.sent.clear()
        assert (await reopened(session, around, 2, 9)).after_seq == -1
        sent = [message for message in around.link.sent if isinstance(message, Append)]
        assert [each.client_id for each in sent] == ["c1", "c2"]
        assert [each.repeated_after for each in sent] == [7, 7]
        assert {each.channel for each in sent} == {2}
        await say(
            session,
            Acked(2, sent[0].number, 8, "id-1", True),
            Acked(2, sent[1].number, 9, "id-2", False),
        )
        ack = await first.wait_ack()
        # The sender sent it once: that this repeated it is nothing to tell.
        assert (ack.seq, ack.duplicate) == (8, False)
        assert (await second.wait_ack()).seq == 9


async def test_what_the_owner_did_not_accept_is_sent_as_if_for_the_first_time() -> None:
    """`Gone` comes after all answers, so what has none is no repeat: nobody need remember it to take it."""
    async with opened(head_seq=7) as (session, around):
        reply = append(session)
        assert around.link.take(Append).repeated_after == -1
        await say(session, Gone(1))
        await opened_again(session, around, 2, 9)
        sent = around.link.take(Append)
        assert (sent.channel, sent.repeated_after) == (2, -1)
        await reopened(session, around, 3, 10)
        again = around.link.take(Append)
        assert again.repeated_after == 7
        await say(session, Gone(3))
        await opened_again(session, around, 4, 11)
        # It may have been accepted on the second channel, whatever became of the third.
        last = around.link.take(Append)
        assert last.repeated_after == 7
        await say(session, Refused(4, last.number, "backpressure", "no", "", 100, {}))
        with pytest.raises(OutcomeUnknownError):
            await reply.wait()


@pytest.mark.parametrize("decided", [True, False])
async def test_a_repeat_that_is_refused_is_not_said_to_have_changed_nothing(decided: bool) -> None:
    async with opened() as (session, around):
        reply = append(session)
        await reopened(session, around, 2, 0)
        number = around.link.sent[-1].number
        await say(session, Refused(2, number, "backpressure", "no", "", 100, {}, decided))
        with pytest.raises(SessionError) as refusal:
            await reply.wait()
        assert refusal.value.code == ("backpressure" if decided else "unknown")


async def test_what_was_sent_once_is_refused_as_the_owner_says() -> None:
    async with opened() as (session, around):
        reply = append(session)
        number = around.link.take(Append).number
        await say(session, Refused(1, number, "backpressure", "no", "", 100, {}))
        with pytest.raises(SessionError) as refusal:
            await reply.wait()
        assert refusal.value.code == "backpressure"


async def test_a_request_is_answered_when_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (session, around):
        around.away = SlotMovedError("on its way")
        sent = append(session, "c1")
        session.channel_lost()
        unsent = append(session, "c2")
        session.expire(trio.current_time() + REQUEST_SECONDS)
        with pytest.raises(OutcomeUnknownError):
            await sent.wait()
        with pytest.raises(OwnerUnavailableError):
            await unsent.wait()


async def test_what_was_not_accepted_in_time_is_not_said_to_be_unknown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (session, around):
        around.away = SlotMovedError("on its way")
        reply = append(session)
        await say(session, Gone(1))
        session.expire(trio.current_time() + REQUEST_SECONDS)
        with pytest.raises(OwnerUnavailableError):
            await reply.wait()


async def test_an_owner_that_is_not_found_is_asked_for_ever_more_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with remote() as (session, around):
        around.away = SlotMovedError("on its way")
        with pytest.raises(OwnerUnavailableError):
            await session.open(to_follow=False)
        assert 20 < around.asked < 40
        # Nobody waits any more: nobody asks.
        asked = around.asked
        await trio.sleep(10)
        assert around.asked <= asked + 1
        assert session.is_idle(trio.current_time())


async def test_a_channel_that_ends_again_and_again_is_no_busy_loop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with followed(3) as (session, around):
        tail = Tail(session, Reader(), 3)
        tail.start()
        for _ in range(20):
            before = around.asked
            await say(session, Gone(0))
            await trio.sleep(0.6)
            assert around.asked == before + 1
        began = trio.current_time()
        while around.asked < 30:
            await say(session, Gone(0))
            await trio.sleep(0.001)
        assert trio.current_time() - began > 2
        tail.close()


async def test_a_tail_that_is_attached_when_the_channel_has_just_ended_goes_on() -> None:
    async with followed(3) as (session, around):
        await say(session, Gone(1))
        reader = Reader()
        tail = Tail(session, reader, 3)
        tail.start()
        with trio.fail_after(5):
            while not around.link.sent:
                await trio.sleep(0.01)
        assert around.link.take(Open).after_seq == 3
        await say(session, Opened(2, info(), 4), Delivered(2, 4, b"four"))
        assert reader.bodies == [b"four"]
        tail.close()


async def test_a_join_whose_channel_ends_before_the_messages_have_come_goes_on() -> None:
    async with followed(3) as (session, around), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _open(session, to_follow=True))
        await trio.testing.wait_all_tasks_blocked()
        await say(session, Done(1, around.link.take(Follow).number, 5))
        opening = await reopened(session, around, 2, 5)
        assert opening.after_seq == 3
        with trio.fail_after(5):
            await say(session, Delivered(2, 4, b"four"), Delivered(2, 5, b"five"))
    assert session.durable_seq == 5


async def test_a_page_shows_nothing_that_has_not_come_as_a_message() -> None:
    """The owner may be ahead of what it has sent: a tail that showed that would show it again."""
    async with followed(5) as (session, around), trio.open_nursery() as nursery:
        rows: list[tuple[int, bytes]] = []

        async def read() -> None:
            rows.extend(await session.read_stored(3, 100, 1_000))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        asked = around.link.take(Fetch)
        assert (asked.after_seq, asked.limit, asked.bytes_max) == (3, 100, 1_000)
        await say(session, Page(1, asked.number, 4, [b"4", b"5", b"6"], 6, False))
        assert rows == [(4, b"4"), (5, b"5")]


async def test_who_may_not_read_on_is_told_when_the_session_changes() -> None:
    async with followed(3) as (session, _):
        readers = {user: Reader() for user in ("alice", "bob", None)}
        tails = [Tail(session, reader, 3, user) for user, reader in readers.items()]
        for tail in tails:
            tail.start()
        await say(session, Info(1, info("carol")))
        assert isinstance(readers["bob"].error, SessionNotFoundError)
        assert readers["alice"].error is readers[None].error is None
        for tail in tails:
            tail.close()


async def test_nothing_is_known_of_a_session_whose_channel_has_ended() -> None:
    """Its members may be others by now: whoever asks waits for the owner's word."""
    async with opened() as (session, around):
        assert session.is_ready(to_append=True)
        await say(session, Gone(1))
        assert not session.is_ready()
        around.link.sent.clear()


async def test_a_session_that_is_gone_for_good_ends_its_tails() -> None:
    async with followed(3) as (session, around):
        reader = Reader()
        Tail(session, reader, 3).start()
        await say(session, Gone(1))
        with trio.fail_after(5):
            while not around.link.sent:
                await trio.sleep(0.01)
        await say(session, Refused(2, 0, "session_not_found", "no", "", None, {"session": S}))
        assert isinstance(reader.error, SessionNotFoundError)
        assert around.forgotten == [session]

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from runtime.links.messages import (
    PIECE_BYTES,
    Beat,
    Close,
    Delivered,
    FrameBuffer,
    FromEdge,
    FromOwner,
    decode_from_edge,
    decode_from_owner,
    encode,
)
from runtime.links.stream import BUFFERED_BYTES_MAX, SILENT_SECONDS, LinkLostError, LinkStream


@asynccontextmanager
async def open_pair(got: list[FromOwner]) -> AsyncIterator[tuple[LinkStream, LinkStream]]:
    """Connect two ends; what the second receives is gathered."""
    ours, theirs = trio.testing.memory_stream_pair()
    owner, edge = LinkStream(ours, FrameBuffer()), LinkStream(theirs, FrameBuffer())

    def receive(batch: Sequence[FromOwner]) -> None:
        got.extend(message for message in batch if not isinstance(message, Beat))

    async def run(link: LinkStream, *how: object) -> None:
        with pytest.raises(LinkLostError):
            await link.run(*how)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, owner, decode_from_edge, lambda _: None)
        nursery.start_soon(run, edge, decode_from_owner, receive)
        yield owner, edge
        await ours.aclose()


async def test_messages_come_whole_and_in_order_however_the_bytes_are_cut() -> None:
    sent: list[FromEdge] = [Close(n) for n in range(50)]
    data = bytes(encode(sent[:20]) + encode(sent[20:]))
    for step in (1, 3, 7, len(data)):
        buffer = FrameBuffer()
        received: list[FromEdge] = []
        for start in range(0, len(data), step):
            buffer.feed(data[start : start + step])
            while (frame := buffer.take()) is not None:
                received += decode_from_edge(frame)
        assert received == sent


async def test_what_was_queued_together_leaves_together_in_pieces() -> None:
    got: list[FromOwner] = []
    body = b"x" * 1_000
    count = 3 * PIECE_BYTES // len(body)
    async with open_pair(got) as (owner, _):
        for n in range(count):
            owner.send(Delivered(1, n, body), len(body))
        await trio.testing.wait_all_tasks_blocked()
        assert [message.seq for message in got] == list(range(count))  # type: ignore[union-attr]
        assert owner.buffered == 0


async def test_who_waits_for_room_goes_on_when_there_is_some_or_the_link_ends() -> None:
    told: list[bool] = []

    async def wait(link: LinkStream) -> None:
        told.append(await link.wait_room())

    got: list[FromOwner] = []
    async with trio.open_nursery() as nursery:
        async with open_pair(got) as (owner, _):
            owner.send(Beat(), BUFFERED_BYTES_MAX + 1)
            assert owner.is_full
            nursery.start_soon(wait, owner)
            await trio.testing.wait_all_tasks_blocked()
            assert told == [True]
        owner.buffered = BUFFERED_BYTES_MAX + 1
        nursery.start_soon(wait, owner)
    assert told == [True, False]


async def test_a_link_on_which_nothing_comes_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    link = LinkStream(ours, FrameBuffer())
    began = trio.current_time()
    with pytest.raises(LinkLostError, match="nothing came"):
        await link.run(decode_from_edge, lambda _: None)
    assert trio.current_time() - began == pytest.approx(SILENT_SECONDS)


async def test_a_link_that_lives_is_not_given_up(autojump_clock: trio.testing.MockClock) -> None:
    got: list[FromOwner] = []
    async with open_pair(got) as (owner, edge):
        await trio.sleep(10 * SILENT_SECONDS)
        assert not owner.closed
        assert not edge.closed


async def test_a_frame_that_makes_no_sense_ends_the_link() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link = LinkStream(ours, FrameBuffer())
    await theirs.send_all(b"\x03\x00\x00\x00abc")
    with pytest.raises(LinkLostError, match="no frame"):
        await link.run(decode_from_edge, lambda _: None)
    assert link.closed


async def test_a_bug_in_who_receives_is_not_taken_for_a_lost_link() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link = LinkStream(ours, FrameBuffer())
    await theirs.send_all(bytes(encode([Close(1)])))

    def receive(_: Sequence[FromEdge]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as group:
        await link.run(decode_from_edge, receive)
    assert group.group_contains(ZeroDivisionError)

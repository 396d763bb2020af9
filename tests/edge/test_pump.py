import select
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from websockets.frames import Frame, Opcode

from edge.client import Client
from edge.connection import Connection
from edge.limits import Limits
from tests.edge.conftest import OpenPump, PumpUnderTest
from tests.edge.socket_client import SocketClient, open_socket


async def raw(client: SocketClient, *frames: Frame) -> None:
    for frame in frames:
        await client.stream.send_all(frame.serialize(mask=True))


@asynccontextmanager
async def open_narrow(server: PumpUnderTest) -> AsyncIterator[tuple[SocketClient, Connection]]:
    """Connect through sockets that hold little: what is not read soon waits in the server."""
    narrow = trio.socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
    await narrow.connect(("127.0.0.1", server.port))
    async with open_socket(server.port, stream=trio.SocketStream(narrow)) as client:
        await client.receive("hello")
        *_, connection = server.pump.board.connections.values()
        connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        yield client, connection


async def test_fragments_make_one_message(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.receive("hello")
        await raw(
            client,
            Frame(Opcode.TEXT, b'{"type":"pi', fin=False),
            Frame(Opcode.PING, b"between"),
            Frame(Opcode.CONT, b"", fin=False),
            Frame(Opcode.CONT, b'ng","ref":"1"}'),
        )
        assert await client.receive() == {"type": "ok", "ref": "1"}


async def test_a_message_that_comes_byte_by_byte_is_read(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.receive("hello")
        for byte in Frame(Opcode.TEXT, b'{"type":"ping","ref":"1"}').serialize(mask=True):
            await client.stream.send_all(bytes((byte,)))
        assert await client.receive() == {"type": "ok", "ref": "1"}


async def test_many_messages_in_one_read_are_all_answered(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.receive("hello")
        frame = Frame(Opcode.TEXT, b'{"type":"ping","ref":"1"}').serialize(mask=True)
        await client.stream.send_all(frame * 500)
        for _ in range(500):
            assert (await client.receive())["type"] == "ok"


@pytest.mark.parametrize(
    ("frames", "close_code"),
    [
        ([Frame(Opcode.TEXT, b"x" * 300_000)], 1009),
        ([Frame(Opcode.TEXT, b"x" * 200_000, fin=False), Frame(Opcode.CONT, b"x" * 200_000)], 1009),
        (
            [Frame(Opcode.TEXT, b"", fin=False)] + [Frame(Opcode.CONT, b"", fin=False)] * 10_000,
            1008,
        ),
        ([Frame(Opcode.BINARY, b"x")], 1003),
        ([Frame(Opcode.TEXT, b"\xff\xfe")], 1007),
        ([Frame(Opcode.CONT, b"x")], 1002),
        ([Frame(Opcode.PING, b"")] * 2_000, 1008),
    ],
)
async def test_what_the_protocol_does_not_allow_closes_the_connection_and_no_other(
    open_pump: OpenPump, frames: list[Frame], close_code: int
) -> None:
    async with (
        open_pump() as server,
        open_socket(server.port) as offender,
        open_socket(server.port) as other,
    ):
        with suppress(trio.BrokenResourceError):
            await offender.stream.send_all(b"".join(f.serialize(mask=True) for f in frames))
        assert await offender.wait_closed() == close_code
        assert (await other.ask(type="ping", ref="p"))["type"] == "ok"


async def test_reserved_bits_are_refused(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        frame = bytearray(Frame(Opcode.TEXT, b"{}").serialize(mask=True))
        frame[0] |= 0x40
        await client.stream.send_all(bytes(frame))
        assert await client.wait_closed() == 1002


async def test_an_unmasked_frame_is_refused(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.stream.send_all(Frame(Opcode.TEXT, b"{}").serialize(mask=False))
        assert await client.wait_closed() == 1002


async def test_a_peer_that_closes_is_answered_and_gone(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        client.protocol.send_close(1000)
        await client.flush()
        assert await client.wait_closed() == 1000
        with trio.fail_after(5):
            while server.pump.board.connections:
                await trio.sleep(0.01)


async def test_a_peer_that_resets_is_gone(open_pump: OpenPump) -> None:
    async with open_pump() as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with open_socket(server.port, stream=stream) as client:
            await client.ask(type="join", ref="j", session="s", create={})
        with trio.fail_after(5):
            while server.pump.board.connections:
                await trio.sleep(0.01)


async def test_a_stalled_reader_is_cut_off_and_the_others_notice_nothing(
    open_pump: OpenPump,
) -> None:
    limits = Limits(stall_timeout_seconds=1.0, connection_buffer_bytes_max=64 * 1024)
    async with open_pump(limits) as server:
        stalled_socket = trio.socket.socket()
        stalled_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        await stalled_socket.connect(("127.0.0.1", server.port))
        async with (
            open_socket(server.port, stream=trio.SocketStream(stalled_socket)) as stalled,
            open_socket(server.port) as reader,
            open_socket(server.port) as writer,
        ):
            for client in (stalled, reader):
                await client.ask(type="join", ref="j", session="s", create={}, last_seq=0)
            body = "x" * 10_000
            with trio.fail_after(20):
                sent = 0
                while server.pump.board.closed_stalled == 0:
                    sent += 1
                    await writer.ask(type="send", ref=sent, session="s", content=body)
                    assert (await reader.receive("message"))["seq"] == sent
                    connections = server.pump.board.connections.values()
                    assert (
                        max(c.buffered for c in connections)
                        <= 2 * limits.connection_buffer_bytes_max
                    )
            assert await stalled.wait_closed() == 1013
            # What it missed it gets with its cursor.
            async with open_socket(server.port) as again:
                await again.ask(type="join", ref="j", session="s", last_seq=sent - 3)
                assert (await again.receive("message"))["seq"] == sent - 2


async def test_a_slow_reader_that_makes_progress_gets_a_long_replay_whole(
    open_pump: OpenPump, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(stall_timeout_seconds=1.0, connection_buffer_bytes_max=64 * 1024)
    pages = 0

    def counted(client: Client) -> None:
        nonlocal pages
        pages += 1
        client._transport.flush()

    monkeypatch.setattr(Client, "page_delivered", counted)
    async with open_pump(limits) as server, open_socket(server.port) as writer:
        await writer.ask(type="join", ref="j", session="s", create={})
        await writer.ask(type="leave", ref="l", session="s")
        for n in range(60):
            await writer.ask(type="send", ref=n, session="s", content="x" * 20_000)
        async with open_narrow(server) as (reader, connection):
            await reader.ask(type="join", ref="j", session="s", last_seq=0)
            for seq in range(1, 61):
                await trio.sleep(0.03)
                assert connection.buffered <= limits.connection_buffer_bytes_max
                assert (await reader.receive("message"))["seq"] == seq
            assert pages <= 70  # it waited for room, and did not only look for it
            await writer.ask(type="send", ref="live", session="s", content="x")
            assert (await reader.receive("message"))["seq"] == 61


async def test_who_does_not_read_is_heard_until_its_buffer_is_full_and_again_when_it_is_not(
    open_pump: OpenPump,
) -> None:
    limits = Limits(connection_buffer_bytes_max=64 * 1024, stall_timeout_seconds=30)
    async with (
        open_pump(limits) as server,
        open_narrow(server) as (deaf, connection),
        trio.open_nursery() as nursery,
    ):
        ping = Frame(Opcode.TEXT, b'{"type":"ping","ref":"1"}').serialize(mask=True)
        sent = 0

        async def send(count: int) -> None:
            nonlocal sent
            await deaf.stream.send_all(ping * count)
            sent += count

        # Some of it waits to be written, but there is room for more.
        while not connection.buffered:
            await send(100)
            await trio.sleep(0.01)
        await send(100)
        with trio.fail_after(5):
            while server.pump.board.messages_received < sent:
                await trio.sleep(0.01)
        assert connection.buffered < limits.connection_buffer_bytes_max
        # What it sends now is more than may wait for it.
        nursery.start_soon(send, 20_000)
        with trio.fail_after(5):
            while connection.buffered <= limits.connection_buffer_bytes_max:
                await trio.sleep(0.01)
        await trio.sleep(0.3)
        assert server.pump.board.messages_received < 10_000
        assert connection.buffered < 3 * limits.connection_buffer_bytes_max
        answers = 0
        with trio.fail_after(20):
            while answers < sent or sent < 20_000:
                assert await deaf.receive() == {"type": "ok", "ref": "1"}
                answers += 1
        assert answers == sent
        assert connection.interest == select.EPOLLIN


@pytest.mark.parametrize("who_goes", ["the peer", "the server"])
async def test_who_goes_while_much_waits_to_be_written_leaves_nothing_behind(
    open_pump: OpenPump, who_goes: str
) -> None:
    limits = Limits(
        connection_buffer_bytes_max=64 * 1024, stall_timeout_seconds=30, close_timeout_seconds=30
    )
    async with open_pump(limits) as server, open_socket(server.port) as writer:
        await writer.ask(type="join", ref="j", session="s", create={})
        for n in range(10):
            await writer.ask(type="send", ref=n, session="s", content="x" * 50_000)
        tasks = len(server.node.nursery.child_tasks)
        async with open_narrow(server) as (reader, connection):
            await reader.send(type="join", ref="j", session="s", last_seq=0)
            with trio.fail_after(5):
                while connection._room is None:
                    await trio.sleep(0.01)
            assert len(server.node.nursery.child_tasks) == tasks + 1
            if who_goes == "the peer":
                await reader.stream.aclose()
            else:
                connection.close(1012, "shutting_down")
            with trio.fail_after(5):
                while len(server.node.nursery.child_tasks) > tasks:
                    await trio.sleep(0.01)
        with trio.fail_after(5):
            while len(server.pump.board.connections) > 1:
                await trio.sleep(0.01)
        assert len(server.node.active["default", "s"].tails) == 1
        assert (await writer.ask(type="ping", ref="p"))["type"] == "ok"


async def test_a_peer_that_answers_a_close_is_gone_at_once(open_pump: OpenPump) -> None:
    limits = Limits(close_timeout_seconds=60)
    async with open_pump(limits) as server, open_socket(server.port) as client:
        await client.receive("hello")
        (connection,) = server.pump.board.connections.values()
        connection.close(1012, "shutting_down")
        connection.flush()
        assert await client.wait_closed() == 1012
        await client.stream.aclose()
        with trio.fail_after(5):
            while server.pump.board.connections:
                await trio.sleep(0.01)


async def test_a_silent_peer_is_pinged_and_then_closed(open_pump: OpenPump) -> None:
    limits = Limits(heartbeat_seconds=0.5, idle_timeout_seconds=3.0)
    async with (
        open_pump(limits) as server,
        open_socket(server.port) as alive,
        open_socket(server.port) as silent,
    ):
        await alive.receive("hello")
        with trio.move_on_after(4):
            await alive.wait_closed()
        # Reading answers pings; the other never did.
        assert await silent.wait_closed() == 4408
        assert (await alive.ask(type="ping", ref="p"))["type"] == "ok"


async def test_stopping_closes_everyone_with_1012(open_pump: OpenPump) -> None:
    async with (
        open_pump() as server,
        open_socket(server.port) as one,
        open_socket(server.port) as two,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.pump.close_all)
            assert await one.wait_closed() == 1012
            assert await two.wait_closed() == 1012
        assert not server.pump.board.connections


async def test_what_follows_a_close_frame_is_not_read(open_pump: OpenPump) -> None:
    async with open_pump() as server, open_socket(server.port) as client:
        await client.ask(type="join", ref="j", session="s", create={})
        await raw(
            client,
            Frame(Opcode.TEXT, b'{"type":"send","ref":"1","session":"s","content":1}'),
            Frame(Opcode.CLOSE, b"\x03\xe8"),
            Frame(Opcode.TEXT, b'{"type":"send","ref":"2","session":"s","content":2}'),
        )
        assert await client.wait_closed() == 1000
        session = await server.node.open("default", "s")
        await server.node.log.sync()
        assert session.durable_seq <= 1


@pytest.mark.parametrize(
    ("hook", "close_code"), [("receive", 1011), ("on_writable", 1006), ("sweep", 1006)]
)
async def test_a_bug_that_one_client_meets_closes_it_and_no_other(
    open_pump: OpenPump,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    hook: str,
    close_code: int,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("swordfish")

    async with open_pump() as server, open_socket(server.port) as broken:
        (connection,) = server.pump.board.connections.values()
        async with open_socket(server.port) as other:
            with monkeypatch.context() as patched:
                unbroken = getattr(Client if hook == "receive" else Connection, hook)

                def fail_once(self: object, *arguments: object) -> None:
                    if self is (connection.client if hook == "receive" else connection):
                        fail()
                    unbroken(self, *arguments)

                patched.setattr(Client if hook == "receive" else Connection, hook, fail_once)
                if hook == "on_writable":
                    connection._watch(select.EPOLLOUT)
                await broken.send(type="ping", ref="1")
                assert await broken.wait_closed() == close_code
            assert (await other.ask(type="ping", ref="p"))["type"] == "ok"
    logged = "".join(capfd.readouterr())
    assert logged.count("connection_failed") == 1
    assert logged.count("RuntimeError: swordfish") == 1

"""Links that must not come about, over real sockets: what both sides are told, and who goes on as before."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from runtime import ClusterOptions, Router, open_cluster
from runtime.errors import OwnerUnavailableError
from runtime.links import messages
from runtime.links.handshake import (
    LINK_SECRET,
    Greeting,
    HandshakeError,
    Proof,
    Refusal,
    Welcome,
    prove,
)
from runtime.links.messages import FRAME_BYTES_MAX, Beat, FrameBuffer
from runtime.links.pool import dial_tcp
from runtime.links.stream import LinkGarbledError
from storage import ACTIVE, Archive, Place, PlannedChange, open_archive
from tests.runtime.clusters import SLOTS, Member, open_edge, open_member, until_settled

W = "default"
Told = list[tuple[str, Exception]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """One archive; which database it is makes no difference to links."""
    opened = open_archive(f"sqlite:///{tmp_path}/archive.db")
    yield opened
    opened.close()


@asynccontextmanager
async def open_owner(directory: Path, archive: Archive) -> AsyncIterator[tuple[Member, str, Told]]:
    """Run an owner; return it, its address, and what its operator is told of links."""
    told: Told = []
    directory.mkdir()
    async with open_member(directory, archive, told=told) as member:
        ring = await until_settled(archive, [member])
        yield member, ring.nodes[0].address, told


async def until(is_so: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not is_so():
            await trio.sleep(0.01)


async def speak(stream: trio.abc.Stream, what: object) -> None:
    await stream.send_all(messages.encode(what))  # type: ignore[arg-type]


async def hear(stream: trio.abc.Stream, kind: type) -> object:
    buffer = FrameBuffer()
    with trio.fail_after(10):
        while (frame := buffer.take()) is None:
            data = await stream.receive_some(4096)
            assert data
            buffer.feed(data)
    return msgspec.msgpack.decode(frame, type=kind)


async def check_serves(archive: Archive, name: str) -> None:
    """Check that whoever belongs to the cluster gets on."""
    async with open_edge(archive) as edge:
        await edge.catalog.create(W, name, user_id="alice")
        assert (await edge.open(W, name, to_append=True)).durable_seq == 0


@asynccontextmanager
async def open_lost_edge(archive: Archive, address: str) -> AsyncIterator[tuple[Router, str, Told]]:
    """Run an edge for which all sessions are at a node that should listen at an address."""
    told: Told = []
    node_id = "0" * 32

    def register() -> None:
        epoch = archive.begin_epoch(node_id, "local", 0, Place(address, 1, SLOTS)).epoch
        ring = archive.read_ring()
        targets = [(slot, node_id) for slot in range(SLOTS)]
        archive.change_ring(
            PlannedChange(
                ring.version, 0, "test", "join", node_id, targets, states=[(node_id, ACTIVE)]
            )
        )
        archive.claim_slots(node_id, epoch, range(SLOTS))

    await trio.to_thread.run_sync(register)

    def tell(peer: str, error: Exception) -> None:
        told.append((peer, error))

    options = ClusterOptions(link_failed=tell)
    async with open_cluster(options, archive, None) as cluster:
        yield cluster.router, f"{node_id} at {address}", told


@asynccontextmanager
async def answering(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """Listen on an address, and answer each connection; return the address."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await answer(stream)

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def refusals(told: Told) -> list[tuple[str, str]]:
    """Return the peer and code of what an operator was told, each of which says what to do."""
    found = []
    for peer, error in told:
        assert isinstance(error, (HandshakeError, LinkGarbledError)), error
        assert error.hint
        assert str(error)
        found.append((peer, error.code))
    return found


async def test_a_node_of_another_cluster_is_refused_and_both_operators_and_clients_are_told(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.links.remote.REQUEST_SECONDS", 1.5)
    other = open_archive(f"sqlite:///{tmp_path}/other.db")
    async with open_owner(tmp_path / "owner", archive) as (_, address, owner_told):
        async with open_lost_edge(other, address) as (edge, peer, edge_told):
            with pytest.raises(OwnerUnavailableError) as refused:
                await edge.open(W, "s")
        assert "does not answer" in str(refused.value)
        assert "it is not of this cluster" in str(refused.value)
        assert address not in str(refused.value)
        # Once, though it was tried again and again.
        assert refusals(edge_told) == [(peer, "link_secret")]
        assert refusals(owner_told) == [("127.0.0.1", "link_secret")]
        assert "compare their --archive" in edge_told[0][1].hint  # type: ignore[attr-defined]
        await check_serves(archive, "s")
    other.close()


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (Greeting(2, "", SLOTS, b"n" * 32), "link_version"),
        (Greeting(1, "", SLOTS + 1, b"n" * 32), "link_slots"),
        (Greeting(1, "", SLOTS, b"n"), "link_protocol"),
    ],
)
async def test_an_edge_that_cannot_be_understood_is_told_why(
    tmp_path: Path, archive: Archive, greeting: Greeting, code: str
) -> None:
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        async with await dial_tcp(address) as stream:
            await speak(stream, greeting)
            refusal = await hear(stream, Refusal)
            assert isinstance(refusal, Refusal)
            assert refusal.code == code
            assert await stream.receive_some() == b""
        assert refusals(told) == [("127.0.0.1", code)]
        assert str(told[0][1]) == refusal.reason
        await check_serves(archive, "s")


@pytest.mark.parametrize(
    ("answer", "code", "shown"),
    [
        (Refusal("too old", "link_version"), "link_version", "another version of Ringlog"),
        (Welcome(2, "", 1, SLOTS, b"", b""), "link_version", "another version of Ringlog"),
        (Welcome(1, "", 1, SLOTS + 1, b"n" * 32, b""), "link_slots", "another size"),
        (Welcome(1, "", 1, SLOTS, b"n" * 32, b"p" * 32), "link_secret", "not of this cluster"),
        (Proof(b"?"), "link_protocol", "no owner"),
    ],
)
async def test_an_owner_that_cannot_be_believed_is_told_why(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    answer: object,
    code: str,
    shown: str,
) -> None:
    monkeypatch.setattr("runtime.links.remote.REQUEST_SECONDS", 1.0)
    heard: list[Refusal] = []

    async def be_owner(stream: trio.SocketStream) -> None:
        await hear(stream, Greeting)
        await speak(stream, answer)
        if not isinstance(answer, Refusal):
            refusal = await hear(stream, Refusal)
            assert isinstance(refusal, Refusal)
            heard.append(refusal)

    async with (
        answering(be_owner) as address,
        open_lost_edge(archive, address) as (edge, peer, told),
    ):
        with pytest.raises(OwnerUnavailableError, match=shown):
            await edge.open(W, "s")
        assert refusals(told) == [(peer, code)]
        assert {refusal.code for refusal in heard} == (
            set() if isinstance(answer, Refusal) else {code}
        )


async def test_a_recorded_handshake_opens_nothing_later(tmp_path: Path, archive: Archive) -> None:
    """Whoever could listen to a whole link may say again what its edge said."""
    secret = archive.secret(LINK_SECRET)
    greeting = Greeting(1, "edge", SLOTS, b"n" * 32)
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        async with await dial_tcp(address) as stream:
            await speak(stream, greeting)
            welcome = await hear(stream, Welcome)
            assert isinstance(welcome, Welcome)
            recorded = messages.encode(Proof(prove(secret, "edge", greeting, welcome)))
            await stream.send_all(recorded)
            assert await hear(stream, list) is not None
        assert told == []
        async with await dial_tcp(address) as stream:
            await stream.send_all(messages.encode(greeting) + recorded)
            await hear(stream, Welcome)
        await until(lambda: told)
        assert refusals(told) == [("127.0.0.1", "link_secret")]


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "link_protocol"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, "link_protocol"),
        ((1_025).to_bytes(4, "little") + b"x" * 1_025, "link_protocol"),
        ((4).to_bytes(4, "little") + b"\xc1\xc1\xc1\xc1", "link_protocol"),
        # Never whole: it is waited for no longer than a handshake takes.
        (b"", "link_timeout"),
        (b"\x40\x00\x00\x00\x95", "link_timeout"),
    ],
)
async def test_what_is_no_handshake_ends_soon_and_nobody_else_notices(
    tmp_path: Path,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    garbage: bytes,
    code: str,
) -> None:
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        await check_serves(archive, "before")
        monkeypatch.setattr("runtime.links.stream.HANDSHAKE_SECONDS", 0.3)
        async with await dial_tcp(address) as stream:
            await stream.send_all(garbage)
            with trio.fail_after(10):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass  # it did not read all of it
        await until(lambda: told)
        assert refusals(told) == [("127.0.0.1", code)]
        monkeypatch.undo()
        await check_serves(archive, "after")


async def test_who_hangs_up_in_the_middle_of_a_handshake_is_nothing_to_tell(
    tmp_path: Path, archive: Archive
) -> None:
    """A balancer that looks whether the port is open does just that."""
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        for said in (b"", b"\x40\x00\x00\x00\x95"):
            async with await dial_tcp(address) as stream:
                await stream.send_all(said)
        await check_serves(archive, "s")
        assert told == []


async def test_a_handshake_that_comes_byte_by_byte_is_one(tmp_path: Path, archive: Archive) -> None:
    secret = archive.secret(LINK_SECRET)
    greeting = Greeting(1, "edge", SLOTS, b"n" * 32)
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        async with await dial_tcp(address) as stream:
            for byte in messages.encode(greeting):
                await stream.send_all(bytes([byte]))
            welcome = await hear(stream, Welcome)
            assert isinstance(welcome, Welcome)
            for byte in messages.encode(Proof(prove(secret, "edge", greeting, welcome))):
                await stream.send_all(bytes([byte]))
            assert await hear(stream, list[Beat]) == [Beat()]
        assert told == []


async def test_a_frame_too_large_ends_the_link_and_both_go_on(
    tmp_path: Path, archive: Archive
) -> None:
    """From one who knows the secret: a node that is broken, or what lies between is."""
    secret = archive.secret(LINK_SECRET)
    greeting = Greeting(1, "edge", SLOTS, b"n" * 32)
    async with open_owner(tmp_path / "owner", archive) as (_, address, told):
        async with await dial_tcp(address) as stream:
            await speak(stream, greeting)
            welcome = await hear(stream, Welcome)
            assert isinstance(welcome, Welcome)
            await speak(stream, Proof(prove(secret, "edge", greeting, welcome)))
            await stream.send_all((FRAME_BYTES_MAX + 1).to_bytes(4, "little"))
            with trio.fail_after(10):
                while await stream.receive_some():
                    pass
        await until(lambda: told)
        assert refusals(told) == [("127.0.0.1", "link_garbled")]
        await check_serves(archive, "s")

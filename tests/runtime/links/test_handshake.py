import msgspec
import pytest
import trio
import trio.testing

from runtime.links import messages
from runtime.links.handshake import Greeting, HandshakeError, Proof, Welcome, prove
from runtime.links.messages import FrameBuffer
from runtime.links.stream import LinkLostError, LinkStream, greet, welcome

SECRET = b"s" * 32
SLOTS = 16


async def meet(
    edge_secret: bytes = SECRET,
    owner_secret: bytes = SECRET,
    edge_slots: int = SLOTS,
    owner: str = "owner",
) -> tuple[object, object]:
    """Return what each side made of the other: a link, or the error."""
    ours, theirs = trio.testing.memory_stream_pair()
    results: dict[str, object] = {}

    async def be_edge() -> None:
        try:
            results["edge"] = await greet(ours, edge_secret, "edge", edge_slots, owner)
        except (HandshakeError, LinkLostError) as error:
            results["edge"] = error
        if not isinstance(results["edge"], LinkStream):
            await ours.aclose()

    async def be_owner() -> None:
        try:
            link, _ = await welcome(theirs, owner_secret, "owner", 3, SLOTS)
            results["owner"] = link
        except (HandshakeError, LinkLostError) as error:
            results["owner"] = error
        if not isinstance(results["owner"], LinkStream):
            await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_edge)
        nursery.start_soon(be_owner)
    return results["edge"], results["owner"]


async def test_nodes_of_one_cluster_know_each_other() -> None:
    edge, owner = await meet()
    assert isinstance(edge, LinkStream)
    assert isinstance(owner, LinkStream)


async def test_an_owner_with_another_secret_is_not_believed() -> None:
    edge, owner = await meet(owner_secret=b"o" * 32)
    assert isinstance(edge, HandshakeError)
    assert "secret" in str(edge)
    assert isinstance(owner, LinkLostError)


async def test_another_node_at_the_address_is_not_taken_for_the_owner() -> None:
    edge, _ = await meet(owner="another")
    assert isinstance(edge, HandshakeError)
    assert "it is node owner" in str(edge)


async def test_another_size_of_ring_is_refused_and_both_are_told() -> None:
    edge, owner = await meet(edge_slots=SLOTS + 1)
    assert isinstance(edge, HandshakeError)
    assert isinstance(owner, HandshakeError)
    assert "17 slots" in str(edge)


async def speak(stream: trio.abc.Stream, what: object) -> None:
    await stream.send_all(messages.encode(what))  # type: ignore[arg-type]


async def hear(stream: trio.abc.Stream, kind: type) -> object:
    buffer = FrameBuffer()
    while (frame := buffer.take()) is None:
        buffer.feed(await stream.receive_some(4096))
    return msgspec.msgpack.decode(frame, type=kind)


async def test_an_edge_that_only_plays_back_what_it_heard_is_refused(nursery: trio.Nursery) -> None:
    """An owner's nonce is fresh each time, so yesterday's proof is worth nothing."""
    said: list[tuple[Greeting, Proof]] = []
    refused: list[HandshakeError] = []

    async def be_owner(stream: trio.abc.Stream) -> None:
        try:
            await welcome(stream, SECRET, "owner", 3, SLOTS)
        except HandshakeError as error:
            refused.append(error)

    greeting = Greeting(1, "edge", SLOTS, b"n" * 32)
    for life in range(2):
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(be_owner, theirs)
        await speak(ours, greeting)
        heard = await hear(ours, Welcome)
        assert isinstance(heard, Welcome)
        if life == 0:
            said.append((greeting, Proof(prove(SECRET, "edge", greeting, heard))))
        await speak(ours, said[0][1])
        await trio.testing.wait_all_tasks_blocked()
    assert len(refused) == 1


async def test_an_owners_own_proof_does_not_open_it(nursery: trio.Nursery) -> None:
    refused: list[HandshakeError] = []

    async def be_owner(stream: trio.abc.Stream) -> None:
        try:
            await welcome(stream, SECRET, "owner", 3, SLOTS)
        except HandshakeError as error:
            refused.append(error)

    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(be_owner, theirs)
    await speak(ours, Greeting(1, "edge", SLOTS, b"n" * 32))
    heard = await hear(ours, Welcome)
    assert isinstance(heard, Welcome)
    await speak(ours, Proof(heard.proof))
    await trio.testing.wait_all_tasks_blocked()
    assert len(refused) == 1


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x04\x00\x00\x00abcd"]
)
async def test_who_speaks_something_else_is_refused(garbage: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(garbage)
    with pytest.raises(HandshakeError):
        await welcome(theirs, SECRET, "owner", 3, SLOTS)


async def test_who_says_nothing_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    _, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(LinkLostError, match="no handshake"):
        await welcome(theirs, SECRET, "owner", 3, SLOTS)

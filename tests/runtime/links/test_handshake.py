import msgspec
import pytest
import trio
import trio.testing

from runtime.links import messages
from runtime.links.handshake import Greeting, HandshakeError, Proof, Refusal, Welcome, prove
from runtime.links.messages import Close, FrameBuffer
from runtime.links.stream import REFUSAL_SECONDS, LinkLostError, LinkStream, greet, welcome

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
    assert isinstance(owner, HandshakeError)
    assert edge.code == owner.code == "link_secret"
    assert "the owner does not know this cluster's secret" in str(owner)


async def test_another_node_at_the_address_is_not_taken_for_the_owner() -> None:
    edge, owner = await meet(owner="another")
    assert isinstance(edge, HandshakeError)
    assert isinstance(owner, HandshakeError)
    assert edge.code == owner.code == "link_node"
    assert "node owner answers, not another" in str(edge)


async def test_another_size_of_ring_is_refused_and_both_are_told() -> None:
    edge, owner = await meet(edge_slots=SLOTS + 1)
    assert isinstance(edge, HandshakeError)
    assert isinstance(owner, HandshakeError)
    assert edge.code == owner.code == "link_slots"
    assert "the edge's ring has 17 slots, the owner's 16" in str(edge)
    assert str(owner) in str(edge)


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
    with pytest.raises(HandshakeError, match="did not finish the handshake in 5 s"):
        await welcome(theirs, SECRET, "owner", 3, SLOTS)


async def test_who_does_not_read_why_it_was_refused_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"\xff" * 64)
        with pytest.raises(HandshakeError):
            await welcome(theirs, SECRET, "owner", 3, SLOTS)
    assert trio.current_time() - began == pytest.approx(REFUSAL_SECONDS)


@pytest.mark.parametrize("answer", [Greeting(2, "new", 9, b""), Welcome(2, "", 0, 0, b"", b"")])
async def test_a_newer_version_is_told_apart_from_what_is_no_node(answer: object) -> None:
    """Nothing but the tag and the version of what it says need be understood."""
    ours, theirs = trio.testing.memory_stream_pair()
    fields = msgspec.msgpack.decode(messages.encode(answer)[4:])  # type: ignore[arg-type]
    fields[2:] = [{"another": "shape"}]
    frame = msgspec.msgpack.encode(fields)
    await ours.send_all(len(frame).to_bytes(4, "little") + frame)
    with pytest.raises(HandshakeError, match=r"speaks version 2 .* this node 1") as refused:
        if isinstance(answer, Greeting):
            await welcome(theirs, SECRET, "owner", 3, SLOTS)
        else:
            await greet(theirs, SECRET, "edge", SLOTS, "owner")
    assert refused.value.code == "link_version"


async def test_a_reason_that_only_a_newer_version_knows_is_passed_on() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await speak(ours, Refusal("the moon is full", "link_moon"))
    with pytest.raises(HandshakeError, match="the owner refused this node: the moon") as refused:
        await greet(theirs, SECRET, "edge", SLOTS, "owner")
    assert refused.value.code == "link_refused"
    assert refused.value.hint


async def test_what_comes_right_behind_a_handshake_is_taken_at_once() -> None:
    """One read may bring both; nothing else need come for the second to be looked at."""
    ours, theirs = trio.testing.memory_stream_pair()
    got: list[object] = []
    owners: list[LinkStream] = []

    async def be_owner() -> None:
        link, _ = await welcome(theirs, SECRET, "owner", 3, SLOTS)
        owners.append(link)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_owner)
        greeting = Greeting(1, "edge", SLOTS, b"n" * 32)
        await speak(ours, greeting)
        heard = await hear(ours, Welcome)
        assert isinstance(heard, Welcome)
        proof = messages.encode(Proof(prove(SECRET, "edge", greeting, heard)))
        await ours.send_all(proof + messages.encode([Close(1)]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owners[0].run, messages.decode_from_edge, got.extend)
        await trio.testing.wait_all_tasks_blocked()
        assert got == [Close(1)]
        nursery.cancel_scope.cancel()

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from bench.wire import PING, TEXT, FrameReader, WireError, client_frame, handshake

LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 70000)


def server() -> ServerProtocol:
    """A server of another make, its handshake done."""
    protocol = ServerProtocol()
    protocol.receive_data(handshake("127.0.0.1:1", "/v1/ws?user_id=a"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    protocol.data_to_send()
    return protocol


@pytest.mark.parametrize("length", LENGTHS)
def test_another_library_reads_our_frames(length: int) -> None:
    protocol = server()
    protocol.receive_data(client_frame(b"x" * length))
    (frame,) = protocol.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, b"x" * length)


@pytest.mark.parametrize("length", LENGTHS)
def test_we_read_the_frames_of_another_library(length: int) -> None:
    protocol = server()
    protocol.send_text(b"x" * length)
    assert list(FrameReader().feed(b"".join(protocol.data_to_send()))) == [(TEXT, b"x" * length)]


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_whole_however_the_bytes_are_cut(
    payloads: list[bytes], cuts: list[int]
) -> None:
    protocol = server()
    for payload in payloads:
        protocol.send_text(payload)
    data = b"".join(protocol.data_to_send())
    reader = FrameReader()
    frames: list[tuple[int, bytes]] = []
    for position in range(len(data)):
        cut = cuts[position % len(cuts)]
        frames += reader.feed(data[:cut])
        data = data[cut:]
    assert frames == [(TEXT, payload) for payload in payloads]


def test_control_frames_keep_their_kind() -> None:
    protocol = server()
    protocol.send_ping(b"beat")
    assert list(FrameReader().feed(b"".join(protocol.data_to_send()))) == [(PING, b"beat")]


def test_a_fragment_is_refused() -> None:
    with pytest.raises(WireError):
        list(FrameReader().feed(b"\x01\x01a"))

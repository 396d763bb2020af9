import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from edge.auth import Authenticator
from edge.limits import Limits
from edge.origin import OriginPolicy
from edge.websocket import WebSocket, frame_extent, text_frame


def connected(limits: Limits | None = None) -> WebSocket:
    websocket = WebSocket(limits or Limits())
    client = ClientProtocol(parse_uri("ws://localhost/v1/ws"))
    client.send_request(client.connect())
    websocket.receive_handshake(
        b"".join(client.data_to_send()),
        Authenticator(b"x" * 32, allow_development=True),
        OriginPolicy(development=lambda: True),
    )
    assert websocket.is_open
    websocket.data_to_send()
    return websocket


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


payloads = st.binary(max_size=200) | st.sampled_from([125, 126, 127, 65_535, 65_536]).map(
    lambda length: b"x" * length
)


@given(st.lists(st.tuples(payloads, st.integers(1, 4)), max_size=6), st.data())
def test_messages_come_out_whole_however_the_stream_is_cut(
    messages: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    stream = b""
    for payload, pieces in messages:
        size = max(1, -(-len(payload) // pieces))
        parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        for index, part in enumerate(parts):
            opcode = Opcode.CONT if index else Opcode.TEXT
            stream += masked(opcode, part, fin=index == len(parts) - 1)
            stream += masked(Opcode.PING, b"between") if index else b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    websocket = connected()
    received: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += websocket.receive(stream[start:stop])
    assert received == [payload for payload, _ in messages]


def failure_of(websocket: WebSocket) -> str:
    assert websocket.failure is not None
    return websocket.failure.code


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything(data: bytes) -> None:
    websocket = connected(Limits(message_bytes_max=1_000))
    for _ in range(2):
        websocket.receive(data)
        if websocket.failure is not None:
            websocket.close(1002, websocket.failure.code)
    websocket.data_to_send()


def test_a_frame_that_says_it_is_huge_is_refused_by_its_header_alone() -> None:
    for header in (b"\x81\xff" + (1 << 62).to_bytes(8, "big"), b"\x81\xfe\xff\xff"):
        websocket = connected(Limits(message_bytes_max=1_000))
        websocket.receive(header + b"mask")
        assert failure_of(websocket) == "message_too_large"


def test_fragments_that_add_up_to_too_much_are_refused_by_the_last_header() -> None:
    websocket = connected(Limits(message_bytes_max=1_000))
    websocket.receive(masked(Opcode.TEXT, b"x" * 600, fin=False))
    websocket.receive(masked(Opcode.CONT, b"x" * 401)[:8])
    assert failure_of(websocket) == "message_too_large"


@pytest.mark.parametrize("limit", [100, 1_000, 70_000])
@pytest.mark.parametrize("cut", [None, 1, 20])
def test_a_message_of_the_largest_size_is_taken_and_one_byte_more_is_refused(
    limit: int, cut: int | None
) -> None:
    """Whole frames of up to 64 KiB are taken apart here, all others by the protocol: one limit."""
    for payload in (b"x" * limit, b"x" * (limit + 1)):
        frames = [masked(Opcode.TEXT, payload)]
        if cut is not None:
            frames = [masked(Opcode.TEXT, payload[:cut], fin=False)]
            frames += [masked(Opcode.CONT, payload[cut:])]
        websocket = connected(Limits(message_bytes_max=limit))
        received = websocket.receive(b"".join(frames))
        if len(payload) == limit:
            assert (received, websocket.failure) == ([payload], None)
        else:
            assert (received, failure_of(websocket)) == ([], "message_too_large")


def test_pings_are_counted_by_what_comes_at_once() -> None:
    limits = Limits(pongs_max=3)
    websocket = connected(limits)
    for _ in range(5):
        websocket.receive(masked(Opcode.PING, b"") * limits.pongs_max)
        assert websocket.failure is None
        assert len(websocket.data_to_send()) == limits.pongs_max
    websocket.receive(masked(Opcode.PING, b"") * (limits.pongs_max + 1))
    assert failure_of(websocket) == "rate_limited"


def test_what_follows_a_close_frame_in_one_piece_is_no_message() -> None:
    websocket = connected()
    text, close = masked(Opcode.TEXT, b"{}"), masked(Opcode.CLOSE, b"\x03\xe8")
    assert websocket.receive(text + close + text) == [b"{}"]
    assert not websocket.is_open


@pytest.mark.parametrize("length", [0, 124, 125])
def test_a_control_frame_that_comes_byte_by_byte_is_one(length: int) -> None:
    websocket = connected()
    received: list[bytes] = []
    for byte in masked(Opcode.PING, b"p" * length) + masked(Opcode.TEXT, b"{}"):
        received += websocket.receive(bytes((byte,)))
    assert (received, websocket.failure) == ([b"{}"], None)
    (pong,) = websocket.data_to_send()
    assert pong == Frame(Opcode.PONG, b"p" * length).serialize(mask=False)


def test_only_whole_texts_leave_nothing_more_to_look_at() -> None:
    websocket = connected()
    text = masked(Opcode.TEXT, b"{}")
    for data in (text, text * 3, text[:5], text[5:]):
        websocket.receive(data)
        assert not websocket.involved
    for data in (text + masked(Opcode.PING, b""), masked(Opcode.TEXT, b"", fin=False)):
        websocket.receive(data)
        assert websocket.involved
    websocket.close(1012, "shutting_down")
    websocket.receive(masked(Opcode.CLOSE, b"\x03\xf4"))
    assert websocket.involved


def test_no_pong_follows_a_close_frame() -> None:
    websocket = connected()
    websocket.close(1012, "shutting_down")
    assert len(websocket.data_to_send()) == 1
    websocket.receive(masked(Opcode.PING, b"late"))
    assert websocket.data_to_send() == []
    websocket.receive(masked(Opcode.CLOSE, b"\x03\xe8"))
    assert websocket.data_to_send() == [b""]


def test_nothing_is_read_after_a_refusal_in_the_middle_of_a_frame() -> None:
    websocket = connected(Limits(message_bytes_max=1_000))
    header = masked(Opcode.TEXT, b"x" * 2_000)[:8]
    websocket.receive(header)
    websocket.close(1009, failure_of(websocket))
    assert websocket.data_to_send()[1:] == [b""]
    websocket.receive(masked(Opcode.PING, b"part of the message"))
    assert websocket.data_to_send() == []


def test_too_many_fragments_are_refused() -> None:
    websocket = connected(Limits(fragments_max=10))
    websocket.receive(masked(Opcode.TEXT, b"", fin=False))
    for _ in range(9):
        websocket.receive(masked(Opcode.CONT, b"", fin=False))
    assert failure_of(websocket) == "too_many_fragments"


def test_what_came_whole_before_a_violation_is_handed_over() -> None:
    for wrong in (masked(Opcode.CONT, b"x"), masked(Opcode.BINARY, b"x")):
        websocket = connected()
        assert websocket.receive(masked(Opcode.TEXT, b"{}") + wrong) == [b"{}"]
        assert websocket.is_open
        code = failure_of(websocket)
        websocket.close(1002, code)
        close, end = websocket.data_to_send()
        assert (close[2:], end) == (b"\x03\xea" + code.encode(), b"")


@pytest.mark.parametrize("length", [0, 125, 126, 2_047, 2_048, 65_535, 65_536])
def test_text_frames_are_what_the_rfc_says(length: int) -> None:
    payload = b"x" * length
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(payloads, st.booleans())
def test_the_extent_of_a_frame_is_known_from_its_header(payload: bytes, mask: bool) -> None:
    frame = Frame(Opcode.TEXT, payload).serialize(mask=mask)
    header_end, end = frame_extent(b"??" + frame + b"more", 2)
    assert end == 2 + len(frame)
    assert header_end == end - len(payload)
    assert frame_extent(frame[:1], 0) == (None, None)

"""The three ways to read a session, as bytes: what a client is sent, before any parser has touched it."""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
from websockets.sync.client import ClientConnection, connect

TIMEOUT_SECONDS = 20.0


class Stored(msgspec.Struct):
    """One message, with the client's own bytes as they are."""

    seq: int
    content: msgspec.Raw
    metadata: msgspec.Raw
    type: str = ""


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    head_seq: int
    has_more: bool


@contextmanager
def open_socket(address: str, user: str = "alice") -> Iterator[ClientConnection]:
    with connect(f"ws://{address}/v1/ws?user_id={user}", proxy=None, max_size=None) as websocket:
        yield websocket


def receive(websocket: ClientConnection) -> bytes:
    return websocket.recv(TIMEOUT_SECONDS, decode=False)


def read_socket(address: str, session: str, count: int) -> list[bytes]:
    """The session's messages as a WebSocket replays them."""
    with open_socket(address) as websocket:
        websocket.send(f'{{"type":"join","ref":"j","session":"{session}","last_seq":0}}')
        frames = [receive(websocket) for _ in range(count + 2)]
    assert b'"hello"' in frames[0]
    assert b'"joined"' in frames[1]
    return frames[2:]


def read_events(address: str, session: str, count: int) -> list[bytes]:
    """The session's messages as an event stream sends them."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    with closing(connection):
        connection.request("GET", f"/v1/sessions/{session}/stream?last_seq=0&user_id=alice")
        response = connection.getresponse()
        assert response.status == 200
        bodies: list[bytes] = []
        while len(bodies) < count:
            line = response.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                bodies.append(line[6:-1])
            elif line.startswith(b"id: "):
                assert line == b"id: %d\n" % (len(bodies) + 1)
    return bodies


def read_pages(address: str, session: str, count: int) -> list[bytes]:
    """The session's messages, page by page."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    bodies: list[bytes] = []
    with closing(connection):
        while len(bodies) < count:
            path = f"/v1/sessions/{session}/messages?last_seq={len(bodies)}&limit=200&user_id=alice"
            connection.request("GET", path)
            page = msgspec.json.decode(connection.getresponse().read(), type=_Page)
            assert page.head_seq == count
            assert page.data
            bodies += map(bytes, page.data)
            assert page.has_more == (len(bodies) < count)
    return bodies


READERS = (read_socket, read_events, read_pages)


def contents(bodies: list[bytes]) -> list[bytes]:
    """The contents in order of seq, which must be 1, 2, 3 …"""
    messages = [msgspec.json.decode(body, type=Stored) for body in bodies]
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    return [bytes(message.content) for message in messages]

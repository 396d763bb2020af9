"""Acks are counted in the bytes of each protocol, however they are cut, and a refusal is no ack."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from bench.peers.appends import DRIVERS
from bench.peers.drivers.driver import NUMBER, Driver
from bench.wire import WireError

NATS_HELLO = b'INFO {"server_id":"x"}\r\n'
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def pg(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def frame(payload: bytes, opcode: int = 1) -> bytes:
    return bytes((0x80 | opcode, len(payload))) + payload


def nats(answer: bytes) -> bytes:
    return b"MSG _INBOX.abc 1 %d\r\n%b\r\n" % (len(answer), answer)


PG_READY = pg(b"Z", b"I")
PG_ACK = pg(b"2") + pg(b"C", b"INSERT 0 1\0") + PG_READY
PG_NOTIFIED = pg(b"2") + pg(b"D", bytes(6)) + pg(b"C", b"SELECT 1\0") + PG_READY
RINGLOG_JOINED = frame(b'{"type":"joined","ref":"j","session":"s","head_seq":0}')
RINGLOG_LEFT = frame(b'{"type":"ok","ref":"l"}')


def ringlog_ack(number: int) -> bytes:
    return frame(b'{"type":"ack","ref":"%010d","session":"s","seq":%d}' % (number, number + 1))


def gateway_ack(number: int) -> bytes:
    return frame(b'{"ref":"%010d","id":"170000000000%d-0"}' % (number, number))


@dataclass(frozen=True)
class Spoken:
    """A protocol: how the server greets, what it answers while all is set up, and then."""

    driver: str
    acks: bytes
    count: int
    greeting: bytes = b""
    replies: Sequence[bytes] = ()
    out: bytes = b""


HTTP_NO_BODY = b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 1\r\n\r\n"
HTTP_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\r\n\r\nHTTP/"
HTTP_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\na;x=y\r\n0\r\n\r\n56789\r\n0\r\n\r\n"
PG_SETUP = (pg(b"R", bytes(4)) + pg(b"S", b"a\0b\0") + PG_READY, pg(b"1") + PG_READY)

SPOKEN = [
    Spoken("redis", b"$15\r\n1700000000000-0\r\n$3\r\n1-1\r\n", 2),
    Spoken("postgres", PG_ACK + pg(b"N", b"notice\0") + PG_ACK, 2, replies=PG_SETUP),
    Spoken("postgres-notify", PG_NOTIFIED * 3, 3, replies=PG_SETUP),
    Spoken(
        "nats",
        nats(b'{"stream":"s","seq":1}') + b"PING\r\n" + nats(b'{"stream":"s","seq":2}'),
        2,
        greeting=NATS_HELLO,
        replies=(b"PONG\r\n",),
        out=b"PONG\r\n",
    ),
    Spoken("http", HTTP_NO_BODY + HTTP_LENGTH + HTTP_CHUNKED + HTTP_NO_BODY, 4),
    Spoken(
        "gateway",
        gateway_ack(0) + frame(b"x", 9) + gateway_ack(1),
        2,
        replies=(UPGRADE,),
        out=b"\x8a\x81\0\0\0\0x",
    ),
    Spoken(
        "ringlog",
        ringlog_ack(0) + ringlog_ack(1) + ringlog_ack(2),
        3,
        replies=(UPGRADE, RINGLOG_JOINED, RINGLOG_LEFT),
    ),
]
BY_NAME = {spoken.driver: spoken for spoken in SPOKEN}


@contextmanager
def open_scripted(spoken: Spoken) -> Iterator[str]:
    """Greet whoever connects, and give one reply to each thing that is said."""

    def serve() -> None:
        for _ in range(1 + (spoken.driver == "ringlog")):
            connection, _ = listener.accept()
            with connection:
                if spoken.greeting:
                    connection.sendall(spoken.greeting)
                for reply in spoken.replies:
                    if not connection.recv(65536):
                        break
                    connection.sendall(reply)
                else:
                    over.wait(10)

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        path = "postgres" if spoken.driver.startswith("postgres") else "v1/ws"
        yield f"tcp://postgres@127.0.0.1:{listener.getsockname()[1]}/{path}"
        over.set()
        thread.join(10)


@contextmanager
def open_driver(spoken: Spoken) -> Iterator[Driver]:
    with open_scripted(spoken) as url:
        driver = DRIVERS[spoken.driver](url, "s")
        with driver.socket:
            yield driver


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def by_seven(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


def test_every_protocol_is_in_the_table() -> None:
    assert set(BY_NAME) == set(DRIVERS)


@pytest.mark.parametrize("cut", [whole, bytewise, by_seven])
@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: spoken.driver)
def test_each_ack_is_counted_once_however_it_is_cut(
    spoken: Spoken, cut: Callable[[bytes], list[bytes]]
) -> None:
    with open_driver(spoken) as driver:
        assert sum(driver.count_acks(piece) for piece in cut(spoken.acks)) == spoken.count
        assert driver.out == spoken.out


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: spoken.driver)
def test_an_ack_counts_only_when_it_is_whole(spoken: Spoken) -> None:
    with open_driver(spoken) as driver:
        before = sum(driver.count_acks(piece) for piece in (spoken.acks[:-1],))
        assert (before, driver.count_acks(spoken.acks[-1:])) == (spoken.count - 1, 1)


@pytest.mark.parametrize("cut", [whole, bytewise])
@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("redis", b"-OOM command not allowed\r\n"),
        ("redis", b"$3\r\n1-1\r\n-ERR unknown command\r\n"),
        ("redis", b":1\r\n"),
        ("postgres", pg(b"2") + pg(b"E", b"SERROR\0C53100\0\0") + PG_READY),
        ("postgres", pg(b"2") + pg(b"C", b"INSERT 0 0\0") + PG_READY),
        ("postgres-notify", pg(b"2") + pg(b"C", b"SELECT 0\0") + PG_READY),
        ("nats", nats(b'{"error":{"code":503},"stream":"s","seq":0}')),
        ("nats", b"-ERR 'Maximum Payload Violation'\r\n"),
        ("nats", b"HMSG _INBOX.abc 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
        ("http", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("gateway", gateway_ack(1)),
        ("gateway", frame(b"\x03\xf3OOM", 8)),
        ("ringlog", ringlog_ack(0) + ringlog_ack(2)),
        ("ringlog", frame(b'{"type":"error","ref":"0000000000","code":"backpressure"}')),
    ],
)
def test_a_refusal_is_an_error(
    name: str, refusal: bytes, cut: Callable[[bytes], list[bytes]]
) -> None:
    with open_driver(BY_NAME[name]) as driver, pytest.raises(WireError):
        for piece in cut(refusal):
            driver.count_acks(piece)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("postgres", {"replies": (pg(b"R", struct.pack("!I", 3)),)}),
        ("postgres", {"replies": (PG_SETUP[0], pg(b"E", b"SERROR\0\0") + PG_READY)}),
        ("nats", {"greeting": b"HTTP/1.1 400\r\n"}),
        ("nats", {"replies": (b"-ERR 'Authorization Violation'\r\n",)}),
        ("gateway", {"replies": (b"HTTP/1.1 403 Forbidden\r\n\r\n",)}),
    ],
)
def test_a_peer_that_does_not_let_us_in_is_an_error(name: str, changes: dict[str, object]) -> None:
    spoken = Spoken(**(vars(BY_NAME[name]) | changes))
    with pytest.raises(WireError), open_driver(spoken):
        pass


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: spoken.driver)
def test_a_frame_is_as_long_for_every_number(spoken: Spoken) -> None:
    content = b'{"n":"%b","text":"x"}' % NUMBER
    with open_driver(spoken) as driver:
        made = driver.frame(content)
        assert content in made
        assert len(b"0123456789".join(made.split(NUMBER))) == len(made)

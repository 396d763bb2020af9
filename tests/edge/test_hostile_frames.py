"""Frames that no client should send, against a real server process: in the order of RFC 6455.

After each case the server must be as it was: a second client, connected all the while, is answered, and
nothing was logged as an error.
"""

import json
import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trustme

from tests.edge.bystander import Bystander, open_bystander
from tests.edge.raw_socket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
    open_raw,
    pieces,
)

MESSAGE_BYTES_MAX = 256 * 1024
LAST = b'{"type":"ping","ref":"last"}'


@pytest.fixture(scope="module", params=["plain", "tls"])
def bystander(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bystander]:
    """On plain TCP the socket pump serves, on TLS a task for each connection."""
    directory = tmp_path_factory.mktemp("hostile")
    flags: tuple[str, ...] = ()
    tls = None
    if request.param == "tls":
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
        certificate.private_key_pem.write_to_path(directory / "key.pem")
        flags = (f"--tls-cert={directory}/cert.pem", f"--tls-key={directory}/key.pem")
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
    with open_bystander(directory / "data", *flags, tls=tls) as opened:
        yield opened


@dataclass
class Case:
    """What is sent, piece by piece, and what must come back. `close` None: the connection stays open."""

    name: str
    pieces: list[bytes] = field(repr=False)
    codes: list[str]
    close: int | None = None
    pongs: list[bytes] | None = field(default_factory=list)


def ping(ref: str = "1", size: int = 0) -> bytes:
    """A request of at least `size` bytes."""
    return b'{"type":"ping","ref":%b}' % json.dumps(ref, ensure_ascii=False).encode() + b" " * (
        size - 24 - len(ref.encode())
    )


def text(payload: bytes, *, fin: bool = True) -> bytes:
    return frame(TEXT, payload, fin=fin)


def rest(payload: bytes, *, fin: bool = True) -> bytes:
    return frame(CONTINUATION, payload, fin=fin)


# 1: framing.

SIZES = (25, 125, 126, 127, 128, 65_535, 65_536, MESSAGE_BYTES_MAX)

FRAMING = [Case(f"text of {size} bytes", [text(ping(size=size))], ["ok"]) for size in SIZES]
FRAMING += [
    Case("text of no bytes", [text(b"")], ["bad_json"]),
    Case("text byte by byte", pieces(text(ping(size=127))), ["ok"]),
    Case(
        "text of 64 KiB in pieces of 997 bytes",
        pieces(text(ping(size=65_536)), 997),
        ["ok"],
    ),
    Case("a hundred texts in one segment", [text(ping()) * 100], ["ok"] * 100),
    Case(
        "text one byte too long",
        [text(ping(size=MESSAGE_BYTES_MAX + 1))],
        ["message_too_large"],
        1009,
    ),
    Case(
        "a header that says 2^63 - 1",
        [frame(TEXT, length=(1 << 63) - 1)],
        ["message_too_large"],
        1009,
    ),
    Case(
        "text too long in two fragments",
        [text(ping(size=MESSAGE_BYTES_MAX), fin=False), rest(b" ")],
        ["message_too_large"],
        1009,
    ),
    Case(
        "a length with its highest bit set",
        [frame(TEXT, length=1 << 63, length_bytes=8)],
        ["message_too_large"],
        1009,
    ),
    Case("no mask", [frame(TEXT, ping(), masked=False)], [], 1002),
    Case("no mask on a ping", [frame(PING, masked=False)], [], 1002),
    Case(
        "no mask on a continuation",
        [text(b"{", fin=False), frame(CONTINUATION, b"}", masked=False)],
        [],
        1002,
    ),
    Case(
        "a good text, then one without mask",
        [text(ping()) + frame(TEXT, ping(), masked=False)],
        ["ok"],
        1002,
    ),
]
FRAMING += [
    Case(f"binary of {size} bytes", [frame(BINARY, b"\xfe" * size)], ["binary_frame"], 1003)
    for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536)
]
FRAMING += [
    Case(
        "binary in fragments", [frame(BINARY, b"a", fin=False), rest(b"b")], ["binary_frame"], 1003
    ),
    Case(
        "binary too long",
        [frame(BINARY, length=MESSAGE_BYTES_MAX + 1)],
        ["message_too_large"],
        1009,
    ),
]

# 2: pings and pongs.

PINGS = [
    Case("ping", [frame(PING)], [], None, [b""]),
    Case("ping with a payload", [frame(PING, b"Hello")], [], None, [b"Hello"]),
    Case(
        "ping with bytes that are no text",
        [frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        [],
        None,
        [b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"],
    ),
    Case("ping of 125 bytes", [frame(PING, b"\xfe" * 125)], [], None, [b"\xfe" * 125]),
    Case("ping of 126 bytes", [frame(PING, b"\xfe" * 126)], [], 1002),
    Case("ping byte by byte", pieces(frame(PING, b"x" * 125)), [], None, [b"x" * 125]),
    Case("pong nobody asked for", [frame(PONG)], []),
    Case("pong with a payload nobody asked for", [frame(PONG, b"unasked")], []),
    Case(
        "pong, then ping", [frame(PONG, b"unasked") + frame(PING, b"asked")], [], None, [b"asked"]
    ),
    Case("pong of 126 bytes", [frame(PONG, b"x" * 126)], [], 1002),
    Case(
        "ten pings",
        [b"".join(frame(PING, b"%d" % i) for i in range(10))],
        [],
        None,
        [b"%d" % i for i in range(10)],
    ),
    Case(
        "ten pings byte by byte",
        pieces(b"".join(frame(PING, b"%d" % i) for i in range(10))),
        [],
        None,
        [b"%d" % i for i in range(10)],
    ),
    Case("ten thousand pongs", [frame(PONG, b"x") * 10_000], []),
    Case("a flood of pings", [frame(PING, b"x" * 125) * 1_000], ["rate_limited"], 1008, None),
]

# 3 and 4: reserved bits and opcodes.

RESERVED = [
    Case(
        f"reserved bits {bits:03b} on opcode {opcode}",
        [frame(opcode, payload, reserved=bits)],
        [],
        1002,
    )
    for bits in range(1, 8)
    for opcode, payload in ((TEXT, ping()), (PING, b""), (BINARY, b""), (CLOSE, b"\x03\xe8"))
]
RESERVED += [
    Case(
        "a good text before reserved bits",
        [text(ping()) + frame(TEXT, ping(), reserved=4)],
        ["ok"],
        1002,
    )
]
RESERVED += [
    Case(
        f"opcode {opcode} with {len(payload)} bytes",
        [text(ping()) + frame(opcode, payload)],
        ["ok"],
        1002,
    )
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    for payload in (b"", b"payload")
]

# 5: fragments.

FRAGMENTS = [
    Case("ping in two fragments", [frame(PING, b"a", fin=False), rest(b"b")], [], 1002),
    Case("pong in two fragments", [frame(PONG, b"a", fin=False), rest(b"b")], [], 1002),
    Case("close in two fragments", [frame(CLOSE, b"\x03", fin=False), rest(b"\xe8")], [], 1002),
    Case("text in two fragments", [text(ping()[:9], fin=False) + rest(ping()[9:])], ["ok"]),
    Case(
        "text in two fragments, in two segments",
        [text(ping()[:9], fin=False), rest(ping()[9:])],
        ["ok"],
    ),
    Case(
        "text in two fragments byte by byte",
        pieces(text(ping()[:9], fin=False) + rest(ping()[9:])),
        ["ok"],
    ),
    Case(
        "empty fragments around", [text(b"", fin=False), rest(ping(), fin=False), rest(b"")], ["ok"]
    ),
    Case(
        "a fragment for each byte",
        [text(b"", fin=False), *(rest(b, fin=False) for b in pieces(ping())), rest(b"")],
        ["ok"],
    ),
    Case(
        "a ping between fragments",
        [text(ping()[:9], fin=False) + frame(PING, b"p") + rest(ping()[9:])],
        ["ok"],
        None,
        [b"p"],
    ),
    Case(
        "a pong between fragments",
        [text(ping()[:9], fin=False) + frame(PONG, b"p") + rest(ping()[9:])],
        ["ok"],
    ),
    Case(
        "pings between many fragments",
        [
            text(b"", fin=False),
            *(frame(PING, b"p") + rest(b, fin=False) for b in pieces(ping())),
            rest(b""),
        ],
        ["ok"],
        None,
        [b"p"] * len(ping()),
    ),
    Case("a continuation of nothing", [rest(b"x")], [], 1002),
    Case("a first continuation of nothing", [rest(b"x", fin=False)], [], 1002),
    Case("a continuation after a whole text", [text(ping()) + rest(b"x")], ["ok"], 1002),
    Case(
        "a continuation after the last",
        [text(b"", fin=False) + rest(ping()) + rest(b"x")],
        ["ok"],
        1002,
    ),
    Case("an empty continuation of nothing", [rest(b"")], [], 1002),
    Case("a text among fragments", [text(b"{", fin=False) + text(ping())], [], 1002),
    Case("a first text among fragments", [text(b"{", fin=False) + text(b"{", fin=False)], [], 1002),
    Case("a binary among fragments", [text(b"{", fin=False) + frame(BINARY, b"x")], [], 1002),
    Case(
        "ten thousand empty fragments",
        [text(b"", fin=False), rest(b"", fin=False) * 10_000],
        ["too_many_fragments"],
        1008,
    ),
    Case(
        "ten thousand fragments of a byte",
        [text(b"", fin=False), rest(b" ", fin=False) * 10_000],
        ["too_many_fragments"],
        1008,
    ),
    Case("a close among fragments", [text(b"{", fin=False) + frame(CLOSE, b"\x03\xe8")], [], 1002),
]

# 6: UTF-8. What is valid comes back in the `ref`, byte for byte.

VALID_UTF8 = [
    "κόσμε", "\x7f", "\x80", "߿", "ࠀ", "\ufffd", "\uffff", "\ufffe", "\U00010000", "\U0010ffff",
    "\ud7ff", "\ue000", "\ufeff", "\U0001fffe", "\U0001ffff", "\u2028\u2029", "\u202e", "a\u0301\u0301\u0301",
    "👩‍👩‍👧‍👦", "Hello-µ@ßöäüàá-UTF-8!!",
]  # fmt: skip
INVALID_UTF8 = {
    "lone continuation": b"\x80",
    "last lone continuation": b"\xbf",
    "continuations": b"\x80\xbf\x80\xbf",
    "lone start of two": b"\xc3 ",
    "lone start of three": b"\xe0 ",
    "lone start of four": b"\xf0 ",
    "two of three": b"\xe2\x82",
    "three of four": b"\xf0\x9f\x98",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "0xfe": b"\xfe",
    "0xff": b"\xff",
    "0xfe 0xff": b"\xfe\xfe\xff\xff",
    "overlong slash in two": b"\xc0\xaf",
    "overlong slash in three": b"\xe0\x80\xaf",
    "overlong slash in four": b"\xf0\x80\x80\xaf",
    "overlong NUL": b"\xc0\x80",
    "longest overlong in two": b"\xc1\xbf",
    "longest overlong in three": b"\xe0\x9f\xbf",
    "longest overlong in four": b"\xf0\x8f\xbf\xbf",
    "surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond the last": b"\xf4\x90\x80\x80",
    "far beyond the last": b"\xf7\xbf\xbf\xbf",
    "Latin-1": "grüße".encode("latin-1"),
    "UTF-16": "ref".encode("utf-16"),
    "good, bad, good": "κόσμε".encode() + b"\xed\xa0\x80" + b"edited",
}  # fmt: skip


def around(ref: bytes) -> bytes:
    return b'{"type":"ping","ref":"%b"}' % ref


UTF8 = [
    Case(f"{name} in a string", [text(around(data))], ["bad_utf8"], 1007)
    for name, data in INVALID_UTF8.items()
]
UTF8 += [
    Case("bad bytes alone", [text(b"\xff\xfe\xfd")], ["bad_utf8"], 1007),
    Case(
        "bad bytes in a second fragment",
        [text(around(b"")[:20], fin=False), rest(b'\xed\xa0\x80"}')],
        ["bad_utf8"],
        1007,
    ),
    Case(
        "a character cut by fragments",
        [text(around("é".encode())[:-3], fin=False), rest(around("é".encode())[-3:])],
        ["ok"],
    ),
    Case(
        "a character cut and not ended",
        [text(around(b"\xce")[:-2], fin=False), rest(b"")],
        ["bad_utf8"],
        1007,
    ),
    Case("a raw NUL", [text(around(b"\x00"))], ["bad_json"]),
    Case("a raw control character", [text(around(b"\x1f"))], ["bad_json"]),
    Case("a byte order mark", [text(b"\xef\xbb\xbf" + ping())], ["bad_json"]),
]

# 7: closing.

GOOD_CLOSE_CODES = (
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3999,
    4000,
    4999,
)
BAD_CLOSE_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)

CLOSING = [
    Case(f"close with {code}", [frame(CLOSE, code.to_bytes(2, "big"))], [], code)
    for code in GOOD_CLOSE_CODES
]
CLOSING += [
    Case(
        f"close with {code}, which must not be sent{', and ' * bool(reason)}{reason.decode()}",
        [frame(CLOSE, code.to_bytes(2, "big") + reason)],
        [],
        1002,
    )
    for code in BAD_CLOSE_CODES
    for reason in (b"", b"reason")
]
CLOSING += [
    Case("close without a code", [frame(CLOSE)], [], 1005),
    Case("close with half a code", [frame(CLOSE, b"\x03")], [], 1002),
    Case("close with a reason", [frame(CLOSE, b"\x03\xe8bye")], [], 1000),
    Case("close with the longest reason", [frame(CLOSE, b"\x03\xe8" + b"x" * 123)], [], 1000),
    Case("close with a reason too long", [frame(CLOSE, b"\x03\xe8" + b"x" * 124)], [], 1002),
    Case(
        "close with a reason that is no UTF-8",
        [frame(CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80")],
        ["bad_utf8"],
        1007,
    ),
    Case("two closes", [frame(CLOSE, b"\x03\xe8") * 2], [], 1000),
    Case("ping after close", [frame(CLOSE, b"\x03\xe8") + frame(PING, b"late")], [], 1000, []),
    Case("text after close", [frame(CLOSE, b"\x03\xe8") + text(ping())], [], 1000),
    Case("text before close", [text(ping()) + frame(CLOSE, b"\x03\xe8")], ["ok"], 1000),
    Case(
        "256 KiB before close",
        [text(ping(size=MESSAGE_BYTES_MAX)) + frame(CLOSE, b"\x03\xe8")],
        ["ok"],
        1000,
    ),
    Case("noise after close", [frame(CLOSE, b"\x03\xe8") + b"\x00\xff" * 500], [], 1000),
]

CASES = FRAMING + PINGS + RESERVED + FRAGMENTS + UTF8 + CLOSING


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_frame_is_answered_as_the_protocol_says_and_disturbs_nobody(
    bystander: Bystander, case: Case
) -> None:
    with open_raw(bystander.address, bystander.tls) as raw:
        raw.upgrade()
        raw.send(*case.pieces)
        if case.close is None:
            raw.send(text(LAST))
        outcome = raw.outcome(until_ref="last" if case.close is None else None)
        if case.close is None:
            # A pong may come behind the answers to what was read with its ping.
            raw.send(text(LAST))
            outcome.pongs += raw.outcome(until_ref="last").pongs

    broken = case.close == 1002 and case.name != "close with 1002"
    assert outcome.codes == case.codes + ["protocol_error"] * broken
    assert outcome.close_code == case.close
    assert case.pongs is None or outcome.pongs == case.pongs
    for error in (answer for answer in outcome.answers if answer["type"] == "error"):
        assert error["message"]
        assert error["hint"]
        assert error["code"] == outcome.close_reason or case.close is None
    bystander.check()


@pytest.mark.parametrize("character", VALID_UTF8)
def test_valid_utf8_comes_back_byte_for_byte(bystander: Bystander, character: str) -> None:
    with open_raw(bystander.address, bystander.tls) as raw:
        raw.upgrade()
        raw.send(text(around(character.encode())), text(LAST))

        answer = b'{"type":"ok","ref":"%b"}' % character.encode()
        assert raw.outcome(until_ref="last").texts == [answer]
    bystander.check()


ENDINGS = {
    "nothing": b"",
    "a byte of a header": b"\x81",
    "half a length": b"\x81\xfe\x01",
    "half a mask": b"\x81\x85\x01\x02",
    "half a payload": text(ping())[:-5],
    "half a message": text(b"{", fin=False),
    "half a close": frame(CLOSE, b"\x03\xe8")[:-1],
    "a request": text(b'{"type":"join","ref":"j","session":"gone","create":{}}'),
}


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("sent", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_peer_that_leaves_in_the_middle_leaves_nothing_behind(
    bystander: Bystander, sent: bytes, reset: bool
) -> None:
    with open_raw(bystander.address, bystander.tls) as raw:
        raw.upgrade()
        raw.send(sent)
        if reset:
            raw.reset()
    bystander.check()
    bystander.wait_alone()


def test_noise_is_refused_and_disturbs_nobody(bystander: Bystander) -> None:
    for seed in range(100):
        with open_raw(bystander.address, bystander.tls) as raw:
            raw.upgrade()
            raw.send(random.Random(seed).randbytes(2_000))
            raw.end()
            assert raw.outcome().ended
    bystander.check()
    bystander.wait_alone()

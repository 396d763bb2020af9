"""Names: the alphabet of caller-chosen ids, and the ids and times that Ringlog gives out.

Caller-chosen ids need no escaping in JSON, SQL text, logs or file names, so they can be pasted into an
encoded message as they are.
"""

import re
import secrets
from datetime import UTC, datetime
from random import Random

IDENTIFIER_LENGTH_MAX = 128
"""Long enough for a UUID beside a prefix, short enough for an index key."""

KIND_LENGTH_MAX = 64

# `.` and `..` are steps in a path: HTTP clients take them out of an address before they send it.
is_identifier = re.compile(
    rf"(?!\.\.?\Z)[A-Za-z0-9._:@~+=|-]{{1,{IDENTIFIER_LENGTH_MAX}}}"
).fullmatch
is_kind = re.compile(rf"[A-Za-z0-9._:@~+=|-]{{1,{KIND_LENGTH_MAX}}}").fullmatch
IDENTIFIER_RULE = (
    f"1 to {IDENTIFIER_LENGTH_MAX} characters of A-Z a-z 0-9 . _ : @ ~ + = | - (but not . or ..)"
)
KIND_RULE = f"1 to {KIND_LENGTH_MAX} characters of A-Z a-z 0-9 . _ : @ ~ + = | -"

_COUNTER_BITS = 48
_LOW_BITS = 12
_LOW_HEX = tuple(f"{number:03x}" for number in range(1 << _LOW_BITS))


class Stamper:
    """Hands out message ids and times: UUIDv7 (RFC 9562 §5.7) and RFC 3339 with milliseconds.

    Within a millisecond the last 48 bits count up from a random start (RFC 9562 §6.2, method 1), so
    ids are in order of assignment; the 26 bits before them are random for each millisecond. Time
    never runs backwards here, whatever the wall clock does.
    """

    __slots__ = (
        "_high",
        "_id_prefix",
        "_low",
        "_millisecond_prefix",
        "_noise",
        "_second",
        "_second_text",
        "at",
        "at_ms",
    )

    def __init__(self) -> None:
        self.at_ms = -1
        self.at = b""
        self._second = -1
        self._second_text = ""
        self._millisecond_prefix = ""
        self._id_prefix = ""
        # The counter, in two parts: the low one is looked up, which is three times as fast as formatting.
        self._high = 0
        self._low = 0
        # Ids must not collide; they need not be hard to guess. Seeded by the system, once.
        self._noise = Random(secrets.randbits(256))  # noqa: S311

    def tick(self, now_ms: int) -> None:
        """Take the time for the ids that follow; called once for each pass over the sockets."""
        if now_ms <= self.at_ms:
            return
        self.at_ms = now_ms
        second = now_ms // 1000
        if second != self._second:
            self._second = second
            self._second_text = format_time(second * 1000)[:20]
        self.at = f"{self._second_text}{now_ms % 1000:03d}Z".encode()
        noise = self._noise.getrandbits(26 + _COUNTER_BITS - 1)
        counter = noise & ((1 << (_COUNTER_BITS - 1)) - 1)
        high = noise >> (_COUNTER_BITS - 1)
        self._millisecond_prefix = f"{now_ms >> 16:08x}-{now_ms & 0xFFFF:04x}-7{high >> 14:03x}-{0x8000 | high & 0x3FFF:04x}-"
        self._count_from(counter >> _LOW_BITS)
        self._low = counter & ((1 << _LOW_BITS) - 1)

    def next_id(self) -> str:
        """Return a new UUIDv7 in the millisecond of the last `tick`."""
        low = self._low = self._low + 1
        if low == len(_LOW_HEX):
            self._count_from(self._high + 1)
            low = self._low = 0
        return self._id_prefix + _LOW_HEX[low]

    def _count_from(self, high: int) -> None:
        self._high = high
        self._id_prefix = f"{self._millisecond_prefix}{high:09x}"


def format_time(at_ms: int) -> str:
    """Return RFC 3339 in UTC with milliseconds: 2026-01-31T09:30:00.123Z."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def parse_time(text: str) -> int:
    """Return the milliseconds since 1970 of what `format_time` wrote."""
    seconds = datetime.fromisoformat(text[:19] + "+00:00").timestamp()
    return int(seconds) * 1000 + int(text[20:23])

"""What the clients of a crash run say: endless, random, and awkward on purpose."""

import random
from collections.abc import Callable, Iterator

from bench.delivery import Delivery, Outgoing
from bench.protocol import Create

AWKWARD = (
    b'"\\u0000 \\ud83d\\ude00 \xf0\x9f\xa6\x9c"',
    b"123456789012345678901234567890123456789012345678901234567890",
    b'{"twice":1,"twice":2}',
    b"[1e999,-0.0,1E-7]",
    b'{ "spaces" : [ 1 ,2 ] }',
    b'"' + b"\\\\" * 40 + b'"',
)
"""Content that a parser on the way would not give back byte for byte."""

LONG_BYTES = 16 * 1024
"""Long enough that a few of them share a batch with the rest, and segments of 1 MiB roll over."""

LONG_SHARE = 0.02
AWKWARD_SHARE = 0.2

OWN_MESSAGES_MAX = 150
"""A writer starts another session of its own after at most so many messages."""


def shared_sessions(prefix: str, count: int, user_id: str) -> dict[str, Create]:
    """Return the sessions that many write to at once, and what creates them."""
    return {f"{prefix}shared-{number}": Create(user_id=user_id) for number in range(count)}


def deliveries(
    prefix: str,
    writer: str,
    shared: dict[str, Create],
    rng: random.Random,
    window: int,
    stopping: Callable[[], bool],
) -> Iterator[Delivery]:
    """Yield what one writer has to deliver: its shared sessions first, then one own after another."""
    for session, create in shared.items():
        yield Delivery(session, create, _messages(writer, rng, stopping), window)
    number = 0
    while not stopping():
        number += 1
        count = rng.randint(1, OWN_MESSAGES_MAX)
        messages = _messages(writer, rng, stopping, count)
        session = f"{prefix}{writer}-{number}"
        yield Delivery(session, Create(user_id=writer), messages, window, ordered=True)


def _messages(
    writer: str,
    rng: random.Random,
    stopping: Callable[[], bool],
    count: int | None = None,
) -> Iterator[Outgoing]:
    number = 0
    while number != count and not stopping():
        number += 1
        yield Outgoing(f"{number}", writer, _content(number, rng))


def _content(number: int, rng: random.Random) -> bytes:
    if rng.random() < AWKWARD_SHARE:
        inner = rng.choice(AWKWARD)
    else:
        size = LONG_BYTES if rng.random() < LONG_SHARE else rng.randint(0, 400)
        inner = b'"%s"' % (rng.randbytes(size // 2).hex().encode())
    return b'{"n":%d,"what":%s}' % (number, inner)

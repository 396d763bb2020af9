"""What an agent is shown of a session: the messages up to the one that it is to answer.

`tail` is the newest N, `last` the newest one, `entire` all there are, in the order of their seqs; each also out of what
the archive does not hold yet. The same dispatch shows the same in every attempt.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec
from msgspec import Raw

from runtime import MessagePage

ENTIRE_BYTES_MAX = 8 * 2**20
"""Of `entire`: more than any model reads. The oldest messages are what is left out."""

PAGE = 1_000


class Shown(msgspec.Struct, frozen=True):
    """A message as an agent is shown it."""

    seq: int
    id: str
    sender: str
    kind: str
    content: Raw
    metadata: Raw
    at: str


class _Stored(Shown, frozen=True, tag_field="type", tag="message"):
    """A message as it is stored."""


class _Gap(msgspec.Struct, tag_field="type", tag="gap"):
    """Messages that are lost."""


class Readable(Protocol):
    """A session that can be read."""

    def read_before(self, before_seq: int, limit: int) -> Awaitable[MessagePage]:
        """Return the newest messages below a seq, oldest first."""
        ...


_decode = msgspec.json.Decoder(_Stored | _Gap).decode


async def read_history(session: Readable, to_seq: int, mode: str, limit: int) -> list[Shown]:
    """Return what an agent is shown, oldest first; `limit` is for `tail`.

    Raises:
        SessionError, StorageError: it cannot be read now.
    """
    wanted = {"last": 1, "tail": limit}.get(mode)
    found: list[Shown] = []
    before_seq, size, has_more = to_seq + 1, 0, True
    while has_more and (wanted is None or len(found) < wanted):
        page = await session.read_before(
            before_seq, PAGE if wanted is None else min(PAGE, wanted - len(found))
        )
        messages = _messages(page.bodies)
        has_more = page.has_more and bool(messages)
        if messages:
            before_seq = messages[0].seq
        found[:0] = messages
        size += sum(map(len, page.bodies))
        if wanted is None and size > ENTIRE_BYTES_MAX:
            break
    return found


def _messages(bodies: Sequence[bytes]) -> list[Shown]:
    decoded = [_decode(body) for body in bodies]
    return [each for each in decoded if isinstance(each, Shown)]

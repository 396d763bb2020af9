"""Pages of a session's messages, and of its gaps: out of the archive and, above it, out of unflushed memory."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.gaps import find_gap
from runtime.session import check_cursor

if TYPE_CHECKING:
    from runtime.server import SessionServer

PAGE_MESSAGES_MAX = 1_000
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""A page is built in memory: sixteen messages of the largest size, or a thousand ordinary ones."""


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages ascending by seq; `has_more` in the direction that was asked for."""

    bodies: list[bytes]
    head_seq: int
    has_more: bool


async def read_after(
    server: "SessionServer", after_seq: int, limit: int, bytes_max: int | None = None
) -> MessagePage:
    """Return the messages after a seq, oldest first: at least one, if there is one.

    Raises:
        AheadOfLogError: the cursor is beyond the last message.
        ArchiveUnavailableError: part of the page is in the archive only, and it is away.
    """
    rows = await _read_rows(server, after_seq, limit, bytes_max)
    last_seq = rows[-1][0] if rows else after_seq
    head_seq = server.durable_seq
    return MessagePage([body for _, body in rows], head_seq, last_seq < head_seq)


async def read_before(server: "SessionServer", before_seq: int, limit: int) -> MessagePage:
    """Return the newest messages below a seq, oldest first; `has_more` tells of older ones.

    A gap that begins below it is one of them, and has as many seqs as it leaves out: a page that meets one is short.

    Raises:
        ArchiveUnavailableError: part of the page is in the archive only, and it is away.
    """
    # But for gaps no seq is left out, so the page's bounds are known before it is read. It is read forwards, in
    # pieces, and what does not fit is dropped at its old end: never more than two pages are held.
    end = min(before_seq, server.durable_seq + 1)
    next_seq = max(1, end - limit)
    page: deque[tuple[int, bytes]] = deque()
    size = 0
    while next_seq < end:
        rows = await _read_rows(server, next_seq - 1, end - next_seq)
        assert rows
        for seq, body in rows:
            if next_seq >= end:
                break
            # Where it begins, which of a gap is perhaps before what was asked for.
            gap = find_gap(body)
            page.append((seq if gap is None else gap.first, body))
            size += len(body)
            next_seq = seq + 1
        while size > PAGE_BYTES_MAX and len(page) > 1:
            size -= len(page.popleft()[1])
    first_seq = page[0][0] if page else end
    return MessagePage([body for _, body in page], server.durable_seq, first_seq > 1)


async def _read_rows(
    server: "SessionServer", after_seq: int, limit: int, bytes_max: int | None = None
) -> list[tuple[int, bytes]]:
    """Return (seq, body) of what is after a seq, as `read_after`; a gap's seq is its last one."""
    check_cursor(after_seq, server.durable_seq)
    bytes_max = PAGE_BYTES_MAX if bytes_max is None else bytes_max
    rows: list[tuple[int, bytes]] = []
    next_seq = after_seq + 1
    if next_seq < server.first_unflushed_seq:
        rows = await server.read_stored(after_seq, limit, bytes_max)
        next_seq = rows[-1][0] + 1
    size = sum(len(body) for _, body in rows)
    if len(rows) < limit and server.first_unflushed_seq <= next_seq <= server.durable_seq:
        for record in server.unflushed_from(next_seq, limit - len(rows)):
            size += len(record.body)
            if rows and size > bytes_max:
                break
            rows.append((record.seq, record.body))
    return rows

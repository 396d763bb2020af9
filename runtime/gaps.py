"""Gaps: where seqs of a session are left out, because what they were given to may be lost.

A gap is read like a message that has the seqs from `from` to `to` at once, and stands in the archive under the last
of them (`storage.losses`). So whoever reads on from a seq inside it gets the gap first, and what was written
since after it. Between a session's unflushed messages there is none: they are set before a session is served.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

_PREFIX = b'{"type":"gap",'


class Gap(msgspec.Struct, frozen=True):
    """The seqs that are left out, first and last."""

    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")


_decode = msgspec.json.Decoder(Gap).decode


def find_gap(body: bytes) -> Gap | None:
    """Return what a body leaves out; None if it is a message's."""
    return _decode(body) if body.startswith(_PREFIX) else None


def numbered(bodies: Iterable[bytes], next_seq: int) -> Iterator[tuple[int, bytes]]:
    """Return each body with its seq, a gap's being its last one, where none is missing from `next_seq` on."""
    for body in bodies:
        gap = find_gap(body)
        seq = next_seq if gap is None else gap.last
        yield seq, body
        next_seq = seq + 1


def up_to_hole(rows: Sequence[tuple[int, bytes]], next_seq: int) -> list[tuple[int, bytes]]:
    """Return the rows (seq, body), which ascend, before the first seq that is missing and in no gap."""
    whole: list[tuple[int, bytes]] = []
    for seq, body in rows:
        if seq != next_seq:
            gap = find_gap(body)
            if gap is None or not gap.first <= next_seq <= gap.last == seq:
                break
        whole.append((seq, body))
        next_seq = seq + 1
    return whole

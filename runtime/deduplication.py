"""Which `client_id`s a session has seen: a resend is answered with the original seq.

Entered at assignment, before the message is durable, so that two sends of one message in one batch
cannot both be stored. The window keeps at least the last `WINDOW` of a session and at most twice that, in
two generations: forgetting one whole generation costs nothing for each entry.

A session that is joined stays in memory, so an entry must be small: 40 bytes and about 5 of overhead, where a
dict of Python objects takes 600. The key is a hash of 64 bits, seeded for each process like that of
every `str`. Two keys of one window meet there once in 10^16 messages, and are then told apart by the digest of
what was sent: a message would be refused as `client_id_reused`, which is safe, and never taken for another.
"""

from array import array
from struct import Struct
from uuid import UUID

import msgspec

WINDOW = 1_000
"""Resends come within seconds; 1,000 covers a client that had its whole in-flight limit open."""

_ENTRY = Struct("<qqQ16s")  # the hash of the key, the digest, the seq, the id
_ENTRY_BYTES = _ENTRY.size
_read_hash = Struct("<q").unpack_from
_SLOTS_MIN = 16


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What was answered for a message: enough to answer its resend, and to tell a reused id."""

    seq: int
    id: str
    digest: int


class DeduplicationWindow:
    """The accepted `(sender, client_id)` pairs of one session, oldest forgotten first."""

    __slots__ = ("_older", "_recent")

    def __init__(self) -> None:
        self._recent: _Generation | None = None
        self._older: _Generation | None = None

    def __len__(self) -> int:
        return sum(generation.count for generation in (self._recent, self._older) if generation)

    def find(self, sender: str, client_id: str) -> Accepted | None:
        """Return what was accepted under this key, if it is still in the window."""
        recent = self._recent
        if recent is None:
            return None
        key = hash((sender, client_id))
        accepted = recent.find(key)
        if accepted is None and self._older is not None:
            return self._older.find(key)
        return accepted

    def add(self, sender: str, client_id: str, seq: int, message_id: str, digest: int) -> None:
        """Remember an accepted message; called at assignment, in order of seq.

        `message_id` is a UUID; `digest` a signed number of 64 bits.
        """
        recent = self._recent
        if recent is None or recent.count >= WINDOW:
            self._older = recent
            self._recent = recent = _Generation()
        recent.add(hash((sender, client_id)), seq, message_id, digest)


class _Generation:
    """Entries one behind the other, and a hash table with open addressing that knows their places.

    A slot holds the place of an entry, from 1, or 0 if it is free; at most half of them are taken. A key that
    meets another takes the next free slot (Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm L).
    """

    __slots__ = ("_entries", "_mask", "_slots", "count")

    def __init__(self) -> None:
        self.count = 0
        self._entries = bytearray()
        self._mask = _SLOTS_MIN - 1
        self._slots = array("H", bytes(2 * _SLOTS_MIN))

    def find(self, key: int) -> Accepted | None:
        slots = self._slots
        mask = self._mask
        slot = key & mask
        while place := slots[slot]:
            at = (place - 1) * _ENTRY_BYTES
            if _read_hash(self._entries, at)[0] == key:
                _, digest, seq, message_id = _ENTRY.unpack_from(self._entries, at)
                return Accepted(seq, str(UUID(bytes=message_id)), digest)
            slot = slot + 1 & mask
        return None

    def add(self, key: int, seq: int, message_id: str, digest: int) -> None:
        id_bytes = bytes.fromhex(message_id.replace("-", ""))
        self._entries += _ENTRY.pack(key, digest, seq, id_bytes)
        self.count += 1
        if self.count * 2 > self._mask:
            self._grow()
        else:
            self._take_slot(key, self.count)

    def _take_slot(self, key: int, place: int) -> None:
        slots = self._slots
        mask = self._mask
        slot = key & mask
        while slots[slot]:
            slot = slot + 1 & mask
        slots[slot] = place

    def _grow(self) -> None:
        size = 2 * (self._mask + 1)
        self._mask = size - 1
        self._slots = array("H", bytes(2 * size))
        for place, entry in enumerate(_ENTRY.iter_unpack(self._entries), 1):
            self._take_slot(entry[0], place)

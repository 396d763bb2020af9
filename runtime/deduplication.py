"""Which `client_id`s a session has seen: a resend is answered with the original seq.

Entered at assignment, before the message is durable, so that two sends of one message in one batch
cannot both be stored. The window keeps at least the last `WINDOW` of a session and at most twice that, in
two generations: forgetting one whole generation costs nothing for each entry.

A session that is followed stays in memory, so an entry is small: 125 bytes, where it would take 600 as a tuple of
two strings and an object. Its key is a hash of 60 bits, seeded for each process like that of every `str`.
By chance one message in 10^15 meets another of its window. So an entry holds the digest mixed with a checksum of
the key: what meets another key has another digest, also with the same content, and is refused as
`client_id_reused`. It is never taken for a repeat.
"""

from struct import Struct

import msgspec

from runtime.codec import digest_of

WINDOW = 1_000
"""Resends come within seconds; 1,000 covers a client that had its whole in-flight limit open."""

_KEY_MASK = 2**60 - 1
"""A number of up to 60 bits takes 32 bytes in Python, and a larger one 48."""

_PLACES = tuple(range(WINDOW))
"""One object for each place, where every dict would have its own."""

_ENTRY = Struct("<Qq36s")  # the seq, the digest mixed with the key's checksum, the id
_ENTRY_BYTES = _ENTRY.size


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What was answered for a message: enough to answer its resend, and to tell a reused id."""

    seq: int
    id: str
    digest: int


class DeduplicationWindow:
    """The accepted `(sender, client_id)` pairs of one session, oldest forgotten first."""

    __slots__ = ("_older", "_recent", "complete_from")

    def __init__(self, complete_from: int = 1) -> None:
        self.complete_from = complete_from
        """From this seq on, every `client_id` is here: one that is not was not accepted since."""
        self._recent: _Generation | None = None
        self._older: _Generation | None = None

    def __len__(self) -> int:
        generations = (self._recent, self._older)
        return sum(len(kept.entries) // _ENTRY_BYTES for kept in generations if kept)

    def find(self, sender: str, client_id: str) -> Accepted | None:
        """Return what was accepted under this key, if it is still in the window."""
        generation = self._recent
        if generation is None:
            return None
        key = hash((sender, client_id)) & _KEY_MASK
        place = generation.places.get(key)
        if place is None:
            generation = self._older
            if generation is None:
                return None
            place = generation.places.get(key)
            if place is None:
                return None
        seq, digest, message_id = _ENTRY.unpack_from(generation.entries, place * _ENTRY_BYTES)
        return Accepted(seq, message_id.decode(), digest ^ _checksum(sender, client_id))

    def add(self, sender: str, client_id: str, seq: int, message_id: str, digest: int) -> None:
        """Remember an accepted message; called at assignment, in order of seq.

        `message_id` is a UUID in its 36 characters, `digest` a signed number of 64 bits.
        """
        recent = self._recent
        # Entries are counted, not keys: two messages from the archive may meet under one.
        count = 0 if recent is None else len(recent.entries) // _ENTRY_BYTES
        if recent is None or count == WINDOW:
            if recent is not None and self._older is not None:
                self.complete_from = _ENTRY.unpack_from(recent.entries)[0]
            self._older = recent
            self._recent = recent = _Generation()
            count = 0
        recent.places[hash((sender, client_id)) & _KEY_MASK] = _PLACES[count]
        mixed = digest ^ _checksum(sender, client_id)
        recent.entries += _ENTRY.pack(seq, mixed, message_id.encode())


def _checksum(sender: str, client_id: str) -> int:
    """Return 63 bits of a key that have nothing to do with its hash."""
    return digest_of(f"{sender} {client_id}".encode())


class _Generation:
    """Entries one behind the other, and the place of each by its key."""

    __slots__ = ("entries", "places")

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.entries = bytearray()

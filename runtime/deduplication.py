"""Which `client_id`s a session has seen: a resend is answered with the original seq.

Entered at assignment, before the message is durable, so that two sends of one message in one batch
cannot both be stored. The window keeps at least the last `WINDOW` of a session and at most twice that:
two generations of a dict, because removing single keys from the front of a dict gets slower with use.
"""

import msgspec

WINDOW = 1_000
"""Resends come within seconds; 1,000 covers a client that had its whole in-flight limit open."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What was answered for a message: enough to answer its resend, and to tell a reused id."""

    seq: int
    id: str
    digest: int


class DeduplicationWindow:
    """The accepted `(sender, client_id)` pairs of one session, oldest forgotten first."""

    __slots__ = ("_older", "_recent")

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], Accepted] = {}
        self._older: dict[tuple[str, str], Accepted] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def find(self, key: tuple[str, str]) -> Accepted | None:
        """Return what was accepted under `(sender, client_id)`, if it is still in the window."""
        return self._recent.get(key) or self._older.get(key)

    def add(self, key: tuple[str, str], accepted: Accepted) -> None:
        """Remember an accepted message; called at assignment, in order of seq."""
        recent = self._recent
        if len(recent) >= WINDOW:
            self._older = recent
            self._recent = recent = {}
        recent[key] = accepted

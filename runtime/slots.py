"""The slots that a node serves, and which of its active sessions belong to each.

Serving a slot is a *claim*: what was begun under one (an activation that waits for the archive) is void once
that claim has ended, also if the slot has come back meanwhile, because somebody else may have written in between.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from runtime.errors import SlotMovedError
from runtime.ring import slot_of

if TYPE_CHECKING:
    from runtime.server import SessionServer

SessionKey = tuple[str, str]
"""workspace, session."""


class Claim:
    """One time of serving one slot: the sessions that are active in it."""

    __slots__ = ("servers", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.servers: dict[SessionKey, SessionServer] = {}


class Slots:
    """The slots that this node serves now, of `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.begun = 0
        """How many were begun so far: who looks for what came with them sees that more have come."""
        self._claims: dict[int, Claim] = {}

    @property
    def served(self) -> frozenset[int]:
        """The slots that are served."""
        return frozenset(self._claims)

    def serves(self, key: SessionKey) -> bool:
        """Tell whether a session is served here."""
        return slot_of(*key, self.count) in self._claims

    def find(self, key: SessionKey) -> Claim:
        """Return the claim that a session is served under.

        Raises:
            SlotMovedError: its slot is not served here.
        """
        slot = slot_of(*key, self.count)
        claim = self._claims.get(slot)
        if claim is None:
            raise SlotMovedError(f"session {key[1]} is not this node's", slot=slot)
        return claim

    def begin(self, slots: Iterable[int]) -> None:
        """Serve these from now on."""
        for slot in slots:
            assert slot not in self._claims
            self._claims[slot] = Claim(slot)
            self.begun += 1

    def end(self, slots: Iterable[int]) -> dict[SessionKey, "SessionServer"]:
        """Serve these no longer; return the sessions that are active in them."""
        servers: dict[SessionKey, SessionServer] = {}
        for slot in slots:
            servers |= self._claims.pop(slot).servers
        return servers

"""What an owner does next about its slots: decided from what the archive says and from what it serves. Pure."""

from collections.abc import Set
from typing import NamedTuple

from storage import JOINING, Ring

RELEASE_MAX = 256
"""Slots given up at once: their sessions pause together, for one flush, which takes as long for few of them."""


class Actions(NamedTuple):
    """Slots, by what is to be done about them; and whether the node should ask for its share."""

    begin: tuple[int, ...] = ()
    """Its own by the archive, and meant to stay so, but not served: serve them."""
    claim: tuple[int, ...] = ()
    """Nobody's, and meant for it: claim them, then serve them."""
    release: tuple[int, ...] = ()
    """Its own, and meant for another: stop serving them, flush, give them up."""
    lost: tuple[int, ...] = ()
    """Served, but another's by the archive: stop at once."""
    join: bool = False
    """It has just come."""

    @property
    def nothing(self) -> bool:
        """Whether all is as it should be."""
        return self == Actions()


def decide(ring: Ring, node_id: str, served: Set[int], *, leaving: bool = False) -> Actions:
    """Return what a node should do next; one that is leaving asks for nothing."""
    begin, claim, release = [], [], []
    for slot, (owner, target) in enumerate(zip(ring.owners, ring.targets, strict=True)):
        if owner == node_id:
            if target != node_id:
                release.append(slot)
            elif slot not in served:
                begin.append(slot)
        elif not owner and target == node_id:
            claim.append(slot)
    node = ring.node(node_id)
    return Actions(
        begin=tuple(begin),
        claim=tuple(claim),
        release=tuple(release[:RELEASE_MAX]),
        lost=tuple(slot for slot in sorted(served) if ring.owners[slot] != node_id),
        join=node is not None and node.state == JOINING and not leaving,
    )

"""Where a node stands: who it is, and how far it has what the ring gives it. Pure."""

from collections.abc import Set
from typing import NamedTuple

from storage import Ring


class RingStanding(NamedTuple):
    """A node's part in the ring that it knows. `state` is None for an edge: it has no place there."""

    version: int
    state: str | None
    slots: int
    """Its own, by the archive."""
    slots_meant: int
    slots_served: int


class Standing(NamedTuple):
    """A node: None for what an edge has not; `ring` is None where it is alone."""

    node_id: str | None
    epoch: int | None
    ring: RingStanding | None


def ring_standing(ring: Ring, node_id: str, served: Set[int]) -> RingStanding:
    """Return the part of a node in a ring; `node_id` is "" for an edge."""
    entry = ring.node(node_id)
    return RingStanding(
        version=ring.version,
        state=None if entry is None else entry.state,
        slots=ring.owners.count(node_id) if node_id else 0,
        slots_meant=ring.targets.count(node_id) if node_id else 0,
        slots_served=len(served),
    )

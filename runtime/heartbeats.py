"""Which nodes live, by what one node sees of the others' heartbeats and by its own clock. Pure.

A heartbeat is a number in the archive that its node counts up. Nobody's clock is compared with another's: a node has
been *silent* for as long as its number has stood still over successful reads here. Where reads failed, or this node
was itself away for a while, all of that begins anew.
"""

from collections.abc import Mapping

from storage import Heartbeat

BEAT_SECONDS = 1.0
"""How often a node says that it lives, and looks whether the others do."""

ALIVE_SECONDS = 3.5
"""A node whose beat has not moved for so long is not given anything."""

GAP_SECONDS = 2.5 * BEAT_SECONDS
"""Between two reads that are so far apart nothing is known."""


class Heartbeats:
    """What was seen of every node's beat. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.reads = 0
        self._beats: dict[str, Heartbeat] = {}
        self._still_since: dict[str, float] = {}
        self._moved_at: dict[str, float] = {}
        self._read_at: float | None = None

    def hear(self, beats: Mapping[str, Heartbeat], asked_at: float, now: float) -> None:
        """Take in what was asked for at one time, and has come now.

        It was so at some time in between: as silence counts what is sure.
        """
        if self._read_at is None or now - self._read_at > GAP_SECONDS:
            self._still_since = dict.fromkeys(beats, now)
        self._read_at = asked_at
        self.reads += 1
        for node_id, beat in beats.items():
            if self._beats.get(node_id) != beat:
                self._still_since[node_id] = now
                if node_id in self._beats:
                    self._moved_at[node_id] = now
        self._beats = dict(beats)

    def alive(self, now: float) -> set[str]:
        """Return the nodes whose beat was seen to move lately."""
        return {node_id for node_id, at in self._moved_at.items() if now - at < ALIVE_SECONDS}

    def silent_seconds(self, node_id: str, epoch: int, now: float) -> float:
        """Return for how long a node's beat has stood still in this epoch; 0 where that is not known.

        Who asks may know of an epoch that began after the beats were read.
        """
        beat = self._beats.get(node_id)
        if self._read_at is None or now - self._read_at > GAP_SECONDS:
            return 0.0
        if beat is None or beat.epoch != epoch:
            return 0.0
        return max(0.0, self._read_at - self._still_since.get(node_id, self._read_at))

    def beat_of(self, node_id: str) -> int | None:
        """Return the beat at which a node was seen last."""
        beat = self._beats.get(node_id)
        return None if beat is None else beat.beat

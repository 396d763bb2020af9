"""What a node is opened with, and what it says of itself."""

from dataclasses import dataclass, field
from pathlib import Path

from storage import FlushOptions, LogOptions, Place


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a node is opened with.

    `unflushed_bytes_max` bounds what waits for the archive, in memory and so in the log. A message counts
    with its body and 1 KiB: at 512 bytes, 256 MiB is about 175,000 messages, half a minute of outage at
    6,000 messages a second.
    """

    data_dir: Path
    durability: str = "local"
    log: LogOptions = field(default_factory=LogOptions)
    flush: FlushOptions = field(default_factory=FlushOptions)
    unflushed_bytes_max: int = 256 * 1024 * 1024
    active_sessions_max: int = 500_000
    idle_seconds: float = 60.0
    place: Place | None = None
    """Its place in a ring; without one the node is alone, and owns every session of its archive."""


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """What a node is doing now."""

    active_sessions: int
    tails: int
    unflushed_bytes: int
    unflushed_records: int
    flush_lag_seconds: float

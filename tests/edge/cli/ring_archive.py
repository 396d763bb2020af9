"""A ring in an archive without a process: nodes that beat while a test wants it, and move slots when it says so."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runtime import plan_join
from storage import Archive, Place, PlannedChange, SessionRecord

A, B, C = "a" * 32, "b" * 32, "c" * 32
SLOTS = 64


def start(archive: Archive, node_id: str) -> int:
    """Start a node; return its epoch."""
    return archive.begin_epoch(node_id, "local", 0, Place("127.0.0.1:1", 1, SLOTS)).epoch


def settle(archive: Archive) -> None:
    """Have everything moved where it should be, and nodes that are empty be drained, as the nodes do it."""
    ring = archive.read_ring()
    moving = [slot for slot, target in enumerate(ring.targets) if ring.owners[slot] != target]
    for node in ring.nodes:
        archive.release_slots(node.node_id, node.epoch, 0, moving)
    for node in ring.nodes:
        archive.claim_slots(node.node_id, node.epoch, moving)
    version = archive.read_ring_version()
    drained = [(node.node_id, "drained") for node in ring.nodes if node.state == "draining"]
    if drained:
        archive.change_ring(
            PlannedChange(version, 0, "node", "drained", drained[0][0], states=drained)
        )


def make_ring(archive: Archive) -> None:
    """Have two nodes with their share, and a third that waits for one."""
    for node_id in (A, B, C):
        start(archive, node_id)
    for node_id in (A, B):
        archive.change_ring(plan_join(archive.read_ring(), node_id, at_ms=0, actor=node_id))
    settle(archive)


def add_sessions(archive: Archive, *names: tuple[str, str]) -> None:
    """Have sessions in the archive."""
    rows = [SessionRecord(w, s, "u", (), "active", 1, 1, 1, b"{}") for w, s in names]
    node = archive.read_cursor(A)
    archive.flush(A, node.epoch, node.cursor, rows)


@contextmanager
def beating(archive: Archive, *node_ids: str, and_settling: bool = False) -> Iterator[None]:
    """Have nodes live until the block ends."""
    done = threading.Event()
    epochs = {node.node_id: node.epoch for node in archive.read_ring().nodes}

    def beat() -> None:
        while not done.wait(0.05):
            for node_id in node_ids:
                archive.beat(node_id, epochs[node_id])
            if and_settling:
                settle(archive)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

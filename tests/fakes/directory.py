"""A directory that forgets what was not synced.

Every file keeps two contents: what a reader sees, and what the disk has. `sync` copies one to the other, for
the sectors that were written since. Entries (names) are kept twice as well; `sync` of the directory applies
the changes in between. `crash` gives back what a machine finds after a power cut: what was durable, plus an
arbitrary part of what was not, sector by sector and entry by entry. `restart` gives back what a process finds
after `kill -9`: everything, durable or not.

Faults are chosen by the count of an operation: the second sync fails, the power goes at operation 17. A sync
that fails does what Linux does: it loses the sectors, calls them clean, and the next sync succeeds.
"""

import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random

SECTOR_BYTES = 512  # the unit that a disk writes or does not write


STALLED_SECONDS_MAX = 10


class PowerCutError(OSError):
    """The power is gone: no operation works from here on."""

    def __init__(self, operation: str) -> None:
        super().__init__(errno.EIO, f"power cut at {operation}")


@dataclass
class Inode:
    """A file's contents, apart from its names."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)

    def settle(self) -> None:
        """Everything written so far is durable."""
        _resize(self.durable, len(self.seen))
        for sector in self.dirty:
            _copy_sector(self.seen, self.durable, sector)
        self.dirty.clear()

    def after_crash(self, random: Random) -> "Inode":
        """Return what a power cut leaves."""
        survivor = bytearray(self.durable)
        if len(self.seen) != len(self.durable) and random.random() < 0.5:
            _resize(survivor, len(self.seen))
        for sector in sorted(self.dirty):
            if random.random() < 0.5:
                _copy_sector(self.seen, survivor, sector)
        return Inode(bytearray(survivor), survivor)


@dataclass
class Faults:
    """What goes wrong and when; operations are counted from 1, by kind."""

    errors: dict[tuple[str, int], int] = field(default_factory=dict)
    power_cut_at: int | None = None
    capacity_bytes: int | None = None


class CrashingFile:
    """A file of a `CrashingDirectory`."""

    def __init__(self, directory: "CrashingDirectory", inode: Inode) -> None:
        self._directory = directory
        self._inode = inode
        self._open = True

    def size(self) -> int:
        return len(self._inode.seen)

    def read_at(self, offset: int, length: int) -> bytes:
        assert self._open
        return bytes(self._inode.seen[offset : offset + length])

    def write_at(self, offset: int, data: bytes | bytearray) -> None:
        """Write; a disk that runs full takes what fits, then refuses."""
        assert self._open
        fits = self._directory.room_for(self._inode, offset + len(data)) - offset
        taken = data if fits >= len(data) else data[: max(fits, 0)]
        dead = self._directory.dead
        try:
            self._directory.operate("write")
        finally:
            # A write that fails was on its way: it may leave any part of itself behind.
            if not dead:
                self._put(offset, taken)
        if len(taken) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def allocate(self, size: int) -> None:
        assert self._open
        self._directory.operate("allocate")
        if self._directory.room_for(self._inode, size) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > len(self._inode.seen):
            _resize(self._inode.seen, size)

    def truncate(self, size: int) -> None:
        assert self._open
        self._directory.operate("truncate")
        _resize(self._inode.seen, size)

    def sync(self) -> None:
        assert self._open
        try:
            self._directory.operate("sync")
        except OSError:
            self._inode.dirty.clear()
            raise
        self._inode.settle()

    def close(self) -> None:
        assert self._open, "closed twice"
        self._open = False

    def _put(self, offset: int, data: bytes | bytearray) -> None:
        seen = self._inode.seen
        end = offset + len(data)
        if end > len(seen):
            _resize(seen, end)
        seen[offset:end] = data
        self._inode.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))


class CrashingDirectory:
    """A directory in memory, with a disk that loses power."""

    path = "/crashing"

    def __init__(
        self, entries: dict[str, Inode] | None = None, durable: dict[str, Inode] | None = None
    ) -> None:
        self._seen = dict(entries or {})
        self._durable = dict(self._seen if durable is None else durable)
        self._changes: list[tuple[str | None, str | None, Inode]] = []
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.dead = False

    def names(self) -> list[str]:
        return sorted(self._seen)

    def create(self, name: str) -> CrashingFile:
        self.operate("create")
        if name in self._seen:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        inode = Inode()
        self._change(None, name, inode)
        return CrashingFile(self, inode)

    def open(self, name: str, *, writable: bool = False) -> CrashingFile:
        if name not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return CrashingFile(self, self._seen[name])

    def rename(self, old: str, new: str) -> None:
        self.operate("rename")
        if old not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
        self._change(old, new, self._seen[old])

    def unlink(self, name: str) -> None:
        self.operate("unlink")
        if name not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        self._change(name, None, self._seen[name])

    def sync(self) -> None:
        self.operate("sync_directory")
        self._durable = dict(self._seen)
        self._changes.clear()

    # What only tests use

    def fail(self, operation: str, nth: int, error: int) -> None:
        """Make the nth operation of this kind, counted from the directory's beginning, fail."""
        self.faults.errors[operation, nth] = error

    def crash(self, random: Random) -> "CrashingDirectory":
        """Return the directory that a machine finds after a power cut."""
        entries = dict(self._durable)
        for old, new, inode in self._changes:
            if random.random() < 0.5:
                _apply(entries, old, new, inode)
        survivors = {id(inode): inode.after_crash(random) for inode in entries.values()}
        return CrashingDirectory({name: survivors[id(inode)] for name, inode in entries.items()})

    def restart(self) -> "CrashingDirectory":
        """Return the directory that a process finds after `kill -9` of the one before."""
        after = CrashingDirectory(self._seen, self._durable)
        after._changes = list(self._changes)
        after.faults.capacity_bytes = self.faults.capacity_bytes
        return after

    def damage(self, name: str, position: int) -> None:
        """Flip a bit of a file, on disk."""
        inode = self._seen[name]
        for content in (inode.seen, inode.durable):
            if position < len(content):
                content[position] ^= 1

    def forget(self, name: str, position: int) -> None:
        """Turn what was written from `position` on into what only the page cache holds."""
        durable = self._seen[name].durable
        durable[position:] = bytes(len(durable) - position)

    def content(self, name: str) -> bytearray:
        """Return what a reader sees of a file: a test may damage it."""
        return self._seen[name].seen

    def operate(self, kind: str) -> None:
        """Count an operation, and let it fail if it is its turn."""
        self.counts["all"] += 1
        self.counts[kind] += 1
        cut_at = self.faults.power_cut_at
        if cut_at is not None and self.counts["all"] >= cut_at:
            self.dead = True
            raise PowerCutError(kind)
        error = self.faults.errors.get((kind, self.counts[kind]))
        if error is not None:
            raise OSError(error, os.strerror(error))

    def room_for(self, inode: Inode, size: int) -> int:
        """Return up to which size a file can be written."""
        capacity = self.faults.capacity_bytes
        if capacity is None or size <= len(inode.seen):
            return size
        used = sum(len(each.seen) for each in self._seen.values())
        return min(size, len(inode.seen) + max(capacity - used, 0))

    def _change(self, old: str | None, new: str | None, inode: Inode) -> None:
        _apply(self._seen, old, new, inode)
        self._changes.append((old, new, inode))


class StallingDirectory(CrashingDirectory):
    """A disk that keeps syncs, while `stalled`, until each is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled = False
        self._permits = threading.Semaphore(0)

    def operate(self, kind: str) -> None:
        if kind == "sync" and self.stalled:
            self._permits.acquire(timeout=STALLED_SECONDS_MAX)
        super().operate(kind)

    def let_go(self, syncs: int = 1) -> None:
        """Let some syncs return."""
        self._permits.release(syncs)

    def answer(self) -> None:
        """Stall no more."""
        self.stalled = False
        self.let_go(100)


def _apply(entries: dict[str, Inode], old: str | None, new: str | None, inode: Inode) -> None:
    """Apply one change of the directory: a create has no old name, an unlink no new one."""
    if old is not None:
        entries.pop(old, None)
    if new is not None:
        entries[new] = inode


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _copy_sector(source: bytearray, target: bytearray, sector: int) -> None:
    start = sector * SECTOR_BYTES
    end = min(start + SECTOR_BYTES, len(source), len(target))
    if start < end:
        target[start:end] = source[start:end]

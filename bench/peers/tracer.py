"""How often a server asks the disk to keep something: counted from outside, by strace.

A server that is traced is slower, so this is a pass of its own, beside the measured ones. Only the calls in
question stop it (``--seccomp-bpf``), and strace follows as a grandchild (``-D``), so that the server keeps its
process id and is started and ended like any other. Each call is written down with its time: those of the start,
of creating streams and of reading back are not counted.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

SYNCS = ("fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs")
INSTALL_COMMAND = "apt-get install strace"

# 12345 1700000000.123456 fdatasync(7) = 0          or "fdatasync(7 <unfinished ...>", once each
_CALL = re.compile(rb"^(?:\d+ +)?(\d+\.\d+) (\w+)\((.*)", re.MULTILINE)
_OPENED_FOR_SYNC = re.compile(rb'"([^"]*)", [A-Z_|]*\bO_D?SYNC\b')
_WRITTEN_ONCE = b".tmp"


class Tracer:
    """The traces of one peer, which may be several programs."""

    def __init__(self, directory: Path) -> None:
        """Write traces into a directory that whoever is traced may write to."""
        self._directory = directory
        self._traces: list[Path] = []

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a strace."""
        return shutil.which("strace") is not None

    def prefix(self) -> Sequence[str]:
        """Return what to start one program with."""
        trace = self._directory / f"trace.{len(self._traces)}"
        # A server that runs as another user has to write it too.
        trace.touch()
        trace.chmod(0o666)
        self._traces.append(trace)
        calls = ",".join((*SYNCS, "open", "openat"))
        options = ("-f", "-D", "--seccomp-bpf", "-ttt", "-e", f"trace={calls}", "-o", str(trace))
        return ("strace", *options)

    def count(self, start: float, end: float) -> int:
        """Return how many syncs were begun between two moments of `time.time`."""
        return sum(
            start <= float(at) <= end and name.decode() in SYNCS
            for trace in self._traces
            for at, name, _ in _CALL.findall(trace.read_bytes())
        )

    def opened_for_sync(self) -> set[str]:
        """Return the names of files that were opened such that every write to them is a sync that nobody calls.

        Not of those that are written once and renamed.
        """
        return {
            opened[1].rpartition(b"/")[2].decode(errors="replace")
            for trace in self._traces
            for _, name, arguments in _CALL.findall(trace.read_bytes())
            if name.startswith(b"open")
            and (opened := _OPENED_FOR_SYNC.search(arguments))
            and not opened[1].endswith(_WRITTEN_ONCE)
        }

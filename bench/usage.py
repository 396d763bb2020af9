"""What takes part in a measurement, and what each takes of the machine meanwhile.

A server is its process and all descendants of that. Its only child is the process that flushes, so what is not the
server's own is told as the flush's, where there is a child at all.
"""

from collections.abc import Callable, Mapping

import trio

from bench.processes import (
    family,
    family_cpu_seconds,
    family_resident_bytes,
    offspring_cpu_seconds,
    resident_bytes,
)
from bench.report import MIB, Figure

SERVER = "server processor"
FLUSH = "of which flush processor"
DATABASE = "database processor"
GENERATOR = "generator processor"
"""Names of figures, in cores."""

MEMORY = "server memory"
FLUSH_MEMORY = "of which flush memory"

Readers = Mapping[str, Callable[[], float]]
"""By the name of the figure: how many seconds of a processor were used so far."""


class Usage:
    """The processor time of all that take part, from now on."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._start = trio.current_time()
        self._before = {name: read() for name, read in readers.items()}

    def figures(self) -> list[Figure]:
        """Return what was used since, in cores."""
        elapsed = trio.current_time() - self._start
        return [
            Figure(name, round((read() - self._before[name]) / elapsed, 3), "cores")
            for name, read in self._readers.items()
        ]


def server_readers(pid: int) -> dict[str, Callable[[], float]]:
    """Return what reads the processor time of a server."""
    readers: dict[str, Callable[[], float]] = {SERVER: lambda: family_cpu_seconds(pid)}
    if len(family(pid)) > 1:
        readers[FLUSH] = lambda: offspring_cpu_seconds(pid)
    return readers


def memory_figures(server_pid: int, name: str = MEMORY) -> list[Figure]:
    """Return the memory that a server holds now."""
    whole, own = family_resident_bytes(server_pid), resident_bytes(server_pid)
    figures = [Figure(name, round(whole / MIB, 1), "MiB")]
    if len(family(server_pid)) > 1:
        figures.append(Figure(FLUSH_MEMORY, round((whole - own) / MIB, 1), "MiB"))
    return figures

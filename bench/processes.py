"""What processes take of the machine: read from ``/proc``, so only of those on this machine.

A *family* is a process and all its descendants: what a server takes is what its family takes.
"""

import contextlib
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import psycopg


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """Return the processor time of a family so far, of those that have ended too."""
    return cpu_seconds(pid) + offspring_cpu_seconds(pid)


def offspring_cpu_seconds(pid: int) -> float:
    """Return what of the processor time of a family is not its first process's own."""
    # What a process waited for counts as its children's.
    ticks = sum(map(int, _stat(pid)[13:15]))
    for each in family(pid)[1:]:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def family_resident_bytes(pid: int) -> int:
    """Return the memory that a family holds now; what several of them share counts for each."""
    size = resident_bytes(pid)
    for each in family(pid)[1:]:
        with contextlib.suppress(OSError):
            size += resident_bytes(each)
    return size


def family(pid: int) -> list[int]:
    """Return a process and its descendants that are there now, parents first."""
    found = [pid]
    for each in found:
        found += _children(each)
    return found


def find_postmaster(archive: str) -> int | None:
    """Return the first process of a PostgreSQL; None if it is none, or is not on this machine."""
    parts = urlsplit(archive)
    if not parts.scheme.startswith("postgresql") or not _is_loopback(parts.hostname):
        return None
    with psycopg.connect(archive) as connection:
        # While it is connected: afterwards its process is gone.
        try:
            parent = int(_stat(connection.info.backend_pid)[1])
            return parent if "postgres" in Path(f"/proc/{parent}/comm").read_text() else None
        except OSError:
            return None


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the name, which may hold anything: state is first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    children: list[int] = []
    # Threads and processes may end while they are looked at.
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (task / "children").read_text().split())
    return children


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host in {None, "", "localhost"}

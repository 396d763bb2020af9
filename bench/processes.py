"""What processes take of the machine: read from ``/proc``, so only of those on this machine."""

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
    """Return the processor time of a process and of its children, those that ended included."""
    ticks = 0
    for each in (pid, *_children(pid)):
        try:
            fields = _stat(each)
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
        if each == pid:
            ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host in {None, "", "localhost"}

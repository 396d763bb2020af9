"""What a figure depends on beside the code: cores, kernel, file system, and the disk's own sync."""

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

PROBE_BYTES = 4096
"""One page: what an idle log writes for one small message."""

PROBE_SYNCS = 500
"""Enough for a p99 of five samples, and below a second on any disk worth measuring."""

INTERPRETER_CALLS = 100_000
INTERPRETER_TRIES = 5
"""Milliseconds each: one that nothing else interrupted is among them."""

PACKAGES = ("trio", "msgspec", "websockets", "sqlalchemy", "psycopg")
"""Those whose speed is part of ours."""

_REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine, as far as it bears on a figure."""

    cores: int
    cpu: str
    kernel: str
    filesystem: str
    python: str
    commit: str
    load: float
    """Runnable processes over the last minute, before the run: others on the same cores."""
    interpreter_ns: float = 0.0
    """What `measure_interpreter_ns` found: builds of one version of Python differ by half."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of what does the work beside our own code."""


@dataclass(frozen=True, slots=True)
class SyncLatency:
    """What one `fdatasync` costs in this directory, with nobody else writing."""

    p50: float
    p99: float


def read_environment(directory: Path) -> Environment:
    """Describe this machine and the file system that holds `directory`."""
    return Environment(
        cores=len(os.sched_getaffinity(0)),
        cpu=_cpu_model(),
        kernel=platform.release(),
        filesystem=_filesystem(directory),
        python=platform.python_version(),
        commit=_commit(),
        load=round(os.getloadavg()[0], 2),
        interpreter_ns=measure_interpreter_ns(),
        versions={name: version(name) for name in PACKAGES} | {"sqlite": sqlite3.sqlite_version},
    )


def measure_interpreter_ns() -> float:
    """Return what a call of a function with one addition takes: the best of several tries."""

    def add(number: int) -> int:
        return number + 1

    best = float("inf")
    for _ in range(INTERPRETER_TRIES):
        start = time.perf_counter()
        for number in range(INTERPRETER_CALLS):
            add(number)
        best = min(best, time.perf_counter() - start)
    return round(best / INTERPRETER_CALLS * 1e9, 1)


def measure_sync_ms(directory: Path) -> SyncLatency:
    """Overwrite a preallocated file page by page, as the commit log does, and time each sync."""
    samples: list[float] = []
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, bytes(PROBE_BYTES * PROBE_SYNCS), 0)
        os.fsync(descriptor)
        for page in range(PROBE_SYNCS):
            start = time.perf_counter()
            os.pwrite(descriptor, b"x" * PROBE_BYTES, page * PROBE_BYTES)
            os.fdatasync(descriptor)
            samples.append((time.perf_counter() - start) * 1000)
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return SyncLatency(p50=round(cuts[49], 3), p99=round(cuts[98], 3))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    """Return the type of the mount with the longest path above `directory`."""
    path = directory.resolve()
    found = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if path.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def _commit() -> str:
    try:
        done = subprocess.run(
            ("git", "describe", "--always", "--dirty"),
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()

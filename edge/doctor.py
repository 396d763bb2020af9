"""What can be found out about a machine before a server relies on it.

Each check is a function from the options to findings; a finding that is not `ok` says what to do. Nothing
that exists is changed: a missing data directory is made and removed again, a probe file is deleted, and an
archive is looked at, not migrated.
"""

import errno
import os
import resource
import shutil
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.config import Config, shown, unknown_variables
from edge.values import GIB, KIB, MIB
from storage import StorageError, probe_archive

# One commit is one such write and one fdatasync: so many give a usable 99th percentile within a second.
SYNC_PROBES = 100
SYNC_PROBE_BYTES = 4 * KIB
SYNC_PROBE_SECONDS_MAX = 3.0
# Above this a lone sender waits noticeably for each acknowledgement; cloud disks reach 1 to 5 ms.
SYNC_MS_SLOW = 20.0
# No disk that keeps its promise is quicker; a file system in memory is.
SYNC_MS_IMPLAUSIBLE = 0.004
# Connections beside the files that a server keeps open.
DESCRIPTORS_WANTED = 10_000
# The active segment, its spare, and as much again for what waits for the archive.
SEGMENTS_WANTED = 4
FILE_SYSTEMS_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is what to do about it, empty when all is well."""

    level: Literal["ok", "warning", "failure"]
    what: str
    detail: str
    fix: str = ""


def examine(config: Config) -> Iterator[Finding]:
    """Yield every finding, one check after the other."""
    yield _check_options(config)
    yield from _check_data_directory(config)
    yield _check_descriptors()
    yield _check_archive(config)
    yield _check_listen(config)
    if config.tls_cert is not None and config.tls_key is not None:
        yield _check_tls(config.tls_cert, config.tls_key)


def measure_sync(directory: Path) -> list[float]:
    """Return how many seconds each of a few small appends took to become durable, ascending."""
    seconds = []
    page = os.urandom(SYNC_PROBE_BYTES)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".probe-") as file:
        # The log writes where zeros were written before; into a hole, each sync would also move metadata.
        os.pwrite(file.fileno(), bytes(SYNC_PROBES * SYNC_PROBE_BYTES), 0)
        os.fsync(file.fileno())
        end = time.perf_counter() + SYNC_PROBE_SECONDS_MAX
        for index in range(SYNC_PROBES):
            started = time.perf_counter()
            os.pwrite(file.fileno(), page, index * SYNC_PROBE_BYTES)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
            if time.perf_counter() > end:
                break
    return sorted(seconds)


def _check_options(config: Config) -> Finding:
    chosen = sorted(name for name, origin in config.origins.items() if origin != "default")
    unknown = unknown_variables()
    if unknown:
        return Finding(
            "warning",
            "options",
            f"no option reads {', '.join(unknown)}",
            "compare the names with `ringlog config show`",
        )
    return Finding("ok", "options", f"chosen: {', '.join(chosen) or 'none, all defaults'}")


def _check_data_directory(config: Config) -> Iterator[Finding]:
    directory = config.data
    try:
        with _existing(directory) as path:
            sync = _check_sync(path)  # it writes; only what was written can be written
            yield Finding("ok", "data directory", f"{directory} can be written")
            yield _check_file_system(path)
            yield _check_space(path, config.segment_bytes)
            yield sync
    except OSError as error:
        yield Finding(
            "failure",
            "data directory",
            f"{directory}: {error.strerror}",
            f"let this user write there, or give another directory: --data DIR (now from "
            f"{config.origins['data']})",
        )


@contextmanager
def _existing(directory: Path) -> Iterator[Path]:
    """Give the directory; one that was missing is made, as a start would, and removed again."""
    made = []
    for path in reversed((directory, *directory.parents)):
        if not path.exists():
            path.mkdir(mode=0o700)
            made.append(path)
    try:
        yield directory
    finally:
        for path in reversed(made):
            path.rmdir()


def _check_file_system(path: Path) -> Finding:
    kind, mount = _file_system(path)
    if kind in FILE_SYSTEMS_IN_MEMORY:
        return Finding(
            "warning",
            "file system",
            f"{mount} is {kind}: everything on it is gone when the machine stops",
            "put the data directory on a disk: --data DIR",
        )
    return Finding("ok", "file system", f"{kind} at {mount}")


def _file_system(path: Path) -> tuple[str, str]:
    """Return the kind of the file system that holds a path, and where it is mounted (Linux)."""
    target = str(path.resolve())
    found = ("unknown", "/")
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, mount, kind, *_ = line.split(" ")
        mount = mount.encode().decode("unicode_escape")
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(found[1]):
            found = (kind, mount)
    return found


def _check_space(path: Path, segment_bytes: int) -> Finding:
    free = shutil.disk_usage(path).free
    detail = f"{free / GIB:.1f} GiB free"
    if free < SEGMENTS_WANTED * segment_bytes:
        return Finding(
            "warning",
            "disk space",
            f"{detail}, less than {SEGMENTS_WANTED} segments of {segment_bytes // MIB} MiB",
            "free some space, or choose smaller segments: --segment-bytes 16MiB",
        )
    return Finding("ok", "disk space", detail)


def _check_sync(path: Path) -> Finding:
    seconds = measure_sync(path)
    p50 = statistics.median(seconds) * 1000
    p99 = seconds[int(len(seconds) * 0.99) - 1 if len(seconds) > 1 else 0] * 1000
    detail = f"fdatasync takes {p50:.2f} ms (p50), {p99:.2f} ms (p99) over {len(seconds)}"
    if p50 > SYNC_MS_SLOW:
        return Finding(
            "warning",
            "sync latency",
            detail,
            "every acknowledgement waits for one sync: use a faster disk, one with a write cache that "
            "survives power loss, or gather more with --sync-delay-ms",
        )
    if p50 < SYNC_MS_IMPLAUSIBLE:
        return Finding(
            "warning",
            "sync latency",
            f"{detail}: too quick for a disk",
            "check that the file system and its host pass syncs on to stable storage",
        )
    return Finding("ok", "sync latency", detail)


def _check_descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS_WANTED:
        return Finding(
            "warning",
            "file limit",
            f"{soft} open files: about that many connections (hard limit {hard})",
            f"raise it: ulimit -n {min(hard, 65536) if hard > 0 else 65536}, or LimitNOFILE= in the unit",
        )
    return Finding("ok", "file limit", f"{soft} open files")


def _check_archive(config: Config) -> Finding:
    name = shown(config)["archive"]
    try:
        state = probe_archive(config.archive)
    except StorageError as error:
        return Finding("failure", "archive", f"{name}: {error}", error.hint)
    except OSError as error:
        fix = "let this user read and write it, or name another: --archive URL"
        return Finding("failure", "archive", f"{name}: {error.strerror}", fix)
    if state.found is None:
        return Finding("ok", "archive", f"{name}: empty; the first start sets it up")
    if state.found != state.known:
        return Finding(
            "warning",
            "archive",
            f"{name}: at revision {state.found}; the next start migrates it to {state.known}",
            "take a backup before you start this version",
        )
    return Finding("ok", "archive", f"{name}: reachable, at revision {state.found}")


def _check_listen(config: Config) -> Finding:
    address = config.listen
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
    except OSError as error:
        fix = "choose another address: --listen HOST:PORT"
        if error.errno == errno.EADDRINUSE:
            return Finding(
                "failure", "address", f"{address} is in use", f"stop what listens there, or {fix}"
            )
        return Finding("failure", "address", f"{address}: {error.strerror}", fix)
    return Finding("ok", "address", f"{address} is free")


def _check_tls(certificate: Path, key: Path) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        return Finding(
            "failure",
            "TLS",
            f"{certificate}, {key}: {error}",
            "give a PEM chain and its own private key",
        )
    return Finding("ok", "TLS", f"{certificate} and its key fit each other")

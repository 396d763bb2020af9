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
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents import SecretsKeyInvalidError
from edge.config import Config, shown, unknown_variables
from edge.secretsvault import is_shared, open_vault
from edge.values import GIB, KIB, MIB, Address
from storage import (
    ApiKey,
    ArchiveOwnedError,
    ArchiveState,
    NodeState,
    RealDirectory,
    StorageError,
    check_log,
    lock_holder,
    open_archive,
    probe_archive,
)

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
# The state of a listening socket in /proc/net/tcp.
LISTENING = "0A"


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
    found, state = _check_archive(config)
    yield found
    holder = _lock_holder(config)
    yield _check_listen(config, holder)
    if holder is None:
        yield from _check_start(config, state)
    yield from _check_secrets_key(config)
    if config.tls_cert is not None and config.tls_key is not None:
        yield _check_tls(config.tls_cert, config.tls_key)
    if config.link_cert is not None and config.link_key is not None:
        yield _check_tls(config.link_cert, config.link_key, config.link_ca)


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


def _check_archive(config: Config) -> tuple[Finding, ArchiveState | None]:
    """Return the finding, and the state of an archive that could be looked at."""
    name = shown(config)["archive"]
    try:
        state = probe_archive(config.archive)
    except StorageError as error:
        return Finding("failure", "archive", f"{name}: {error}", error.hint), None
    directory = Path(config.archive.removeprefix("sqlite:///")).parent
    in_file = config.archive.startswith("sqlite:///")
    if in_file and directory != config.data and not directory.is_dir():  # a start makes config.data
        detail = f"{name}: {directory} is no directory"
        return Finding(
            "failure", "archive", detail, "make it, or name another: --archive URL"
        ), None
    if state.found is None:
        detail = f"{name}: empty; the first start sets it up"
        return Finding("ok", "archive", detail), state
    if state.found != state.known:
        detail = f"{name}: at revision {state.found}; the next start migrates it to {state.known}"
        fix = "take a backup before you start this version"
        return Finding("warning", "archive", detail, fix), state
    return Finding("ok", "archive", f"{name}: reachable, at revision {state.found}"), state


def _lock_holder(config: Config) -> str | None:
    """Return the process that a server runs in on this data directory, if that can be told."""
    try:
        return lock_holder(config.data / "log")
    except OSError:
        return None  # the finding about the data directory says so


def _check_listen(config: Config, holder: str | None) -> Finding:
    """Check that the address is free, or the one of the server that runs on the data directory."""
    address = config.listen
    fix = "choose another address: --listen HOST:PORT"
    try:
        _try_listen(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding("failure", "address", f"{address}: {error.strerror}", fix)
        if holder is not None and _listens(holder, address.port):
            detail = f"{address} is in use by this data directory's own server, {holder}"
            return Finding("ok", "address", detail)
        fix = f"stop what listens there, or {fix}"
        return Finding("failure", "address", f"{address} is in use", fix)
    if holder is not None:
        detail = f"{config.data} is in use by {holder}, which does not listen on {address}"
        fix = "stop that process, or give this one another directory: --data DIR"
        return Finding("failure", "lock", detail, fix)
    return Finding("ok", "address", f"{address} is free")


def _try_listen(address: Address) -> None:
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)


def _listens(holder: str, port: int) -> bool:
    """Return whether `process N` has a socket that listens on a port (Linux)."""
    process = Path("/proc") / holder.removeprefix("process ")
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
            inodes |= {
                f"socket:[{row[9]}]"
                for row in rows
                if row[3] == LISTENING and row[1].endswith(f":{port:04X}")
            }
    try:
        return any(str(each.readlink()) in inodes for each in (process / "fd").iterdir())
    except OSError:
        return False


def _check_start(config: Config, state: ArchiveState | None) -> Iterator[Finding]:
    """Check what a start checks once it has the archive: keys, owner, log."""
    if state is None or state.found not in {None, state.known}:
        return  # what is in it cannot be read
    try:
        keys, nodes = _read_archive(config) if state.found else ([], [])
        node_id = _read_node_id(config)
        cursor = next((each.cursor for each in nodes if each.node_id == node_id.hex), 0)
        yield from _check_keys(config, keys)
        for owner in (each for each in nodes if not each.retired and each.node_id != node_id.hex):
            raise ArchiveOwnedError(owner.node_id)
        path = config.data / "log"
        made = path.is_dir()
        if made:
            with RealDirectory(path, read_only=True) as directory:
                check_log(directory, node_id=node_id.bytes, cursor=cursor)
    except StorageError as error:
        what = "archive" if error.code.startswith("archive_") else "log"
        yield Finding("failure", what, str(error), error.hint)
    except OSError as error:
        detail = f"{error.filename or config.data}: {error.strerror}"
        yield Finding("failure", "log", detail, "let this user read the data directory")
    except ValueError as error:
        detail = f"{config.data / 'node_id'}: {error}"
        yield Finding("failure", "log", detail, "put the node id back that belongs to this log")
    else:
        detail = (
            "whole, as far as a start reads it" if made else "none yet; the first start makes it"
        )
        yield Finding("ok", "log", detail)


def _read_archive(config: Config) -> tuple[list[ApiKey], list[NodeState]]:
    archive = open_archive(config.archive)  # of this version's revision: nothing is migrated
    try:
        return archive.list_keys(), archive.list_nodes()
    finally:
        archive.close()


def _read_node_id(config: Config) -> uuid.UUID:
    """Return the identity of the data directory; one without gets a new one at its start."""
    try:
        return uuid.UUID((config.data / "node_id").read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return uuid.uuid4()


def _check_keys(config: Config, keys: list[ApiKey]) -> Iterator[Finding]:
    usable = any(key.revoked_at_ms is None for key in keys)
    if not config.listen.is_loopback and not usable:
        yield Finding(
            "failure",
            "keys",
            f"{config.listen} can be reached from other machines, and there is no key yet",
            "create one first: ringlog key create NAME (same --data or --archive); or listen on 127.0.0.1",
        )


def _check_secrets_key(config: Config) -> Iterator[Finding]:
    """Look at the keys for secrets of agents, where there are some or should be."""
    try:
        vault = open_vault(config)
    except SecretsKeyInvalidError as error:
        yield Finding("failure", "secrets key", str(error), error.hint)
        return
    if vault.key_ids:
        yield Finding("ok", "secrets key", f"newest first: {', '.join(vault.key_ids)}")
    elif is_shared(config):
        yield Finding(
            "warning",
            "secrets key",
            "none: agents with secrets are refused in a cluster",
            "give every process the same: --secrets-key FILE",
        )


def _check_tls(certificate: Path, key: Path, authority: Path | None = None) -> Finding:
    """Check a server's certificate, or with an `authority` that of its links."""
    name = "TLS" if authority is None else "TLS on links"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        return Finding(
            "failure",
            name,
            f"{certificate}, {key}{f', {authority}' if authority else ''}: {error}",
            "give a PEM chain and its own private key",
        )
    return Finding("ok", name, f"{certificate} and its key fit each other")

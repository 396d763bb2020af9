"""The programs of peers: found or named, started, waited for, and never left behind."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.peers.tracer import Tracer
from bench.postgres import die_with_parent

READY_SECONDS_MAX = 30.0
"""The slowest of them takes two seconds on an idle machine."""

READY_POLL_SECONDS = 0.02

LOG_TAIL_BYTES = 2000
"""How much of a log an error shows."""

INSTALLED = Path(__file__).parent.parent.parent / ".peers"
"""Where `bench/peers/install.sh` puts what the system's packages do not have."""

INSTALL_COMMAND = "bench/peers/install.sh"


class NotInstalledError(Exception):
    """A peer is not on this machine; the message is the command that installs it."""


class PeerError(Exception):
    """A peer did not start; the end of its log is the message."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a peer runs, and what for."""

    directory: Path
    """Fresh, and on the disk that is measured."""
    connections: int
    tracer: Tracer | None = None

    @property
    def prefix(self) -> Sequence[str]:
        """What a traced program is started with."""
        return () if self.tracer is None else self.tracer.prefix()


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that is ready."""

    url: str
    pids: Sequence[int] = field(default_factory=tuple)
    """The processes whose time, with that of their children, is the peer's."""


def find_program(name: str, command: str) -> str:
    """Return the path of a program.

    Raises:
        NotInstalledError: With `command`, which installs it.
    """
    found = shutil.which(name)
    if found is None:
        raise NotInstalledError(command)
    return found


def find_installed(path: str) -> Path:
    """Return something that `INSTALL_COMMAND` installs.

    Raises:
        NotInstalledError: It did not.
    """
    found = INSTALLED / path
    if not found.exists():
        raise NotInstalledError(INSTALL_COMMAND)
    return found


def ask_version(*command: str) -> str:
    """Return the first line of what a program says about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()), "unknown")


@contextmanager
def open_program(command: Sequence[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; it dies with the thread that started it in any case.

    It is killed: what it was asked to keep, it has told us, and the directory goes next.
    """
    with (directory / "peer.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            # Ctrl-C is for us, who end it when it was no longer needed.
            start_new_session=True,
            # One call into libc, prepared beforehand: nothing that another thread could hold.
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def wait_listening(process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    """Return when somebody takes connections at this port of the loopback.

    Raises:
        PeerError: The program ended, or took too long.
    """
    with trio.move_on_after(READY_SECONDS_MAX):
        while not await _is_listening(port):
            if process.poll() is not None:
                raise _error(f"{process.args!r} ended with {process.returncode}", directory)
            await trio.sleep(READY_POLL_SECONDS)
        return
    raise _error(f"{process.args!r} was not ready after {READY_SECONDS_MAX:.0f} s", directory)


async def _is_listening(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


def _error(what: str, directory: Path) -> PeerError:
    tail = (directory / "peer.log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    return PeerError(f"{what}; its log ends with:\n{tail}")

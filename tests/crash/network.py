"""Networks of a test's own, whose cables can be cut: each owner on a machine of its own, as far as the network goes.

The program that drives the test, its clients, the edge and the database are in one network namespace (the *hub*), each owner
in another. Two cables, which are veth pairs, lead from the hub to each owner: one carries the links of edges, the other
what goes to the archive::

    hub    10.77.n.1 ───── link ────── 10.77.n.2    owner n
           10.78.n.1 ──── archive ──── 10.78.n.2

No address is ever asked for: each side is told the other's hardware address. A cable is cut, in one direction or both, by
telling the sending side a wrong one. Then what is sent is lost, silently, as on a network that drops packets; nothing is
refused or reset. That needs no packet filter, only `ip`.

Namespaces have no names: each lives as long as a process in it, and these end with the one that made them. So
nothing is left behind, however a test ends.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.cluster import Site
from bench.postgres import die_with_parent

VARIABLE = "RINGLOG_TEST_NETWORK"
"""Set in a program that has a network namespace to itself."""

NOWHERE = "02:00:00:00:ff:ff"
"""A hardware address that nobody has."""

CLONE_NEWNET = 0x40000000
HOLD_SECONDS_MAX = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """Return what this machine lacks for networks of our own, None if it has all."""
    if os.geteuid() != 0:
        return "it needs root"
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"it needs the command {tool}"
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        return "it may not make network namespaces"
    return None


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a program in a network of its own, with nothing but a loopback."""
    return [
        "unshare",
        "--net",
        "env",
        f"{VARIABLE}=own",
        sys.executable,
        "-m",
        module,
        *arguments,
    ]


def is_own() -> bool:
    """Tell whether this program was started by such a command."""
    return os.environ.get(VARIABLE) == "own"


def raise_loopback() -> None:
    """Let programs on this machine reach each other, in a network of its own."""
    _run("ip", "link", "set", "lo", "up")


@dataclass(frozen=True)
class End:
    """One end of a cable: where it is, as a prefix of commands, and what it knows of the other end."""

    prefix: tuple[str, ...]
    device: str
    peer: str
    peer_hardware: str

    def reach(self, *, reachable: bool) -> None:
        """Let what is sent from this end arrive, or not."""
        hardware = self.peer_hardware if reachable else NOWHERE
        neighbour = [self.peer, "lladdr", hardware, "nud", "permanent", "dev", self.device]
        _run(*self.prefix, "ip", "neigh", "replace", *neighbour)


@dataclass(frozen=True)
class Cable:
    """Two ends."""

    hub: End
    owner: End

    def cut(self, *, to_owner: bool, from_owner: bool) -> None:
        """Lose what goes in these directions, and let the rest pass."""
        self.hub.reach(reachable=not to_owner)
        self.owner.reach(reachable=not from_owner)

    def heal(self) -> None:
        """Let everything pass."""
        self.cut(to_owner=False, from_owner=False)


@dataclass(frozen=True)
class Machine:
    """A namespace, and its two cables."""

    number: int
    pid: int
    link: Cable
    archive: Cable

    def site(self, archive: str) -> Site:
        """Return how an owner runs here; `archive` is how its archive is reached from the hub's loopback."""
        return Site(
            archive=archive.replace("127.0.0.1", f"10.78.{self.number}.1"),
            link=f"10.77.{self.number}.2:{4000 + self.number}",
            prefix=("nsenter", f"--net=/proc/{self.pid}/ns/net"),
            connect=self.connect,
        )

    async def connect(self, port: int) -> trio.SocketStream:
        """Connect to this machine's own loopback."""
        opened = trio.socket.from_stdlib_socket(self._socket())
        try:
            await opened.connect(("127.0.0.1", port))
        except BaseException:
            opened.close()
            raise
        return trio.SocketStream(opened)

    def _socket(self) -> socket.socket:
        """Return a socket that was made over there, where it stays: a thread can be in another namespace."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/proc/{self.pid}/ns/net").open() as namespace:
                assert _libc.setns(namespace.fileno(), CLONE_NEWNET) == 0, os.strerror(
                    ctypes.get_errno()
                )
            made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


@contextmanager
def open_machines(count: int) -> Iterator[list[Machine]]:
    """Make so many machines around this one, the hub, which has a network of its own; they end with the block.

    Call it from a thread that lives that long.
    """
    assert is_own()
    holders: list[subprocess.Popen[bytes]] = []
    try:
        machines = []
        for number in range(1, count + 1):
            holder = subprocess.Popen(
                ["unshare", "--net", "sleep", "infinity"],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call into libc, prepared beforehand
            )
            holders.append(holder)
            _wait_apart(holder.pid)
            _run(*_within(holder.pid), "ip", "link", "set", "lo", "up")
            link = _lay(f"link{number}", f"10.77.{number}", holder.pid)
            archive = _lay(f"archive{number}", f"10.78.{number}", holder.pid)
            machines.append(Machine(number, holder.pid, link, archive))
        yield machines
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _wait_apart(pid: int) -> None:
    ours = Path("/proc/self/ns/net").readlink()
    give_up_at = time.monotonic() + HOLD_SECONDS_MAX
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)  # noqa: TID251 - outside of any event loop


def _lay(device: str, network: str, pid: int) -> Cable:
    """Lay a cable between here and the namespace of a process."""
    _, number, low = network.split(".")
    here, there = (f"02:00:00:{int(number):02x}:{int(low):02x}:{side:02x}" for side in (1, 2))
    _run(
        *f"ip link add {device} address {here} type veth".split(),
        *f"peer name {device} address {there} netns {pid}".split(),
    )
    within = _within(pid)
    for prefix, side in (((), 1), (within, 2)):
        _run(*prefix, "ip", "addr", "add", f"{network}.{side}/24", "dev", device)
        _run(*prefix, "ip", "link", "set", device, "up")
    cable = Cable(End((), device, f"{network}.2", there), End(within, device, f"{network}.1", here))
    cable.heal()
    return cable


def _within(pid: int) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{pid}/ns/net")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

"""Points at which a process can be made to die, to show that any step may be its last. Off unless armed.

It is a death as by `kill -9`: nothing is closed, nothing is said, no handler runs. The flush process takes its server
with it. Every point is in the table of docs/faults.md. None is on the way of a single message, and one that is not
armed costs a comparison.

One point is armed in a process, by the server's own start (`edge/serve.py`), which hands it on to the flush process:
`release.committed` to die when that is reached, `flush.written:3` when it is the third time.
"""

import os
import signal
from dataclasses import dataclass

TRANSACTIONS = (
    "epoch",
    "flush",
    "claim",
    "release",
    "change",
    "beat",
    "seal",
    "inherit",
    "takeover",
)
"""What an owner does in the archive. Each has two points: `written`, when all is done but the COMMIT, and
`committed`, when that has returned and nobody knows."""

FAILPOINTS = frozenset(
    {f"{name}.{step}" for name in TRANSACTIONS for step in ("written", "committed")}
    | {"start.recovered", "start.flushed", "serve.begun"}
    | {"handoff.asked", "handoff.stopped", "handoff.flushed", "handoff.released"}
    | {"flush.received", "flush.known"}
    | {"takeover.sealed", "takeover.archived"}
)


@dataclass
class _Armed:
    name: str
    left: int
    takes_parent: bool


_armed: _Armed | None = None


def arm_failpoint(text: str, *, takes_parent: bool = False) -> None:
    """Have this process die at a point, `name` or `name:times`.

    `takes_parent`: the process that started this one dies first. It would start another, which dies at the same point.

    Raises:
        ValueError: there is no such point.
    """
    global _armed  # noqa: PLW0603 - one for each process, as its death is
    name, _, times = text.partition(":")
    if name not in FAILPOINTS or (times and not times.isdigit()):
        raise ValueError(f"there is no failpoint {text}")
    _armed = _Armed(name, int(times or 1), takes_parent)


def armed_failpoint() -> str:
    """Return what this process was armed with, "" if it was not."""
    return "" if _armed is None else f"{_armed.name}:{_armed.left}"


def failpoint(name: str) -> None:
    """Be at a point: die, if it is the one that is armed and was reached often enough."""
    if _armed is None or _armed.name != name:
        return
    _armed.left -= 1
    if _armed.left <= 0:
        parent = os.getppid()
        if _armed.takes_parent and parent > 1:
            os.kill(parent, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

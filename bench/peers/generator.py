"""The load generator of the peers: a process of its own, spoken with as `bench.generator` is.

A peer that fails is a finding and not a crash: instead of the next stage it prints one line that says why.
"""

import gc
import sys

import msgspec

from bench.generator import PAUSES, run_load
from bench.peers.appends import PeerAppends, PeerPlan
from bench.wire import WireError

FAILED = "failed: "
"""Begins the line that says why there is no outcome."""


def main() -> None:
    """Run one plan."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=PeerPlan)
    gc.disable()
    try:
        outcome = run_load(PeerAppends(plan), plan, _progress, _reach)
    except (OSError, WireError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(FAILED + reason, flush=True)
        return
    print(msgspec.json.encode(outcome).decode(), flush=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _reach(stage: str) -> None:
    print(stage, flush=True)
    if stage in PAUSES:
        sys.stdin.buffer.readline()


if __name__ == "__main__":
    main()

"""Several scenarios one after the other: the two-minute tour, and the results that the documentation shows.

Each is a command of its own, printed before it runs, so that any of them can be repeated alone.
"""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stop:
    """One command of a tour."""

    name: str
    """Of its results file."""
    arguments: str


SHORT = (
    Stop("append-64x1", "append --seconds 8"),
    Stop("append-50x16", "append --connections 50 --in-flight 16 --seconds 8"),
    Stop("ancestor", "ancestor --seconds 8 --rounds 1"),
    Stop("rate", "rate 5000 --joined --seconds 8"),
    Stop("fanout", "fanout --subscribers 100 --seconds 8"),
    Stop("mixed", "mixed --seconds 8"),
    Stop("replay", "replay --long 20000 --passes 2 --tails 5"),
    Stop("recover", "recover --unflushed 0 --unflushed 16 --history 0"),
)
"""About two minutes; one round each, so it shows what there is and proves nothing."""

THOROUGH = (
    Stop("append-1x1", "append --connections 1 --seconds 5 --rounds 3"),
    Stop("append-64x1", "append --seconds 8 --beside-bare"),
    Stop("append-50x16", "append --connections 50 --in-flight 16 --seconds 8 --beside-bare"),
    Stop(
        "append-50x16-archive-down",
        "append --connections 50 --in-flight 16 --seconds 6 --beside-bare --archive-down",
    ),
    Stop("ancestor", "ancestor --seconds 8 --beside-bare"),
    Stop("rate", "rate 10000 --joined --seconds 20"),
    Stop("fanout", "fanout --subscribers 100 --rounds 3"),
    Stop("mixed", "mixed --seconds 15 --rounds 3"),
    Stop("chat", "chat"),
    Stop("peers-64x1", "peers"),
    Stop("peers-50x16", "peers --connections 50 --in-flight 16"),
    Stop("replay", "replay"),
    Stop(
        "recover",
        "recover --unflushed 0 --unflushed 16 --history 0 --history 200000 --history 800000 --rounds 3",
    ),
    Stop("flush-sqlite", "flush --seconds 60"),
    Stop("flush-postgres", "flush --seconds 60 --archive postgres"),
    Stop("idle", "idle --sessions 100000"),
    Stop("cluster-64x1", "cluster --rounds 3"),
    Stop("cluster-50x16", "cluster --connections 50 --in-flight 16 --rounds 3"),
    Stop("drain-sqlite", "drain --rounds 3"),
    Stop("drain-postgres", "drain --archive postgres --rounds 3"),
    Stop("failover", "failover --rounds 3"),
    Stop("replicated-50x16", "replicated --connections 50 --in-flight 16 --rounds 3"),
    Stop("ring", "ring"),
)
"""An hour, on a machine that does nothing else."""

LONG = (
    Stop(
        "growth-postgres",
        "append --connections 50 --in-flight 16 --sessions 100000 --messages 10000000 --seconds 1200 "
        "--archive postgres",
    ),
    Stop(
        "growth-sqlite",
        "append --connections 50 --in-flight 16 --sessions 20000 --messages 2000000 --seconds 1200",
    ),
    Stop("known", "idle --sessions 1000000"),
    Stop("hour", "flush --per-second 5000 --seconds 3600"),
)
"""What may grow with messages, with sessions and with time: almost two hours."""


def run_tour(
    stops: tuple[Stop, ...], only: set[str], directory: Path, output: Path | None
) -> list[str]:
    """Run each, and return the names of those that failed."""
    failed = []
    for stop in stops:
        if only and stop.name not in only:
            continue
        arguments = [*shlex.split(stop.arguments), "--directory", str(directory)]
        if output is not None:
            arguments += ["--json", str(output / f"{stop.name}.json")]
        print(f"\n$ python -m bench {stop.arguments}", flush=True)
        if _run([sys.executable, "-m", "bench", *arguments]):
            failed.append(stop.name)
    return failed


def _run(command: list[str]) -> int:
    """Run one stop; when this is interrupted, let it end its servers before we end."""
    with subprocess.Popen(command) as stop:
        try:
            return stop.wait()
        except KeyboardInterrupt:
            stop.terminate()
            stop.wait()
            raise

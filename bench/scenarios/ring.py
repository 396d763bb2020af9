"""How well does the ring divide, and how little moves when a node comes or goes?

No server, no disk: the assignment is a function of the nodes' names and weights. Each round has names of its own,
drawn from the seed. So the range over the rounds says what other names may bring.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.environment import measure_sync_ms, read_environment
from bench.report import Better, Figure, Report, Round, make_report
from bench.scenarios.run import RunOptions, prepare, resolved
from runtime import SLOTS, assign

FEW, MANY = 3, 100
"""Nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingOptions(RunOptions):
    """What to work out; each round is another set of names."""

    seed: int = 0


async def run_ring(options: RingOptions) -> Report:
    """Work it out for each set of names."""
    prepare(options)
    environment, sync = read_environment(options.directory), measure_sync_ms(options.directory)
    source = random.Random(options.seed)
    rounds = [Round(sync, figures_for(_names(source, MANY))) for _ in range(options.rounds)]
    return make_report("ring", rounds, config=resolved(options), environment=environment)


def figures_for(names: Sequence[str]) -> list[Figure]:
    """Return what holds for rings of the first few and of all of these names."""
    few, few_seconds = _timed_assign(names[:FEW])
    one_more, _ = _timed_assign(names[: FEW + 1])
    many, many_seconds = _timed_assign(names)
    one_less, _ = _timed_assign(names[:-1])
    share = Counter(many)[names[-1]]
    return [
        Figure(f"moved when a node joins {FEW}", _share_moved(few, one_more)),
        Figure(
            f"moved when one of {MANY} leaves, over its share",
            round(_moved(many, one_less) / share, 4),
        ),
        Figure(f"largest share of {FEW} over a fair one", _imbalance(few)),
        Figure(f"largest share of {MANY} over a fair one", _imbalance(many)),
        Figure(f"assigned to {FEW} in", round(few_seconds * 1000, 1), "ms"),
        Figure(f"assigned to {MANY} in", round(many_seconds * 1000, 1), "ms"),
        Figure("slots", SLOTS, "", Better.NEITHER),
    ]


def _names(source: random.Random, count: int) -> list[str]:
    """Return names as nodes have them."""
    return [f"{source.getrandbits(128):032x}" for _ in range(count)]


def _timed_assign(names: Sequence[str]) -> tuple[tuple[str, ...], float]:
    start = time.perf_counter()
    assigned = assign(dict.fromkeys(names, 1))
    return assigned, time.perf_counter() - start


def _moved(before: Sequence[str], after: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(before, after, strict=True))


def _share_moved(before: Sequence[str], after: Sequence[str]) -> float:
    return round(_moved(before, after) / len(before), 4)


def _imbalance(assigned: Sequence[str]) -> float:
    """Return the largest share over a fair one."""
    counts = Counter(assigned)
    return round(max(counts.values()) * len(counts) / len(assigned), 4)

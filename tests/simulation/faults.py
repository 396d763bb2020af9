"""What goes wrong in one schedule, drawn from its seed before it begins.

Each schedule has some kinds of fault and not others: where everything fails at once, little is ever under way.
"""

import enum
from random import Random
from typing import NamedTuple


class Fault(enum.StrEnum):
    """What can happen, to a node or to all."""

    KILL = "kill"
    KILL_SOON = "kill in a few steps"
    KILL_AT_COMMIT = "kill at the next COMMIT"
    POWER = "power cut"
    PAUSE = "pause"
    CUT = "cut off from the archive"
    DEAF = "hears of no COMMIT"
    STOP = "stop"
    RETIRE = "retire"
    ARCHIVE_RESTART = "restart of the archive"
    ARCHIVE_AWAY = "archive away"
    RESTORE = "archive restored"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    WEIGHT = "weight"
    REBALANCE = "rebalance"


RING_CHANGES = (Fault.DRAIN, Fault.UNDRAIN, Fault.WEIGHT, Fault.REBALANCE, Fault.STOP)


class Event(NamedTuple):
    """One fault: when, to whom, and for how long or with what number."""

    at: float
    fault: Fault
    node: str
    amount: float


class Plan(NamedTuple):
    """Everything about a schedule that is decided beforehand."""

    nodes: tuple[str, ...]
    slots: int
    sessions: int
    writers: int
    messages: int
    delayed: float
    broken: float
    slow_commits: float
    lost_answers: float
    lost_requests: float
    events: tuple[Event, ...]
    seconds: float
    """When the last fault ends."""


def draw_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(f"plan {seed}")
    nodes = tuple(f"n{number}" for number in range(1, random.choice((2, 2, 3)) + 1))
    seconds = random.uniform(1.0, 3.0)
    others = [fault for fault in Fault if fault not in RING_CHANGES]
    kinds = random.sample(others, random.randint(1, 4)) + random.sample(
        RING_CHANGES, random.randint(1, 4)
    )
    events = [
        Event(random.uniform(0.2, seconds), random.choice(kinds), random.choice(nodes), amount)
        for amount in (random.random() for _ in range(random.randint(2, 9)))
    ]
    for _ in range(random.randint(0, 2)):
        events += _draw_trouble(random, random.choice(nodes), random.uniform(0.4, seconds))
    return Plan(
        nodes=nodes,
        slots=random.choice((2, 4, 8)),
        sessions=random.randint(2, 4),
        writers=random.randint(1, 2),
        messages=random.randint(2, 5),
        delayed=random.choice((0.02, 0.1, 0.3)),
        broken=random.choice((0.0, 0.0, 0.01)),
        slow_commits=random.choice((0.0, 0.0, 0.1, 0.3)),
        lost_answers=random.choice((0.0, 0.0, 0.1)),
        lost_requests=random.choice((0.0, 0.1)),
        events=tuple(sorted(events)),
        seconds=seconds,
    )


def _draw_trouble(random: Random, node: str, at: float) -> list[Event]:
    """Return a node that gives its slots away, and what keeps it from doing so in order."""
    return [
        Event(at, random.choice((Fault.DRAIN, Fault.STOP)), node, random.random()),
        Event(
            at + random.uniform(0, 0.4),
            random.choice(
                (Fault.CUT, Fault.ARCHIVE_AWAY, Fault.KILL_AT_COMMIT, Fault.DEAF, Fault.PAUSE)
            ),
            node,
            random.random(),
        ),
    ]

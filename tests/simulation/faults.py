"""What goes wrong in one schedule, drawn from its seed before it begins.

Each schedule has some kinds of fault and not others: where everything fails at once, little is ever under way.
"""

import enum
from random import Random
from typing import NamedTuple

from storage import REPLICATED


class Fault(enum.StrEnum):
    """What can happen, to a node or to all."""

    KILL = "kill"
    KILL_SOON = "kill in a few steps"
    KILL_AT_COMMIT = "kill at the next COMMIT"
    KILL_AT_TAKEOVER = "kill at a COMMIT for another node"
    KILL_AGAIN = "kill, and again before it serves"
    HANG = "hang with the next batch"
    LOSE = "machine lost for ever"
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
    REMOVE = "remove whoever has nothing"


REPLICATED_ONLY = {Fault.LOSE, Fault.HANG, Fault.KILL_AT_TAKEOVER}
"""What nothing would be left of, or nobody do, in `local`."""

LOCAL_ONLY = {Fault.RESTORE}
"""An archive that lost something has lost what nothing else has, if a machine is lost too."""

RING_CHANGES = (Fault.DRAIN, Fault.UNDRAIN, Fault.WEIGHT, Fault.REBALANCE, Fault.REMOVE, Fault.STOP)


class Event(NamedTuple):
    """One fault: when, to whom, and for how long or with what number."""

    at: float
    fault: Fault
    node: str
    amount: float


class Plan(NamedTuple):
    """Everything about a schedule that is decided beforehand."""

    nodes: tuple[str, ...]
    level: str
    patience_ms: int
    """How long others wait for one that is silent; 0: for ever."""
    down_seconds: float
    """How long a process that ended is away, at most."""
    flush_ms: int
    slots: int
    sessions: int
    writers: int
    messages: int
    message_seconds: float
    """How long a writer waits between two messages, at most."""
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
    level = random.choice(("local", REPLICATED, REPLICATED))
    seconds = random.uniform(1.0, 4.0 if level == REPLICATED else 3.0)
    barred = {*RING_CHANGES, *(LOCAL_ONLY if level == REPLICATED else REPLICATED_ONLY)}
    others = [fault for fault in Fault if fault not in barred]
    kinds = random.sample(others, random.randint(1, 4)) + random.sample(
        RING_CHANGES, random.randint(1, 4)
    )
    events = [
        Event(random.uniform(0.2, seconds), random.choice(kinds), random.choice(nodes), amount)
        for amount in (random.random() for _ in range(random.randint(2, 9)))
    ]
    for _ in range(random.randint(0, 2)):
        events += _draw_trouble(random, random.choice(nodes), random.uniform(0.4, seconds))
    patience_ms = 0
    if level != REPLICATED and random.random() < 0.4:
        # A backup from before a change of the ring is not restored: so there is none.
        events = [event for event in events if event.fault not in RING_CHANGES]
        for _ in range(2):
            at = random.uniform(0.4, seconds)
            events.append(Event(at, Fault.RESTORE, nodes[0], random.random()))
    if level == REPLICATED:
        patience_ms = random.choice((1_000, 1_000, 2_000))
        for _ in range(random.randint(0, 3)):
            events += _draw_takeover(random, nodes, random.uniform(0.3, seconds))
    messages = random.randint(2, 5)
    return Plan(
        nodes=nodes,
        level=level,
        patience_ms=patience_ms,
        down_seconds=random.choice((0.8, 0.8, 3.0)),
        flush_ms=random.choice((150, 150, 600)),
        slots=random.choice((2, 4, 8)),
        sessions=random.randint(2, 4),
        writers=random.randint(1, 2),
        messages=messages,
        message_seconds=random.choice((0.5, 2 * seconds / messages)),
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


def _draw_takeover(random: Random, nodes: tuple[str, ...], at: float) -> list[Event]:
    """Return a node that falls silent for long, and what meets another one when it takes over."""
    silent, *others = random.sample(nodes, len(nodes))
    events = [
        Event(
            at,
            random.choice(
                (Fault.LOSE, Fault.HANG, Fault.HANG, Fault.PAUSE, Fault.CUT, Fault.RETIRE)
            ),
            silent,
            random.uniform(0.5, 1.0),
        )
    ]
    if events[0].fault is Fault.HANG and random.random() < 0.5:
        events.append(Event(at + random.uniform(0, 1.0), Fault.RETIRE, silent, 0.0))
    if random.random() < 0.5:
        events.append(
            Event(
                at + random.uniform(0, 1.5),
                random.choice(
                    (Fault.KILL_AT_TAKEOVER, Fault.KILL_AT_TAKEOVER, Fault.DEAF, Fault.PAUSE)
                ),
                random.choice(others),
                random.random(),
            )
        )
    return events

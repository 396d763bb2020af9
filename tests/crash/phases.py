"""What a cluster is put through: one kind of fault after the other, each so many times, under load."""

import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from bench.cluster import Cluster, node_id_of
from tests.crash import dying
from tests.crash.cluster import change_something, sharers, until_served
from tests.crash.crowd import Crowd
from tests.crash.network import Machine
from tests.crash.outages import PAUSE_SECONDS, Database, pause_owner
from tests.crash.rounds import Load

BETWEEN_SECONDS = (0.0, 0.6)
"""Between two kills, beside the time that the one before took."""

ANSWER_SECONDS_MAX = 30.0
"""Within so long after a kill messages are acknowledged again."""

CHANGE_SECONDS = 2.0
"""From one change of the ring to the next."""

CHANGE_SHARE = 0.3
"""How many of the kills come while slots move."""

ROLL_SHARE = 0.15
"""How many of the changes are restarts of an owner in good order: it leaves, and joins."""

CUT_SECONDS_MIN = 0.3

LONG_CUT_SECONDS = 25.0
"""Every tenth cut is one to the archive, for longer than its connections wait for anything (20 s)."""


@dataclass
class Phase:
    """One kind of fault under way: how often, and what is told of each round."""

    name: str
    rounds: int
    rng: random.Random
    say: Callable[[str], None]
    recoveries: list[float] = field(default_factory=list)
    """How long after each fault until it went on: every session, or after a kill the next twenty messages."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often each kind of it came."""

    def note(self, what: str, seconds: float, clients: Load | Crowd) -> None:
        """Say what a round was."""
        wait = f"; longest wait {clients.recent_wait():.2f} s" if isinstance(clients, Crowd) else ""
        self.recoveries.append(seconds)
        self.counts[what] = self.counts.get(what, 0) + 1
        number = len(self.recoveries)
        self.say(
            f"{self.name} {number} of {self.rounds}: {what}; went on after {seconds:.2f} s{wait};"
            f" {clients.acknowledged:,} acknowledged"
        )


async def kill(phase: Phase, cluster: Cluster, load: Load) -> None:
    """Kill owners and edges at random, also while slots move."""
    rng = phase.rng
    for _ in range(phase.rounds):
        await trio.sleep(rng.uniform(*BETWEEN_SECONDS))
        moving = rng.random() < CHANGE_SHARE
        if moving:
            await change_something(cluster, rng)
            await trio.sleep(rng.uniform(0, 0.2))
        victim = rng.choice([*cluster.owners, *cluster.edges])
        await victim.crash()
        began = trio.current_time()
        enough = load.acknowledged + 20
        with trio.fail_after(ANSWER_SECONDS_MAX):
            while load.acknowledged < enough:
                await trio.sleep(0.01)
        who = "an edge" if victim in cluster.edges else "an owner"
        what = f"killed {who}{' while slots moved' if moving else ''}"
        phase.note(what, trio.current_time() - began, load)
    await until_served(cluster)


async def change(phase: Phase, cluster: Cluster, crowd: Crowd) -> None:
    """Change the ring again and again, while everybody talks."""
    rng = phase.rng
    await until_served(cluster)
    crowd.begin_measuring()
    for _ in range(phase.rounds):
        began = trio.current_time()
        able = await sharers(cluster)
        if rng.random() < ROLL_SHARE and len(able) > 1:
            owner = rng.choice(able)
            await owner.stop()
            await owner.start()
            what = "restarted an owner"
        else:
            what = await change_something(cluster, rng)
        await cluster.ring.until_settled()
        phase.note(what, trio.current_time() - began, crowd)
        await trio.sleep_until(began + CHANGE_SECONDS)
    crowd.end_measuring()
    await until_served(cluster)


async def upset_database(phase: Phase, cluster: Cluster, crowd: Crowd, database: Database) -> None:
    """Stop and crash the database, end its connections, and cut them when a commit was sent."""
    faults: dict[str, Callable[[], Awaitable[None]]] = {
        "stopped": database.stop,
        "crashed in a flush": database.crash_in_flush,
        "crashed at a commit": database.crash_at_commit,
        "connections ended": database.end_connections,
        "commits cut while slots move": lambda: database.cut_commits(cluster),
    }
    await until_served(cluster)
    crowd.begin_measuring()
    names = list(faults)
    for number in range(phase.rounds):
        await trio.sleep(phase.rng.uniform(0, 1))
        # Every fourth round slots move when it happens.
        if number % 4 == 3:
            await change_something(cluster, phase.rng)
        name = names[number % len(names)]
        await faults[name]()
        seconds = await crowd.until_flowing()
        await cluster.ring.until_settled()
        phase.note(f"database: {name}", seconds, crowd)
    crowd.end_measuring()
    await until_served(cluster)


async def pause(phase: Phase, cluster: Cluster, crowd: Crowd, *, taken_over: bool = False) -> None:
    """Stop an owner in its tracks, longer than the others wait for it, and let it go on."""
    await until_served(cluster)
    crowd.begin_measuring()
    for _ in range(phase.rounds):
        await trio.sleep(phase.rng.uniform(0, 1))
        victim = phase.rng.choice(cluster.owners)
        whole = phase.rng.random() < 0.5
        seconds = phase.rng.uniform(*PAUSE_SECONDS)
        await pause_owner(cluster, victim, seconds, whole=whole, taken_over=taken_over)
        recovered = await crowd.until_flowing()
        await cluster.ring.until_settled()
        who = "an owner and its flush process" if whole else "an owner"
        phase.note(f"paused {who}", recovered, crowd)
    crowd.end_measuring()
    await until_served(cluster)


async def lose(phase: Phase, cluster: Cluster, crowd: Crowd) -> None:
    """Kill an owner and remove its disk; others take over, and a new owner takes its place."""
    await until_served(cluster)
    crowd.begin_measuring()
    for _ in range(phase.rounds):
        await trio.sleep(phase.rng.uniform(0, 1))
        victim = phase.rng.choice(cluster.owners)
        lost = node_id_of(victim.data)
        await victim.kill()
        await trio.to_thread.run_sync(shutil.rmtree, victim.data)
        await cluster.ring.until_given_away(lost)
        recovered = await crowd.until_flowing()
        phase.note("lost an owner with its disk", recovered, crowd)
        await victim.start()
        await cluster.ring.until_settled()
    crowd.end_measuring()
    await until_served(cluster)


async def die_taking_over(phase: Phase, cluster: Cluster, crowd: Crowd) -> None:
    """Have the one of two owners that is left die at each step of taking over; a round is all of them."""
    await until_served(cluster)
    survivor, lost = cluster.owners
    for _ in range(phase.rounds):
        deaths = dying.Deaths(cluster, survivor, phase.rng)
        await deaths.die_while_taking_over(dying.TAKING_OVER, lost)
        for name in dying.TAKING_OVER:
            phase.counts[name] = phase.counts.get(name, 0) + deaths.counts[name]
        seconds = await crowd.until_flowing()
        phase.recoveries.append(seconds)
        phase.say(
            f"{phase.name} {len(phase.recoveries)} of {phase.rounds}; went on after {seconds:.2f} s"
        )
    await until_served(cluster)


async def cut(
    phase: Phase, cluster: Cluster, crowd: Crowd, machines: list[Machine], seconds_max: float
) -> None:
    """Cut cables between edge and owner, and between owner and archive, in one direction and in both."""
    rng = phase.rng
    ways = (
        (True, False, "to the owner"),
        (False, True, "from the owner"),
        (True, True, "both ways"),
    )
    rounds = [(which, way) for way in ways for which in ("link", "archive")]
    await until_served(cluster)
    crowd.begin_measuring()
    for number in range(phase.rounds):
        which, (to_owner, from_owner, way) = rounds[number % len(rounds)]
        machine = rng.choice(machines)
        cable = machine.link if which == "link" else machine.archive
        seconds = rng.uniform(CUT_SECONDS_MIN, seconds_max)
        if number % 10 == 9:
            seconds, way = LONG_CUT_SECONDS, f"{way}, for long"
        if rng.random() < CHANGE_SHARE:
            await change_something(cluster, rng)
        cable.cut(to_owner=to_owner, from_owner=from_owner)
        try:
            await trio.sleep(seconds)
        finally:
            cable.heal()
        recovered = await crowd.until_flowing()
        await cluster.ring.until_settled()
        phase.note(f"{which} cut {way}", recovered, crowd)
    crowd.end_measuring()
    await until_served(cluster)


async def die(phase: Phase, cluster: Cluster, crowd: Crowd) -> None:
    """Have an owner die at each failpoint; a round is all of them."""
    await until_served(cluster)
    crowd.begin_measuring()
    for _ in range(phase.rounds):
        deaths = dying.Deaths(cluster, phase.rng.choice(cluster.owners), phase.rng)
        began = trio.current_time()
        serving = [*dying.STARTING, *dying.FLUSHING]
        phase.rng.shuffle(serving)
        await deaths.die_while_serving(serving)
        await deaths.die_while_leaving()
        await deaths.die_while_coming()
        died = sum(deaths.counts.values())
        for name, count in deaths.counts.items():
            phase.counts[name] = phase.counts.get(name, 0) + count
        seconds = await crowd.until_flowing()
        phase.recoveries.append(seconds)
        phase.say(
            f"{phase.name} {len(phase.recoveries)} of {phase.rounds}: an owner died at {died} steps in"
            f" {trio.current_time() - began:.0f} s; went on after {seconds:.2f} s"
        )
        await until_served(cluster)
    crowd.end_measuring()

"""What is done to the cluster of a demonstration while its clients talk: one function for each `ringlog demo NAME`."""

import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from bench.cluster import Cluster, node_id_of
from bench.demos.traffic import Traffic
from bench.server import Server
from runtime import slot_of

WORKSPACE = "default"

CALM_SECONDS = 3.0
"""How long the clients are watched before and after something happens."""

MESSAGES_AFTER = 100
"""Once so many more are acknowledged, clients have gone on."""

RESTART_SECONDS = 0.5
"""What `ringlog up` waits before it starts again what ended."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act has to do with; `say` tells whoever watches."""

    cluster: Cluster
    traffic: Traffic
    say: Callable[[str], None]

    async def sessions_of(self, owner: Server) -> set[str]:
        """Return the sessions of the traffic that an owner has now."""
        ring = await self.cluster.ring.read()
        node_id = node_id_of(owner.data)
        return {
            session
            for session in self.traffic.sessions
            if ring.owners[slot_of(WORKSPACE, session, len(ring.owners))] == node_id
        }

    async def slots_of(self, owner: Server) -> int:
        """Return how many slots an owner has now."""
        return (await self.cluster.ring.read()).owners.count(node_id_of(owner.data))

    def look(self, sessions: set[str], name: str) -> None:
        """Say what the clients noticed since the last look, of these sessions and of the others."""
        noticed = self.traffic.look()
        others = set(self.traffic.sessions) - sessions
        errors = ", ".join(f"{count} {code}" for code, count in noticed.refusals.items()) or "none"
        groups = {name: sessions} | ({"the others": others} if others else {})
        longest = [f"{who} {noticed.longest_pause(each):.2f} s" for who, each in groups.items()]
        self.say(f"   longest pause between two acknowledgements: {', '.join(longest)}")
        self.say(f"   errors: {errors}; messages sent twice and stored once: {noticed.repeats}")

    async def change(self, action: str, owner: Server) -> None:
        """Drain an owner, or give it its share again, and wait until everything has moved."""
        self.say(f"{action}, as `ringlog ring {action} {node_id_of(owner.data)} --wait` does it")
        began = trio.current_time()
        move = self.cluster.drain if action == "drain" else self.cluster.undrain
        change = await move(owner)
        await self.cluster.ring.until_settled()
        self.say(f"   {len(change.targets)} slots moved in {trio.current_time() - began:.1f} s")


async def crash(stage: Stage) -> None:
    """Kill an owner, then an edge; each is started again."""
    owner, edge = stage.cluster.owners[0], stage.cluster.edges[0]
    sessions = await stage.sessions_of(owner)
    stage.say(
        f"kill -9 of owner 1 (process {owner.pid}): {await stage.slots_of(owner)} slots,"
        f" {len(sessions)} of {len(stage.traffic.sessions)} sessions"
    )
    await _kill_and_restart(stage, owner)
    stage.look(sessions, "its sessions")
    stage.say(f"kill -9 of edge 1 (process {edge.pid}): half of the clients lose their connection")
    before = stage.traffic.reconnects
    await _kill_and_restart(stage, edge)
    stage.say(f"   {stage.traffic.reconnects - before} connections were made again")
    stage.look(set(stage.traffic.sessions), "all sessions")


async def drain(stage: Stage) -> None:
    """Drain an owner, stop it, start it again, and give it its share back."""
    owner = stage.cluster.owners[0]
    sessions = await stage.sessions_of(owner)
    stage.say(
        f"owner 1 (process {owner.pid}) is to be replaced: {await stage.slots_of(owner)} slots,"
        f" {len(sessions)} of {len(stage.traffic.sessions)} sessions"
    )
    await stage.change("drain", owner)
    await stage.traffic.more(MESSAGES_AFTER)
    stage.look(sessions, "its sessions")
    await owner.stop(signal.SIGTERM)
    stage.say("SIGTERM: it exits with 0; nothing is left on it, it could be another machine now")
    await trio.sleep(CALM_SECONDS)
    await owner.start()
    stage.say(f"started again (process {owner.pid})")
    stage.traffic.look()
    await stage.change("undrain", owner)
    await stage.traffic.more(MESSAGES_AFTER)
    stage.look(await stage.sessions_of(owner), "the sessions that came back")


async def failover(stage: Stage) -> None:
    """Lose an owner with its disk; the other takes over. Then a new machine takes its place."""
    owner = stage.cluster.owners[0]
    lost = node_id_of(owner.data)
    sessions = await stage.sessions_of(owner)
    stage.say(
        f"kill -9 of owner 1 (process {owner.pid}), and its disk is lost: {await stage.slots_of(owner)} slots,"
        f" {len(sessions)} of {len(stage.traffic.sessions)} sessions"
    )
    await owner.kill()
    await trio.to_thread.run_sync(shutil.rmtree, owner.data)
    began = trio.current_time()
    await stage.cluster.ring.until_given_away(lost)
    stage.say(
        f"   after {trio.current_time() - began:.1f} s its slots are given away: what it had acknowledged and not"
        " flushed was in PostgreSQL"
    )
    await trio.sleep(CALM_SECONDS)
    await stage.traffic.more(MESSAGES_AFTER)
    stage.look(sessions, "its sessions")
    await owner.start()
    await stage.cluster.ring.until_settled()
    stage.say(
        f"a new owner with an empty disk (process {owner.pid}) has joined, and has {await stage.slots_of(owner)} slots"
    )
    await trio.sleep(CALM_SECONDS / 2)
    await stage.traffic.more(MESSAGES_AFTER)
    stage.look(await stage.sessions_of(owner), "the sessions that came to it")


async def _kill_and_restart(stage: Stage, server: Server) -> None:
    await server.kill()
    await trio.sleep(RESTART_SECONDS)
    began = trio.current_time()
    await server.start()
    stage.say(
        f"   started again (process {server.pid}), ready in {trio.current_time() - began:.1f} s"
    )
    await trio.sleep(CALM_SECONDS / 2)
    await stage.traffic.more(MESSAGES_AFTER)


Act = Callable[[Stage], Awaitable[None]]

ACTS: dict[str, Act] = {"crash": crash, "drain": drain, "failover": failover}

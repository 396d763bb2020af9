"""One schedule: a cluster, its clients and its faults from a seed; and what a checker finds in it."""

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import trio

from bench.checker import Findings
from runtime import planning
from runtime.codec import make_session, session_record
from runtime.ring import slot_of
from storage import (
    ACTIVE,
    DRAINED,
    DRAINING,
    REPLICATED,
    ArchiveUnavailableError,
    FencedError,
    LogPoisonedError,
    PlannedChange,
    Ring,
    RingChangedError,
    SessionRecord,
)
from tests.fakes.directory import CrashingDirectory
from tests.simulation.archive import SimulatedArchive
from tests.simulation.clients import WORKSPACE, Clients, Conversation
from tests.simulation.faults import Event, Fault, Plan, draw_plan
from tests.simulation.mutation import Mutation, applied
from tests.simulation.process import Process
from tests.simulation.scheduler import run_seeded
from tests.simulation.server import ADDS
from tests.simulation.weather import Weather

SETTLE_SECONDS = 60.0
"""How long it may take, after the last fault, until all is as it should be: a few timeouts one behind another."""


NODES = ("n1", "n2", "n3")
LIVES = 3
"""How many machines a node may have, one after another. The next one of n1 is n4."""

TAKEOVER_STEPS = ("seals", "inherits", "takes over")


class Outcome(NamedTuple):
    """What came of a schedule: what is wrong with it, line by line, and all that happened."""

    seed: int
    problems: list[str]
    trace: list[str]
    messages: int
    events: int


def run_schedule(seed: int, mutation: Mutation | None = None) -> Outcome:
    """Run the schedule of a seed, of the product as it is or with one guarantee taken away."""
    world = World(seed, mutation)
    run_seeded(seed, world.run)
    return Outcome(seed, world.problems(), world.trace, world.messages, len(world.plan.events))


class World:
    """Everything that there is in a schedule."""

    def __init__(self, seed: int, mutation: Mutation | None) -> None:
        self.plan: Plan = draw_plan(seed)
        self.trace: list[str] = []
        self.messages = 0
        self._mutation = mutation
        self._restored = False
        self._random = Random(f"world {seed}")
        self._weather = Weather(Random(f"weather {seed}"))
        self._archive = SimulatedArchive(self._weather, self.note, mutation)
        self._findings = Findings()
        self._failures: list[str] = []
        self._names = {name: name for name in self.plan.nodes}
        """Who each node is now: another one where its machine was lost."""
        self._disks = {name: CrashingDirectory() for name in self.plan.nodes}
        self._processes: dict[str, Process] = {}
        self._short_lives: dict[str, int] = {}
        """How many lives of a node are to end before they have begun."""
        self._clients = Clients(Random(f"clients {seed}"), self._find_servers)
        self._conversations = [
            Conversation(f"s{number}", self._findings, self.note)
            for number in range(self.plan.sessions)
        ]
        self._down_seconds = self.plan.down_seconds
        self._nursery: trio.Nursery

    def note(self, line: str) -> None:
        """Write down that something happened."""
        self.trace.append(f"{trio.current_time():8.3f}  {line}")

    def problems(self) -> list[str]:
        """Return what is wrong, once it has run."""
        return self._failures + self._findings.examples

    async def run(self) -> None:
        """Run until everything is settled after the last fault, or should be."""
        with applied(self._mutation):
            await self._run()

    async def _run(self) -> None:
        plan = self.plan
        self._set_weather()
        for conversation in self._conversations:
            self._archive.put_session(_new_session(conversation.name))
        async with trio.open_nursery() as self._nursery:
            self._archive.server.nursery = self._nursery
            for name in plan.nodes:
                self._nursery.start_soon(self._supervise, name)
            for conversation in self._conversations:
                self._nursery.start_soon(self._clients.read, conversation)
                for writer in range(plan.writers):
                    conversation.unanswered += plan.messages
                    sender = f"u{writer}"
                    self._nursery.start_soon(
                        self._clients.write,
                        conversation,
                        sender,
                        plan.messages,
                        plan.message_seconds,
                    )
            for event in plan.events:
                await trio.sleep_until(event.at)
                self.note(f"{event.fault}: {event.node} {event.amount:.2f}")
                self._nursery.start_soon(self._happen, event)
            await trio.sleep_until(plan.seconds)
            await self._settle()
            for process in self._processes.values():
                process.kill()
            self._nursery.cancel_scope.cancel()
        for conversation in self._conversations:
            rows = self._archive.messages(WORKSPACE, conversation.name)
            self.messages += conversation.check([row.body for row in rows])

    def _set_weather(self) -> None:
        plan, weather = self.plan, self._weather
        weather.delayed = plan.delayed
        weather.broken = plan.broken
        weather.slow_commits = plan.slow_commits
        weather.lost_answers = self._clients.lost_answers = plan.lost_answers
        self._clients.lost_requests = plan.lost_requests

    # Nodes

    async def _supervise(self, node: str) -> None:
        """Start a node, and start it again whenever it has ended: or another one in its place."""
        await trio.sleep(self._random.uniform(0, 0.3))
        while True:
            name = self._names[node]
            process = self._processes[node] = Process(
                name, data_dirs()[name], self._disks[node], self._archive, self.plan
            )
            if self._short_lives.get(node, 0):
                self._short_lives[node] -= 1
                process.dies_in = self._random.randint(5, 40)
            self.note(f"{name} starts")
            reason = "stopped"
            try:
                await process.run()
            except* Exception as group:  # noqa: BLE001 - judged
                reason = "killed" if process.dead else self._judge(process, group)
            self.note(f"{name} ended: {'killed' if process.dead else reason}")
            is_lost = self._names[node] != name
            self._disks[node] = CrashingDirectory() if is_lost else process.directory
            await trio.sleep(self._random.uniform(0.05, self._down_seconds))

    def _judge(self, process: Process, group: BaseException) -> str:
        """Return why a process ended by itself, and hold what nothing explains against it."""
        causes = list(_leaves(group))
        for error in causes:
            if isinstance(error, ArchiveUnavailableError) and process.node is None:
                continue
            if isinstance(error, trio.ClosedResourceError | LogPoisonedError) and len(causes) > 1:
                # It waited for the flusher or the log, which has failed of something else.
                continue
            if isinstance(error, FencedError):
                owner = self._archive.epoch_of(error.node_id)
                if owner.epoch != error.epoch or owner.sealed_epoch >= owner.epoch:
                    continue
            self._failures.append(f"{process.name} failed: {error!r}")
        return ", ".join(type(error).__name__ for error in causes)

    def _find_servers(self, key: tuple[str, str]) -> list[Process]:
        return [
            process
            for process in self._processes.values()
            if slot_of(*key, self.plan.slots) in process.serves
        ]

    # Faults

    async def _happen(self, event: Event) -> None:
        process = self._processes.get(event.node)
        if event.fault in _TO_RING:
            with trio.move_on_after(3):
                await self._change_ring(_TO_RING[event.fault], event)
        elif event.fault is Fault.RETIRE:
            await self._retire(event.node)
        elif event.fault is Fault.RESTORE:
            copy = self._archive.copy()
            await trio.sleep(event.amount * 1.5)
            if trio.current_time() < self.plan.seconds and self._archive.restore(copy):
                self._restored = True
                self.note("restored")
        elif event.fault is Fault.ARCHIVE_RESTART:
            self._archive.server.restart()
        elif event.fault is Fault.ARCHIVE_AWAY:
            self._weather.archive_is_up = False
            self._archive.server.restart()
            await trio.sleep(event.amount * 2)
            self._weather.archive_is_up = True
        elif event.fault in {Fault.CUT, Fault.DEAF}:
            nodes = self._weather.cut if event.fault is Fault.CUT else self._weather.deaf
            name = self._names[event.node]
            nodes.add(name)
            await trio.sleep(event.amount * 3)
            nodes.discard(name)
        elif process is not None:
            await self._happen_to(process, event)

    async def _happen_to(self, process: Process, event: Event) -> None:
        match event.fault:
            case Fault.KILL:
                process.kill()
            case Fault.POWER:
                process.loses_power = True
                process.kill()
            case Fault.KILL_SOON:
                process.dies_in = int(event.amount * 40)
            case Fault.KILL_AT_COMMIT:
                process.dies_at = ADDS if event.amount < 0.4 else ""
            case Fault.KILL_AT_TAKEOVER:
                process.dies_at = TAKEOVER_STEPS[int(event.amount * len(TAKEOVER_STEPS))]
            case Fault.KILL_AGAIN:
                self._short_lives[event.node] = 1 + int(event.amount * 3)
                process.kill()
            case Fault.HANG:
                process.hangs_at_batch = True
                await trio.sleep(1 + event.amount * 3)
                process.hangs_at_batch = False
                process.resume()
            case Fault.LOSE:
                number = int(process.name[1:]) + len(NODES)
                if not process.ended and f"n{number}" in data_dirs():
                    self._names[event.node] = f"n{number}"
                    process.kill()
            case Fault.PAUSE:
                process.pause()
                await trio.sleep(event.amount * 4)
                process.resume()
            case _:
                assert event.fault is Fault.STOP
                process.stop.set()

    async def _retire(self, node: str) -> None:
        """Seal a node's epoch; where nothing but its disk has what it did not flush, one that has nothing."""
        process = self._processes.get(node)
        node_id = data_node_id(self._names[node])
        epoch = self._archive.epoch_of(node_id).epoch
        if self.plan.level != REPLICATED:
            if process is None or process.has_unflushed:
                return
            process.kill()
        with suppress(ArchiveUnavailableError):
            if self.plan.level != REPLICATED:
                # As it would itself have, had it been stopped.
                await self._archive.settle_whole(node_id, epoch, 0)
            await self._archive.retire_node(node_id, epoch)

    async def _change_ring(
        self, plan: Callable[[Ring, str, float], PlannedChange], event: Event
    ) -> None:
        try:
            ring = await self._archive.read_ring()
            if ring.owners:
                await self._archive.change_ring(
                    plan(ring, data_node_id(self._names[event.node]), event.amount)
                )
        except (planning.PlanError, RingChangedError, ArchiveUnavailableError) as error:
            self.note(f"{event.fault} refused: {error!r}")

    # The end

    async def _settle(self) -> None:
        """Let there be no more faults, and wait until all is as it should be."""
        self._weather.clear()
        self._clients.lost_answers = self._clients.lost_requests = 0
        self._down_seconds = 0.2
        self._short_lives.clear()
        for process in self._processes.values():
            process.resume()
            process.dies_in = None
            process.dies_at = None
            process.hangs_at_batch = False
            if self._restored:
                # An owner that has nothing to flush, and is asked for nothing old, would not notice.
                process.kill()
        self.note("no more faults")
        unsettled: list[str] = []
        with trio.move_on_after(SETTLE_SECONDS):
            while unsettled := list(self._unsettled()):
                await self._undrain_somebody()
                await trio.sleep(0.25)
        self._failures += [f"never settled: {line}" for line in unsettled]
        self.note("settled" if not unsettled else "never settled")

    async def _undrain_somebody(self) -> None:
        """Be the operator who has drained all owners but those that were lost."""
        names = self._names.values()
        nodes = [node for node in self._archive.ring().nodes if node.address in names]
        if len(nodes) == len(names) and all(node.state in {DRAINING, DRAINED} for node in nodes):
            event = Event(trio.current_time(), Fault.UNDRAIN, self.plan.nodes[0], 0)
            await self._change_ring(_TO_RING[Fault.UNDRAIN], event)

    def _unsettled(self) -> Iterator[str]:
        for conversation in self._conversations:
            if conversation.unanswered:
                yield f"{conversation.name} has {conversation.unanswered} without answer"
        ring = self._archive.ring()
        names = self._names.values()
        for node in ring.nodes:
            if node.address in names and node.state not in {ACTIVE, DRAINED}:
                yield f"{node.address} is {node.state}"
        served = {
            data_node_id(process.name): process.serves for process in self._processes.values()
        }
        for slot, (owner, target) in enumerate(zip(ring.owners, ring.targets, strict=True)):
            if owner != target or slot not in served.get(owner, ()):
                yield f"slot {slot} is {owner[-2:]}'s and meant for {target[-2:]}"
        for process in self._processes.values():
            if process.node is not None and not process.ended:
                flusher = process.node.flusher
                cursor = self._archive.cursor_of(flusher.node_id)
                if flusher.backlog_rows or flusher.cursor != cursor:
                    yield f"{process.name} has not flushed"


def _plan_remove(ring: Ring) -> PlannedChange:
    """Remove the first node that can be, whether it lives or not."""
    for node in ring.nodes:
        with suppress(planning.PlanError):
            return planning.plan_remove(ring, node.node_id, at_ms=0, actor="")
    raise planning.PlanError("nobody can be removed")


_TO_RING: dict[Fault, Callable[[Ring, str, float], PlannedChange]] = {
    Fault.DRAIN: lambda ring, node, _: planning.plan_drain(ring, node, at_ms=0, actor=""),
    Fault.UNDRAIN: lambda ring, node, _: planning.plan_undrain(ring, node, at_ms=0, actor=""),
    Fault.WEIGHT: lambda ring, node, amount: planning.plan_weight(
        ring, node, 1 + int(amount * 3), at_ms=0, actor=""
    ),
    Fault.REMOVE: lambda ring, _, __: _plan_remove(ring),
    Fault.REBALANCE: lambda ring, _, __: planning.plan_rebalance(ring, at_ms=0, actor=""),
}


def data_node_id(name: str) -> str:
    """Return the node id of a node, always the same."""
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex


@cache
def data_dirs() -> dict[str, Path]:
    """Return a data directory for each node, with its id and nothing else: logs are in memory."""
    folder = Path(tempfile.mkdtemp(prefix="ringlog-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    names = [f"n{number}" for number in range(1, 1 + LIVES * len(NODES))]
    for name in names:
        (folder / name).mkdir()
        (folder / name / "node_id").write_text(str(uuid.UUID(data_node_id(name))))
    return {name: folder / name for name in names}


def _new_session(name: str) -> SessionRecord:
    info = make_session(
        name,
        user_id="u0",
        members=(),
        agent_id=None,
        metadata=b"{}",
        state="active",
        created_at_ms=0,
        updated_at_ms=0,
        version=1,
    )
    return session_record(WORKSPACE, info)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error

"""One life of one owner: the product's own node and member, on a disk and an archive that are simulated.

A process is killed where it stands: its disk is what a machine finds then, what it had asked of the archive may
still happen, and what its tasks do while they end reaches nobody. A paused one makes no step, and goes on later as if
nothing had been.
"""

import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, cast

import trio

from runtime import Cluster, ClusterOptions, Node, NodeOptions, open_cluster, opening
from storage import Archive, FlushOptions, LogOptions, Place
from tests.fakes.directory import CrashingDirectory
from tests.simulation.archive import SimulatedArchive
from tests.simulation.faults import Plan
from tests.simulation.scheduler import CALLER
from tests.simulation.weather import Weather

LOG = LogOptions(segment_bytes=1 << 15, first_segment_bytes=1 << 15)
"""Small, so that schedules see segments change."""

FLUSH_ROWS = 4

LEAVE_SECONDS = 4.0
"""How long one that is told to stop waits for others to take its slots; `drain_seconds` of a server."""


class DeadProcessError(OSError):
    """A process that was killed asked for something."""


class QuietListener(trio.abc.Listener[trio.abc.Stream]):
    """Where nobody connects: clients here have no links."""

    async def accept(self) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Process:
    """A process; `node` is there once it serves."""

    def __init__(
        self,
        name: str,
        data_dir: Path,
        directory: CrashingDirectory,
        archive: SimulatedArchive,
        plan: Plan,
    ) -> None:
        self.name = name
        self.connections = ""
        self.directory = directory
        self.node: Node | None = None
        self.cluster: Cluster | None = None
        self.dead = self.ended = False
        self.dies_in: int | None = None
        """After how many steps it is killed."""
        self.dies_at: str | None = None
        self.hangs_at_batch = False
        self.loses_power = False
        """Whether it dies with its machine, and so with what was not synced."""
        self.stop = trio.Event()
        self._data_dir = data_dir
        self._archive = archive
        self._plan = plan
        self._weather: Weather = archive.server.weather
        self._context: Context
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._calls: dict[trio.CancelScope, None] = {}
        self._resumed: trio.Event | None = None

    @property
    def paused(self) -> bool:
        """Whether it makes no steps."""
        return self._resumed is not None

    async def run(self) -> None:
        """Live until it has stopped, failed or was killed; raises what it failed of."""
        CALLER.set(self)
        self._context = copy_context()
        archive = cast("Archive", self._archive)
        plan = self._plan
        options = NodeOptions(
            data_dir=self._data_dir,
            durability=plan.level,
            log=LOG,
            flush=FlushOptions(rows_max=FLUSH_ROWS, interval_ms=plan.flush_ms, backoff_ms_max=500),
            idle_seconds=2.0,
            place=Place(self.name, slots=plan.slots, patience_ms=plan.patience_ms),
        )
        try:
            await self._live(archive, options)
        finally:
            self.ended = True

    async def _live(self, archive: Archive, options: NodeOptions) -> None:
        with self._scope:
            async with opening.open_node(options, archive, cast("Any", self.directory)) as node:
                member = ClusterOptions(
                    node_id=node.flusher.node_id,
                    listener=QuietListener(),
                    taken_over=self._note_takeover,
                )
                async with (
                    open_cluster(member, archive, node) as self.cluster,
                    trio.open_nursery() as self._nursery,
                ):
                    self.node = node
                    await self.stop.wait()
                    await self._leave(node)
                    self._nursery.cancel_scope.cancel()

    @property
    def has_unflushed(self) -> bool:
        """Whether it may have acknowledged what the archive does not have as rows."""
        if self.node is None:
            return True
        flusher = self.node.flusher
        cursor = self._archive.cursor_of(flusher.node_id)
        return flusher.backlog_rows > 0 or self.node.log.durable_lsn > cursor

    def _note_takeover(self, node_id: str, outcome: int | Exception) -> None:
        self._archive.note(f"{self.name} took over from {node_id[-4:]}: {outcome!r}")

    @property
    def serves(self) -> frozenset[int]:
        """The slots that it serves now."""
        slots = None if self.node is None or self.dead or self.ended else self.node.slots
        return frozenset() if slots is None else slots.served

    async def _leave(self, node: Node) -> None:
        """End as a server does that gets SIGTERM (`edge.serve`)."""
        assert self.cluster is not None
        assert self.cluster.member is not None
        give_up_at = trio.current_time() + LEAVE_SECONDS
        with trio.move_on_at(give_up_at):
            await self.cluster.member.leave()
        await node.shutdown(max(0.0, give_up_at - trio.current_time()))

    def start_soon(self, task: Callable[..., Any], *args: Any) -> None:
        """Run something as a task of this process, if it serves."""
        nursery = self._nursery
        if nursery is not None and not nursery._closed and not self.dead:
            self._context.run(nursery.start_soon, task, *args)

    # What comes between two things that it does

    async def call(self, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Do what a thread would do: never abandoned, but by death."""
        with trio.CancelScope(shield=True) as scope:
            self._calls[scope] = None
            try:
                await self.step()
                # What is written may be on the disk long before its caller hears of it, or long after it was asked.
                is_late = self._weather.random.random() < 0.3
                if is_late:
                    await self._weather.turn_disk()
                    await self.step()
                result = call(*args)
                if inspect.iscoroutine(result):
                    result = await result
                elif not is_late:
                    await self._weather.turn_disk()
                await self.step()
                return result
            finally:
                del self._calls[scope]
        raise DeadProcessError(self.name)

    async def step(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.kill()
        if self.dead:
            raise DeadProcessError(self.name)
        while self._resumed is not None:
            await self._resumed.wait()

    def pause(self) -> None:
        """Make no step until `resume`."""
        if self._resumed is None:
            self._resumed = trio.Event()

    def resume(self) -> None:
        """Go on."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def kill(self) -> None:
        if self.dead or self.ended:
            return
        self.dead = True
        self.directory, dying = self._disk_afterwards(), self.directory
        dying.faults.power_cut_at = 0
        for scope in list(self._calls):
            scope.cancel()
        self._scope.cancel()

    def _disk_afterwards(self) -> CrashingDirectory:
        if self.loses_power:
            return self.directory.crash(self._weather.random)
        return self.directory.restart()

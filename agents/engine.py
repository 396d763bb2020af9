"""The engine: calls agents for the sessions of this node.

It hears of each dispatch when that is durable (`runtime.Dispatcher`), and has one worker for each session that has an
open one. When a node starts, or takes slots, it looks in the archive for sessions that were left with open
dispatches, and opens them: whoever finds a dispatch goes on with it.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog
import trio

from agents.addresses import AddressRules, Network
from agents.agent import ChangeAgent
from agents.calling import Calling
from agents.errors import AgentError
from agents.http import CallerOptions, CallResponse, open_caller
from agents.places import Places
from agents.registry import Registered, Registry
from agents.worker import Worker
from runtime import Dispatch, Node, SessionError, SessionServer
from storage import AgentKey, ArchiveUnavailableError, LogPoisonedError, StorageError

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""How often sessions with open dispatches are looked for that came to this node: with slots, or a restart."""

READERS_MAX = 4
"""Threads that read agents: each read is a query, before a call that takes a thousand times as long."""


Post = Callable[[Registered, Dispatch, bytes], AbstractAsyncContextManager[CallResponse]]
"""Makes the call that an agent is configured for, with this body; raises `CallError`."""


class Engine:
    """Calls agents for one node, while `run` runs."""

    def __init__(self, node: Node, registry: Registry, post: Post) -> None:
        self.places = Places()
        self.post = post
        self.random: Callable[[], float] = random.random
        self._node = node
        self._registry = registry
        self._limiter = trio.CapacityLimiter(READERS_MAX)
        self._workers: dict[AgentKey, Worker] = {}
        self._nursery: trio.Nursery

    # Dispatcher: what sessions tell.

    def message_came(self, server: SessionServer) -> None:
        """A message that may concern the session's agent is being logged."""
        worker = self._workers.get(_key(server))
        if worker is not None:
            worker.message_came()

    def dispatch_changed(self, server: SessionServer, dispatch: Dispatch) -> None:
        """A dispatch's state is another one, and durable."""
        key = _key(server)
        if dispatch.is_open and key not in self._workers:
            self._workers[key] = worker = Worker(self, server)
            server.watch(worker)
            self._nursery.start_soon(self._work, key, server, worker)

    def stop(self, server: SessionServer) -> None:
        """Log the end of every open dispatch of the session."""
        key = _key(server)
        worker = self._workers.get(key) or Worker(self, server)
        worker.stop()

    async def _work(self, key: AgentKey, server: SessionServer, worker: Worker) -> None:
        try:
            await worker.run()
        except (LogPoisonedError, trio.Cancelled):
            raise
        except Exception:
            # A bug that one dispatch meets ends neither the node nor the others', and leaves no session stuck.
            log.exception("dispatch_failed", workspace=key[0], session=key[1])
            worker.give_up("internal", "something failed inside the server")
        finally:
            server.unwatch(worker)
            del self._workers[key]

    # What workers ask.

    async def read_agent(self, key: AgentKey) -> Registered | None:
        """Return an agent as it is configured now.

        Raises:
            ArchiveUnavailableError: the archive is away.
        """
        found = await trio.to_thread.run_sync(self._registry.read, [key], limiter=self._limiter)
        return found.get(key)

    def disable_soon(self, workspace: str, agent: str) -> None:
        """Disable an agent that says that it is gone."""
        self._nursery.start_soon(self._disable, workspace, agent)

    async def _disable(self, workspace: str, agent: str) -> None:
        change = partial(self._registry.change, workspace, agent, ChangeAgent(status="disabled"))
        try:
            await trio.to_thread.run_sync(change, limiter=self._limiter)
        except (AgentError, StorageError) as error:
            log.warning("agent_not_disabled", agent=agent, reason=str(error))
        else:
            log.warning(
                "agent_disabled", workspace=workspace, agent=agent, reason="it answered 410"
            )

    # Sessions that were left with open dispatches.

    async def run(self, task_status: trio.TaskStatus["Engine"] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for them at the start, and whenever slots have come; for ever."""
        async with trio.open_nursery() as self._nursery:
            idle, self._node.dispatcher = self._node.dispatcher, self
            try:
                task_status.started(self)
                await self._look()
            finally:
                # What is committed from here on is found by the next life.
                self._node.dispatcher = idle

    async def _look(self) -> None:
        seen = -1
        while True:
            slots = self._node.slots
            begun = 0 if slots is None else slots.begun
            if begun != seen and await self._find_left():
                seen = begun
            await trio.sleep(LOOK_SECONDS)

    async def _find_left(self) -> bool:
        """Open sessions with open dispatches; return whether all were looked at."""
        after = ("", "")
        while True:
            try:
                page = await trio.to_thread.run_sync(
                    self._node.archive.dispatches.list_open, after, limiter=self._limiter
                )
            except ArchiveUnavailableError:
                return False
            if not page:
                return True
            after = page[-1]
            if not await self._open_all(page):
                return False

    async def _open_all(self, keys: Sequence[tuple[str, str]]) -> bool:
        complete = True
        for key in keys:
            if self._node.slots is not None and not self._node.slots.serves(key):
                continue
            if key in self._workers:
                continue
            try:
                server = await self._node.open(*key)
            except LogPoisonedError:
                raise
            except (SessionError, StorageError):
                complete = False
                continue
            current = server.session.current_dispatch
            if current is not None:
                self.dispatch_changed(server, current)
        return complete


async def run_engine(  # noqa: ASYNC128 - the engine says that it has started
    node: Node,
    registry: Registry,
    allowed: Sequence[Network] = (),
    task_status: trio.TaskStatus[Engine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call agents for a node's sessions, for ever; what is under way when it is cancelled goes on at the next start.

    `allowed` are networks of private addresses that agents may be called at.
    """
    options = CallerOptions(AddressRules(networks=tuple(allowed)))
    async with open_caller(options) as caller:
        await Engine(node, registry, Calling(registry, caller).post).run(task_status)


def _key(server: SessionServer) -> AgentKey:
    return (server.workspace, server.info.session)

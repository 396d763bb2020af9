"""An owner as a member of its cluster: it says that it lives, and brings its slots to where the ring wants them.

Giving a slot up, in this order, so that nothing that was acknowledged is left behind::

    stop serving → everything assigned is durable → everything durable is in the archive → release, one transaction

A slot is noted on the node's own disk before it is claimed (`runtime.slotsfile`), and no other is served.

If the archive does not take it in `FLUSH_SECONDS`, the slot is served on, and it is tried again. If the release
itself has no answer, the slot stays closed until the archive tells who owns it: it may be another's already.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from runtime import planning
from runtime.heartbeats import BEAT_SECONDS, Heartbeats
from runtime.losses import slots_of
from runtime.node import Node
from runtime.reconcile import decide
from runtime.ringwatch import RingWatch
from runtime.server import SessionServer
from runtime.slots import SessionKey, Slots
from runtime.slotsfile import SlotsFile
from runtime.takeover import RETARGET_SECONDS, is_due, take_over
from storage import (
    ACTIVE,
    Archive,
    ArchiveConflictError,
    ArchiveUnavailableError,
    CorruptLogError,
    CursorMismatchError,
    FencedError,
    NodeEntry,
    NodeReturnedError,
    PlannedChange,
    Ring,
    RingChangedError,
    RingRestoredError,
    failpoint,
)

T = TypeVar("T")

FLUSH_SECONDS = 5.0
"""How long sessions that are to move may pause for the archive."""

RETRY_SECONDS = 0.2

CONFIRMED_SHARE = 2 / 3
"""For how much of the time after which others may take over from it a node trusts that none has."""

HEARINGS = 4
"""Who has read the beats so often has heard of everyone who lives."""

LEAVE_POLL_SECONDS = 0.02


class Member:
    """One owner's part in the ring."""

    def __init__(
        self,
        node: Node,
        archive: Archive,
        watch: RingWatch,
        told: Callable[[str, int | Exception], None],
    ) -> None:
        self._node = node
        self._archive = archive
        self._watch = watch
        self._told = told
        self._node_id = node.flusher.node_id
        self._slots = Slots(len(watch.ring.owners))
        self._file = SlotsFile(node.options.data_dir)
        self._noted: frozenset[int] | None = None
        self._limiter = trio.CapacityLimiter(1)
        # What says that this node lives must wait for nobody.
        self._say = partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(1))
        self._leaving = False
        self._heartbeats = Heartbeats()
        place = node.options.place
        self._patience_seconds = (
            0.0 if place is None or node.replica is None else place.patience_ms / 1_000
        )
        self._hindered: dict[str, str] = {}
        """Why nodes cannot be taken over from, by their ids."""
        self.slots_taken = self.slots_given_up = 0
        """How many slots this node has claimed and released."""
        self.handoff_seconds = 0.0
        """For how long the last ones were served by nobody here before they were somebody else's to take."""
        self.takeovers = 0
        """How many nodes this one has taken over from."""
        self.unconfirmed: Callable[[], None] = lambda: None
        """Called when somebody may have taken over from this node: nobody should count on it any more."""
        self.stuck: str | None = None
        """Why they cannot be, if they cannot."""
        self.settled = False
        """Whether it has served, since it started, all that the ring gave it."""
        node.slots = self._slots
        if self._patience_seconds:
            node.confirmed_until = trio.current_time()

    @property
    def slots_served(self) -> int:
        """How many slots are served now."""
        return len(self._slots.served)

    @property
    def is_confirmed(self) -> bool:
        """Whether nobody can have taken over from this node."""
        return self._node.is_confirmed()

    @property
    def leaving(self) -> bool:
        """Whether it gives its slots to others, because it is about to end."""
        return self._leaving

    async def run(self) -> None:
        """Live, for ever.

        Raises:
            FencedError: Somebody else took over.
            RingRestoredError: the archive was restored to before slots moved.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._beat)
            nursery.start_soon(self._listen)
            nursery.start_soon(self._watch_others)
            if self._patience_seconds:
                nursery.start_soon(self._watch_itself)
            self._noted = await self._ask(self._file.read)
            nursery.start_soon(self._reconcile)

    async def _beat(self, task_status: trio.TaskStatus[None]) -> None:
        """Say that this node lives, for ever."""
        patience_ms = int(self._patience_seconds * 1_000)
        began = trio.current_time()
        while True:
            with suppress(ArchiveUnavailableError):
                await self._say(self._archive.beat, self._node_id, self._node.epoch, patience_ms)
                if self._patience_seconds:
                    # From before it was said: whoever waits, waits from later on.
                    patience = self._patience_seconds * CONFIRMED_SHARE
                    self._node.confirmed_until = began + patience
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            began = max(began + BEAT_SECONDS, trio.current_time())
            await trio.sleep_until(began)

    async def _listen(self) -> None:
        """Hear of the others, for ever."""
        while True:
            asked_at = trio.current_time()
            with suppress(ArchiveUnavailableError):
                beats = await _ask_apart(self._archive.read_beats)
                self._heartbeats.hear(beats, asked_at, trio.current_time())
            await trio.sleep_until(asked_at + BEAT_SECONDS)

    async def _watch_itself(self) -> None:
        """Let go of who follows sessions here while somebody may have taken over, for ever."""
        while True:
            await trio.sleep_until(self._node.confirmed_until)
            if not self._node.is_confirmed():
                self._node.end_tails()
                self.unconfirmed()
                await trio.sleep(BEAT_SECONDS)

    async def _watch_others(self) -> None:
        """Take over from nodes that are gone, for ever."""
        while True:
            await trio.sleep(BEAT_SECONDS)
            ring = self._watch.ring
            for node in ring.nodes:
                silent_seconds = self._heartbeats.silent_seconds(
                    node.node_id, node.epoch, trio.current_time()
                )
                if node.node_id == self._node_id or self._leaving:
                    continue
                if self._heartbeats.reads < HEARINGS:
                    # Who has just come does not know who lives, and would take everything.
                    continue
                # Whatever it is, it is looked at again in a second.
                with suppress(
                    ArchiveUnavailableError,
                    CursorMismatchError,
                    NodeReturnedError,
                    RingChangedError,
                ):
                    if is_due(ring, node, silent_seconds):
                        await self._take_over(node)
                    elif silent_seconds > RETARGET_SECONDS:
                        await self._retarget(ring, node)

    async def _take_over(self, node: NodeEntry) -> None:
        try:
            slots = await take_over(
                self._archive,
                _ask_apart,
                node,
                self._heartbeats.beat_of(node.node_id),
                self.alive,
                self._node_id,
                _now_ms(),
            )
        except (planning.PlanError, CorruptLogError, ArchiveConflictError) as error:
            # It is tried again each second: what hinders is told once.
            if self._hindered.get(node.node_id) != str(error):
                self._hindered[node.node_id] = str(error)
                self._told(node.node_id, error)
            return
        self._hindered.pop(node.node_id, None)
        if slots:
            self.takeovers += 1
            self._told(node.node_id, slots)
        await self._refresh()

    async def _retarget(self, ring: Ring, node: NodeEntry) -> None:
        plan = partial(planning.plan_retarget, ring, node.node_id, self.alive)
        with suppress(planning.PlanError):
            await self._change(partial(plan, actor=self._node_id))

    @property
    def alive(self) -> set[str]:
        """The nodes that were heard of lately."""
        return self._heartbeats.alive(trio.current_time())

    async def leave(self) -> bool:
        """Give all slots to nodes that live, until this one starts again; return False if nobody could take them.

        Returns when it owns none any more, which may be never: bound it.
        """
        self._leaving = True
        node = self._watch.ring.node(self._node_id)
        while node is not None and node.state == ACTIVE:
            try:
                plan = partial(planning.plan_leave, alive=self.alive)
                await self._change(partial(plan, self._watch.ring, self._node_id))
            except planning.PlanError:
                if self._heartbeats.reads >= HEARINGS:
                    return False
                await trio.sleep(RETRY_SECONDS)
                await self._refresh()
            except (RingChangedError, ArchiveUnavailableError):
                await trio.sleep(RETRY_SECONDS)
                await self._refresh()
            else:
                break
        # What is served no more is not given up yet: that takes a flush, and this task to live so long.
        while self._slots.served or self._node_id in self._watch.ring.owners:
            self._watch.hurry()
            await trio.sleep(LEAVE_POLL_SECONDS)
        return True

    async def _reconcile(self) -> None:
        """Bring what is served to what the ring says, again after each change of it."""
        while True:
            ring = self._watch.ring
            try:
                done = await self._step(ring)
            except (ArchiveUnavailableError, RingChangedError):
                await trio.sleep(RETRY_SECONDS)
                done = False
            self.settled = self.settled or done
            if not done:
                # Never again by this ring: it is from before what was done.
                await self._refresh()
            elif self._watch.ring is ring:
                await self._note(slots_of(ring, self._node_id))
                if self._watch.ring is ring:
                    await self._watch.wait_changed()

    async def _note(self, slots: frozenset[int]) -> bool:
        """Note what this node may own, before it does; return False if the disk does not take it now."""
        if slots != self._noted:
            try:
                await self._ask(self._file.write, slots)
            except OSError as error:
                self.stuck = f"{self._file.path} cannot be written: {error}"
                return False
            self._noted = slots
        return True

    def _check_noted(self, slots: Sequence[int]) -> None:
        """Raise `RingRestoredError` if not all of what the archive says is this node's was claimed by it."""
        if self._noted is not None:
            unknown = len(set(slots) - self._noted)
            if unknown:
                raise RingRestoredError(self._node_id, unknown)

    async def _step(self, ring: Ring) -> bool:
        """Do one thing that is to be done; return whether there was nothing."""
        actions = decide(ring, self._node_id, self._slots.served, leaving=self._leaving)
        if self._watch.went_back or actions.lost:
            # Another node owns what is served here, or may: the archive was restored to an older state.
            raise FencedError(self._node_id, self._node.epoch)
        if not actions.release:
            self.stuck = None
        if actions.begin:
            self._check_noted(actions.begin)
            self._slots.begin(actions.begin)
            failpoint("serve.begun")
        elif actions.claim:
            if not await self._note(slots_of(ring, self._node_id).union(actions.claim)):
                await trio.sleep(RETRY_SECONDS)
                return False
            taken = await self._ask(
                self._archive.claim_slots, self._node_id, self._node.epoch, actions.claim
            )
            self.slots_taken += len(taken)
        elif actions.join:
            await self._change(
                partial(planning.plan_join, ring, self._node_id, actor=self._node_id)
            )
        elif actions.release:
            await self._release(actions.release)
        elif (change := planning.plan_drained(ring, self._node_id, at_ms=_now_ms())) is not None:
            await self._ask(self._archive.change_ring, change)
        else:
            return True
        return False

    async def _change(self, plan: Callable[..., PlannedChange | None]) -> None:
        """Work a change out and make it."""
        change = await trio.to_thread.run_sync(partial(plan, at_ms=_now_ms()))
        if change is not None:
            await self._ask(self._archive.change_ring, change)

    async def _release(self, slots: Sequence[int]) -> None:
        """Give slots up, unless the archive does not take what was written in them."""
        node = self._node
        failpoint("handoff.asked")
        # While they are still served: what is left to wait for afterwards is little.
        with trio.move_on_after(FLUSH_SECONDS) as patience:
            await node.flusher.wait_flushed(node.log.durable_lsn)
        if patience.cancelled_caught or node.flusher.failing_since is not None:
            self.stuck = "the archive does not take what is durable"
            await trio.sleep(RETRY_SECONDS)
            return
        began = trio.current_time()
        served = [slot for slot in slots if slot in self._slots.served]
        leaving = self._slots.end(served)
        for key in leaving:
            node.leaving[key] = node.active.pop(key)
        failpoint("handoff.stopped")
        lsn_end = node.log.next_lsn
        with trio.move_on_after(FLUSH_SECONDS) as patience:
            await node.log.wait_durable(lsn_end)
            await node.flusher.wait_flushed(lsn_end)
        if patience.cancelled_caught:
            self._serve_again(served, leaving)
            self.stuck = "the archive does not take what is durable"
            await trio.sleep(RETRY_SECONDS)
            return
        failpoint("handoff.flushed")
        await self._give_up(lsn_end, slots)
        failpoint("handoff.released")
        self.stuck = None
        self.slots_given_up += len(slots)
        self.handoff_seconds = trio.current_time() - began
        for key, server in leaving.items():
            del node.leaving[key]
            server.moved()

    async def _give_up(self, lsn_end: int, slots: Sequence[int]) -> None:
        """Release slots in the archive, however long it takes to be sure of it."""
        while True:
            try:
                await self._ask(
                    self._archive.release_slots,
                    self._node_id,
                    self._node.epoch,
                    lsn_end,
                    slots,
                )
            except ArchiveUnavailableError as error:
                self.stuck = str(error)
                await trio.sleep(RETRY_SECONDS)
            except CursorMismatchError:
                # It went back: what it lost is flushed again from the log.
                self._node.flusher.doubt_cursor()
                await trio.sleep(RETRY_SECONDS)
            else:
                return

    def _serve_again(
        self, slots: Sequence[int], leaving: Mapping[SessionKey, SessionServer]
    ) -> None:
        self._slots.begin(slots)
        for key, server in leaving.items():
            del self._node.leaving[key]
            self._node.active[key] = server
            self._slots.find(key).servers[key] = server

    async def _refresh(self) -> None:
        while True:
            try:
                await self._watch.refresh()
            except ArchiveUnavailableError:
                await trio.sleep(RETRY_SECONDS)
            else:
                return

    async def _ask(self, call: Callable[..., T], *args: object) -> T:
        """Run a blocking call of the archive; one at a time, and always to its end."""
        return await trio.to_thread.run_sync(partial(call, *args), limiter=self._limiter)


async def _ask_apart(call: Callable[..., T], *args: object) -> T:
    """Run a blocking call of the archive that must not wait for others, nor have them wait: always to its end."""
    return await trio.to_thread.run_sync(partial(call, *args))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""Marking what an owner may have taken with it, before its sessions are served again: see `storage.losses`."""

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from runtime.ring import slot_of
from storage import Archive, Loss, Ring

PAGE_SESSIONS = 5_000
"""Looked at in one step, and marked in one transaction at most."""


class Ask(Protocol):
    """Runs a blocking call of the archive."""

    def __call__(self, call: Callable[..., Any], /, *args: object) -> Awaitable[Any]:
        """Return what the call returns."""
        ...


def slots_of(ring: Ring, node_id: str) -> frozenset[int]:
    """Return the slots that a node owns."""
    return frozenset(slot for slot, owner in enumerate(ring.owners) if owner == node_id)


async def mark_lost(
    archive: Archive, ask: Ask, loss: Loss, slots: Collection[int], slots_count: int
) -> None:
    """Mark the sessions of an owner that was given up: those in `slots` of `slots_count`, or all if that is 0.

    It takes as long as there are sessions: each is looked at once. Returns early where others were quicker.

    Raises:
        ArchiveUnavailableError: some are marked, perhaps; marking them again changes nothing.
    """
    after = ("", "")
    while page := await ask(archive.list_session_keys, after, PAGE_SESSIONS):
        after = page[-1]
        keys = [
            (workspace, session)
            for workspace, session in page
            if not slots_count or slot_of(workspace, session, slots_count) in slots
        ]
        if keys and not await ask(archive.mark_lost, loss, keys, time.time_ns() // 1_000_000):
            return


async def settle_losses(archive: Archive, ask: Ask, node_id: str) -> None:
    """Mark what a node that begins would serve, itself given up before or the successor of such a one.

    Of the others in a ring, those mark it who give their slots away (`runtime.takeover`).

    Raises:
        ArchiveUnavailableError: as above.
    """
    for loss in await ask(archive.list_losses):
        slots: Collection[int] = ()
        slots_count = 0
        if loss.in_ring:
            if loss.node_id != node_id:
                continue
            ring = await ask(archive.read_ring)
            slots, slots_count = slots_of(ring, node_id), len(ring.owners)
        await mark_lost(archive, ask, loss, slots, slots_count)
        await ask(archive.settle_loss, loss)

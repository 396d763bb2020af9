"""Marking what an owner may have taken with it, before its sessions are served again: see `storage.losses`."""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
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


async def mark_lost(archive: Archive, ask: Ask, loss: Loss) -> None:
    """Mark the sessions of an owner that was given up, unless they are settled.

    It takes as long as there are sessions: each is looked at once.

    Raises:
        ArchiveUnavailableError: some are marked, perhaps; marking them again changes nothing.
    """
    slots: frozenset[int] = frozenset()
    slots_count = 0
    if not loss.alone:
        ring: Ring = await ask(archive.read_ring)
        slots, slots_count = slots_of(ring, loss.node_id), len(ring.owners)
        if not slots:
            return
    after = ("", "")
    while page := await ask(archive.list_session_keys, after, PAGE_SESSIONS):
        after = page[-1]
        keys = page if loss.alone else await ask(_in_slots, page, slots, slots_count)
        if keys and not await ask(archive.mark_lost, loss, keys, time.time_ns() // 1_000_000):
            return


async def settle_losses(archive: Archive, ask: Ask, node_id: str, *, alone: bool) -> None:
    """Mark what a node that begins may come to serve: of itself, if it was given up, and of those who were alone.

    In a ring, those who give slots away mark what is in them (`runtime.takeover`). A node that begins `alone` serves
    all, whatever a ring said.

    Raises:
        ArchiveUnavailableError: as above.
    """
    for loss in await ask(archive.list_losses):
        if alone or loss.alone or loss.node_id == node_id:
            await mark_lost(archive, ask, loss)
            await ask(archive.settle_loss, loss)


def _in_slots(
    page: Sequence[tuple[str, str]], slots: Collection[int], slots_count: int
) -> list[tuple[str, str]]:
    return [
        (workspace, session)
        for workspace, session in page
        if slot_of(workspace, session, slots_count) in slots
    ]

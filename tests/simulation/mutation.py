"""What can be broken on purpose: the simulation must find each.

Some are statements of the simulated archive, which are ours; the others are edits of the product's own sources.
"""

import enum
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import runtime.cluster
import runtime.member
import runtime.opening
import storage.logopening
from tests.mutants.mutant import Edit, Mutant
from tests.mutants.run import ROOT, mutated
from tests.simulation.scheduler import CLOCKS


class Mutation(enum.StrEnum):
    """One guarantee taken away."""

    NO_EPOCH_CHECK = "no epoch check"
    EPOCH_WITHOUT_LOCK = "epoch read without its lock"
    CURSOR_OUTSIDE = "cursor outside the transaction"
    CURSOR_NOT_COMPARED = "cursor not compared"
    CLAIM_BEFORE_RELEASE = "claim before release"
    DRAIN_PAST_FAILED_FLUSH = "drain past a failed flush"
    IN_DOUBT_REOPENS = "in-doubt release reopens intake"
    LOCAL_ONLY = "ack after local only"
    BATCH_WITHOUT_LOCK = "batch added without the epoch's lock"
    READ_BEFORE_SEAL = "log_batches read before the seal"
    GIVEN_AWAY_FIRST = "slots given away before batches are archived"
    SEAL_NOT_HELD = "slots given away without the sealed epoch"
    EPOCH_DIFFERENCE = "epoch difference instead of sealed_epoch"
    NOTHING_SET_ASIDE = "nothing set aside"


MEMBER = "runtime/member.py"
RECONCILE = "runtime/reconcile.py"
TAKEOVER = "runtime/takeover.py"
COMMIT_LOG = "storage/commitlog.py"
RECOVERY = "storage/recovery.py"

_GIVE_UP = "        await self._give_up(lsn_end, slots)\n"

EDITS = {
    # The archive would not let it; `SimulatedArchive` does, with this mutation.
    Mutation.CLAIM_BEFORE_RELEASE: (
        Edit(RECONCILE, "elif not owner and target == node_id:", "elif target == node_id:"),
    ),
    # The archive would refuse a release at a cursor that it has not reached: so that goes too.
    Mutation.DRAIN_PAST_FAILED_FLUSH: (
        Edit(
            MEMBER,
            "if patience.cancelled_caught or node.flusher.failing_since is not None:",
            "if False:",
        ),
        Edit(
            MEMBER,
            "if patience.cancelled_caught:\n            self._serve",
            "if False:\n            self._serve",
        ),
        Edit(MEMBER, _GIVE_UP, "        await self._give_up(0, slots)\n"),
    ),
    Mutation.IN_DOUBT_REOPENS: (
        Edit(
            MEMBER,
            _GIVE_UP,
            "        try:\n"
            "            epoch = self._node.epoch\n"
            "            release = self._archive.release_slots\n"
            "            await self._ask(release, self._node_id, epoch, lsn_end, slots)\n"
            "        except ArchiveUnavailableError:\n"
            "            self._serve_again(served, leaving)\n"
            "            return\n",
        ),
    ),
    # The next batch waits for the one before, so that they are there in order all the same.
    Mutation.LOCAL_ONLY: (
        Edit(COMMIT_LOG, "        await replica.finish()\n", ""),
        Edit(
            COMMIT_LOG,
            "        replica.begin(Batch(",
            "        if replica._batch is not None:\n"
            "            await replica.finish()\n"
            "        replica.begin(Batch(",
        ),
    ),
    Mutation.READ_BEFORE_SEAL: (
        Edit(
            TAKEOVER,
            "    if not dead.sealed:\n",
            "    cursor = (await ask(archive.read_cursor, dead.node_id)).cursor\n"
            "    stored = await ask(archive.read_batches, dead.node_id, cursor)\n"
            "    if not dead.sealed:\n",
        ),
        # A node that was heard of meanwhile would not be sealed: it is one that adds.
        Edit(TAKEOVER, "dead.node_id, dead.epoch, beat)", "dead.node_id, dead.epoch)"),
        Edit(
            TAKEOVER,
            "    await archive_batches(archive, ask, dead.node_id, dead.epoch)\n",
            "    records = [decode_record(each) for each in stored]\n"
            "    with suppress(CursorMismatchError):\n"
            "        await ask(archive.flush_sealed, dead.node_id, dead.epoch, cursor, records)\n",
        ),
    ),
    Mutation.GIVEN_AWAY_FIRST: (
        Edit(TAKEOVER, "    await archive_batches(archive, ask, dead.node_id, dead.epoch)\n", ""),
    ),
    Mutation.EPOCH_DIFFERENCE: (
        Edit(
            RECOVERY,
            "_is_taken_over(findings, cursor, sealed_epoch)\n    if",
            "_is_taken_over(findings, cursor, epoch - 2)\n    if",
        ),
    ),
    Mutation.NOTHING_SET_ASIDE: (
        Edit(
            RECOVERY,
            "_is_taken_over(findings, cursor, sealed_epoch)\n    if",
            "_is_taken_over(findings, cursor, 0)\n    if",
        ),
    ),
}

USES: dict[str, tuple[ModuleType, str]] = {
    MEMBER: (runtime.cluster, "Member"),
    TAKEOVER: (runtime.member, "take_over"),
    COMMIT_LOG: (storage.logopening, "CommitLog"),
    RECOVERY: (storage.logopening, "recover"),
}
"""Which name of which module is what an edited file has under that name."""


@contextmanager
def applied(mutation: Mutation | None) -> Iterator[None]:
    """Let nodes and clusters that are opened meanwhile be as a mutation makes them."""
    with ExitStack() as stack:
        for path, module in _edited(mutation).items() if mutation in EDITS else ():
            # What was set in the module for this schedule holds for its copy too.
            for original, name, value in CLOCKS:
                if original.__name__ == module.__name__:
                    setattr(module, name, value)
            if path in USES:
                user, name = USES[path]
                stack.callback(setattr, user, name, getattr(user, name))
                setattr(user, name, getattr(module, name))
        yield


@cache
def _edited(mutation: Mutation) -> dict[str, Any]:
    """Return copies of the modules that a mutation edits, by path; `member` over the copy of `reconcile`."""
    paths = dict.fromkeys(edit.path for edit in EDITS[mutation])
    if RECONCILE in paths:
        paths[MEMBER] = None
    originals = {path: (ROOT / path).read_text() for path in paths}
    texts = mutated(originals, Mutant(mutation, EDITS[mutation], ()))
    copies = {path: _module(path, texts[path]) for path in paths}
    if RECONCILE in copies:
        copies[MEMBER].decide = copies[RECONCILE].decide
    return copies


def _module(path: str, text: str) -> Any:
    module: Any = ModuleType(path.removesuffix(".py").replace("/", "."))
    exec(compile(text, path, "exec"), module.__dict__)
    return module

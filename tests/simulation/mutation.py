"""What can be broken on purpose: the simulation must find each.

Some are statements of the simulated archive, which are ours; the others are edits of the product's own sources.
"""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import runtime.cluster
import runtime.member
from tests.mutants.mutant import Edit, Mutant
from tests.mutants.run import ROOT, mutated


class Mutation(enum.StrEnum):
    """One guarantee taken away."""

    NO_EPOCH_CHECK = "no epoch check"
    EPOCH_WITHOUT_LOCK = "epoch read without its lock"
    CURSOR_OUTSIDE = "cursor outside the transaction"
    CURSOR_NOT_COMPARED = "cursor not compared"
    CLAIM_BEFORE_RELEASE = "claim before release"
    DRAIN_PAST_FAILED_FLUSH = "drain past a failed flush"
    IN_DOUBT_REOPENS = "in-doubt release reopens intake"


MEMBER = "runtime/member.py"
RECONCILE = "runtime/reconcile.py"

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
}


@contextmanager
def applied(mutation: Mutation | None) -> Iterator[None]:
    """Let clusters that are opened meanwhile have members as a mutation makes them."""
    if mutation not in EDITS:
        yield
        return
    broken = _broken_member(mutation)
    cluster: Any = runtime.cluster
    kept = cluster.Member
    # What was set in the module for this schedule holds for its copy too.
    broken.FLUSH_SECONDS = runtime.member.FLUSH_SECONDS
    cluster.Member = broken.Member
    try:
        yield
    finally:
        cluster.Member = kept


@cache
def _broken_member(mutation: Mutation) -> Any:
    """Return a copy of the module `runtime.member`, edited, over a copy of `runtime.reconcile`."""
    paths = (RECONCILE, MEMBER)
    originals = {path: (ROOT / path).read_text() for path in paths}
    texts = mutated(originals, Mutant(mutation, EDITS[mutation], ()))
    reconcile, member = (_module(path, texts[path]) for path in paths)
    member.decide = reconcile.decide
    return member


def _module(path: str, text: str) -> Any:
    module: Any = ModuleType(path.removesuffix(".py").replace("/", "."))
    exec(compile(text, path, "exec"), module.__dict__)
    return module

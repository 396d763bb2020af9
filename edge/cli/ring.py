"""`ringlog ring …`: who owns what, what a change would move, and making it.

The commands talk to the archive: the nodes learn of a change from there, and carry it out by themselves. So a
command that is interrupted has either made its change or not, and `--wait` may be taken up again.
"""

import getpass
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.node import parse_node_id
from edge.cli.options import Json, takes
from edge.cli.output import Output, confirm
from edge.config import Config

if TYPE_CHECKING:
    from runtime import Move
    from storage import Archive, PlannedChange, Ring

POLL_SECONDS = 0.2

TRIES_MAX = 10
"""How often a change is worked out anew because the ring has changed meanwhile: nodes that move slots do that."""

commands = typer.Typer(
    help="The ring: which node owns which sessions, and changing it.", no_args_is_help=True
)


class Steps(NamedTuple):
    """What is to be done with a change that was worked out: ask first, only show it, wait for it."""

    question: str | None
    dry_run: bool
    wait_seconds: float | None


NodeId = Annotated[str, typer.Argument(metavar="NODE_ID", help="from `ringlog ring show`")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would move, and change nothing")]
Wait = Annotated[bool, typer.Option("--wait", help="return when everything has moved")]
Timeout = Annotated[
    float, typer.Option("--wait-seconds", metavar="SECONDS", min=0, help="wait at most so long")
]


@commands.command("show")
@takes(Config, "archive", "data")
def show(*, config: Config, as_json: Json = False) -> None:
    """Show the nodes, what each owns, and what is moving.

    \b
      ringlog ring show
    """
    with _open_ring(config) as (_, ring):
        rows = _node_rows(ring)
    moving = sum(a != b for a, b in zip(ring.owners, ring.targets, strict=True))
    output = Output(as_json=as_json)
    output.table(
        rows,
        "no node has a place in the ring",
        version=ring.version,
        slots=len(ring.owners),
        moving=moving,
    )
    output.note(f"version {ring.version}, {len(ring.owners)} slots, {moving} on their way")


@commands.command("history")
@takes(Config, "archive", "data")
def history(
    *,
    config: Config,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="the newest so many")] = 20,
    as_json: Json = False,
) -> None:
    """List the changes of the ring, newest first: when, who asked, for what.

    \b
      ringlog ring history --limit 5
    """
    from runtime import format_time

    with open_existing_archive(config) as archive:
        changes = archive.list_ring_changes(limit)
    rows = [
        {
            "version": change.version,
            "at": format_time(change.at_ms),
            "actor": change.actor,
            "action": change.action,
            "node_id": change.node_id,
            "slots_moved": change.slots_moved,
        }
        for change in changes
    ]
    Output(as_json=as_json).table(rows, "nothing was changed yet")


@commands.command("join")
@takes(Config, "archive", "data")
def join(
    *,
    config: Config,
    node_id: NodeId,
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give a node that waits its share of the sessions.

    \b
      ringlog ring join NODE_ID --wait
    """
    from runtime import plan_join

    plan = partial(plan_join, node_id=parse_node_id(node_id))
    steps = Steps(None, dry_run=dry_run, wait_seconds=wait_seconds if wait else None)
    _carry_out(config, plan, steps, Output(as_json=as_json))


@commands.command("drain")
@takes(Config, "archive", "data")
def drain(
    *,
    config: Config,
    node_id: NodeId,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Move everything that a node owns to the others, so that it can be stopped.

    \b
      ringlog ring drain NODE_ID --wait
    """
    from runtime import plan_drain

    plan = partial(plan_drain, node_id=parse_node_id(node_id))
    steps = Steps(
        None if yes or dry_run else "drain it?",
        dry_run=dry_run,
        wait_seconds=wait_seconds if wait else None,
    )
    _carry_out(config, plan, steps, Output(as_json=as_json))


@commands.command("undrain")
@takes(Config, "archive", "data")
def undrain(
    *,
    config: Config,
    node_id: NodeId,
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give a node that was drained its share again.

    \b
      ringlog ring undrain NODE_ID
    """
    from runtime import plan_undrain

    plan = partial(plan_undrain, node_id=parse_node_id(node_id))
    steps = Steps(None, dry_run=dry_run, wait_seconds=wait_seconds if wait else None)
    _carry_out(config, plan, steps, Output(as_json=as_json))


@commands.command("weight")
@takes(Config, "archive", "data")
def weight(
    *,
    config: Config,
    node_id: NodeId,
    share: Annotated[int, typer.Argument(metavar="WEIGHT", help="1 to 100")],
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Change how large a node's share is beside the others'.

    \b
      ringlog ring weight NODE_ID 2
    """
    from runtime import plan_weight

    plan = partial(plan_weight, node_id=parse_node_id(node_id), weight=share)
    steps = Steps(None, dry_run=dry_run, wait_seconds=wait_seconds if wait else None)
    _carry_out(config, plan, steps, Output(as_json=as_json))


@commands.command("rebalance")
@takes(Config, "archive", "data")
def rebalance(
    *,
    config: Config,
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give every slot the owner that it would have if the ring were made anew.

    \b
      ringlog ring rebalance --dry-run
    """
    from runtime import plan_rebalance

    steps = Steps(None, dry_run=dry_run, wait_seconds=wait_seconds if wait else None)
    _carry_out(config, plan_rebalance, steps, Output(as_json=as_json))


@contextmanager
def _open_ring(config: Config) -> "Iterator[tuple[Archive, Ring]]":
    with open_existing_archive(config) as archive:
        ring = archive.read_ring()
        if not ring.owners:
            raise CommandError(
                "not_found",
                "no node of this archive has a place in a ring",
                "start one with --link HOST:PORT",
                ExitCode.NOT_FOUND,
            )
        yield archive, ring


def _carry_out(
    config: Config, plan: "Callable[..., PlannedChange]", steps: Steps, output: Output
) -> None:
    """Work a change out, say what it moves, make it, and wait for it, as was asked."""
    from runtime import planned_moves

    with _open_ring(config) as (archive, ring):
        change = _worked_out(plan, ring)
        moves = planned_moves(ring, change)
        for (source, target), count in sorted(Counter(map(_ends, moves)).items()):
            output.note(f"{count} slots: {source} → {target}")
        output.note(f"{len(moves)} of {len(ring.owners)} slots move")
        if not steps.dry_run:
            if steps.question is not None:
                confirm(steps.question, "a node that drains gives up all its sessions")
            _make(archive, plan, change)
            if steps.wait_seconds is not None:
                _wait_settled(archive, steps.wait_seconds, output)
        if output.as_json:
            fields: dict[str, Any] = {"action": change.action, "node_id": change.node_id}
            fields |= {"dry_run": steps.dry_run, "moves": [move._asdict() for move in moves]}
            output.json(fields)


def _make(
    archive: "Archive", plan: "Callable[..., PlannedChange]", change: "PlannedChange"
) -> None:
    """Make a change; work it out anew where the ring has changed since, as it does while slots move."""
    from storage import RingChangedError

    for _ in range(TRIES_MAX):
        try:
            archive.change_ring(change)
        except RingChangedError:
            change = _worked_out(plan, archive.read_ring())
        else:
            return
    raise CommandError("ring_changed", "the ring changes all the time", "try again later")


def _ends(move: "Move") -> tuple[str, str]:
    return move.source or "nobody", move.target or "nobody"


def _worked_out(plan: "Callable[..., PlannedChange]", ring: "Ring") -> "PlannedChange":
    from runtime import PlanError

    try:
        return plan(ring, at_ms=time.time_ns() // 1_000_000, actor=_actor())
    except PlanError as error:
        raise CommandError(error.code, str(error), error.hint) from None


def _wait_settled(archive: "Archive", seconds: float, output: Output) -> None:
    """Wait until every slot has the owner that it should have, showing how many have not."""
    give_up_at = time.monotonic() + seconds
    shown = -1
    while True:
        ring = archive.read_ring()
        moving = sum(a != b for a, b in zip(ring.owners, ring.targets, strict=True))
        if moving != shown:
            output.note(f"{moving} slots on their way")
            shown = moving
        if not moving:
            return
        if time.monotonic() > give_up_at:
            raise CommandError(
                "timeout",
                f"{moving} slots are on their way after {seconds:g} seconds",
                "they go on by themselves; see `ringlog ring show`, and the logs of their owners",
                ExitCode.TIMEOUT,
            )
        threading.Event().wait(POLL_SECONDS)


def _node_rows(ring: "Ring") -> list[dict[str, Any]]:
    owned, meant = Counter(ring.owners), Counter(ring.targets)
    return [
        {
            "node_id": node.node_id,
            "state": node.state,
            "weight": node.weight,
            "slots": owned[node.node_id],
            "slots_meant": meant[node.node_id],
            "link": node.address,
            "epoch": node.epoch,
            "retired": node.sealed,
        }
        for node in ring.nodes
    ]


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "?"

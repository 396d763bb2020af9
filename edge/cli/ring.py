"""`ringlog ring …`: who owns what, what a change would move, and making it.

The commands talk to the archive: the nodes learn of a change from there, and carry it out by themselves. So a
command that is interrupted has either made its change or not, and `--wait` may be taken up again by `ring wait`.
"""

import enum
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.node import parse_node_id
from edge.cli.options import Json, takes
from edge.cli.output import Output
from edge.cli.ringwork import (
    Steps,
    change_ring,
    count_sessions,
    listen,
    named,
    open_ring,
    slot_text,
    wait_settled,
)
from edge.config import Config

if TYPE_CHECKING:
    from edge.http_bodies import RingPlan
    from runtime import Ask

SESSIONS_LISTED_MAX = 10_000

commands = typer.Typer(
    help="The ring: which node owns which sessions, and changing it.", no_args_is_help=True
)


class ActionName(enum.StrEnum):
    """What can be asked of the ring."""

    JOIN = "join"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    WEIGHT = "weight"
    REMOVE = "remove"
    REBALANCE = "rebalance"


NodeId = Annotated[str, typer.Argument(metavar="NODE_ID", help="from `ringlog ring show`")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would move, and change nothing")]
Force = Annotated[
    bool, typer.Option("--force", help="give slots also to nodes that are not heard of")
]
Wait = Annotated[bool, typer.Option("--wait", help="return when everything has moved")]
Timeout = Annotated[
    float, typer.Option("--wait-seconds", metavar="SECONDS", min=0, help="wait at most so long")
]


@commands.command("show")
@takes(Config, "archive", "data")
def show(
    *,
    config: Config,
    probe: Annotated[
        bool, typer.Option("--probe", help="listen 2.5 seconds: who of them lives?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the nodes, what each owns, and what is moving.

    \b
      ringlog ring show
      ringlog ring show --probe
    """
    import msgspec

    from edge.ringview import view_ring

    with open_ring(config) as (archive, ring):
        beats = listen(archive) if probe else None
        found = archive.read_ring() if probe else ring
    state = msgspec.to_builtins(view_ring(found, beats))
    rows = state.pop("data")
    output = Output(as_json=as_json)
    output.table(rows, "no node has a place in the ring", **state)
    output.note(
        f"version {state['version']}, {state['slots']} slots, {state['moving']} on their way"
    )


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
    import msgspec

    from edge.ringview import view_history

    with open_existing_archive(config) as archive:
        changes = archive.list_ring_changes(limit)
    rows = msgspec.to_builtins(view_history(changes))["data"]
    Output(as_json=as_json).table(rows, "nothing was changed yet")


@commands.command("plan")
@takes(Config, "archive", "data")
def plan(
    *,
    config: Config,
    action: Annotated[
        ActionName,
        typer.Argument(metavar="ACTION", help="what would be asked: drain, for instance"),
    ],
    node_id: Annotated[
        str, typer.Argument(metavar="NODE_ID", help="the node, but for rebalance")
    ] = "",
    weight: Annotated[
        int | None, typer.Argument(metavar="WEIGHT", help="1 to 100, for weight")
    ] = None,
    sessions: Annotated[
        bool, typer.Option("--sessions", help="name the sessions that would move")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=SESSIONS_LISTED_MAX, metavar="N", help="so many of them")
    ] = 1_000,
    as_json: Json = False,
) -> None:
    """Say which slots, and how many sessions, a change would move; nothing is changed.

    Sessions are counted in the archive, where a new one is after some 0.3 seconds.

    \b
      ringlog ring plan drain NODE_ID
      ringlog ring plan weight NODE_ID 2 --sessions --limit 20
      ringlog ring plan rebalance --json | jq .sessions_moved
    """
    from edge.ringview import view_plan
    from runtime import SessionCount, work_out

    ask = _ask(action, node_id, weight)
    output = Output(as_json=as_json)
    with open_ring(config) as (archive, ring):
        made = work_out(ring, ask, "")
        keep = limit if sessions else 0
        count = SessionCount(archive, made.moves, len(ring.owners), keep=keep)
        count_sessions(count, output)
    _print_plan(view_plan(made, count, listed=sessions), output)


@commands.command("wait")
@takes(Config, "archive", "data")
def wait_for_ring(*, config: Config, wait_seconds: Timeout = 600.0, as_json: Json = False) -> None:
    """Wait until every slot has the owner that it should have, and no node drains any more.

    \b
      ringlog ring wait --wait-seconds 60
    """
    output = Output(as_json=as_json)
    with open_ring(config) as (archive, _):
        wait_settled(archive, wait_seconds, output)
        version = archive.read_ring_version()
    if as_json:
        output.json({"version": version, "moving": 0})


@commands.command("join")
@takes(Config, "archive", "data")
def join(
    *,
    config: Config,
    node_id: NodeId,
    dry_run: DryRun = False,
    force: Force = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give a node that waits its share of the sessions.

    \b
      ringlog ring join NODE_ID --wait
    """
    steps = Steps(dry_run=dry_run, force=force, wait_seconds=wait_seconds if wait else None)
    change_ring(config, _ask(ActionName.JOIN, node_id), steps, Output(as_json=as_json))


@commands.command("drain")
@takes(Config, "archive", "data")
def drain(
    *,
    config: Config,
    node_id: NodeId,
    yes: Yes = False,
    dry_run: DryRun = False,
    force: Force = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Move everything that a node owns to the others, so that it can be stopped.

    \b
      ringlog ring drain NODE_ID --wait
    """
    steps = Steps(
        None if yes else "drain it?",
        "a node that drains gives up all its sessions",
        dry_run=dry_run,
        force=force,
        wait_seconds=wait_seconds if wait else None,
    )
    change_ring(config, _ask(ActionName.DRAIN, node_id), steps, Output(as_json=as_json))


@commands.command("undrain")
@takes(Config, "archive", "data")
def undrain(
    *,
    config: Config,
    node_id: NodeId,
    dry_run: DryRun = False,
    force: Force = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give a node that was drained its share again.

    \b
      ringlog ring undrain NODE_ID
    """
    steps = Steps(dry_run=dry_run, force=force, wait_seconds=wait_seconds if wait else None)
    change_ring(config, _ask(ActionName.UNDRAIN, node_id), steps, Output(as_json=as_json))


@commands.command("weight")
@takes(Config, "archive", "data")
def weight(
    *,
    config: Config,
    node_id: NodeId,
    share: Annotated[int, typer.Argument(metavar="WEIGHT", help="1 to 100")],
    dry_run: DryRun = False,
    force: Force = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Change how large a node's share is beside the others'.

    \b
      ringlog ring weight NODE_ID 2
    """
    steps = Steps(dry_run=dry_run, force=force, wait_seconds=wait_seconds if wait else None)
    ask = _ask(ActionName.WEIGHT, node_id, share)
    change_ring(config, ask, steps, Output(as_json=as_json))


@commands.command("remove")
@takes(Config, "archive", "data")
def remove(
    *,
    config: Config,
    node_id: NodeId,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take a node that was drained and stopped out of the ring. If it starts again, it comes as a new one.

    \b
      ringlog ring drain NODE_ID --wait    then stop its process
      ringlog ring remove NODE_ID
    """
    steps = Steps(
        None if yes else "remove it?",
        "a node that is removed has no place in the ring until it starts again",
        dry_run=dry_run,
    )
    change_ring(config, _ask(ActionName.REMOVE, node_id), steps, Output(as_json=as_json))


@commands.command("rebalance")
@takes(Config, "archive", "data")
def rebalance(
    *,
    config: Config,
    dry_run: DryRun = False,
    force: Force = False,
    wait: Wait = False,
    wait_seconds: Timeout = 600.0,
    as_json: Json = False,
) -> None:
    """Give every slot the owner that it would have if the ring were made anew.

    \b
      ringlog ring rebalance --dry-run
    """
    steps = Steps(dry_run=dry_run, force=force, wait_seconds=wait_seconds if wait else None)
    change_ring(config, _ask(ActionName.REBALANCE), steps, Output(as_json=as_json))


def _ask(action: ActionName, node_id: str = "", weight: int | None = None) -> "Ask":
    """Return what is asked for.

    Raises:
        CommandError: a node or a weight is missing, or is there for nothing.
    """
    from runtime import Ask

    needs_node, needs_weight = action != ActionName.REBALANCE, action == ActionName.WEIGHT
    if needs_node and not node_id:
        raise _usage(f"{action} needs a NODE_ID", "see `ringlog ring show`")
    if node_id and not needs_node:
        raise _usage(f"{action} takes no NODE_ID", "leave it out")
    if needs_weight and weight is None:
        raise _usage(f"{action} needs a WEIGHT", f"ringlog ring plan weight {node_id} 2")
    if weight is not None and not needs_weight:
        raise _usage(f"{action} takes no WEIGHT", "leave it out")
    return Ask(action.value, parse_node_id(node_id) if node_id else "", weight or 0)


def _usage(message: str, hint: str) -> CommandError:
    return CommandError("usage", message, hint, ExitCode.USAGE)


def _print_plan(plan: "RingPlan", output: Output) -> None:
    import msgspec

    if output.as_json:
        output.json(msgspec.to_builtins(plan))
        return
    whole = not sys.stdout.isatty()
    rows: list[dict[str, Any]] = []
    for pair in plan.pairs:
        source, target = named(pair)
        ranges = slot_text(pair.ranges, whole=whole)
        rows.append(
            {"source": source, "target": target, "slots": pair.slots, "sessions": pair.sessions}
            | {"ranges": ranges}
        )
    output.table(rows, "nothing would move")
    if isinstance(plan.sessions, list):
        print()
        output.table([msgspec.to_builtins(move) for move in plan.sessions], "no session would move")
    output.note(
        f"{plan.slots_moved} of {plan.slots} slots would move, with {plan.sessions_moved} sessions"
    )
    listed = 0 if plan.sessions is msgspec.UNSET else len(plan.sessions)
    if 0 < listed < plan.sessions_moved:
        output.note(f"{listed} of them are listed: --limit")

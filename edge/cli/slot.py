"""`ringlog slot …`: one slot of the ring, or the one that a session is in."""

from typing import Annotated, Any

import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output
from edge.cli.ringwork import count_sessions, open_ring
from edge.config import Config

commands = typer.Typer(help="Slots: what the ring is divided into.", no_args_is_help=True)


@commands.command("show")
@takes(Config, "archive", "data")
def show(
    *,
    config: Config,
    slot: Annotated[int | None, typer.Argument(metavar="SLOT", min=0, help="its number")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="instead: the slot of this session")
    ] = None,
    workspace: Annotated[
        str, typer.Option(metavar="WORKSPACE", help="the session's workspace")
    ] = "default",
    as_json: Json = False,
) -> None:
    """Show who owns a slot, who should own it, and how many sessions are in it.

    \b
      ringlog slot show 17
      ringlog slot show --session demo
    """
    from runtime import SessionCount, slot_of

    if (slot is None) == (session is None):
        raise CommandError(
            "usage", "give a SLOT, or --session ID", "ringlog slot show -h", ExitCode.USAGE
        )
    output = Output(as_json=as_json)
    with open_ring(config) as (archive, ring):
        slots = len(ring.owners)
        fields: dict[str, Any] = {}
        if session is not None:
            slot = slot_of(workspace, session, slots)
            there = bool(archive.find_sessions([(workspace, session)]))
            fields = {"workspace": workspace, "session": session, "exists": there}
        assert slot is not None
        if slot >= slots:
            raise CommandError(
                "slot_not_found",
                f"there is no slot {slot}",
                f"slots are 0 to {slots - 1}",
                ExitCode.NOT_FOUND,
            )
        count = SessionCount(archive, [], slots, keep=0)
        count_sessions(count, output)
    output.fields(
        {"slot": slot}
        | fields
        | {
            "owner": ring.owners[slot] or None,
            "target": ring.targets[slot] or None,
            "sessions": count.by_slot[slot],
        }
    )

"""`ringlog node …`: which node owns an archive, and how to end its ownership when its data directory is lost."""

import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, confirm, note
from edge.config import Config

if TYPE_CHECKING:
    from storage import NodeState

commands = typer.Typer(help="Nodes: which one owns the archive.", no_args_is_help=True)


@commands.command("list")
@takes(Config, "archive", "data")
def list_nodes(*, config: Config, as_json: Json = False) -> None:
    """List every node that ever started on the archive; one that is not retired owns it.

    \b
      ringlog node list
    """
    with open_existing_archive(config) as archive:
        nodes = archive.list_nodes()
    rows = [
        {
            "node_id": node.node_id,
            "epoch": node.epoch,
            "flushed_lsn": node.cursor,
            "retired": node.retired,
        }
        for node in nodes
    ]
    Output(as_json=as_json).table(rows, "no node has started on this archive")


@commands.command("retire")
@takes(Config, "archive", "data")
def retire(
    *,
    config: Config,
    node_id: Annotated[str, typer.Argument(metavar="NODE_ID", help="from `ringlog node list`")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Give up a node whose data directory is lost, so that another may own the archive.

    What it acknowledged and did not flush is lost, so start its data directory instead if there still is one.

    \b
      ringlog node retire 7c0e5a1de3664a2c8f0c4c3a2b1f9d10
    """
    wanted = parse_node_id(node_id)
    with open_existing_archive(config) as archive:
        node = next((each for each in archive.list_nodes() if each.node_id == wanted), None)
        if node is None or node.retired:
            why = "there is no node" if node is None else "retired already: node"
            raise CommandError(
                "not_found", f"{why} {wanted}", "see `ringlog node list`", ExitCode.NOT_FOUND
            )
        if not (as_json and yes):
            note(_consequence(node))
        if not yes:
            confirm("retire it?", "what a retired node did not flush is lost")
        if not archive.retire_node(wanted, node.epoch):
            raise CommandError(
                "conflict",
                f"node {wanted} was started or retired meanwhile",
                "look again: ringlog node list",
                ExitCode.NOT_FOUND,
            )
    if as_json:
        fields = {"node_id": wanted, "epoch": node.epoch, "flushed_lsn": node.cursor}
        Output(as_json=True).json(fields | {"retired": True})
    else:
        note(f"{wanted} is retired")


def _consequence(node: "NodeState") -> str:
    return (
        f"node {node.node_id}, epoch {node.epoch}: everything below LSN {node.cursor} of its log is in the archive.\n"
        "Messages that it acknowledged and did not flush are lost for the archive, unless its data directory\n"
        "is started first. Stop its server before: one that runs acknowledges until its next flush."
    )


def parse_node_id(node_id: str) -> str:
    """Return the id as the archive writes it; the file `node_id` has it with dashes."""
    try:
        return uuid.UUID(node_id).hex
    except ValueError:
        raise CommandError(
            "invalid_field",
            f"{node_id} is no node id",
            "see `ringlog node list`",
            ExitCode.USAGE,
        ) from None

"""`ringlog node …`: the nodes of an archive, and how to end one whose data directory is lost."""

import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, confirm, note
from edge.config import Config

if TYPE_CHECKING:
    from storage import NodeState, Ring

commands = typer.Typer(help="Nodes: who they are, and ending a lost one.", no_args_is_help=True)

NodeId = Annotated[str, typer.Argument(metavar="NODE_ID", help="from `ringlog node list`")]


@commands.command("list")
@takes(Config, "archive", "data")
def list_nodes(*, config: Config, as_json: Json = False) -> None:
    """List every node that ever started on the archive; one that is not retired may own sessions of it.

    \b
      ringlog node list
    """
    with open_existing_archive(config) as archive:
        nodes = archive.list_nodes()
        ring = archive.read_ring()
    rows = [_node_row(node, ring) for node in nodes]
    Output(as_json=as_json).table(rows, "no node has started on this archive")


@commands.command("show")
@takes(Config, "archive", "data")
def show(
    *,
    config: Config,
    node_id: NodeId,
    probe: Annotated[
        bool, typer.Option("--probe", help="listen up to 2.5 seconds: does it live?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a node: its place in the ring, what it owns, how far its log is in the archive.

    \b
      ringlog node show 7c0e5a1de3664a2c8f0c4c3a2b1f9d10 --probe
    """
    from edge.cli.ringwork import listen

    wanted = parse_node_id(node_id)
    with open_existing_archive(config) as archive:
        node = next((each for each in archive.list_nodes() if each.node_id == wanted), None)
        if node is None:
            raise _no_node(wanted)
        ring = archive.read_ring()
        fields = _node_row(node, ring)
        entry = ring.node(wanted)
        fields |= {
            "weight": None if entry is None else entry.weight,
            "link": None if entry is None or not entry.address else entry.address,
            "slots": ring.owners.count(wanted),
            "slots_meant": ring.targets.count(wanted),
        }
        if probe:
            fields["alive"] = listen(archive, {wanted}).heard({wanted})
    Output(as_json=as_json).fields(fields)


@commands.command("retire")
@takes(Config, "archive", "data")
def retire(
    *,
    config: Config,
    node_id: NodeId,
    lost: Annotated[
        bool,
        typer.Option(
            "--lost",
            help="messages may be missing though it stopped in good order: the archive was restored",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Give up a node whose data directory is lost, so that another may own the archive.

    With `local` durability what it acknowledged and did not flush is lost, so start its data directory instead if
    there still is one. Readers of its sessions are told by a gap. The owners that live, if there are any, get its sessions.

    \b
      ringlog node retire 7c0e5a1de3664a2c8f0c4c3a2b1f9d10
    """
    wanted = parse_node_id(node_id)
    with open_existing_archive(config) as archive:
        node = next((each for each in archive.list_nodes() if each.node_id == wanted), None)
        if node is None:
            raise _no_node(wanted)
        if node.retired:
            raise CommandError(
                "not_found",
                f"retired already: node {wanted}",
                "see `ringlog node list`",
                ExitCode.NOT_FOUND,
            )
        if not (as_json and yes):
            note(_consequence(node, archive.read_level()))
        if not yes:
            confirm("retire it?", "a retired node acknowledges nothing more")
        if not archive.retire_node(wanted, node.epoch, lost=lost):
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


def _node_row(node: "NodeState", ring: "Ring") -> dict[str, Any]:
    """Return what is known of a node; the state is that in the ring, if it has a place there."""
    entry = ring.node(node.node_id)
    return {
        "node_id": node.node_id,
        "in_ring": entry is not None,
        "state": None if entry is None else entry.state,
        "epoch": node.epoch,
        "flushed_lsn": node.cursor,
        "retired": node.retired,
    }


def _no_node(node_id: str) -> CommandError:
    return CommandError(
        "node_not_found",
        f"there is no node {node_id}",
        "see `ringlog node list`",
        ExitCode.NOT_FOUND,
    )


def _consequence(node: "NodeState", level: str) -> str:
    if level == "replicated":
        return (
            f"node {node.node_id}, epoch {node.epoch}: everything that it acknowledged is in the archive, and its sessions\n"
            "go to owners that live, or to the node that is started in its place. A server of it that still runs ends."
        )
    return (
        f"node {node.node_id}, epoch {node.epoch}: everything below LSN {node.cursor} of its log is in the archive.\n"
        "Messages that it acknowledged and did not flush are lost for the archive, unless its data directory\n"
        "is started first; readers are shown a gap. Stop its server before: one that runs acknowledges until its next flush."
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

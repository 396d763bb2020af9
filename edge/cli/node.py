"""`ringlog node …`: which node owns an archive, and how to end its ownership when its data directory is lost."""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, note
from edge.config import Config

if TYPE_CHECKING:
    from storage import Archive

commands = typer.Typer(help="Nodes: which one owns the archive.", no_args_is_help=True)


@commands.command("list")
@takes(Config, "archive", "data")
def list_nodes(*, config: Config, as_json: Json = False) -> None:
    """List every node that ever started on the archive; one that is not retired owns it.

    \b
      ringlog node list
    """
    with _open_archive(config) as archive:
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
    wanted = _parse(node_id)
    with _open_archive(config) as archive:
        node = next((each for each in archive.list_nodes() if each.node_id == wanted), None)
        if node is None or node.retired:
            why = "there is no node" if node is None else "retired already: node"
            raise CommandError(
                "not_found", f"{why} {wanted}", "see `ringlog node list`", ExitCode.NOT_FOUND
            )
        note(
            f"node {wanted}, epoch {node.epoch}: everything below LSN {node.cursor} of its log is in the archive.\n"
            "Messages that it acknowledged and did not flush are lost for the archive, unless its data directory\n"
            "is started first. Stop its server before: one that runs acknowledges until its next flush."
        )
        if not yes:
            _confirm()
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


def _parse(node_id: str) -> str:
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


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "not_confirmed",
            "what a retired node did not flush is lost",
            "add --yes to do it",
            ExitCode.USAGE,
        )
    typer.confirm("retire it?", abort=True, err=True)


@contextmanager
def _open_archive(config: Config) -> "Iterator[Archive]":
    from storage import open_archive, probe_archive

    # Looking for a node must not make an archive where there is none.
    if probe_archive(config.archive).found is None:
        raise CommandError(
            "not_found",
            "there is no archive yet",
            "name it: --archive URL, or --data DIR",
            ExitCode.NOT_FOUND,
        )
    archive = open_archive(config.archive)
    try:
        yield archive
    finally:
        archive.close()

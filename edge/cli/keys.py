"""`ringlog key …`: secret keys, straight in the archive, so that the first one needs no running server."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.archive import open_existing_archive
from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, note
from edge.config import Config

if TYPE_CHECKING:
    from storage import Archive

commands = typer.Typer(help="Secret keys for backends and operators.", no_args_is_help=True)


@commands.command("create")
@takes(Config, "archive", "data")
def create(
    *,
    config: Config,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="what it is for, such as billing-backend")
    ] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="read, write, tokens or admin; may be repeated [default: all but admin]",
        ),
    ] = None,
    workspace: Annotated[
        str, typer.Option(metavar="WORKSPACE", help="the workspace that it opens")
    ] = "default",
    as_json: Json = False,
) -> None:
    """Create a secret key and print it, this once: only its hash is stored.

    The first key ends development mode: from then on every caller needs a key or a token.

    \b
      ringlog key create backend
      ringlog key create operator --scope admin
      export RINGLOG_KEY=$(ringlog key create laptop --scope read)
    """
    from edge.auth import SCOPES, WORKSPACE_SCOPES, generate_key, hash_key
    from runtime import IDENTIFIER_RULE, is_identifier
    from storage import ApiKey

    if unknown := sorted(set(scope or ()) - SCOPES):
        raise CommandError(
            "invalid_field",
            f"there is no scope {unknown[0]}",
            f"scopes are {', '.join(sorted(SCOPES))}",
            ExitCode.USAGE,
        )
    if not is_identifier(workspace) or (name and not is_identifier(name)):
        raise CommandError(
            "invalid_field", f"names must be {IDENTIFIER_RULE}", exit_code=ExitCode.USAGE
        )
    text = generate_key()
    key = ApiKey(
        id=f"key-{secrets.token_hex(6)}",
        name=name,
        hash=hash_key(text),
        scopes=tuple(sorted(set(scope or WORKSPACE_SCOPES))),
        workspace=workspace,
        created_at_ms=time.time_ns() // 1_000_000,
    )
    with _make_archive(config) as archive:
        archive.create_key(key)
    if as_json:
        fields = {
            "id": key.id,
            "name": name,
            "key": text,
            "scopes": key.scopes,
            "workspace": workspace,
        }
        Output(as_json=True).json(fields)
    else:
        print(text)
        note(f"{key.id}, scopes {', '.join(key.scopes)}: keep it now, it is not shown again")


@commands.command("list")
@takes(Config, "archive", "data")
def list_keys(*, config: Config, as_json: Json = False) -> None:
    """List the keys: what they are for and what they may do, never the keys themselves.

    \b
      ringlog key list
    """
    from runtime import format_time

    with open_existing_archive(config) as archive:
        keys = archive.list_keys()
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "workspace": key.workspace,
            "scopes": key.scopes,
            "created_at": format_time(key.created_at_ms),
            "revoked_at": format_time(key.revoked_at_ms) if key.revoked_at_ms is not None else None,
        }
        for key in keys
    ]
    Output(as_json=as_json).table(rows, "no keys: a server on loopback is in development mode")


@commands.command("revoke")
@takes(Config, "archive", "data")
def revoke(
    *,
    config: Config,
    id: Annotated[str, typer.Argument(metavar="ID", help="the key's id, from `ringlog key list`")],
    as_json: Json = False,
) -> None:
    """Revoke a key: running servers refuse it within seconds.

    \b
      ringlog key revoke key-0123456789ab
    """
    with open_existing_archive(config) as archive:
        revoked = archive.revoke_key(id, time.time_ns() // 1_000_000)
    if not revoked:
        raise CommandError(
            "not_found",
            f"there is no key {id} that could be revoked",
            "see `ringlog key list`",
            ExitCode.NOT_FOUND,
        )
    if as_json:
        Output(as_json=True).json({"id": id, "revoked": True})
    else:
        note(f"{id} is revoked")


@contextmanager
def _make_archive(config: Config) -> "Iterator[Archive]":
    """Open the archive, made if missing: the first key comes before the first start."""
    from storage import make_directory, open_archive

    make_directory(config.data)
    archive = open_archive(config.archive)
    try:
        yield archive
    finally:
        archive.close()

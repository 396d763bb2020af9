"""`ringlog agent …`: which agents there are, and how they are called. Through a running server, but for `rotate`.

A secret never stands among the arguments, where every user of the machine can read it: it comes from stdin, from a
file, or from a variable that is named.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, confirm, note
from edge.config import ClientConfig, Config, read_variable

SECRET_BYTES_MAX = 64 * 1024
"""Far above what the server takes; a larger file was named by mistake."""

SOURCES = "env:VARIABLE, file:PATH, or - for stdin"

# What `--set` takes as it stands; the value of any other field is JSON.
TEXT_FIELDS = frozenset(
    {"message_history_mode", "model", "on_loss", "on_message", "status", "system", "url"}
)

AgentId = Annotated[str, typer.Argument(metavar="AGENT", help="the agent's id")]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="where it is called")
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="for openai: the model")
]
System = Annotated[
    Path | None,
    typer.Option("--system-file", metavar="FILE", help="for openai: the system prompt"),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="any other field; may be repeated"),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME=SOURCE", help=f"a secret header; SOURCE is {SOURCES}"),
]
Bearer = Annotated[
    str | None,
    typer.Option(
        "--bearer",
        metavar="SOURCE",
        help="the header Authorization: Bearer, with a key from SOURCE",
    ),
]

commands = typer.Typer(help="Agents: who answers, and how they are called.", no_args_is_help=True)


@commands.command("list")
@takes(ClientConfig)
def list_agents(
    *,
    config: ClientConfig,
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="how many")] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="go on after a page: its next_cursor")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the agents of the key's workspace, the built-in ones too.

    \b
      ringlog agent list
      ringlog agent list --json | jq -r '.data[].id'
    """
    from edge.cli.remote import Remote
    from edge.cli.transcript import read_listing

    remote = Remote(config)
    page = remote.read(read_listing, remote.get("/v1/agents", limit=limit, cursor=cursor))
    rows = page.data
    if not as_json:
        shown = ("id", "type", "status", "url", "header_names", "version", "updated_at")
        rows = [{name: row.get(name) for name in shown} for row in rows]
    Output(as_json=as_json).table(rows, "no agents", next_cursor=page.next_cursor)
    if page.next_cursor is not None and not as_json:
        note(f"more: --cursor {page.next_cursor}")


@commands.command("show")
@takes(ClientConfig)
def show(*, config: ClientConfig, agent: AgentId, as_json: Json = False) -> None:
    """Show how an agent is called; of its secrets only the names.

    \b
      ringlog agent show support
    """
    from edge.cli.remote import Remote, path_of

    remote = Remote(config)
    _print(remote, remote.get(path_of("agents", agent)), as_json=as_json)


@commands.command("add")
@takes(ClientConfig)
def add(  # noqa: PLR0913 - each is an option
    *,
    config: ClientConfig,
    agent: AgentId,
    agent_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="webhook, openai, pull, echo or lorem")
    ] = "webhook",
    endpoint: Endpoint = None,
    model: Model = None,
    system_file: System = None,
    header: Headers = None,
    bearer: Bearer = None,
    signing_secret: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="for webhook: a secret of your own; one is made unless given"
        ),
    ] = None,
    field: Fields = None,
    as_json: Json = False,
) -> None:
    """Add an agent; the signing secret that is made for a webhook is printed, this once.

    \b
      ringlog agent add support --endpoint https://agents.example/support
      ringlog agent add gpt --type openai --endpoint https://api.openai.com/v1/chat/completions \\
        --model gpt-5 --bearer env:OPENAI_API_KEY --set debounce_window_ms=0
      ringlog agent add worker --type pull
    """
    from edge.cli.remote import Remote

    secrets = _Secrets()
    body: dict[str, Any] = {"id": agent, "type": agent_type}
    body |= _settings(endpoint, model, system_file, field)
    if headers := _headers(secrets, header, bearer):
        body["headers"] = headers
    if signing_secret is not None:
        body["signing_secret"] = secrets.read(signing_secret, "--signing-secret")
    remote = Remote(config)
    answer = remote.post("/v1/agents", body)
    _tell_saved(remote, answer, "is added", as_json=as_json)


@commands.command("edit")
@takes(ClientConfig)
def edit(  # noqa: PLR0913 - each is an option
    *,
    config: ClientConfig,
    agent: AgentId,
    endpoint: Endpoint = None,
    model: Model = None,
    system_file: System = None,
    header: Headers = None,
    bearer: Bearer = None,
    remove_header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="a header that goes; may be repeated"),
    ] = None,
    signing_secret: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help=f"generate makes a new one beside the present one, retire ends the older one; or {SOURCES}",
        ),
    ] = None,
    field: Fields = None,
    expected_version: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="only if it is at this version")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what is given; the next call of the agent is made so.

    \b
      ringlog agent edit support --set status=disabled
      ringlog agent edit support --header X-Api-Key=file:/run/secrets/key --remove-header X-Old
      ringlog agent edit support --signing-secret generate
    """
    from edge.cli.remote import Remote, path_of

    secrets = _Secrets()
    body = _settings(endpoint, model, system_file, field)
    headers: dict[str, str | None] = {**_headers(secrets, header, bearer)}
    headers |= dict.fromkeys(remove_header or ())
    if headers:
        body["headers"] = headers
    if signing_secret in {"generate", "retire"}:
        body["signing_secret"] = signing_secret
    elif signing_secret is not None:
        body["signing_secret"] = secrets.read(signing_secret, "--signing-secret")
    if not body:
        raise CommandError(
            "usage", "nothing is to be changed", "ringlog agent edit -h", ExitCode.USAGE
        )
    if expected_version is not None:
        body["expected_version"] = expected_version
    remote = Remote(config)
    answer = remote.request("PATCH", path_of("agents", agent), body=orjson.dumps(body))
    _tell_saved(remote, answer, "is changed", as_json=as_json)


@commands.command("remove")
@takes(ClientConfig)
def remove(
    *,
    config: ClientConfig,
    agent: AgentId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be removed, and remove nothing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove an agent and its secrets; sessions that name it get no more answers.

    \b
      ringlog agent remove support --dry-run
      ringlog agent remove support --yes
    """
    from edge.cli.remote import Remote, path_of
    from edge.cli.transcript import read_fields

    remote = Remote(config)
    path = path_of("agents", agent)
    found = remote.read(read_fields, remote.get(path))
    names = ("id", "type", "url", "header_names", "signing_secrets", "version")
    fields = {name: found.get(name) for name in names}
    if dry_run:
        Output(as_json=as_json).fields(fields | {"removed": False})
        return
    if not yes:
        Output(as_json=False).fields(fields)
        confirm("remove it?", "its secrets are erased and cannot be read again")
    # What was looked at is what goes.
    remote.request("DELETE", path, query={"expected_version": found.get("version")})
    if as_json:
        Output(as_json=True).json(fields | {"removed": True})
    else:
        note(f"{agent} is removed")


@commands.command("rotate")
@takes(Config, "archive", "data", "secrets_key")
def rotate(
    *,
    config: Config,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="count what would be sealed anew, and change nothing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Seal the secrets of all agents, of every workspace, with the newest key; straight in the archive.

    Every server must have the new key, before the others, already: put it first in the file of --secrets-key and
    restart them. When this says that none is left behind, the older keys can go. Exits with 1 if some are.

    \b
      ringlog agent rotate --dry-run
      ringlog agent rotate --secrets-key /etc/ringlog/secrets.key
    """
    import time

    from agents import Registry
    from edge.cli.archive import open_existing_archive
    from edge.secretsvault import open_vault

    vault = open_vault(config)
    if not vault.key_ids:
        raise CommandError(
            "secrets_key_missing",
            "there is no key to seal with",
            "give the servers' key: --secrets-key FILE, or RINGLOG_SECRETS_KEY; or their --data",
            ExitCode.USAGE,
        )
    with open_existing_archive(config) as archive:
        registry = Registry(archive, vault, lambda: time.time_ns() // 1_000_000)
        rotation = registry.rotate(dry_run=dry_run)
    left = [
        {"workspace": workspace, "agent": agent, "key_id": key_id}
        for (workspace, agent), key_id in rotation.unreadable
    ]
    fields = {
        "key_id": vault.key_ids[0],
        "renewed": len(rotation.renewed),
        "current": rotation.current,
        "unreadable": left,
        "dry_run": dry_run,
    }
    Output(as_json=as_json).fields(fields)
    if left:
        raise typer.Exit(ExitCode.FAILURE)


class _Secrets:
    """Reads secrets from where the arguments say; stdin holds one."""

    def __init__(self) -> None:
        self._stdin_taken = False

    def read(self, source: str, what: str) -> str:
        """Return the secret, without the line break at its end; no failure repeats what was given."""
        kind, _, name = source.partition(":")
        if source == "-":
            text = self._read_stdin(what)
        elif kind == "env" and name:
            text = read_variable(name) or ""
        elif kind == "file" and name:
            text = _read_file(Path(name), what)
        else:
            raise CommandError(
                "usage",
                f"{what}: a secret must not stand among the arguments, where others can read it",
                f"say where it is: {SOURCES}",
                ExitCode.USAGE,
            )
        if not text.strip():
            raise CommandError(
                "usage", f"{what}: there is nothing in {source}", exit_code=ExitCode.USAGE
            )
        return text.strip()

    def _read_stdin(self, what: str) -> str:
        if self._stdin_taken:
            raise CommandError(
                "usage", f"{what}: stdin holds one secret only", exit_code=ExitCode.USAGE
            )
        self._stdin_taken = True
        return sys.stdin.read(SECRET_BYTES_MAX)


def _headers(secrets: _Secrets, headers: list[str] | None, bearer: str | None) -> dict[str, str]:
    found = {}
    for text in headers or ():
        name, equals, source = text.partition("=")
        if not equals:
            # Not repeated: somebody may have written the whole header here.
            raise CommandError(
                "usage", "--header must be NAME=SOURCE", f"SOURCE is {SOURCES}", ExitCode.USAGE
            )
        found[name] = secrets.read(source, f"--header {name}")
    if bearer is not None:
        found["Authorization"] = f"Bearer {secrets.read(bearer, '--bearer')}"
    return found


def _settings(
    endpoint: str | None, model: str | None, system_file: Path | None, fields: list[str] | None
) -> dict[str, Any]:
    """Return the fields of a request that are no secrets."""
    given = {"url": endpoint, "model": model}
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if system_file is not None:
        body["system"] = _read_file(system_file, "--system-file")
    for text in fields or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(
                "usage", f"--set {text}: it must be FIELD=VALUE", exit_code=ExitCode.USAGE
            )
        if name in {"headers", "signing_secret"}:
            raise CommandError(
                "usage",
                f"--set {name}: a secret must not stand among the arguments",
                "use --header and --signing-secret",
                ExitCode.USAGE,
            )
        body[name] = value if name in TEXT_FIELDS else _read_json(name, value)
    return body


def _read_json(name: str, value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise CommandError(
            "usage", f"--set {name}: the value is not JSON", exit_code=ExitCode.USAGE
        ) from None


def _read_file(path: Path, what: str) -> str:
    try:
        with path.expanduser().open("rb") as stream:
            data = stream.read(SECRET_BYTES_MAX + 1)
        text = data.decode() if len(data) <= SECRET_BYTES_MAX else None
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except UnicodeDecodeError:
        reason = "it is not text"
    else:
        if text is not None:
            return text
        reason = f"it is larger than {SECRET_BYTES_MAX} bytes"
    raise CommandError("input", f"{what}: {path}: {reason}", exit_code=ExitCode.USAGE)


def _print(remote: Any, answer: bytes, *, as_json: bool) -> None:
    from edge.cli.transcript import read_fields

    fields = remote.read(read_fields, answer)
    if as_json:
        Output(as_json=True).json_line(answer.strip())
    else:
        Output(as_json=False).fields(fields)


def _tell_saved(remote: Any, answer: bytes, what: str, *, as_json: bool) -> None:
    """Say that it is done; a signing secret that was made goes to stdout, as a new API key does."""
    from edge.cli.transcript import read_fields

    fields = remote.read(read_fields, answer)
    if as_json:
        Output(as_json=True).json_line(answer.strip())
        return
    secret = fields.get("signing_secret")
    if secret is not None:
        print(secret)
    note(f"{fields['id']} {what}, version {fields.get('version')}")
    if secret is not None:
        note("its signing secret: keep it now, it is not shown again")

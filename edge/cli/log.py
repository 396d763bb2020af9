"""`ringlog log …`: the commit log's files, read without a server.

`dump` and `verify` take no lock and change nothing, so they may look at the log of a running server, whose
end may then look torn because it is being written. `repair` takes the lock.
"""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, confirm, note
from edge.cli.streams import say
from edge.config import Config
from edge.printable import escape

if TYPE_CHECKING:
    from storage import Damage, DumpedFrame, Lost, RealDirectory, Repair

commands = typer.Typer(help="The commit log's files: dump, verify, repair.", no_args_is_help=True)


@commands.command("dump")
@takes(Config, "data")
def dump(
    *,
    config: Config,
    from_lsn: Annotated[
        int, typer.Option("--from", min=0, metavar="LSN", help="begin at this LSN")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Print every record that the log holds, in order. Exits with 1 if something cannot be read.

    \b
      ringlog log dump
      ringlog log dump --from 1000 --json | jq .body
    """
    from storage import Damage, dump_log

    damaged = False
    with _open_log(config) as directory:
        for found in dump_log(directory, from_lsn):
            if isinstance(found, Damage):
                damaged = True
                _tell_damage(config, found, as_json=as_json)
            else:
                _print_frame(found, as_json=as_json)
    if damaged:
        raise typer.Exit(ExitCode.FAILURE)


@commands.command("verify")
@takes(Config, "data")
def verify(*, config: Config, as_json: Json = False) -> None:
    """Read the whole log and say whether a server would start on it. Exits with 1 if it would not.

    \b
      ringlog log verify
      ringlog log verify --data /var/lib/ringlog --json
    """
    from storage import verify_log

    with _open_log(config) as directory:
        report = verify_log(directory)
    output = Output(as_json=as_json)
    if as_json:
        output.json(
            {
                "ok": report.ok,
                "lsn_begin": report.lsn_begin,
                "lsn_end": report.lsn_end,
                "segments": [_fields(segment) for segment in report.segments],
                "voided": report.voided,
                "damage": [_fields(damage) for damage in report.damage],
                "torn": None if report.torn is None else _fields(report.torn),
            }
        )
    else:
        output.table([_fields(segment) for segment in report.segments], "no segments")
        for name in report.voided:
            note(f"{name}: replaced by a later epoch, not read")
        if report.torn is not None:
            note("the end is torn, beyond what was known durable: the next start drops it")
        for damage in report.damage:
            note(f"DAMAGE  {escape(_damage_text(config, damage))}")
    if not report.ok:
        output.note(
            "hint: keep a copy of the directory; `ringlog log repair` shows what can be saved"
        )
        raise typer.Exit(ExitCode.FAILURE)
    output.note(f"whole: LSN {report.lsn_begin} to {report.lsn_end}")


@commands.command("repair")
@takes(Config, "archive", "data")
def repair(
    *,
    config: Config,
    cursor: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="LSN", help="the archive has everything below this LSN [default: ask it]"
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="do it, instead of saying what it would do")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Make a damaged log start again; what is taken out stays beside it as `….damaged`.

    What the archive has already is not needed. Of the rest, all is kept up to the first record that cannot be
    read. Without --apply nothing is changed: it says what would be done, and exits with 1 if that is anything.

    \b
      ringlog log repair
      ringlog log repair --apply
    """
    from storage import repair_log

    output = Output(as_json=as_json)
    with _open_log(config, writable=apply) as directory:
        node_id = _read_node_id(config)
        flushed = _read_cursor(config, node_id) if cursor is None else cursor
        plan = repair_log(directory, node_id=node_id.bytes, cursor=flushed)
        _print_plan(plan, as_json=as_json)
        if not plan.needed:
            return
        if not apply:
            output.note("nothing was changed; add --apply to do it")
            raise typer.Exit(ExitCode.FAILURE)
        if not yes:
            confirm("do it?", "a repair leaves records out")
        repair_log(directory, node_id=node_id.bytes, cursor=flushed, dry_run=False)
    output.note("done; what was taken out is beside the log, under names that end in .damaged")


def _read_node_id(config: Config) -> uuid.UUID:
    path = config.data / "node_id"
    try:
        return uuid.UUID(path.read_text().strip())
    except (OSError, ValueError):
        raise CommandError(
            "not_found",
            f"there is no node id in {path}",
            "it belongs to the log: put it back, or name the data directory of the server: --data DIR",
            ExitCode.NOT_FOUND,
        ) from None


def _read_cursor(config: Config, node_id: uuid.UUID) -> int:
    """Ask the archive how far it has this node's log."""
    from storage import StorageError, open_archive, probe_archive

    hint = "name the archive: --archive URL; or say how far it has this log: --cursor LSN"
    try:
        known = probe_archive(config.archive).found is not None
        if known:
            archive = open_archive(config.archive)
            try:
                owned = archive.read_cursor(node_id.hex)
            finally:
                archive.close()
            if owned.epoch:
                return owned.cursor
    except StorageError as error:
        raise CommandError(error.code, str(error), hint, ExitCode.UNREACHABLE) from None
    why = "the archive does not know this log's node" if known else "there is no archive"
    raise CommandError("not_found", f"{why}: what it lacks is not known", hint, ExitCode.NOT_FOUND)


@contextmanager
def _open_log(config: Config, *, writable: bool = False) -> "Iterator[RealDirectory]":
    from storage import RealDirectory

    path = config.data / "log"
    try:
        if not path.is_dir():
            raise CommandError(
                "not_found",
                f"there is no log in {config.data}",
                "name the data directory of the server: --data DIR",
                ExitCode.NOT_FOUND,
            )
        with RealDirectory(path, read_only=not writable) as directory:
            yield directory
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else path
        hint = f"run it as the owner of {config.data}" if isinstance(error, PermissionError) else ""
        raise CommandError("log", f"cannot read {where}: {error.strerror}", hint) from None


def _print_frame(frame: "DumpedFrame", *, as_json: bool) -> None:
    from storage import RecordType

    known = {kind.value: kind.name.lower() for kind in RecordType}
    for record in frame.records:
        kind = known.get(record.type, str(record.type))
        if as_json:
            line = {
                "lsn": record.lsn,
                "type": kind,
                "workspace": record.workspace,
                "segment": frame.name,
                "position": frame.position,
                "epoch": frame.epoch,
                "body": orjson.Fragment(record.body),
            }
            sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
        else:
            body = escape(record.body.decode(errors="backslashreplace"))
            print(f"{record.lsn}\t{kind}\t{escape(record.workspace)}\t{body}")


def _print_plan(plan: "Repair", *, as_json: bool) -> None:
    if as_json:
        Output(as_json=True).json({"needed": plan.needed} | _fields(plan))
    elif not plan.needed:
        note("the log needs no repair")
    else:
        for name in plan.set_aside:
            print(f"set aside {name}")
        print(
            f"the archive has everything below LSN {plan.cursor}; the log then ends at {plan.lsn_end}"
        )
        for lost in plan.lost:
            print(_lost_text(lost))
        if not plan.lost:
            print("nothing is lost")


def _lost_text(lost: "Lost") -> str:
    if lost.end is None:
        return f"LOST      whatever came at LSN {lost.begin} and above: it cannot be read"
    which = (
        f"LSN {lost.begin}" if lost.end == lost.begin + 1 else f"LSN {lost.begin} to {lost.end - 1}"
    )
    if lost.readable:
        return f"left out  {which}: behind the damage, `ringlog log dump` can read it in a copy"
    return f"LOST      {which}: it cannot be read"


def _tell_damage(config: Config, damage: "Damage", *, as_json: bool) -> None:
    """Say on stderr what cannot be read: stdout has the records alone."""
    if as_json:
        say(orjson.dumps({"damage": _fields(damage)}).decode())
    else:
        note(escape(_damage_text(config, damage)))


def _damage_text(config: Config, damage: "Damage") -> str:
    path: Path = config.data / "log" / damage.name
    return f"{path} at byte {damage.position}: {damage.reason}"


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}

"""`ringlog log …`: the commit log's files, read without a server.

`dump` and `verify` take no lock and change nothing, so they may look at the log of a running server, whose
end may then look torn because it is being written. `repair` takes the lock.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from edge.cli.failure import CommandError, ExitCode
from edge.cli.options import Json, takes
from edge.cli.output import Output, note
from edge.config import Config
from edge.printable import escape

if TYPE_CHECKING:
    from storage import Damage, DumpedFrame, RealDirectory, Repair

commands = typer.Typer(help="The commit log's files: dump, verify, repair.", no_args_is_help=True)


@commands.command("dump")
@takes(Config, "data")
def dump(
    *,
    config: Config,
    from_lsn: Annotated[int, typer.Option("--from", min=0, help="begin at this LSN")] = 0,
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
                note(escape(_damage_text(config, found)))
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
        note("hint: keep a copy of the directory; `ringlog log repair` shows what can be saved")
        raise typer.Exit(ExitCode.FAILURE)
    note(f"whole: LSN {report.lsn_begin} to {report.lsn_end}")


@commands.command("repair")
@takes(Config, "data")
def repair(
    *,
    config: Config,
    apply: Annotated[
        bool, typer.Option("--apply", help="do it, instead of saying what it would do")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Make the log end before its first damage; what is taken out stays beside it as `….damaged`.

    Without --apply nothing is changed: it says what would be done, and exits with 1 if that is anything.

    \b
      ringlog log repair
      ringlog log repair --apply
    """
    from storage import repair_log

    with _open_log(config, writable=apply) as directory:
        plan = repair_log(directory)
        _print_plan(plan, as_json=as_json)
        if not plan.needed:
            return
        if not apply:
            note("nothing was changed; add --apply to do it")
            raise typer.Exit(ExitCode.FAILURE)
        if not yes:
            _confirm()
        repair_log(directory, dry_run=False)
    note("done; what was taken out is beside the log, under names that end in .damaged")


@contextmanager
def _open_log(config: Config, *, writable: bool = False) -> "Iterator[RealDirectory]":
    from storage import RealDirectory

    path = config.data / "log"
    if not path.is_dir():
        raise CommandError(
            "not_found",
            f"there is no log in {config.data}",
            "name the data directory of the server: --data DIR",
            ExitCode.NOT_FOUND,
        )
    try:
        with RealDirectory(path, read_only=not writable) as directory:
            yield directory
    except OSError as error:
        where = error.filename or path
        raise CommandError("log", f"cannot read {where}: {error.strerror}") from None


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
        if plan.cut is not None:
            print(f"shorten   {plan.cut}")
        for name in plan.set_aside:
            print(f"set aside {name}")
        print(f"the log then ends at LSN {plan.lsn_end}")
        if plan.lost_to > plan.lsn_end:
            print(
                f"records up to LSN {plan.lost_to} can be read behind the damage, and are left out"
            )


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "not_confirmed", "a repair leaves records out", "add --yes to do it", ExitCode.USAGE
        )
    typer.confirm("do it?", abort=True, err=True)


def _damage_text(config: Config, damage: "Damage") -> str:
    path: Path = config.data / "log" / damage.name
    return f"{path} at byte {damage.position}: {damage.reason}"


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}

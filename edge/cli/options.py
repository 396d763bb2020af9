"""Flags out of the table of options: what `edge/config.py` declares needs no second list here."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from edge.config import (
    CONFIG_FILE,
    ClientConfig,
    Config,
    Option,
    load_client_config,
    load_config,
    options,
)

Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Command = Callable[..., None]


def takes(settings: type[Config] | type[ClientConfig], *names: str) -> Callable[[Command], Command]:
    """Give a command a flag for each option (or for `names`); it is called with `config`, loaded.

    One that has a parameter `config_file` gets the name of that file too.
    """
    declared = options(settings)
    chosen = {name: declared[name] for name in names or declared}
    load = load_config if settings is Config else load_client_config

    def decorate(command: Command) -> Command:
        own = inspect.signature(command)

        @functools.wraps(command)
        def run(*, config_file: str | None, **values: Any) -> None:
            flags = {name: values.pop(name) for name in chosen}
            if "config_file" in own.parameters:
                values["config_file"] = config_file
            command(config=load(flags, file=config_file), **values)

        kept = [p for p in own.parameters.values() if p.name not in {"config", "config_file"}]
        added = [_parameter(name, option) for name, option in chosen.items()]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*kept, *added, _config_file())]
        # Typer reads both: the signature for the order, the annotations for the types.
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # functions take it
        run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return run

    return decorate


def _parameter(name: str, option: Option) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    help_text = f"{option.help} [default: {option.default}]" if option.default else option.help
    kind = list[str] if option.many else str | None
    annotation = Annotated[kind, typer.Option(flag, help=help_text, metavar=_metavar(name))]  # type: ignore[valid-type]  # a type chosen at run time
    default: list[str] | None = [] if option.many else None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _config_file() -> inspect.Parameter:
    annotation = Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help=f"configuration file [default: {CONFIG_FILE}, if there is one]",
        ),
    ]
    return inspect.Parameter(
        "config_file", inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None
    )


def _metavar(name: str) -> str:
    """Return the unit at the end of the name, as the placeholder of its value."""
    return name.rpartition("_")[2].upper()

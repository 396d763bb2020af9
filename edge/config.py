"""What the operator chose, where each choice came from, checked once.

Four sources, the first that names an option wins::

    flag --segment-bytes  >  environment RINGLOG_SEGMENT_BYTES  >  ringlog.toml segment_bytes  >  default

This is the only module that reads the environment. A field of `Config` or `ClientConfig` is the one place
where an option is written down: its flag, its variable, its key in the file, its check, its help text and
its line in `ringlog config show` all come from there.

A variable that holds a secret may be given as a file instead (`RINGLOG_ARCHIVE_FILE=/run/secrets/url`). A key
is a file everywhere but in its variable, and is read by who needs it: a command that does not may not be allowed to.
Unknown keys in `ringlog.toml` are errors. Unknown `RINGLOG_*` variables are not, only reported by
`ringlog doctor`: Kubernetes sets `RINGLOG_PORT` and the like in every pod beside a service of that name.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from edge.values import (
    GIB,
    MIB,
    Address,
    HiddenText,
    parse_address,
    parse_archive,
    parse_choice,
    parse_float,
    parse_integer,
    parse_list,
    parse_network,
    parse_origin,
    parse_path,
    parse_single,
    parse_size,
    parse_text,
    parse_url,
    redact,
)

CONFIG_FILE = "ringlog.toml"
PREFIX = "RINGLOG_"
# A configuration file or secret beyond this is some other file, named by mistake.
FILE_BYTES_MAX = MIB
# Read by tests and by the bootstrap, not by the program.
FOREIGN_PREFIXES = ("RINGLOG_TEST_",)
# The exception: no option, for nobody should find it who does not look for it.
FAILPOINT_VARIABLE = "RINGLOG_TEST_FAILPOINT"

Flags = Mapping[str, object]
Settings = TypeVar("Settings", "Config", "ClientConfig")


TAKEOVER_SECONDS_MIN = 2.0


class ConfigError(Exception):
    """An option has a value that is not allowed; the message says which, from where, and what is."""

    code = "invalid_config"

    def __init__(self, key: str, value: object, origin: str, reason: str) -> None:
        super().__init__(f"{key} = {value!r} (from {origin}): {reason}")
        self.key = key
        self.value = value
        self.origin = origin
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Option:
    """How one option is read: `parse` raises ValueError with what is allowed."""

    parse: Callable[[str], Any]
    default: str | None
    help: str
    many: bool = False
    secret: bool = False
    in_file: bool = False
    """What is given is the path of a file that holds it; its variable holds it itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of a server."""

    listen: Annotated[
        Address,
        Option(
            parse_address, "127.0.0.1:4000", "HOST:PORT to listen on; port 0 takes any free one"
        ),
    ]
    data: Annotated[
        Path, Option(parse_path, ".ringlog", "directory of the commit log; made if missing")
    ]
    archive: Annotated[
        str,
        Option(
            parse_archive,
            None,
            "sqlite:///PATH or postgresql://USER@HOST/NAME; by default SQLite in the data directory",
            secret=True,
        ),
    ]
    durability: Annotated[
        str,
        Option(
            parse_choice("local", "replicated"),
            None,
            "what an acknowledgement promises: local (fsync on this machine) or replicated (and in PostgreSQL);"
            " by default replicated for an owner with --link on PostgreSQL",
        ),
    ]
    role: Annotated[
        str,
        Option(
            parse_choice("all", "edge", "owner"),
            "all",
            "what this process does: own sessions (owner), serve clients of others' sessions (edge), or all",
        ),
    ]
    link: Annotated[
        Address | None,
        Option(
            parse_address,
            None,
            "HOST:PORT where other nodes reach this owner; without it the node is alone",
        ),
    ]
    link_cert: Annotated[
        Path | None,
        Option(parse_path, None, "certificate of this node for links, PEM; encrypts them"),
    ]
    link_key: Annotated[Path | None, Option(parse_path, None, "private key of --link-cert, PEM")]
    link_ca: Annotated[
        Path | None,
        Option(parse_path, None, "the authority that signs the certificates of all nodes, PEM"),
    ]
    weight: Annotated[
        int,
        Option(parse_integer(1, 100), "1", "this owner's share of the sessions beside the others'"),
    ]
    takeover_seconds: Annotated[
        float,
        Option(
            parse_float(0, 3_600),
            "8",
            "how long this owner must be silent before others take over, with replicated; 2 or more, 0 for never",
        ),
    ]
    allow_origin: Annotated[
        tuple[str, ...],
        Option(
            parse_origin,
            "",
            "browser origin that may connect, such as https://app.example; may be repeated",
            many=True,
        ),
    ]
    allow_host: Annotated[
        tuple[str, ...],
        Option(
            parse_text,
            "",
            "name that clients may use in the Host header, beside the address; may be repeated",
            many=True,
        ),
    ]
    tls_cert: Annotated[
        Path | None, Option(parse_path, None, "certificate chain, PEM; needs --tls-key")
    ]
    tls_key: Annotated[Path | None, Option(parse_path, None, "private key, PEM; needs --tls-cert")]
    secrets_key: Annotated[
        Path | HiddenText | None,
        Option(
            parse_path,
            None,
            "file with the keys that seal the secrets of agents, the newest first; by default secrets.key in the data"
            " directory, made when it is needed, but not in a cluster",
            secret=True,
            in_file=True,
        ),
    ]
    agent_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Option(
            parse_network,
            "",
            "network of private addresses that agents may be called at, such as 10.0.0.0/8; may be repeated",
            many=True,
        ),
    ]
    log_level: Annotated[
        str,
        Option(
            parse_choice("debug", "info", "warning", "error"),
            "info",
            "debug, info, warning or error",
        ),
    ]
    log_format: Annotated[
        str,
        Option(
            parse_choice("auto", "pretty", "json"),
            "auto",
            "pretty, json, or auto: pretty on a terminal, JSON otherwise",
        ),
    ]
    segment_bytes: Annotated[
        int, Option(parse_size(MIB, 4 * GIB), "128MiB", "size of a log segment; 1MiB to 4GiB")
    ]
    sync_delay_ms: Annotated[
        float,
        Option(parse_float(0, 25), "0", "how long an idle log gathers before it syncs; 0 to 25"),
    ]
    unflushed_bytes_max: Annotated[
        int,
        Option(
            parse_size(MIB, 64 * GIB),
            "256MiB",
            "durable bytes that may wait for the archive; past it senders get backpressure",
        ),
    ]
    retention_seconds: Annotated[
        float,
        Option(parse_float(0, 365 * 86_400), "3600", "how long archived segments are kept"),
    ]
    retention_bytes: Annotated[
        int,
        Option(parse_size(0, 1024 * GIB), "1GiB", "how many bytes of archived segments are kept"),
    ]
    idle_seconds: Annotated[
        float,
        Option(parse_float(1, 86_400), "60", "how long a session without traffic stays in memory"),
    ]
    drain_seconds: Annotated[
        float,
        Option(
            parse_float(0, 3_600),
            "30",
            "how long a stop waits for the archive to take what is durable",
        ),
    ]
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The options of the commands that talk to a running server."""

    url: Annotated[
        str,
        Option(parse_url, None, "the server; by default http:// and the address it listens on"),
    ]
    key: Annotated[str | None, Option(parse_text, None, "secret key or user token", secret=True)]
    timeout_seconds: Annotated[
        float, Option(parse_float(0.1, 3_600), "10", "how long to wait for an answer")
    ]
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)


def options(settings: type[Config] | type[ClientConfig]) -> dict[str, Option]:
    """Return the options of a settings class by name, in the order of their help."""
    hints = get_type_hints(settings, include_extras=True)
    return {
        name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")
    }


def load_config(
    flags: Flags | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    file: str | None = None,
) -> Config:
    """Read the server's options.

    Raises:
        ConfigError: Names the option, the value, where it came from and what is allowed.
    """
    return _load(Config, flags or {}, environment, file)


def load_client_config(
    flags: Flags | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    file: str | None = None,
) -> ClientConfig:
    """Read the options of a command that talks to a server.

    Raises:
        ConfigError: Names the option, the value, where it came from and what is allowed.
    """
    return _load(ClientConfig, flags or {}, environment, file)


def failpoint_to_arm(environment: Mapping[str, str] = os.environ) -> str:
    """Return the step at which a test has the server die, "" as a rule."""
    return environment.get(FAILPOINT_VARIABLE, "")


def read_variable(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return a variable that somebody has named on the command line, because a secret must not stand there."""
    return environment.get(name)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the RINGLOG_* variables that no option reads: likely misspelt."""
    known = {PREFIX + "CONFIG"}
    for name, declared in (options(Config) | options(ClientConfig)).items():
        known.add(PREFIX + name.upper())
        if declared.secret:
            known.add(f"{PREFIX}{name.upper()}_FILE")
    return sorted(
        name
        for name in environment
        if name.startswith(PREFIX) and name not in known and not name.startswith(FOREIGN_PREFIXES)
    )


def shown(settings: Config | ClientConfig) -> dict[str, str]:
    """Return every option as text that may be printed: passwords and keys are masked."""
    return {name: _shown(getattr(settings, name), o) for name, o in options(type(settings)).items()}


def _shown(value: object, declared: Option) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return redact(str(value)) if declared.secret and not declared.in_file else str(value)


def _load(
    settings: type[Settings], flags: Flags, environment: Mapping[str, str], file: str | None
) -> Settings:
    table, table_origin = _read_file(file, environment)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, declared in options(settings).items():
        raw, origins[name] = _find(name, declared, flags, environment, table, table_origin)
        values[name] = _parse(name, declared, raw, origins[name])
    if settings is Config:
        _complete_server(values, origins)
    elif values["url"] is None:
        values["url"] = _default_url(environment, file)
    return settings(**values, origins=origins)


def _find(
    name: str,
    declared: Option,
    flags: Flags,
    environment: Mapping[str, str],
    table: Mapping[str, Any],
    table_origin: str,
) -> tuple[object, str]:
    """Return the option's text from the first source that has one, and that source's name."""
    flag = flags.get(name)
    if flag is not None and flag != []:
        return flag, f"flag --{name.replace('_', '-')}"
    variable = PREFIX + name.upper()
    if environment.get(variable):
        text = environment[variable]
        return HiddenText(text) if declared.in_file else text, f"environment {variable}"
    if declared.secret and environment.get(variable + "_FILE"):
        path = environment[variable + "_FILE"]
        if declared.in_file:
            return path, f"environment {variable}_FILE"
        return _read_secret(name, Path(path), variable), f"environment {variable}_FILE"
    if name in table:
        return table[name], table_origin
    return declared.default, "default"


def _parse(name: str, declared: Option, raw: object, origin: str) -> Any:
    if raw is None or isinstance(raw, HiddenText):
        return raw
    try:
        if declared.many:
            return tuple(declared.parse(part) for part in parse_list(raw))
        return declared.parse(parse_single(raw))
    except ValueError as error:
        value = redact(str(raw)) if declared.secret and not declared.in_file else raw
        raise ConfigError(name, value, origin, str(error)) from None


def _complete_server(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Fill in what depends on another option, and check what must agree."""
    if values["archive"] is None:
        values["archive"] = f"sqlite:///{values['data'] / 'archive.db'}"
    on_postgres = not values["archive"].startswith("sqlite")
    if values["durability"] is None:
        values["durability"] = "replicated" if values["link"] and on_postgres else "local"
    if values["durability"] == "replicated" and not on_postgres:
        reason = "the second copy of a message must not be on the same disk: it needs an archive in PostgreSQL"
        raise ConfigError("durability", "replicated", origins["durability"], reason)
    if 0 < values["takeover_seconds"] < TAKEOVER_SECONDS_MIN:
        reason = f"it must be 0, or {TAKEOVER_SECONDS_MIN:g} or more: an owner says once a second that it lives"
        raise ConfigError(
            "takeover_seconds",
            str(values["takeover_seconds"]),
            origins["takeover_seconds"],
            reason,
        )
    if values["role"] == "owner" and values["link"] is None:
        reason = "an owner that serves no clients is of use only to others: it needs link"
        raise ConfigError("role", "owner", origins["role"], reason)
    if values["role"] == "edge" and values["link"] is not None:
        reason = "an edge owns no sessions, so nobody links to it"
        raise ConfigError("link", str(values["link"]), origins["link"], reason)
    _check_whole(values, origins, ("tls_cert", "tls_key"), "TLS needs both")
    links = ("link_cert", "link_key", "link_ca")
    _check_whole(values, origins, links, "TLS on links needs all three")
    if values["link_cert"] is not None and values["role"] != "edge" and values["link"] is None:
        reason = "nobody links to this node: it needs link"
        raise ConfigError("link_cert", str(values["link_cert"]), origins["link_cert"], reason)


def _check_whole(
    values: dict[str, Any], origins: dict[str, str], names: tuple[str, ...], needs: str
) -> None:
    """Refuse some of several options that are of use only together."""
    given = [name for name in names if values[name] is not None]
    for name in names:
        if given and values[name] is None:
            reason = f"{name} is missing; {needs}"
            raise ConfigError(given[0], str(values[given[0]]), origins[given[0]], reason)


def _default_url(environment: Mapping[str, str], file: str | None) -> str:
    """Return where this directory's own server listens, so that the commands find it unasked."""
    server = load_config(environment=environment, file=file)
    host = server.listen.host
    address = Address("127.0.0.1" if host in {"0.0.0.0", "::"} else host, server.listen.port)  # noqa: S104
    return f"{'https' if server.tls_cert else 'http'}://{address}"


def _read_file(file: str | None, environment: Mapping[str, str]) -> tuple[Mapping[str, Any], str]:
    """Return the table in the configuration file; a file that was named must be there."""
    named = file or environment.get(PREFIX + "CONFIG")
    origin = "flag --config" if file else f"environment {PREFIX}CONFIG"
    path = Path(named or CONFIG_FILE)
    if not named and not path.is_file():
        return {}, ""
    try:
        table = tomllib.loads(_read_text(path))
    except OSError as error:
        raise ConfigError("config", str(path), origin, error.strerror or str(error)) from None
    except ValueError as error:
        raise ConfigError("config", str(path), f"file {path}", f"not valid TOML: {error}") from None
    known = [*options(Config), *options(ClientConfig)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(key, table[key], f"file {path}", f"there is no such option; {hint}")
    return table, f"file {path}"


def _read_secret(name: str, path: Path, variable: str) -> str:
    try:
        return _read_text(path).strip()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(name, str(path), f"environment {variable}_FILE", reason) from None


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
    return data.decode()

"""An agent's configuration: a value, the rules for each of its fields, and what a change makes of it.

There are five types. `webhook` and `openai` are called over HTTP, `pull` is a worker that asks for work, `echo` and
`lorem` answer by themselves, for tests and first steps; the last two exist in every workspace under these ids.

An agent's secrets are no part of this value (`agents/sealed.py`): it may be shown, logged and compared.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from agents.errors import IncompleteAgentError, InvalidAgentError
from runtime import IDENTIFIER_RULE, is_identifier

TYPES = ("webhook", "openai", "pull", "echo", "lorem")
STATUSES = ("enabled", "disabled")
HISTORY_MODES = ("tail", "last", "entire")
ON_MESSAGE = ("queue", "interrupt", "reject")
ON_LOSS = ("interrupt", "restart")

URL_LENGTH_MAX = 2_048
"""What servers and proxies take without being asked."""

MODEL_LENGTH_MAX = 200
"""Names of models have 20 to 80 characters; some name an account beside."""

SYSTEM_BYTES_MAX = 16 * 1024
"""A long system prompt. An agent is read before each call, and listed with others."""

METADATA_BYTES_MAX = 16 * 1024
"""As of a session."""


RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        # A page of messages; more of a conversation is `entire`.
        "message_history_limit": (1, 1_000),
        # Below a second not even a good network is sure; an answer of more than an hour is a job.
        "timeout_ms": (1_000, 3_600_000),
        # A kernel gives a connection up after about two minutes; a user, sooner.
        "connect_timeout_ms": (100, 60_000),
        "first_byte_timeout_ms": (100, 3_600_000),
        "idle_timeout_ms": (100, 3_600_000),
        # 0: each message is sent at once.
        "debounce_window_ms": (0, 60_000),
        "debounce_max_ms": (0, 600_000),
        # What one process streams at once, measured, with room for others.
        "concurrency": (1, 1_000),
        # With their pauses 20 attempts are hours.
        "attempts_max": (1, 20),
    }
)

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "type": TYPES,
        "status": STATUSES,
        "message_history_mode": HISTORY_MODES,
        "on_message": ON_MESSAGE,
        "on_loss": ON_LOSS,
    }
)


def _choice(name: str) -> Any:
    """Describe in the schema what is checked here, where the error can say what is allowed."""
    return Meta(extra_json_schema={"enum": list(CHOICES[name])})


def _number(name: str) -> Any:
    low, high = RANGES[name]
    return Meta(extra_json_schema={"minimum": low, "maximum": high})


def _empty_object() -> Raw:
    return Raw(b"{}")


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's configuration, checked. It is read from the archive before each call and holds until its end."""

    id: str
    type: Annotated[str, _choice("type")]
    url: str | None = None
    model: str | None = None
    system: str | None = None
    status: Annotated[str, _choice("status")] = "enabled"
    message_history_mode: Annotated[str, _choice("message_history_mode")] = "tail"
    message_history_limit: Annotated[int, _number("message_history_limit")] = 50
    timeout_ms: Annotated[int, _number("timeout_ms")] = 300_000
    connect_timeout_ms: Annotated[int, _number("connect_timeout_ms")] = 5_000
    first_byte_timeout_ms: Annotated[int, _number("first_byte_timeout_ms")] = 60_000
    idle_timeout_ms: Annotated[int, _number("idle_timeout_ms")] = 30_000
    debounce_window_ms: Annotated[int, _number("debounce_window_ms")] = 500
    debounce_max_ms: Annotated[int, _number("debounce_max_ms")] = 5_000
    concurrency: Annotated[int, _number("concurrency")] = 50
    attempts_max: Annotated[int, _number("attempts_max")] = 5
    on_message: Annotated[str, _choice("on_message")] = "queue"
    on_loss: Annotated[str, _choice("on_loss")] = "interrupt"
    metadata: Raw = field(default_factory=_empty_object)


class CreateAgent(Agent, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent to be created. `headers` and `signing_secret` are kept sealed and never shown."""

    headers: dict[str, str] = {}
    signing_secret: str | None = None

    def __repr__(self) -> str:
        """Keep secrets out of what is printed."""
        return f"CreateAgent(id={self.id!r}, type={self.type!r})"


class ChangeAgent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of an agent; what is left out stays. `expected_version` guards against races.

    A header that is null is removed. `signing_secret` is `generate`, `retire` or a secret.
    """

    url: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    system: str | UnsetType | None = UNSET
    status: Annotated[str, _choice("status")] | UnsetType = UNSET
    message_history_mode: Annotated[str, _choice("message_history_mode")] | UnsetType = UNSET
    message_history_limit: Annotated[int, _number("message_history_limit")] | UnsetType = UNSET
    timeout_ms: Annotated[int, _number("timeout_ms")] | UnsetType = UNSET
    connect_timeout_ms: Annotated[int, _number("connect_timeout_ms")] | UnsetType = UNSET
    first_byte_timeout_ms: Annotated[int, _number("first_byte_timeout_ms")] | UnsetType = UNSET
    idle_timeout_ms: Annotated[int, _number("idle_timeout_ms")] | UnsetType = UNSET
    debounce_window_ms: Annotated[int, _number("debounce_window_ms")] | UnsetType = UNSET
    debounce_max_ms: Annotated[int, _number("debounce_max_ms")] | UnsetType = UNSET
    concurrency: Annotated[int, _number("concurrency")] | UnsetType = UNSET
    attempts_max: Annotated[int, _number("attempts_max")] | UnsetType = UNSET
    on_message: Annotated[str, _choice("on_message")] | UnsetType = UNSET
    on_loss: Annotated[str, _choice("on_loss")] | UnsetType = UNSET
    metadata: Raw = field(default_factory=Raw)
    headers: dict[str, str | None] = {}
    signing_secret: str | UnsetType = UNSET
    expected_version: Annotated[int, Meta(ge=0, le=(1 << 53))] | UnsetType = UNSET

    def __repr__(self) -> str:
        """Keep secrets out of what is printed."""
        return "ChangeAgent(…)"


FIELDS: Final = Agent.__struct_fields__
CHANGEABLE: Final = frozenset(FIELDS) - {"id", "type"}

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"webhook": ("url",), "openai": ("url", "model")}
)
"""What an agent of a type cannot do without."""

TAKES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"webhook": ("url",), "openai": ("url", "model", "system")}
)
"""Which of these three an agent of a type takes at all."""

WITH_HEADERS = frozenset({"webhook", "openai"})
SIGNED = frozenset({"webhook"})
"""Whose calls carry headers of their own, and a signature."""

BUILT_IN: Mapping[str, Agent] = MappingProxyType(
    {name: Agent(id=name, type=name) for name in ("echo", "lorem")}
)
"""These exist in every workspace, under ids that nobody can take."""

_decode = msgspec.json.Decoder(Agent)


def agent_of(request: CreateAgent) -> Agent:
    """Return the configuration in a request, checked.

    Raises:
        InvalidAgentError, IncompleteAgentError: a field is not allowed, or missing.
    """
    agent = Agent(**{name: getattr(request, name) for name in FIELDS})
    check(agent)
    return agent


def merge(agent: Agent, change: ChangeAgent) -> Agent:
    """Return what a change makes of an agent, checked as a whole.

    Raises:
        InvalidAgentError, IncompleteAgentError: a field is not allowed, or missing.
    """
    given = {name: getattr(change, name) for name in CHANGEABLE}
    changed = {name: value for name, value in given.items() if value is not UNSET}
    if not bytes(change.metadata):
        del changed["metadata"]
    merged = msgspec.structs.replace(agent, **changed)
    check(merged)
    return merged


def encode(agent: Agent) -> bytes:
    """Return an agent as it is stored."""
    return msgspec.json.encode(agent)


def decode(body: bytes) -> Agent:
    """Return a stored agent; a field that a later version has added is passed over."""
    return _decode.decode(body)


def check(agent: Agent) -> None:
    """Raise unless each field of an agent is allowed, and all of them together.

    Raises:
        InvalidAgentError, IncompleteAgentError: names the first that is not.
    """
    if not is_identifier(agent.id):
        raise InvalidAgentError("id", f"must be {IDENTIFIER_RULE}")
    for name, choices in CHOICES.items():
        if getattr(agent, name) not in choices:
            raise InvalidAgentError(name, f"must be {', '.join(choices[:-1])} or {choices[-1]}")
    for name, (low, high) in RANGES.items():
        if not low <= getattr(agent, name) <= high:
            raise InvalidAgentError(name, f"must be a whole number from {low} to {high}")
    if agent.debounce_max_ms < agent.debounce_window_ms:
        raise InvalidAgentError("debounce_max_ms", "must not be less than debounce_window_ms")
    if len(bytes(agent.metadata)) > METADATA_BYTES_MAX:
        raise InvalidAgentError("metadata", f"must have at most {METADATA_BYTES_MAX} bytes")
    _check_by_type(agent)


def _check_by_type(agent: Agent) -> None:
    for name in NEEDS.get(agent.type, ()):
        if getattr(agent, name) is None:
            raise IncompleteAgentError(name, agent.type)
    for name in ("url", "model", "system"):
        if getattr(agent, name) is not None and name not in TAKES.get(agent.type, ()):
            raise InvalidAgentError(name, f"is not for an agent of type {agent.type}")
    if agent.url is not None:
        check_url(agent.url)
    if agent.model is not None and not (
        1 <= len(agent.model) <= MODEL_LENGTH_MAX and agent.model.isprintable()
    ):
        raise InvalidAgentError("model", f"must be 1 to {MODEL_LENGTH_MAX} printable characters")
    if agent.system is not None and len(agent.system.encode()) > SYSTEM_BYTES_MAX:
        raise InvalidAgentError("system", f"must have at most {SYSTEM_BYTES_MAX} bytes")


_URL_CHARACTERS = re.compile(r"[!-~]+")


def check_url(url: str) -> None:
    """Raise unless a URL can be called as it stands. Which addresses may be called is decided when it is.

    Raises:
        InvalidAgentError: it cannot; a URL is shown, so it must hold no password either.
    """
    if len(url) > URL_LENGTH_MAX:
        raise InvalidAgentError("url", f"must have at most {URL_LENGTH_MAX} characters")
    if _URL_CHARACTERS.fullmatch(url) is None or "\\" in url:
        raise InvalidAgentError("url", "must be ASCII without spaces; escape what is not")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidAgentError("url", "must be http:// or https:// with a host") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InvalidAgentError("url", "must be http:// or https:// with a host")
    if "@" in parts.netloc:
        raise InvalidAgentError("url", "must hold no user or password: use a header for that")
    if "#" in url:
        raise InvalidAgentError("url", "must have no fragment: it is not sent")

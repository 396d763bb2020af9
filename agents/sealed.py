"""An agent's secrets: its own headers, and what its calls are signed with. Sealed each by itself.

Names of headers stand beside what is sealed, readable: people must see what is there. A signing secret is
`whsec_` and 24 to 64 random bytes as base64, as Standard Webhooks has it. Two are valid at once while one
replaces the other: a call carries both signatures.
"""

import base64
import binascii
import hmac
import re
import secrets as random_secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from agents.errors import (
    InvalidAgentError,
    SecretsDamagedError,
    SecretsKeyMissingError,
    SecretsKeyUnknownError,
)
from agents.secretskey import KEY_ID_BYTES
from agents.vault import NONCE_BYTES, TAG_BYTES, Place, Vault, key_id_of

HEADERS_MAX = 32
HEADER_NAME_LENGTH_MAX = 128
HEADER_VALUE_BYTES_MAX = 4_096
HEADERS_BYTES_MAX = 8 * 1024
"""Names and values together. Most servers take a request head of 8 to 16 KiB, and ours is part of it."""

SIGNING_SECRETS_MAX = 2
"""The newest, and the one that it replaces."""

SIGNING_PREFIX = "whsec_"
SIGNING_BYTES = (24, 64)
"""At least and at most, by Standard Webhooks."""

GENERATE, RETIRE = "generate", "retire"
"""What a change may ask for instead of naming a signing secret."""

RESERVED_HEADERS = frozenset(
    {
        # Which belong to the connection, or describe the body.
        "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        # Which the call sets.
        "accept", "accept-encoding", "traceparent", "tracestate",
        "webhook-id", "webhook-signature", "webhook-timestamp",
    }
)  # fmt: skip

_HEADER, _SIGNING = "header:", "signing:"
_OVERHEAD = 1 + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES
_is_header_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch  # RFC 9110 §5.6.2
_is_header_value = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?").fullmatch  # visible ASCII, trimmed


@dataclass(frozen=True, slots=True)
class Secrets:
    """An agent's secrets, opened: for one call, and never kept. `signing` has the newest first."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An agent's secrets as they are stored: what is sealed under its name, in order."""

    workspace: str
    agent: str
    fields: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def header_names(self) -> list[str]:
        """Return the names of the headers, as they were given."""
        return [name.removeprefix(_HEADER) for name in self.fields if name.startswith(_HEADER)]

    @property
    def signing_count(self) -> int:
        """Return how many signing secrets there are."""
        return sum(name.startswith(_SIGNING) for name in self.fields)

    @property
    def key_ids(self) -> set[str]:
        """Return the ids of the keys that it takes to open them all; "" for what none has sealed."""
        return {key_id_of(sealed) for sealed in self.fields.values()}

    def encode(self) -> bytes:
        """Return them as they are stored; nothing, if there are none."""
        return msgspec.json.encode(self.fields) if self.fields else b""

    def place(self, name: str) -> Place:
        """Return where the secret of a field belongs."""
        return Place(self.workspace, self.agent, name)

    def open(self, vault: Vault) -> Secrets:
        """Return the secrets themselves.

        Raises:
            SecretsKeyMissingError, SecretsKeyUnknownError: a key is not here.
            SecretsDamagedError: what is stored is not what was sealed.
        """
        opened = {name: vault.open(text, self.place(name)) for name, text in self.fields.items()}
        return Secrets(
            {
                name.removeprefix(_HEADER): text
                for name, text in opened.items()
                if name.startswith(_HEADER)
            },
            tuple(text for name, text in opened.items() if name.startswith(_SIGNING)),
        )

    def with_headers(self, vault: Vault, headers: Mapping[str, str | None]) -> "Sealed":
        """Return these with headers set, in place of those of the same name, or removed.

        Raises:
            InvalidAgentError: a header is not allowed, or there would be too many.
            SecretsKeyMissingError: there is nothing to seal with.
        """
        _check_names(headers)
        lowered = {name.lower() for name in headers}
        fields = {
            name: sealed
            for name, sealed in self.fields.items()
            if name.removeprefix(_HEADER).lower() not in lowered or not name.startswith(_HEADER)
        }
        lengths = {
            name: len(fields[name]) - _OVERHEAD for name in fields if name.startswith(_HEADER)
        }
        lengths |= {_HEADER + name: len(text) for name, text in headers.items() if text is not None}
        total = sum(len(name) - len(_HEADER) + length for name, length in lengths.items())
        if len(lengths) > HEADERS_MAX or total > HEADERS_BYTES_MAX:
            rule = f"must be at most {HEADERS_MAX}, of {HEADERS_BYTES_MAX} bytes together"
            raise InvalidAgentError("headers", rule)
        for name, text in headers.items():
            if text is not None:
                fields[_HEADER + name] = vault.seal(text, self.place(_HEADER + name))
        return Sealed(self.workspace, self.agent, fields)

    def with_signing(self, vault: Vault, secret: str) -> "Sealed":
        """Return these with a new signing secret; the one that was the newest stays valid beside it.

        Raises:
            InvalidAgentError: it is no signing secret.
            SecretsKeyMissingError: there is nothing to seal with.
        """
        check_signing_secret(secret)
        name = _SIGNING + random_secrets.token_hex(8)
        newest = {name: vault.seal(secret, self.place(name))}
        kept = list(self._signing().items())[: SIGNING_SECRETS_MAX - 1]
        return Sealed(self.workspace, self.agent, newest | dict(kept) | self._headers())

    def with_newest_signing_only(self) -> "Sealed":
        """Return these without the signing secret that was replaced."""
        kept = list(self._signing().items())[:1]
        return Sealed(self.workspace, self.agent, dict(kept) | self._headers())

    def renewed(self, vault: Vault) -> "Sealed":
        """Return these sealed with the newest key; what cannot be opened here stays as it is."""
        fields = {}
        for name, sealed in self.fields.items():
            try:
                fields[name] = (
                    sealed
                    if vault.is_newest(sealed)
                    else vault.seal(vault.open(sealed, self.place(name)), self.place(name))
                )
            except (SecretsKeyMissingError, SecretsKeyUnknownError, SecretsDamagedError):
                fields[name] = sealed
        return Sealed(self.workspace, self.agent, fields)

    def _signing(self) -> dict[str, bytes]:
        return {name: text for name, text in self.fields.items() if name.startswith(_SIGNING)}

    def _headers(self) -> dict[str, bytes]:
        return {name: text for name, text in self.fields.items() if name.startswith(_HEADER)}


_decode = msgspec.json.Decoder(dict[str, bytes])


def decode_sealed(workspace: str, agent: str, stored: bytes) -> Sealed:
    """Return an agent's secrets as they are stored.

    Raises:
        SecretsDamagedError: they are not what was stored.
    """
    try:
        return Sealed(workspace, agent, _decode.decode(stored) if stored else {})
    except msgspec.DecodeError:
        raise SecretsDamagedError("it is not in the form in which it is stored", agent) from None


def is_same(one: Secrets, other: Secrets) -> bool:
    """Tell whether secrets are the same, in a time that does not tell how far each is."""
    if set(one.headers) != set(other.headers) or len(one.signing) != len(other.signing):
        return False
    pairs = [(text, other.headers[name]) for name, text in one.headers.items()]
    pairs += zip(one.signing, other.signing, strict=True)
    return all(hmac.compare_digest(left.encode(), right.encode()) for left, right in pairs)


def make_signing_secret() -> str:
    """Return a new signing secret; it is shown once."""
    return SIGNING_PREFIX + base64.b64encode(random_secrets.token_bytes(32)).decode()


def check_signing_secret(secret: str) -> None:
    """Raise `invalid_field` unless a signing secret is one of Standard Webhooks."""
    low, high = SIGNING_BYTES
    try:
        length = len(base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if not secret.startswith(SIGNING_PREFIX) or not low <= length <= high:
        rule = f"must be {SIGNING_PREFIX} and {low} to {high} random bytes as base64"
        raise InvalidAgentError("signing_secret", rule)


def _check_names(headers: Mapping[str, str | None]) -> None:
    """Raise `invalid_field` unless headers can be sent; a name is told, a value never."""
    for name, text in headers.items():
        if len(name) > HEADER_NAME_LENGTH_MAX or _is_header_name(name) is None:
            rule = (
                f"must have names of 1 to {HEADER_NAME_LENGTH_MAX} characters, as RFC 9110 allows"
            )
            raise InvalidAgentError("headers", rule)
        if name.lower() in RESERVED_HEADERS:
            raise InvalidAgentError(f"headers.{name}", "is set by Ringlog or by HTTP itself")
        if text is not None and (
            len(text) > HEADER_VALUE_BYTES_MAX or _is_header_value(text) is None
        ):
            rule = (
                f"must be 1 to {HEADER_VALUE_BYTES_MAX} characters of visible ASCII, without spaces"
                " around it"
            )
            raise InvalidAgentError(f"headers.{name}", rule)
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidAgentError("headers", "must not name a header twice; case does not count")

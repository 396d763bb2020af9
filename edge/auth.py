"""Who is asking: secret keys, user tokens, and development mode. Synchronous, against memory.

- A secret key (`rl_` and 256 random bits, base64url) is for backends and operators. Only its SHA-256 is
  stored: the key has full entropy, so a slow hash would add nothing. It acts in its workspace, within
  its scopes, for any user.
- A user token is a JWT (HS256, signed with a secret of the archive) that a backend mints for a browser:
  one user, one workspace, perhaps a few sessions, a short life. It is never stored.
- In development mode, on loopback and with no keys at all, everyone may do everything, and says who
  they are.

A credential that is sent is always judged: a bad one is refused even where none is needed. Credentials
are never part of an error or a log line.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import jwt

from edge.errors import EdgeError
from runtime import AGENT_PREFIX, IDENTIFIER_RULE, is_identifier
from storage import ApiKey

DEFAULT_WORKSPACE = "default"
KEY_PREFIX = "rl_"
KEY_RANDOM_BYTES = 32
CREDENTIAL_LENGTH_MAX = 8_000
"""What a header line holds, in our WebSocket handshake and in most proxies (8 KiB), less its name."""

JWT_ALGORITHM = "HS256"
JWT_ISSUER = "ringlog"
SIGNING_KEY_NAME = "user_tokens"

EXPIRY_MAX = 1e11
"""Seconds since 1970, in the year 5138: what is beyond is no time."""

WORKSPACE_SCOPES = frozenset({"read", "write", "tokens"})
SCOPES = WORKSPACE_SCOPES | {"admin"}
"""`read` and `write` sessions and messages, mint user `tokens`, `admin`ister the ring."""

USER_SCOPES = frozenset({"read", "write"})

Scope = Literal["read", "write", "tokens", "admin"]


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    `user_id` is None for a secret key, and in development for someone who did not say. `sessions`
    limits a user token to these. `expires_at` is in seconds since 1970. `key_hash` names a secret key; so does
    `name`, for people: by its id and what it was called.
    """

    kind: Literal["secret", "user", "development"]
    workspace: str
    user_id: str | None
    scopes: frozenset[str]
    sessions: frozenset[str] | None = None
    expires_at: float | None = None
    key_hash: bytes | None = field(default=None, repr=False, compare=False)
    name: str | None = field(default=None, compare=False)

    def require(self, scope: Scope) -> None:
        """Raise `forbidden` unless the credential has this scope."""
        if scope not in self.scopes:
            raise EdgeError("forbidden", f"the credential has no scope {scope!r}", scope=scope)


@dataclass(frozen=True, slots=True)
class UserToken:
    """A minted token, with the second at which it expires."""

    text: str
    expires_at: int


class Authenticator:
    """Turns credentials into principals by look-ups in memory; the key table is replaced as a whole."""

    def __init__(
        self,
        signing_key: bytes,
        *,
        allow_development: bool,
        keys: Iterable[ApiKey] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signing_key = signing_key
        self._allow_development = allow_development
        self._clock = clock
        self._keys: dict[bytes, ApiKey] = {}
        self.keys_changed: Callable[[], None] = lambda: None
        """Called when the table is another than before: some who were let in may have to go."""
        self.replace_keys(keys)

    @property
    def development(self) -> bool:
        """Whether callers need no credential: allowed here, and no key was ever created."""
        return self._allow_development and not self._keys

    @property
    def has_usable_keys(self) -> bool:
        """Whether any key is not revoked; without one nobody can get in, outside development."""
        return any(key.revoked_at_ms is None for key in self._keys.values())

    def replace_keys(self, keys: Iterable[ApiKey]) -> None:
        """Take the present table of keys; revoked ones count as keys, so they end development mode."""
        table = {key.hash: key for key in keys}
        if table != self._keys:
            self._keys = table
            self.keys_changed()

    def authenticate(
        self,
        authorization: str | None,
        *,
        access_token: str | None = None,
        user_id: str | None = None,
    ) -> Principal:
        """Return who sent a request, from its Authorization header or what its medium allows instead.

        `access_token` is a user token out of a URL (EventSource can send no header); a secret key is
        refused there, because URLs end up in histories and logs. `user_id` is heeded in development only.

        Raises:
            EdgeError: unauthorized, token_expired, invalid_field.
        """
        if authorization is not None:
            scheme, _, credential = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise EdgeError("unauthorized", "the Authorization scheme is not Bearer")
            return self.authenticate_credential(credential.strip())
        if access_token is not None:
            if access_token.startswith(KEY_PREFIX):
                raise EdgeError(
                    "unauthorized",
                    "a secret key must not be sent in a URL",
                    hint="revoke this key; send user tokens from POST /v1/tokens in URLs",
                )
            return self.authenticate_credential(access_token)
        if self.development:
            return development_principal(user_id)
        raise EdgeError("unauthorized", "no credential was sent")

    def authenticate_credential(self, credential: str) -> Principal:
        """Return the principal of a secret key or a user token.

        Raises:
            EdgeError: unauthorized, token_expired.
        """
        if len(credential) > CREDENTIAL_LENGTH_MAX:
            raise EdgeError("unauthorized", "the credential is too long")
        if credential.startswith(KEY_PREFIX):
            return self._authenticate_key(credential)
        return self._authenticate_token(credential)

    def _authenticate_key(self, credential: str) -> Principal:
        digest = hash_key(credential)
        key = self._keys.get(digest)
        known = key is not None and hmac.compare_digest(key.hash, digest)
        if key is None or not known or key.revoked_at_ms is not None:
            raise EdgeError(
                "unauthorized",
                "the secret key is unknown or revoked",
                hint="create one with: ringlog key create",
            )
        name = f"{key.id} ({key.name})" if key.name else key.id
        scopes = frozenset(key.scopes)
        return Principal("secret", key.workspace, None, scopes, key_hash=digest, name=name)

    def _authenticate_token(self, credential: str) -> Principal:
        try:
            claims = jwt.decode(
                credential,
                self._signing_key,
                algorithms=[JWT_ALGORITHM],
                issuer=JWT_ISSUER,
                # Expiry is checked below, by our clock and not by one inside the library.
                options={
                    "require": ["exp", "iss", "sub", "ws"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidTokenError:
            raise EdgeError("unauthorized", "the token is not valid") from None
        principal = _user_principal(claims)
        if self.expired(principal):
            raise EdgeError("token_expired", "the token has expired")
        return principal

    def mint(
        self, workspace: str, user_id: str, ttl_seconds: int, sessions: Iterable[str] | None = None
    ) -> UserToken:
        """Return a token that lets `user_id` in until it expires, to these sessions or to all of theirs.

        Raises:
            EdgeError: invalid_field, if so many names make a token that no header holds.
        """
        issued_at = int(self._clock())
        expires_at = issued_at + ttl_seconds
        claims: dict[str, Any] = {
            "iss": JWT_ISSUER,
            "sub": user_id,
            "ws": workspace,
            "iat": issued_at,
            "exp": expires_at,
        }
        if sessions is not None:
            claims["sessions"] = sorted(set(sessions))
        text = jwt.encode(claims, self._signing_key, algorithm=JWT_ALGORITHM)
        if len(text) > CREDENTIAL_LENGTH_MAX:
            raise EdgeError(
                "invalid_field",
                f"the token would be longer than {CREDENTIAL_LENGTH_MAX} bytes",
                hint="name fewer sessions, or sessions with shorter ids",
                field="sessions",
            )
        return UserToken(text, expires_at)

    def expired(self, principal: Principal) -> bool:
        """Tell whether a principal that was let in earlier would be refused now."""
        return principal.expires_at is not None and principal.expires_at <= self._clock()

    def refusal(self, principal: Principal) -> EdgeError | None:
        """Return why a principal that was let in earlier may not stay, or None if it may.

        A token expires, a key is revoked, and the first key ends development for those who are in.
        """
        if principal.kind == "user":
            return (
                EdgeError("token_expired", "the token has expired")
                if self.expired(principal)
                else None
            )
        if principal.kind == "development":
            return None if self.development else EdgeError("unauthorized", "keys are needed now")
        key = None if principal.key_hash is None else self._keys.get(principal.key_hash)
        if key is None or key.revoked_at_ms is not None:
            return EdgeError("unauthorized", "the secret key was revoked")
        return None

    def seconds_left(self, principal: Principal) -> float:
        """Return for how long a principal may stay: infinity, unless its token expires."""
        if principal.expires_at is None:
            return float("inf")
        return max(0.0, principal.expires_at - self._clock())


def development_principal(user_id: str | None) -> Principal:
    """Return the principal of someone on loopback, who is whoever they say.

    Raises:
        EdgeError: invalid_field.
    """
    if user_id is not None and not is_identifier(user_id):
        raise EdgeError("invalid_field", f"user_id must be {IDENTIFIER_RULE}", field="user_id")
    if user_id is not None and user_id.startswith(AGENT_PREFIX):
        raise EdgeError(
            "invalid_field", f"user_id must not begin with {AGENT_PREFIX}", field="user_id"
        )
    return Principal("development", DEFAULT_WORKSPACE, user_id, SCOPES)


def generate_key() -> str:
    """Return a new secret key; it is shown once and only its hash is kept."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_RANDOM_BYTES)


def hash_key(key: str) -> bytes:
    """Return what is stored of a secret key."""
    return hashlib.sha256(key.encode()).digest()


def _user_principal(claims: dict[str, Any]) -> Principal:
    """Return the principal that verified claims describe.

    The signature is ours, but a signing key shared by mistake must not put odd names into the log.
    """
    user_id, workspace, expires_at = claims["sub"], claims["ws"], claims["exp"]
    sessions = claims.get("sessions")
    if (
        not isinstance(expires_at, int | float)
        or not 0 <= expires_at < EXPIRY_MAX  # JSON libraries write NaN, too, and huge integers
        or not isinstance(sessions, list | None)
    ):
        raise EdgeError("unauthorized", "the token has claims of the wrong type")
    names = [user_id, workspace, *(sessions or ())]
    if not all(isinstance(name, str) and is_identifier(name) for name in names):
        raise EdgeError("unauthorized", "the token names an impossible user, workspace or session")
    limited_to = None if sessions is None else frozenset(sessions)
    return Principal("user", workspace, user_id, USER_SCOPES, limited_to, float(expires_at))

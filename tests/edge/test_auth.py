import base64
import json

import jwt
import pytest

from edge.auth import (
    DEFAULT_WORKSPACE,
    SCOPES,
    Authenticator,
    Principal,
    generate_key,
    hash_key,
)
from edge.errors import EdgeError
from storage import ApiKey

SIGNING_KEY = b"k" * 32
NOW = 1_800_000_000.0
KEY = generate_key()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def api_key(text: str, *, revoked: bool = False, scopes: tuple[str, ...] = ("read",)) -> ApiKey:
    revoked_at_ms = 1 if revoked else None
    return ApiKey("k1", "backend", hash_key(text), scopes, "acme", 0, revoked_at_ms)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(clock: Clock) -> Authenticator:
    return Authenticator(SIGNING_KEY, allow_development=True, keys=[api_key(KEY)], clock=clock)


def refused(auth: Authenticator, authorization: str | None, **other: str) -> str:
    with pytest.raises(EdgeError) as error:
        auth.authenticate(authorization, **other)
    if authorization:
        credential = authorization.split(" ")[-1]
        assert credential not in str(error.value)
        assert credential not in error.value.hint
    return error.value.code


def signed(claims: dict[str, object], key: bytes = SIGNING_KEY, algorithm: str = "HS256") -> str:
    whole = {"iss": "ringlog", "sub": "alice", "ws": "acme", "exp": NOW + 60} | claims
    return jwt.encode({k: v for k, v in whole.items() if v is not None}, key, algorithm=algorithm)


def test_a_secret_key_acts_in_its_workspace_within_its_scopes(auth: Authenticator) -> None:
    principal = auth.authenticate(f"Bearer {KEY}")
    assert principal == Principal("secret", "acme", None, frozenset({"read"}))
    principal.require("read")
    with pytest.raises(EdgeError, match="tokens"):
        principal.require("tokens")


def test_the_scheme_is_case_insensitive_and_must_be_bearer(auth: Authenticator) -> None:
    assert auth.authenticate(f"bearer {KEY}").kind == "secret"
    assert refused(auth, f"Basic {KEY}") == "unauthorized"
    assert refused(auth, KEY) == "unauthorized"
    assert refused(auth, "") == "unauthorized"


def test_unknown_altered_and_revoked_keys_are_refused(auth: Authenticator) -> None:
    assert refused(auth, f"Bearer {generate_key()}") == "unauthorized"
    assert refused(auth, f"Bearer {KEY[:-1]}") == "unauthorized"
    assert refused(auth, f"Bearer {KEY}x") == "unauthorized"
    auth.replace_keys([api_key(KEY, revoked=True)])
    assert refused(auth, f"Bearer {KEY}") == "unauthorized"
    assert not auth.has_usable_keys


def test_what_is_stored_of_a_key_is_its_hash() -> None:
    assert len(hash_key(KEY)) == 32
    assert KEY.encode() not in hash_key(KEY)
    assert generate_key() != generate_key()
    assert len(generate_key()) == len("rl_") + 43


def test_a_minted_token_lets_its_user_in_until_it_expires(
    auth: Authenticator, clock: Clock
) -> None:
    token = auth.mint("acme", "alice", 60, ["s1", "s2"])
    principal = auth.authenticate(f"Bearer {token.text}")
    assert principal.user_id == "alice"
    assert principal.workspace == "acme"
    assert principal.sessions == frozenset({"s1", "s2"})
    assert principal.expires_at == token.expires_at == NOW + 60
    assert auth.seconds_left(principal) == 60
    clock.now += 59.9
    assert auth.authenticate(f"Bearer {token.text}") == principal
    assert not auth.expired(principal)
    clock.now += 0.1
    assert auth.expired(principal)
    assert refused(auth, f"Bearer {token.text}") == "token_expired"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"ws": None},
        {"exp": None},
        {"iss": None},
        {"iss": "someone"},
        {"sub": "a b"},
        {"sub": ""},
        {"sub": "x" * 129},
        {"ws": "../x"},
        {"exp": "tomorrow"},
        {"exp": [1]},
        {"sessions": "s1"},
        {"sessions": [1]},
        {"sessions": {"s1": 1}},
        {"sessions": ["a\nb"]},
    ],
)
def test_a_token_with_missing_or_odd_claims_is_refused(
    auth: Authenticator, claims: dict[str, object]
) -> None:
    assert refused(auth, f"Bearer {signed(claims)}") == "unauthorized"


def test_a_token_that_another_key_signed_is_refused(auth: Authenticator) -> None:
    assert refused(auth, f"Bearer {signed({}, key=b'x' * 32)}") == "unauthorized"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "RS256"])
def test_a_token_cannot_choose_its_algorithm(auth: Authenticator, algorithm: str) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    header, payload, signature = signed({}).split(".")
    forged = part({"alg": algorithm, "typ": "JWT"})
    assert header != forged
    assert refused(auth, f"Bearer {forged}.{payload}.") == "unauthorized"
    assert refused(auth, f"Bearer {forged}.{payload}.{signature}") == "unauthorized"


@pytest.mark.parametrize(
    "credential",
    ["", "x", "a.b.c", "....", "\u00ff", "eyJ", "rl_", "x" * 9000, signed({}) + "x", "é.é.é"],
)
def test_garbage_is_refused_as_a_credential(auth: Authenticator, credential: str) -> None:
    with pytest.raises(EdgeError) as error:
        auth.authenticate_credential(credential)
    assert error.value.code == "unauthorized"


def test_a_token_may_come_in_a_url_and_a_secret_key_may_not(auth: Authenticator) -> None:
    token = auth.mint("acme", "alice", 60)
    assert auth.authenticate(None, access_token=token.text).user_id == "alice"
    assert refused(auth, None, access_token=KEY) == "unauthorized"


def test_without_a_credential_nobody_gets_in_once_there_is_a_key(auth: Authenticator) -> None:
    assert not auth.development
    assert refused(auth, None, user_id="alice") == "unauthorized"


def test_development_believes_who_the_caller_says_they_are() -> None:
    auth = Authenticator(SIGNING_KEY, allow_development=True)
    assert auth.development
    principal = auth.authenticate(None, user_id="alice")
    assert principal == Principal("development", DEFAULT_WORKSPACE, "alice", SCOPES)
    assert auth.authenticate(None).user_id is None
    assert refused(auth, None, user_id="a b") == "invalid_field"


def test_development_refuses_a_bad_credential_all_the_same() -> None:
    auth = Authenticator(SIGNING_KEY, allow_development=True)
    assert refused(auth, f"Bearer {KEY}") == "unauthorized"
    assert auth.authenticate(f"Bearer {auth.mint('w', 'bob', 9).text}").user_id is not None


def test_the_first_key_ends_development_and_revoking_it_does_not_bring_it_back() -> None:
    auth = Authenticator(SIGNING_KEY, allow_development=True)
    auth.replace_keys([api_key(KEY, revoked=True)])
    assert not auth.development
    assert not Authenticator(SIGNING_KEY, allow_development=False).development


def test_whoever_was_let_in_may_stay_as_long_as_they_would_be_let_in(
    auth: Authenticator, clock: Clock
) -> None:
    by_key = auth.authenticate(f"Bearer {KEY}")
    by_token = auth.authenticate(f"Bearer {auth.mint('acme', 'alice', 60).text}")
    assert auth.refusal(by_key) is None
    assert auth.refusal(by_token) is None

    clock.now += 61
    expired = auth.refusal(by_token)
    assert expired is not None
    assert expired.code == "token_expired"
    auth.replace_keys([api_key(KEY, revoked=True)])
    revoked = auth.refusal(by_key)
    assert revoked is not None
    assert revoked.code == "unauthorized"


def test_the_first_key_ends_development_for_those_who_are_in() -> None:
    auth = Authenticator(SIGNING_KEY, allow_development=True)
    anyone = auth.authenticate(None, user_id="alice")
    assert auth.refusal(anyone) is None

    auth.replace_keys([api_key(KEY)])
    refusal = auth.refusal(anyone)
    assert refusal is not None
    assert refusal.code == "unauthorized"

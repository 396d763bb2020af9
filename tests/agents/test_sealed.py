"""Headers and signing secrets: which are allowed, and how they come and go."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import InvalidAgentError, SecretsDamagedError, SecretsKeyMissingError, Vault
from agents.sealed import (
    HEADER_VALUE_BYTES_MAX,
    HEADERS_BYTES_MAX,
    HEADERS_MAX,
    RESERVED_HEADERS,
    Sealed,
    Secrets,
    check_signing_secret,
    decode_sealed,
    is_same,
    make_signing_secret,
)
from agents.secretskey import make_key

VAULT = Vault([make_key()])
EMPTY = Sealed("default", "support")
SIGNING = [make_signing_secret() for _ in range(3)]


def test_headers_are_sealed_by_name_and_opened_together() -> None:
    sealed = EMPTY.with_headers(VAULT, {"Authorization": "Bearer canary", "X-Team": "a\tb c"})
    stored = sealed.encode()
    assert b"canary" not in stored
    read = decode_sealed("default", "support", stored)
    assert read == sealed
    assert read.header_names == ["Authorization", "X-Team"]
    assert read.open(VAULT) == Secrets({"Authorization": "Bearer canary", "X-Team": "a\tb c"}, ())
    assert "canary" not in repr(read) + repr(read.open(VAULT))


def test_a_header_is_replaced_and_removed_whatever_the_case_of_its_name() -> None:
    sealed = EMPTY.with_headers(VAULT, {"X-One": "1", "X-Two": "2"})
    changed = sealed.with_headers(VAULT, {"x-one": "3", "X-TWO": None, "X-None": None})
    assert changed.open(VAULT).headers == {"x-one": "3"}
    assert sealed.open(VAULT).headers == {"X-One": "1", "X-Two": "2"}
    assert changed.with_headers(VAULT, {"X-One": None}).encode() == b""


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_a_header_that_a_call_sets_itself_is_refused(name: str) -> None:
    for written in (name, name.upper(), name.title()):
        with pytest.raises(InvalidAgentError) as refused:
            EMPTY.with_headers(VAULT, {written: "x"})
        assert refused.value.details == {"field": f"headers.{written}"}


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "é", "a\0", "(x)", "a" * 129])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        EMPTY.with_headers(VAULT, {name: "x"})
    assert refused.value.details == {"field": "headers"}


@pytest.mark.parametrize(
    "text",
    [
        "", " ", " canary", "canary ", "canary\t", "canary\r\nX-Evil: 1", "canary\n", "canary\0x",
        "canary\x7f", "canary é", "canary" + "x" * HEADER_VALUE_BYTES_MAX,
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        EMPTY.with_headers(VAULT, {"X-One": text})
    assert refused.value.details == {"field": "headers.X-One"}
    assert "canary" not in str(refused.value)


def test_headers_are_bounded_in_number_and_together() -> None:
    sealed = EMPTY.with_headers(VAULT, {f"X-{n}": "x" for n in range(HEADERS_MAX)})
    with pytest.raises(InvalidAgentError):
        sealed.with_headers(VAULT, {"X-More": "x"})
    assert len(sealed.with_headers(VAULT, {"X-0": None, "X-More": "x"}).fields) == HEADERS_MAX
    assert len(sealed.with_headers(VAULT, {"x-0": "y"}).fields) == HEADERS_MAX
    half = "x" * (HEADERS_BYTES_MAX // 2 - 3)
    full = EMPTY.with_headers(VAULT, {"X-A": half, "X-B": half})
    with pytest.raises(InvalidAgentError):
        full.with_headers(VAULT, {"X-C": "y"})
    with pytest.raises(InvalidAgentError):
        EMPTY.with_headers(VAULT, {"X-A": "1", "x-a": "2"})


def test_two_signing_secrets_are_valid_at_once_the_newest_first() -> None:
    sealed = EMPTY.with_headers(VAULT, {"X": "1"})
    for secret in SIGNING:
        sealed = sealed.with_signing(VAULT, secret)
    read = decode_sealed("default", "support", sealed.encode())
    assert read.open(VAULT) == Secrets({"X": "1"}, (SIGNING[2], SIGNING[1]))
    assert (read.signing_count, read.header_names) == (2, ["X"])
    kept = read.with_newest_signing_only()
    assert kept.open(VAULT) == Secrets({"X": "1"}, (SIGNING[2],))


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_signing_secret_of_standard_webhooks_is_taken(length: int) -> None:
    check_signing_secret("whsec_" + base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "generate",
        base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.urlsafe_b64encode(bytes([255] * 32)).decode(),
        "whsec_" + "é" * 32,
        "whsec_" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_what_is_no_signing_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        check_signing_secret(secret)
    assert refused.value.details == {"field": "signing_secret"}
    assert len(secret) < 9 or secret[6:] not in str(refused.value)


def test_secrets_are_renewed_one_by_one_and_what_cannot_be_opened_stays() -> None:
    old, new, lost = make_key(), make_key(), make_key()
    sealed = EMPTY.with_headers(Vault([old]), {"X-Old": "1"})
    sealed = sealed.with_headers(Vault([lost]), {"X-Lost": "2"})
    vault = Vault([new, old])
    renewed = sealed.renewed(vault)
    assert renewed.key_ids == {new.id, lost.id}
    assert renewed.fields["header:X-Lost"] == sealed.fields["header:X-Lost"]
    assert renewed.renewed(vault) == renewed
    assert renewed.with_headers(vault, {"X-Lost": None}).open(vault).headers == {"X-Old": "1"}
    assert sealed.renewed(Vault()) == sealed
    with pytest.raises(SecretsKeyMissingError):
        EMPTY.with_headers(Vault(), {"X": "1"})
    assert EMPTY.with_headers(Vault(), {}) == EMPTY


@given(st.binary(min_size=1, max_size=64))
def test_what_was_never_stored_is_damage_and_nothing_else(stored: bytes) -> None:
    try:
        read = decode_sealed("default", "support", stored)
    except SecretsDamagedError:
        return
    assert read.renewed(VAULT) == read


def test_secrets_are_the_same_only_if_all_are() -> None:
    one = Secrets({"X": "é"}, ("a",))
    assert is_same(one, Secrets({"X": "é"}, ("a",)))
    others = [({"X": "e"}, ("a",)), ({"Y": "é"}, ("a",)), ({"X": "é"}, ("b",)), ({"X": "é"}, ())]
    assert not any(is_same(one, Secrets(*other)) for other in others)

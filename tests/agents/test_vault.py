"""Secrets are opened with their key, in their place, and in no other way."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agents import SecretsDamagedError, SecretsKeyMissingError, SecretsKeyUnknownError, Vault
from agents.secretskey import SecretsKey, make_key
from agents.vault import Place, key_id_of

PLACE = Place("default", "support", "header:Authorization")
SECRET = "Bearer canary é 😀"


def test_what_was_sealed_is_opened_and_is_not_to_be_seen() -> None:
    vault = Vault([make_key()])
    sealed = vault.seal(SECRET, PLACE)
    assert vault.open(sealed, PLACE) == SECRET
    assert SECRET.encode() not in sealed
    assert b"canary" not in sealed
    assert len(sealed) == 33 + len(SECRET.encode())


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    vault = Vault([make_key()])
    assert len({vault.seal(SECRET, PLACE) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "place",
    [
        Place("other", "support", "header:Authorization"),
        Place("default", "other", "header:Authorization"),
        Place("default", "support", "header:X-Other"),
        Place("default", "support", "signing:Authorization"),
        Place("", "", ""),
    ],
)
def test_a_secret_that_was_moved_elsewhere_is_not_opened(place: Place) -> None:
    vault = Vault([make_key()])
    with pytest.raises(SecretsDamagedError, match="belongs elsewhere"):
        vault.open(vault.seal(SECRET, PLACE), place)


def test_no_flipped_bit_and_no_cut_goes_unnoticed() -> None:
    vault = Vault([make_key()])
    sealed = vault.seal("short", PLACE)
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises((SecretsDamagedError, SecretsKeyUnknownError)):
                vault.open(bytes(changed), PLACE)
        with pytest.raises(SecretsDamagedError):
            vault.open(sealed[:position], PLACE)
    with pytest.raises(SecretsDamagedError):
        vault.open(sealed + b"\0", PLACE)
    with pytest.raises(SecretsDamagedError):
        vault.open(b"", PLACE)


def test_the_newest_key_seals_and_every_key_opens() -> None:
    old, new = make_key(), make_key()
    sealed = Vault([old]).seal(SECRET, PLACE)
    both = Vault([new, old])
    assert both.open(sealed, PLACE) == SECRET
    assert not both.is_newest(sealed)
    again = both.seal(SECRET, PLACE)
    assert both.is_newest(again)
    assert Vault([new]).open(again, PLACE) == SECRET
    assert both.key_ids == [new.id, old.id]


def test_a_key_that_is_not_here_is_named_by_its_id() -> None:
    key = make_key()
    sealed = Vault([key]).seal(SECRET, PLACE)
    with pytest.raises(SecretsKeyUnknownError) as refused:
        Vault([make_key()]).open(sealed, PLACE)
    assert refused.value.details == {"key_id": key.id, "agent": "support"}
    assert key_id_of(sealed) == key.id


def test_without_a_key_nothing_is_sealed_or_opened() -> None:
    sealed = Vault([make_key()]).seal(SECRET, PLACE)
    for attempt in (lambda: Vault().seal(SECRET, PLACE), lambda: Vault().open(sealed, PLACE)):
        with pytest.raises(SecretsKeyMissingError) as refused:
            attempt()
        assert "--secrets-key" in refused.value.hint


def test_a_key_is_made_when_it_is_needed_and_once() -> None:
    made: list[SecretsKey] = []
    barrier = threading.Barrier(4)

    def make() -> list[SecretsKey]:
        made.append(make_key())
        return made

    vault = Vault((), make)
    assert (vault.key_ids, made) == ([], [])
    with pytest.raises(SecretsKeyUnknownError):
        vault.open(Vault([make_key()]).seal(SECRET, PLACE), PLACE)
    assert made == []

    def seal(number: int) -> bytes:
        barrier.wait()
        return vault.seal(str(number), PLACE)

    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(seal, range(4)))
    assert [vault.open(each, PLACE) for each in sealed] == ["0", "1", "2", "3"]
    assert len(made) == 1


def test_neither_keys_nor_their_ids_tell_the_key() -> None:
    key = SecretsKey(bytes(range(32)))
    assert "x00" not in repr(key)
    assert repr(bytes(range(32)))[2:10] not in repr(Vault([key]))
    assert key.id != key.material[:4].hex()
    assert len({make_key().id for _ in range(100)}) == 100

import uuid
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.identifiers import (
    IDENTIFIER_RULE,
    Stamper,
    format_time,
    is_identifier,
    is_kind,
    parse_time,
)


def test_ids_are_version_7_uuids_of_the_ticked_millisecond() -> None:
    stamper = Stamper()
    stamper.tick(1_700_000_000_123)
    parsed = uuid.UUID(stamper.next_id())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == 1_700_000_000_123


def test_ids_rise_within_a_millisecond_and_across_them() -> None:
    stamper = Stamper()
    ids = []
    for now_ms in (5_000, 5_000, 5_001):
        stamper.tick(now_ms)
        ids += [stamper.next_id() for _ in range(1_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@given(st.integers(0, 4_000_000_000_000))
def test_the_time_of_a_message_is_the_time_of_its_tick(now_ms: int) -> None:
    stamper = Stamper()
    stamper.tick(now_ms)
    assert stamper.at == format_time(now_ms).encode()
    stamper.tick(now_ms + 1)
    assert stamper.at == format_time(now_ms + 1).encode()


def test_time_never_runs_backwards() -> None:
    stamper = Stamper()
    stamper.tick(10_000)
    first = stamper.next_id()
    stamper.tick(9_000)
    assert stamper.at_ms == 10_000
    assert stamper.next_id() > first


@given(st.integers(0, 4_000_000_000_000))
def test_times_survive_a_round_trip(at_ms: int) -> None:
    assert parse_time(format_time(at_ms)) == at_ms


def test_times_are_written_as_rfc_3339_with_milliseconds() -> None:
    assert format_time(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"


@pytest.mark.parametrize(
    "name", ["a", "auth0|77", "user@example.com", "x" * 128, "1:2~3+4=5", "...", "a.", ".a", "..a"]
)
def test_names_of_the_alphabet_are_taken(name: str) -> None:
    assert is_identifier(name)


@pytest.mark.parametrize("name", ["", "x" * 129, 'a"b', "a\\b", "a b", "a\n", "é", "a/b", "a\x00"])
def test_names_that_would_need_escaping_are_not(name: str) -> None:
    assert not is_identifier(name)
    assert not is_kind(name)


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_clients_take_out_of_an_address_are_not(name: str) -> None:
    assert not is_identifier(name)
    assert is_kind(name)
    assert "not . or .." in IDENTIFIER_RULE


def test_ids_go_on_in_order_where_the_low_part_of_the_counter_begins_anew() -> None:
    stamper = Stamper()
    stamper.tick(1_700_000_000_000)
    ids = [stamper.next_id() for _ in range(10_000)]
    counters = [int(each[-12:], 16) for each in ids]
    assert counters == list(range(counters[0], counters[0] + 10_000))
    assert len({each[:-12] for each in ids}) == 1


class FixedNoise(Random):
    """Draws bits that are all the same."""

    def __init__(self, bit: int) -> None:
        super().__init__()
        self.bit = bit

    def getrandbits(self, k: int, /) -> int:
        return self.bit * ((1 << k) - 1)


@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize("now_ms", [0, 0x1_0000, 1_700_000_000_123, 4_000_000_000_000])
def test_ids_are_well_formed_and_rise_whatever_is_drawn(now_ms: int, bit: int) -> None:
    stamper = Stamper()
    stamper._noise = FixedNoise(bit)
    stamper.tick(now_ms)
    ids = [stamper.next_id() for _ in range(5_000)]
    assert ids == sorted(set(ids))
    for each in (ids[0], ids[-1]):
        parsed = uuid.UUID(each)
        assert str(parsed) == each
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == now_ms


def test_two_that_hand_out_ids_in_one_millisecond_hand_out_others() -> None:
    stampers = [Stamper() for _ in range(100)]
    for stamper in stampers:
        stamper.tick(1_700_000_000_000)
    ids = [stamper.next_id() for stamper in stampers]
    for part in (slice(19, 23), slice(24, 33), slice(33, 36)):
        assert len({each[part] for each in ids}) > 50

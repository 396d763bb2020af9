import tracemalloc
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.deduplication import WINDOW, Accepted, DeduplicationWindow

IDS = [str(uuid.UUID(int=number)) for number in range(10)]


class Clashing(str):
    """A name whose hash is that of all others of its kind."""

    __slots__ = ()
    __hash__ = lambda self: 7  # noqa: E731


def test_nothing_is_found_in_an_empty_window() -> None:
    assert DeduplicationWindow().find("alice", "c1") is None


def test_a_key_is_found_under_its_own_sender_only() -> None:
    window = DeduplicationWindow()
    window.add("alice", "c1", 2**63, IDS[1], -(2**63))
    assert window.find("alice", "c1") == Accepted(2**63, IDS[1], -(2**63))
    assert window.find("bob", "c1") is None
    assert window.find("alice", "c2") is None
    assert window.find("c1", "alice") is None


def test_at_least_the_last_thousand_are_kept_and_at_most_two_thousand() -> None:
    window = DeduplicationWindow()
    for seq in range(1, 10 * WINDOW + 1):
        window.add("alice", f"c{seq}", seq, IDS[seq % 10], 0)
        assert len(window) <= 2 * WINDOW
        oldest = max(1, seq - WINDOW + 1)
        assert window.find("alice", f"c{oldest}") == Accepted(oldest, IDS[oldest % 10], 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2_000)), unique=True))
def test_every_key_of_a_window_is_found_and_no_other(keys: list[tuple[str, int]]) -> None:
    window = DeduplicationWindow()
    for seq, (sender, number) in enumerate(keys, 1):
        assert window.find(sender, f"c{number}") is None
        window.add(sender, f"c{number}", seq, IDS[seq % 10], number)
    for seq, (sender, number) in enumerate(keys, 1):
        assert window.find(sender, f"c{number}") == Accepted(seq, IDS[seq % 10], number)


def test_of_two_keys_with_one_hash_the_later_is_found_and_the_others_stay_in_place() -> None:
    window = DeduplicationWindow()
    window.add("alice", "before", 1, IDS[1], 11)
    window.add("alice", Clashing("c2"), 2, IDS[2], 12)
    window.add("alice", Clashing("c3"), 3, IDS[3], 13)
    window.add("alice", "after", 4, IDS[4], 14)
    assert window.find("alice", "before") == Accepted(1, IDS[1], 11)
    assert window.find("alice", Clashing("c3")) == Accepted(3, IDS[3], 13)
    met = window.find("alice", Clashing("c2"))
    assert met is not None
    assert (met.seq, met.digest == 12) == (3, False)
    assert window.find("alice", "after") == Accepted(4, IDS[4], 14)
    assert len(window) == 4


@pytest.mark.parametrize("other", [("alice", "c2"), ("bob", "c1")])
def test_a_key_that_meets_another_is_no_repeat_of_it_though_the_content_is_the_same(
    other: tuple[str, str],
) -> None:
    window = DeduplicationWindow()
    window.add(Clashing("alice"), Clashing("c1"), 1, IDS[1], 11)
    met = window.find(*map(Clashing, other))
    assert met is not None
    assert met.digest != 11


def test_an_entry_takes_at_most_150_bytes_of_memory() -> None:
    tracemalloc.start()
    try:
        windows = [DeduplicationWindow() for _ in range(10)]
        for window in windows:
            for seq in range(1, 2 * WINDOW + 1):
                window.add("alice", f"c{seq}", seq, IDS[seq % 10], seq)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(window) for window in windows) == 20 * WINDOW
    assert taken <= 20 * WINDOW * 150


def test_the_window_says_from_where_on_it_is_complete() -> None:
    window = DeduplicationWindow()
    for seq in range(1, 2 * WINDOW + 1):
        window.add("alice", f"c{seq}", seq, IDS[0], seq)
        assert window.complete_from == 1
    window.add("alice", "one more", 2 * WINDOW + 1, IDS[0], 0)
    assert window.complete_from == WINDOW + 1
    assert window.find("alice", f"c{WINDOW}") is None
    assert window.find("alice", f"c{WINDOW + 1}") is not None

import tracemalloc
import uuid

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


def test_keys_that_share_a_slot_are_all_found() -> None:
    # Of 1,000 keys in 2,048 slots some 220 find theirs taken.
    window = DeduplicationWindow()
    for seq in range(1, WINDOW + 1):
        assert window.find("alice", f"c{seq}") is None
        window.add("alice", f"c{seq}", seq, IDS[0], seq)
    found = [window.find("alice", f"c{seq}") for seq in range(1, WINDOW + 1)]
    assert found == [Accepted(seq, IDS[0], seq) for seq in range(1, WINDOW + 1)]


def test_keys_with_one_hash_are_told_apart_by_the_digest_that_is_found() -> None:
    window = DeduplicationWindow()
    window.add("alice", Clashing("c1"), 1, IDS[1], 11)
    found = window.find("alice", Clashing("c2"))
    assert found is not None
    assert found.digest == 11


def test_an_entry_takes_at_most_fifty_bytes_of_memory() -> None:
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
    assert taken <= 20 * WINDOW * 50

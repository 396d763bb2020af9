from runtime.deduplication import WINDOW, Accepted, DeduplicationWindow


def test_a_key_is_found_under_its_own_sender_only() -> None:
    window = DeduplicationWindow()
    window.add(("alice", "c1"), Accepted(1, "i1", 7))
    assert window.find(("alice", "c1")) == Accepted(1, "i1", 7)
    assert window.find(("bob", "c1")) is None


def test_at_least_the_last_thousand_are_kept_and_at_most_two_thousand() -> None:
    window = DeduplicationWindow()
    for seq in range(1, 10 * WINDOW + 1):
        window.add(("alice", f"c{seq}"), Accepted(seq, "i", 0))
        assert len(window) <= 2 * WINDOW
        oldest = max(1, seq - WINDOW + 1)
        assert window.find(("alice", f"c{oldest}")) is not None

import pytest

from bench.checker import Findings, Kind, Replayed, SessionHistory
from bench.loads.outbox import Outbox, order_of
from bench.writer import content_of


@pytest.mark.parametrize(
    ("sends", "by_seq", "order"),
    [
        ([0, 1, 2], [0, 1, 2], [0, 1, 2]),
        ([0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 1, 2, 0, 1, 2, 3], [1, 2, 0, 3], [1, 2, 0, 3]),
        ([0, 1, 0, 1, 0, 2], [1, 0, 2], [1, 0, 2]),
    ],
    ids=["once", "repeated", "one-refused-unseen", "refused-twice"],
)
def test_an_order_that_fits_to_the_sends_is_the_order(
    sends: list[int], by_seq: list[int], order: list[int]
) -> None:
    assert order_of(sends, by_seq) == order


@pytest.mark.parametrize(
    ("sends", "by_seq"),
    [([0, 1], [1, 0]), ([0, 1, 2, 0, 1, 2, 3], [3, 1, 2, 0]), ([0, 1, 0, 1, 2], [1, 2, 0])],
)
def test_an_order_that_does_not_fit_stays_another_than_that_of_the_seqs(
    sends: list[int], by_seq: list[int]
) -> None:
    assert order_of(sends, by_seq) != by_seq


def test_what_was_never_acknowledged_has_the_place_of_its_last_send() -> None:
    assert order_of([0, 1, 0], [1]) == [1, 0]


def judged(by_seq: list[int]) -> Findings:
    """Zero and one are sent, then zero again; they end up at these seqs."""
    outbox, findings = Outbox("alice", 64), Findings()
    outbox.send(outbox.add(2), 0.0)
    outbox.send([0], 1.0)
    for seq, number in enumerate(by_seq, 1):
        outbox.acknowledge(number, seq, f"id-{seq}")
    history = SessionHistory("s", findings)
    outbox.note(history)
    history.check(
        Replayed(seq, f"id-{seq}", "alice", f"{number:010}", content_of(number, 64))
        for seq, number in enumerate(by_seq, 1)
    )
    return findings


@pytest.mark.parametrize("by_seq", [[0, 1], [1, 0]])
def test_a_repeated_message_may_be_stored_at_either_time(by_seq: list[int]) -> None:
    assert judged(by_seq).ok


def test_a_message_that_was_sent_once_keeps_its_place() -> None:
    outbox, findings = Outbox("alice", 64), Findings()
    outbox.send(outbox.add(2), 0.0)
    outbox.acknowledge(1, 1, "id-1")
    outbox.acknowledge(0, 2, "id-2")
    history = SessionHistory("s", findings)
    outbox.note(history)
    history.check(
        Replayed(seq, f"id-{seq}", "alice", f"{number:010}", content_of(number, 64))
        for seq, number in ((1, 1), (2, 0))
    )
    assert dict(findings.counts) == {Kind.REORDERED: 1}


def test_latencies_count_from_the_last_send() -> None:
    outbox = Outbox("alice", 64)
    outbox.send(outbox.add(1), 1.0)
    outbox.send(outbox.unanswered, 5.0)
    assert outbox.started(0) == 5.0
    assert outbox.acknowledge(0, 1, "id") == 5.0
    assert outbox.started(1) is None


def test_what_was_refused_waits_until_nothing_is_owed() -> None:
    outbox = Outbox("alice", 64)
    outbox.send(outbox.add(3), 0.0)
    outbox.refuse(1)
    assert (outbox.has_refused, outbox.is_owed) == (True, True)
    outbox.acknowledge(0, 1, "id-1")
    outbox.acknowledge(2, 2, "id-2")
    assert (outbox.has_refused, outbox.is_owed) == (True, False)
    assert outbox.unanswered == [1]
    outbox.send([1], 1.0)
    assert (outbox.has_refused, outbox.is_owed) == (False, True)

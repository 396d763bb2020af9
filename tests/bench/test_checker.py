from typing import Any

import pytest

from bench.checker import EXAMPLES_MAX, Findings, Kind, Replayed, SessionHistory, TailHistory


def message(number: int, **changes: Any) -> Replayed:
    """The nth message of alice, as a correct server replays it."""
    made = Replayed(number, f"id-{number}", "alice", f"c-{number}", b'"%d"' % number)
    return made._replace(**changes)


def history(count: int, findings: Findings, acknowledged: int | None = None) -> SessionHistory:
    """Alice sent `count` messages; the first of them, or all, were acknowledged."""
    sent = SessionHistory("s", findings)
    for number in range(1, count + 1):
        sent.send(("alice", f"c-{number}"), b'"%d"' % number)
    for number in range(1, (count if acknowledged is None else acknowledged) + 1):
        sent.acknowledge(("alice", f"c-{number}"), number, f"id-{number}")
    return sent


def found(
    replay: list[Replayed], count: int = 3, acknowledged: int | None = None
) -> dict[Kind, int]:
    findings = Findings()
    history(count, findings, acknowledged).check(replay)
    return dict(findings.counts)


def test_a_faithful_replay_finds_nothing() -> None:
    assert found([message(1), message(2), message(3)]) == {}


def test_a_message_without_an_ack_may_be_missing() -> None:
    assert found([message(1), message(2)], acknowledged=2) == {}


def test_a_message_without_an_ack_may_be_there() -> None:
    assert found([message(1), message(2), message(3)], acknowledged=2) == {}


def test_an_acknowledged_message_that_is_missing_is_lost() -> None:
    assert found([message(1), message(2)]) == {Kind.LOST: 1}


def test_an_empty_replay_loses_everything() -> None:
    assert found([]) == {Kind.LOST: 3}


def test_a_hole_in_the_seqs_is_a_gap() -> None:
    replay = [message(1), message(3)]
    assert found(replay, acknowledged=1) == {Kind.GAP: 1}


def test_a_replay_that_does_not_begin_at_one_has_a_gap() -> None:
    assert found([message(2), message(3)], acknowledged=0) == {Kind.GAP: 1}


def test_a_message_at_two_seqs_is_duplicated() -> None:
    replay = [message(1), message(2), message(3), message(1, seq=4)]
    assert found(replay) == {Kind.DUPLICATED: 1}


def test_an_unacknowledged_message_at_two_seqs_is_duplicated_as_well() -> None:
    replay = [message(1), message(1, seq=2, id="id-2")]
    assert found(replay, count=1, acknowledged=0) == {Kind.DUPLICATED: 1}


def test_a_seq_that_is_shown_twice_is_duplicated() -> None:
    replay = [message(1), message(2), message(2, client_id="c-3", content=b'"3"')]
    assert found(replay, acknowledged=2) == {Kind.DUPLICATED: 1}


def test_one_message_acknowledged_at_two_seqs_is_duplicated() -> None:
    findings = Findings()
    sent = history(3, findings)
    sent.acknowledge(("alice", "c-3"), 4, "id-4")
    sent.check([message(1), message(2), message(3)])
    assert dict(findings.counts) == {Kind.DUPLICATED: 1}


def test_an_ack_repeated_word_for_word_is_fine() -> None:
    findings = Findings()
    sent = history(3, findings)
    sent.acknowledge(("alice", "c-3"), 3, "id-3")
    sent.check([message(1), message(2), message(3)])
    assert findings.ok


def test_a_replay_that_steps_back_is_reordered() -> None:
    kinds = found([message(1), message(3), message(2)])
    assert kinds == {Kind.GAP: 1, Kind.REORDERED: 2}


def test_a_message_away_from_its_acknowledged_seq_is_reordered() -> None:
    replay = [message(1), message(2), message(3, seq=3, client_id="c-4", content=b'"4"')]
    findings = Findings()
    sent = history(4, findings, acknowledged=2)
    sent.acknowledge(("alice", "c-4"), 4, "id-3")
    sent.check(replay)
    assert dict(findings.counts) == {Kind.REORDERED: 1}


def test_two_messages_of_one_sender_that_changed_places_are_reordered() -> None:
    replay = [message(1), message(3, seq=2), message(2, seq=3)]
    assert found(replay, acknowledged=1) == {Kind.REORDERED: 1}


def test_a_message_sent_again_after_a_refusal_gave_up_its_place() -> None:
    findings = Findings()
    sent = history(3, findings, acknowledged=0)
    sent.send(("alice", "c-1"), b'"1"')
    sent.check([message(2, seq=1), message(3, seq=2), message(1, seq=3)])
    assert findings.ok


def test_messages_of_two_senders_may_come_in_any_order() -> None:
    findings = Findings()
    sent = history(1, findings, acknowledged=0)
    sent.send(("bob", "c-1"), b'"b"')
    sent.check([Replayed(1, "x", "bob", "c-1", b'"b"'), message(1, seq=2)])
    assert findings.ok


def test_other_content_is_changed() -> None:
    assert found([message(1), message(2, content=b'"2" '), message(3)]) == {Kind.CHANGED: 1}


@pytest.mark.parametrize("change", [{"kind": "other"}, {"metadata": b'{"m":1}'}])
def test_another_kind_and_other_metadata_are_changed(change: dict[str, Any]) -> None:
    assert found([message(1), message(2, **change), message(3)]) == {Kind.CHANGED: 1}


def test_kind_and_metadata_that_were_sent_must_come_back() -> None:
    findings = Findings()
    sent = SessionHistory("s", findings)
    sent.send(("alice", "c-1"), b'"1"', kind="event", metadata=b'{"m":1}')
    sent.check([message(1, kind="event", metadata=b'{"m":1}')])
    assert findings.ok
    sent.check([message(1)])
    (example,) = findings.examples
    assert "sent kind 'event', found 'text', sent metadata b'{\"m\":1}', found b'{}'" in example


def test_another_id_than_the_acknowledged_one_is_changed() -> None:
    assert found([message(1), message(2, id="other"), message(3)]) == {Kind.CHANGED: 1}


@pytest.mark.parametrize(
    "change", [{"sender": "mallory"}, {"client_id": "c-9"}, {"client_id": None}]
)
def test_a_message_that_nobody_sent_is_a_phantom(change: dict[str, str | None]) -> None:
    assert found([message(1), message(2, **change)], acknowledged=1) == {Kind.PHANTOM: 1}


def test_findings_of_many_sessions_add_up_and_examples_are_bounded() -> None:
    findings = Findings()
    for _ in range(EXAMPLES_MAX * 2):
        history(1, findings).check([])
    assert findings.verdict()["lost"] == EXAMPLES_MAX * 2
    assert findings.verdict()["ok"] is False
    assert len(findings.examples) == EXAMPLES_MAX


def seen(*shown: Replayed, after_seq: int = 0) -> tuple[TailHistory, Findings]:
    findings = Findings()
    tail = TailHistory("s", findings, after_seq)
    for each in shown:
        tail.see(each)
    return tail, findings


REPLAY = [message(1), message(2), message(3)]


def test_a_tail_that_showed_everything_once_finds_nothing() -> None:
    tail, findings = seen(*REPLAY)
    tail.check(REPLAY, complete=True)
    assert findings.ok
    assert tail.cursor == 3


def test_a_tail_may_begin_later() -> None:
    tail, findings = seen(message(3), after_seq=2)
    tail.check(REPLAY, complete=True)
    assert findings.ok


def test_a_seq_shown_again_by_a_tail_is_duplicated() -> None:
    _, findings = seen(message(1), message(1))
    assert dict(findings.counts) == {Kind.DUPLICATED: 1}


def test_a_seq_left_out_by_a_tail_is_a_gap_and_lost_if_the_replay_has_it() -> None:
    tail, findings = seen(message(1), message(3))
    assert dict(findings.counts) == {Kind.GAP: 1}
    assert tail.cursor == 3
    tail.check(REPLAY, complete=False)
    assert dict(findings.counts) == {Kind.GAP: 1, Kind.LOST: 1}


def test_a_seq_far_beyond_any_gap_does_not_move_a_tail() -> None:
    tail, findings = seen(message(1), message(10**12), message(2))
    assert dict(findings.counts) == {Kind.GAP: 1}
    assert tail.cursor == 2


def test_a_tail_that_ended_early_lost_the_rest() -> None:
    tail, findings = seen(message(1))
    tail.check(REPLAY, complete=True)
    assert dict(findings.counts) == {Kind.LOST: 2}


def test_a_tail_that_was_left_early_lost_nothing() -> None:
    tail, findings = seen(message(1))
    tail.check(REPLAY, complete=False)
    assert findings.ok


def test_a_tail_that_showed_other_content_than_the_replay_is_changed() -> None:
    tail, findings = seen(message(1), message(2, content=b"?"))
    tail.check(REPLAY, complete=False)
    assert dict(findings.counts) == {Kind.CHANGED: 1}


def test_a_tail_that_showed_what_no_replay_has_is_a_phantom() -> None:
    tail, findings = seen(*REPLAY)
    tail.check(REPLAY[:2], complete=True)
    assert dict(findings.counts) == {Kind.PHANTOM: 1}

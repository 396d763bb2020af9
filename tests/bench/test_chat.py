"""Conversations that are played to servers that lie, and to one that refuses."""

from array import array

import msgspec
import pytest

from bench.checker import Findings
from bench.conversations import load_conversations
from bench.generator import Outcome, run_load
from bench.loads.chat import Chat, ChatPlan
from bench.loads.part import Part, make_part
from tests.fakes.liar import Frame, Liar, Lie, Tell, open_liar

CONVERSATIONS = 20


def outcome(liar: Liar | None = None, *, seconds: float = 1.0) -> tuple[Chat, Outcome]:
    with open_liar(liar=liar) as url:
        plan = ChatPlan(
            url=url,
            run_id="test",
            seconds=seconds,
            warmup_seconds=0.0,
            conversations=CONVERSATIONS,
            # Faster than anyone can talk: what is played, and in which order, is the same.
            speed_up=50_000.0,
            connections=3,
        )
        load = Chat(plan, patience_seconds=0.3)
        return load, run_load(load, plan, lambda _: None)


def found(run: Outcome) -> set[str]:
    return {kind for kind, count in run.verdict.items() if count and kind != "ok"}


def messages() -> int:
    return sum(len(each.messages) for each in load_conversations("", CONVERSATIONS))


def test_a_run_ends_when_everything_was_played_acknowledged_and_shown() -> None:
    load, run = outcome(seconds=30.0)
    assert run.verdict["ok"], run.examples
    assert load.is_done
    assert run.seconds < 30.0
    assert run.acked == messages()
    for kind in ("ack", "late", "delivery"):
        assert load.tally.count(kind) == messages(), kind


def test_refusals_change_no_order() -> None:
    _, run = outcome(Liar(refuse_every=50))
    assert run.verdict["ok"], run.examples
    assert run.refused["backpressure"] > 0
    assert run.acked == messages()


def lose_the_last(shown: list[Frame]) -> list[Frame]:
    return shown[:-1]


def change_the_first(shown: list[Frame]) -> list[Frame]:
    return [message | {"content": {"text": "?"}} for message in shown[:1]] + shown[1:]


@pytest.mark.parametrize(("lie", "kinds"), [(lose_the_last, "lost"), (change_the_first, "changed")])
def test_a_replay_that_is_not_the_conversation_is_found(lie: Lie, kinds: str) -> None:
    verdict = outcome(Liar(lie))[1].verdict
    assert verdict[kinds] >= CONVERSATIONS


def leave_out(user: str, message: Frame) -> list[Frame]:
    return [] if message["seq"] == 2 else [message]


def repeat(user: str, message: Frame) -> list[Frame]:
    return [message] * 2 if message["seq"] == 2 else [message]


def change(user: str, message: Frame) -> list[Frame]:
    return [message | {"content": {}} if message["seq"] == 2 else message]


@pytest.mark.parametrize(
    ("tell", "kinds"),
    [
        (leave_out, {"gap", "lost"}),
        (repeat, {"duplicated"}),
        (change, {"changed"}),
        (lambda _, message: [message | {"session": "another"}], {"phantom", "lost"}),
    ],
    ids=["left-out", "repeated", "changed", "of-another-session"],
)
def test_a_reader_that_is_shown_something_else_is_found(tell: Tell, kinds: set[str]) -> None:
    assert found(outcome(Liar(tell=tell))[1]) == kinds


def part() -> Part:
    longest = load_conversations("p-", 50)[0]
    made = make_part(7, longest, array("d", range(len(longest.messages))), Findings())
    made.due = 4
    made.is_open = True
    return made


def test_a_part_sends_what_is_due_once_and_nothing_before_its_reader_is_there() -> None:
    made = part()
    made.is_open = False
    assert made.take() == []
    made.is_open = True
    assert made.take() == made.frames[:4]
    assert made.take() == []
    made.due = 5
    assert made.take() == made.frames[4:5]


def test_a_part_goes_back_to_what_was_refused_when_all_is_answered() -> None:
    made = part()
    made.take()
    made.answers.append((0, 1, "id-1"))
    made.refuse(0.5)
    made.due = 6
    assert made.take() == []
    answered = []
    for _ in range(2):
        made.refuse(0.0)
        answered.append(made.is_answered)
    assert answered == [False, True]
    assert made.pause_seconds == 0.5
    made.rewind()
    assert made.take() == made.frames[1:6]


def test_each_message_names_its_place() -> None:
    frame = part().frames[3]
    sent = msgspec.json.decode(frame[frame.index(b"{") :])
    assert (sent["ref"], sent["expected_seq"], sent["client_id"]) == ("7 3", 3, "3")

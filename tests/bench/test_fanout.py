"""The verdict on deliveries, with servers that show one subscriber, or all of them, something else."""

import time
from collections import Counter

import msgspec
import pytest

from bench.generator import Outcome, run_load
from bench.loads.fanout import Fanout, FanoutPlan
from tests.fakes.liar import Frame, Liar, Lie, Tell, honest, open_liar, tell_the_truth

SUBSCRIBERS = 3
VICTIM = "bench-test-1"
"""The user of one of them."""


def plan(url: str, **changes: object) -> FanoutPlan:
    given = FanoutPlan(
        url=url,
        run_id="test",
        seconds=0.3,
        warmup_seconds=0.0,
        subscribers=SUBSCRIBERS,
        content_bytes=64,
    )
    return msgspec.structs.replace(given, **changes)


def outcome(
    tell: Tell = tell_the_truth, lie: Lie = honest, **changes: object
) -> tuple[Fanout, Outcome]:
    with open_liar(liar=Liar(lie, tell=tell)) as url:
        given = plan(url, **changes)
        load = Fanout(given, patience_seconds=0.3)
        return load, run_load(load, given, lambda _: None)


def found(run: Outcome) -> dict[str, int]:
    return {kind: count for kind, count in run.verdict.items() if count and kind != "ok"}


def test_each_subscriber_is_shown_each_message_once() -> None:
    load, run = outcome()
    assert run.verdict["ok"], run.examples
    assert run.counted > 0
    assert load.tally.count("delivery") == run.acked * SUBSCRIBERS


def test_an_open_loop_sends_at_its_rate_and_counts_from_when_a_message_was_due() -> None:
    with open_liar() as url:
        given = plan(url, per_second=1.0)
        load = Fanout(given, clock=lambda: time.perf_counter() - 10)
        load.begin()
        load.turn(0)
        load.drain()
        load.close()
    assert load.acked == 1
    assert load.tally.count("delivery") == SUBSCRIBERS
    assert 10_000_000 <= load.tally.now["delivery"].max < 20_000_000


def leave_out(user: str, message: Frame) -> list[Frame]:
    return [] if user == VICTIM and message["seq"] == 3 else [message]


def fall_silent(user: str, message: Frame) -> list[Frame]:
    return [] if user == VICTIM and message["seq"] > 3 else [message]


def repeat(user: str, message: Frame) -> list[Frame]:
    return [message] * 2 if user == VICTIM and message["seq"] == 3 else [message]


def change_id(user: str, message: Frame) -> list[Frame]:
    return [message | {"id": "other"} if user == VICTIM and message["seq"] == 3 else message]


def change_content(user: str, message: Frame) -> list[Frame]:
    return [message | {"content": {}} if user == VICTIM and message["seq"] == 3 else message]


class Swap:
    """Show the victim the third message after the fourth."""

    def __init__(self) -> None:
        self._held: list[Frame] = []

    def __call__(self, user: str, message: Frame) -> list[Frame]:
        if user != VICTIM:
            return [message]
        if message["seq"] == 3:
            self._held = [message]
            return []
        held, self._held = self._held, []
        return [message, *held]


@pytest.mark.parametrize(
    ("tell", "counts"),
    [
        (leave_out, {"gap": 1, "lost": 1}),
        (fall_silent, {"lost": 1}),
        (repeat, {"duplicated": 1}),
        (Swap(), {"gap": 1, "reordered": 1}),
    ],
    ids=["left-out", "silent", "repeated", "swapped"],
)
def test_one_subscriber_that_is_shown_something_else_is_found(
    tell: Tell, counts: dict[str, int]
) -> None:
    assert found(outcome(tell)[1]) == counts


@pytest.mark.parametrize("tell", [change_id, change_content])
def test_one_subscriber_that_is_shown_another_message_is_found(tell: Tell) -> None:
    """How often depends on who is shown it first: whoever differs from the first is noted."""
    assert set(found(outcome(tell)[1])) == {"changed"}


def change_for_all(user: str, message: Frame) -> list[Frame]:
    return [message | {"content": {}} if message["seq"] == 3 else message]


def invent_for_all(user: str, message: Frame) -> list[Frame]:
    return [message | {"client_id": "nobody"} if message["seq"] == 3 else message]


def lose_for_all(user: str, message: Frame) -> list[Frame]:
    return [] if message["seq"] == 3 else [message]


@pytest.mark.parametrize(
    ("tell", "counts"),
    [
        (change_for_all, {"changed": 1}),
        # Each subscriber meets it, and what nobody sent is not kept: the comparison misses it.
        (invent_for_all, {"phantom": SUBSCRIBERS, "gap": 1, "lost": 1}),
        (lose_for_all, {"gap": SUBSCRIBERS + 1, "lost": SUBSCRIBERS + 1}),
    ],
)
def test_what_all_were_shown_alike_is_compared_with_the_replay(
    tell: Tell, counts: dict[str, int]
) -> None:
    assert found(outcome(tell)[1]) == counts


def test_the_writer_is_checked_as_well() -> None:
    kinds = Counter(found(outcome(lie=lambda messages: messages[:-1])[1]))
    # The replay lacks what was acknowledged, and what was shown.
    assert kinds == {"lost": 1, "phantom": 1}

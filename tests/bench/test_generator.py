"""The generator's verdict, on servers that lie: each way of breaking the promise is seen."""

import pytest

from bench.generator import Load, Outcome, Plan
from tests.fakes.liar import Frame, Lie, honest, open_liar

CONNECTIONS = 2


def outcome(lie: Lie, *, refuse_every: int | None = None) -> Outcome:
    with open_liar(lie, refuse_every=refuse_every) as url:
        plan = Plan(
            url=url,
            connections=CONNECTIONS,
            in_flight=3,
            seconds=0.05,
            warmup_seconds=0.01,
            content_bytes=64,
            joined=False,
            run_id="test",
        )
        return Load(plan, lambda _: None).run()


def test_an_honest_server_has_a_rate_and_latencies() -> None:
    run = outcome(honest)
    assert run.verdict["ok"], run.examples
    assert run.rate_per_second > 0
    assert run.acked > 0
    assert 0 < run.ack_ms["p50"] <= run.ack_ms["p99"] <= run.ack_ms["p999"] <= run.ack_ms["max"]


def test_refusals_are_counted_and_not_taken_for_acks() -> None:
    run = outcome(honest, refuse_every=5)
    assert run.verdict["ok"], run.examples
    assert run.refused["backpressure"] > 0


def lose_one(messages: list[Frame]) -> list[Frame]:
    return messages[:2] + messages[3:]


def lose_the_last(messages: list[Frame]) -> list[Frame]:
    return messages[:-1]


def repeat_one(messages: list[Frame]) -> list[Frame]:
    again = [message | {"seq": len(messages) + 1, "id": "again"} for message in messages[:1]]
    return messages + again


def swap_two(messages: list[Frame]) -> list[Frame]:
    if len(messages) < 2:
        return messages
    first, second, *rest = messages
    return [second | {"seq": 1}, first | {"seq": 2}, *rest]


def change_one(messages: list[Frame]) -> list[Frame]:
    return [messages[0] | {"content": {"n": "another"}}, *messages[1:]] if messages else []


def rename_one(messages: list[Frame]) -> list[Frame]:
    return [messages[0] | {"id": "another"}, *messages[1:]] if messages else []


@pytest.mark.parametrize(
    ("lie", "kinds"),
    [
        (lose_one, {"lost", "gap"}),
        (lose_the_last, {"lost"}),
        (repeat_one, {"duplicated"}),
        (swap_two, {"reordered"}),
        (change_one, {"changed"}),
        (rename_one, {"changed"}),
    ],
)
def test_a_lie_is_seen_in_every_session(lie: Lie, kinds: set[str]) -> None:
    verdict = outcome(lie).verdict
    assert verdict.pop("ok") is False
    assert {kind for kind, count in verdict.items() if count >= CONNECTIONS} == kinds

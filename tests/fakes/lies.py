"""Ways in which a replay can break the promise, and what a checker calls each. See `tests.fakes.liar`."""

import pytest

from tests.fakes.liar import Frame


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


LIES = [
    pytest.param(lose_one, {"lost", "gap"}, id="lost"),
    pytest.param(lose_the_last, {"lost"}, id="last-lost"),
    pytest.param(repeat_one, {"duplicated"}, id="repeated"),
    pytest.param(swap_two, {"reordered"}, id="swapped"),
    pytest.param(change_one, {"changed"}, id="changed"),
    pytest.param(rename_one, {"changed"}, id="renamed"),
]
"""For sessions of at least four messages."""

LIES_ABOUT_ONE = [
    pytest.param(lose_the_last, {"lost"}, id="lost"),
    pytest.param(repeat_one, {"duplicated"}, id="repeated"),
    pytest.param(change_one, {"changed"}, id="changed"),
    pytest.param(rename_one, {"changed"}, id="renamed"),
]
"""For sessions of one message."""


def kinds_found(verdict: dict[str, bool | int], *, at_least: int = 1) -> set[str]:
    """Return what was found so often, in a verdict that is not good."""
    counts = dict(verdict)
    assert counts.pop("ok") is False
    return {kind for kind, count in counts.items() if count >= at_least}

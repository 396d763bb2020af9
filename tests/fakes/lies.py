"""Ways in which a replay can break the promise, and what a checker calls each. See `tests.fakes.liar`."""

import pytest

from tests.fakes.liar import Frame, Tell


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


def change_the_kind_of_one(messages: list[Frame]) -> list[Frame]:
    return [messages[0] | {"kind": "another"}, *messages[1:]] if messages else []


def change_the_metadata_of_one(messages: list[Frame]) -> list[Frame]:
    return [messages[0] | {"metadata": {"n": "another"}}, *messages[1:]] if messages else []


def leave_the_metadata_of_one_out(messages: list[Frame]) -> list[Frame]:
    first = [
        {name: value for name, value in each.items() if name != "metadata"} for each in messages[:1]
    ]
    return first + messages[1:]


LIES = [
    pytest.param(lose_one, {"lost", "gap"}, id="lost"),
    pytest.param(lose_the_last, {"lost"}, id="last-lost"),
    pytest.param(repeat_one, {"duplicated"}, id="repeated"),
    pytest.param(swap_two, {"reordered"}, id="swapped"),
    pytest.param(change_one, {"changed"}, id="changed"),
    pytest.param(rename_one, {"changed"}, id="renamed"),
    pytest.param(change_the_kind_of_one, {"changed"}, id="kind"),
    pytest.param(change_the_metadata_of_one, {"changed"}, id="metadata"),
    pytest.param(leave_the_metadata_of_one_out, {"changed"}, id="metadata-left-out"),
]
"""For sessions of at least four messages."""

LIES_ABOUT_ONE = [
    pytest.param(lose_the_last, {"lost"}, id="lost"),
    pytest.param(repeat_one, {"duplicated"}, id="repeated"),
    pytest.param(change_one, {"changed"}, id="changed"),
    pytest.param(rename_one, {"changed"}, id="renamed"),
    pytest.param(change_the_kind_of_one, {"changed"}, id="kind"),
    pytest.param(change_the_metadata_of_one, {"changed"}, id="metadata"),
    pytest.param(leave_the_metadata_of_one_out, {"changed"}, id="metadata-left-out"),
]
"""For sessions of one message."""


def tell_another(**changes: object) -> Tell:
    """Return how to show the third message of a session otherwise than it is stored."""

    def tell(user: str, message: Frame) -> list[Frame]:
        return [message | changes if message["seq"] == 3 else message]

    return tell


def tell_nothing(user: str, message: Frame) -> list[Frame]:
    return [] if message["seq"] == 3 else [message]


def tell_twice(user: str, message: Frame) -> list[Frame]:
    return [message] * (2 if message["seq"] == 3 else 1)


LIVE_LIES = [
    pytest.param(tell_another(content={"n": "another"}), {"changed"}, id="changed"),
    pytest.param(tell_another(kind="another"), {"changed"}, id="kind"),
    pytest.param(tell_another(metadata={"n": "another"}), {"changed"}, id="metadata"),
    pytest.param(tell_another(sender="another"), {"changed"}, id="sender"),
    pytest.param(tell_another(id="another"), {"changed"}, id="renamed"),
    pytest.param(tell_another(client_id="another"), {"changed"}, id="client-id"),
    pytest.param(tell_nothing, {"gap", "lost"}, id="left-out"),
    pytest.param(tell_twice, {"duplicated"}, id="repeated"),
]
"""For sessions of at least four messages, of which the replay shows the truth."""


def kinds_found(verdict: dict[str, bool | int], *, at_least: int = 1) -> set[str]:
    """Return what was found so often, in a verdict that is not good."""
    counts = dict(verdict)
    assert counts.pop("ok") is False
    return {kind for kind, count in counts.items() if count >= at_least}

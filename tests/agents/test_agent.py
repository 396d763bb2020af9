"""An agent's configuration: what is allowed in each field, and what a change makes of it."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from agents import (
    BUILT_IN,
    CHANGEABLE,
    CHOICES,
    RANGES,
    TYPES,
    AgentError,
    ChangeAgent,
    CreateAgent,
)
from agents.agent import (
    FIELDS,
    METADATA_BYTES_MAX,
    MODEL_LENGTH_MAX,
    SYSTEM_BYTES_MAX,
    URL_LENGTH_MAX,
    Agent,
    agent_of,
    check,
    decode,
    encode,
    merge,
)
from agents.errors import IncompleteAgentError, InvalidAgentError

URL = "https://agents.example/hook"
WEBHOOK = Agent(id="a", type="webhook", url=URL)
OPENAI = Agent(id="a", type="openai", url=URL, model="m")


def with_fields(agent: Agent, **fields: Any) -> Agent:
    return msgspec.structs.replace(agent, **fields)


@pytest.mark.parametrize("agent", [WEBHOOK, OPENAI, Agent(id="a", type="pull"), *BUILT_IN.values()])
def test_every_type_is_allowed_with_what_it_needs(agent: Agent) -> None:
    check(agent)
    assert agent.type in TYPES
    assert decode(encode(agent)) == agent


@pytest.mark.parametrize("name", RANGES)
def test_a_number_keeps_to_its_range_and_has_a_default_within(name: str) -> None:
    low, high = RANGES[name]
    assert low <= getattr(WEBHOOK, name) <= high
    room = {"debounce_max_ms": 600_000} if name == "debounce_window_ms" else {}
    room |= {"debounce_window_ms": 0} if name == "debounce_max_ms" else {}
    for value in (low, high):
        check(with_fields(WEBHOOK, **room | {name: value}))
    for value in (low - 1, high + 1, -(10**30), 10**30):
        with pytest.raises(InvalidAgentError) as refused:
            check(with_fields(WEBHOOK, **room | {name: value}))
        assert refused.value.details == {"field": name}
        assert f"{low} to {high}" in str(refused.value)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_those_that_are_named(name: str) -> None:
    for choice in CHOICES[name]:
        if name != "type":
            check(with_fields(WEBHOOK, **{name: choice}))
    for choice in ("", "Enabled", "none", CHOICES[name][0] + " "):
        with pytest.raises(InvalidAgentError) as refused:
            check(with_fields(WEBHOOK, **{name: choice}))
        assert refused.value.details == {"field": name}
        assert CHOICES[name][-1] in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080",
        "https://agents.example/hook?team=a%20b&x=1",
        "https://[2001:db8::1]:8443/x",
        "HTTPS://EXAMPLE.com/",
        "http://x/" + "a" * (URL_LENGTH_MAX - 9),
    ],
)
def test_a_url_that_can_be_called_is_taken(url: str) -> None:
    check(with_fields(WEBHOOK, url=url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "agents.example/hook",
        "//agents.example/hook",
        "ftp://agents.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///hook",
        "https://:443/hook",
        "https://agents.example:0/",
        "https://agents.example:70000/",
        "https://agents.example:x/",
        "https://user:password@agents.example/",
        "https://user@agents.example/",
        "https://@agents.example/",
        "https://agents.example/#part",
        "https://agents.example/a b",
        "https://agents.example/\r\nX: y",
        "https://agents.example/\0",
        "https://agents.example\\@evil.example/",
        "https://ägents.example/",
        "https://[::1/",
        "https://x/" + "a" * URL_LENGTH_MAX,
    ],
)
def test_a_url_that_cannot_be_called_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        check(with_fields(WEBHOOK, url=url))
    assert refused.value.details == {"field": "url"}
    assert len(url) < 9 or url not in str(refused.value)


@pytest.mark.parametrize(
    ("agent", "field"),
    [
        (Agent(id="a", type="webhook"), "url"),
        (Agent(id="a", type="openai", url=URL), "model"),
        (Agent(id="a", type="openai", model="m"), "url"),
    ],
)
def test_what_a_type_needs_must_be_there(agent: Agent, field: str) -> None:
    with pytest.raises(IncompleteAgentError) as refused:
        check(agent)
    assert (refused.value.code, refused.value.details) == ("missing_field", {"field": field})


@pytest.mark.parametrize(
    ("agent", "field"),
    [
        (Agent(id="a", type="pull", url=URL), "url"),
        (Agent(id="a", type="echo", model="m"), "model"),
        (with_fields(WEBHOOK, system="be kind"), "system"),
        (with_fields(WEBHOOK, id="a/b"), "id"),
        (with_fields(WEBHOOK, id=".."), "id"),
        (with_fields(OPENAI, model=""), "model"),
        (with_fields(OPENAI, model="m\n"), "model"),
        (with_fields(OPENAI, model="m" * (MODEL_LENGTH_MAX + 1)), "model"),
        (with_fields(OPENAI, system="é" * (SYSTEM_BYTES_MAX // 2) + "x"), "system"),
        (with_fields(WEBHOOK, metadata=Raw(b'"' + b"x" * METADATA_BYTES_MAX + b'"')), "metadata"),
        (with_fields(WEBHOOK, debounce_window_ms=2, debounce_max_ms=1), "debounce_max_ms"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(agent: Agent, field: str) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        check(agent)
    assert (refused.value.code, refused.value.details) == ("invalid_field", {"field": field})


def test_a_request_becomes_an_agent_without_its_secrets() -> None:
    request = CreateAgent(
        id="a", type="webhook", url=URL, headers={"X": "canary"}, signing_secret="canary"
    )
    agent = agent_of(request)
    assert type(agent) is Agent
    assert agent == WEBHOOK
    assert "canary" not in repr(request) + repr(agent)
    assert b"canary" not in encode(agent)


def test_a_change_leaves_what_it_does_not_name() -> None:
    assert merge(WEBHOOK, ChangeAgent()) == WEBHOOK
    changed = merge(WEBHOOK, ChangeAgent(status="disabled", metadata=Raw(b"[1]")))
    assert changed == with_fields(WEBHOOK, status="disabled", metadata=Raw(b"[1]"))
    assert merge(with_fields(OPENAI, system="x"), ChangeAgent(system=None)) == OPENAI
    assert "canary" not in repr(ChangeAgent(headers={"X": "canary"}, signing_secret="canary"))


@pytest.mark.parametrize(
    ("agent", "change"),
    [
        (WEBHOOK, ChangeAgent(url="ftp://x")),
        (WEBHOOK, ChangeAgent(debounce_window_ms=5_001)),
        (WEBHOOK, ChangeAgent(model="m")),
        (Agent(id="a", type="pull"), ChangeAgent(url=URL)),
    ],
)
def test_a_change_is_checked_with_what_stays(agent: Agent, change: ChangeAgent) -> None:
    with pytest.raises(AgentError):
        merge(agent, change)


def test_every_field_but_the_id_and_the_type_can_be_changed() -> None:
    own = {"headers", "signing_secret", "expected_version"}
    assert set(ChangeAgent.__struct_fields__) - own == CHANGEABLE
    assert set(FIELDS) - CHANGEABLE == {"id", "type"}
    assert set(CreateAgent.__struct_fields__) == set(FIELDS) | own - {"expected_version"}
    left_out = {name for name in CHANGEABLE if getattr(ChangeAgent(), name) is UNSET}
    assert left_out == CHANGEABLE - {"metadata"}


def test_a_field_that_a_later_version_stored_is_passed_over() -> None:
    body = msgspec.json.decode(encode(WEBHOOK)) | {"later": {"x": 1}}
    assert decode(msgspec.json.encode(body)) == WEBHOOK


def test_metadata_is_stored_byte_for_byte() -> None:
    raw = Raw(b'{"big":123456789012345678901234567890, "e":1e999,"dup":1,"dup":2}')
    agent = with_fields(WEBHOOK, metadata=raw)
    assert bytes(raw) in encode(agent)
    assert decode(encode(agent)) == agent

"""The registry, on SQLite and on PostgreSQL: what is created, changed, deleted, and sealed anew."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from agents import (
    BUILT_IN,
    AgentBuiltInError,
    AgentConflictError,
    AgentExistsError,
    AgentNotFoundError,
    ChangeAgent,
    CreateAgent,
    InvalidAgentError,
    Registry,
    SecretsDamagedError,
    SecretsKeyMissingError,
    SecretsKeyUnknownError,
    Vault,
)
from agents.registry import CHANGE_ATTEMPTS_MAX, DAMAGED
from agents.sealed import make_signing_secret
from agents.secretskey import make_key
from storage import AgentRow, Archive

URL = "https://agents.example/hook"
KEY = make_key()
SIGNING = make_signing_secret()


def webhook(**fields: object) -> CreateAgent:
    request = CreateAgent(id="support", type="webhook", url=URL, headers={"X-Key": "canary"})
    return replace(request, **fields)


def registry_over(archive: Archive, *keys: object) -> Registry:
    ticks = count(1_000)
    return Registry(archive, Vault(keys), lambda: next(ticks))  # type: ignore[arg-type]


@pytest.fixture
def registry(archive: Archive) -> Registry:
    return registry_over(archive, KEY)


def test_an_agent_is_created_once_and_read_by_every_process(
    archive: Archive, registry: Registry
) -> None:
    saved = registry.create("default", webhook())
    assert saved.new
    assert saved.signing_secret is not None
    assert saved.signing_secret not in repr(saved)
    other = registry_over(archive, KEY)
    read = other.show("default", "support")
    assert read == saved.registered
    assert (read.version, read.built_in, read.created_at_ms) == (1, False, 1_000)
    opened = other.open_secrets(read)
    assert (dict(opened.headers), opened.signing) == ({"X-Key": "canary"}, (saved.signing_secret,))


def test_the_same_again_is_the_same_and_anything_else_is_refused(registry: Registry) -> None:
    first = registry.create("default", webhook())
    again = registry.create("default", webhook())
    assert (again.new, again.signing_secret) == (False, None)
    assert again.registered == first.registered
    made = first.signing_secret
    assert registry.create("default", webhook(signing_secret=made)).registered == first.registered
    for other in (
        webhook(headers={"X-Key": "other"}),
        webhook(headers={"X-Other": "canary"}),
        webhook(headers={}),
        webhook(signing_secret=SIGNING),
        webhook(concurrency=51),
        webhook(type="openai", model="m"),
    ):
        with pytest.raises(AgentExistsError) as refused:
            registry.create("default", other)
        assert "canary" not in str(refused.value)
    assert registry.create("elsewhere", webhook(concurrency=51)).new


def test_a_signing_secret_of_ones_own_is_not_told_again(registry: Registry) -> None:
    saved = registry.create("default", webhook(signing_secret=SIGNING))
    assert saved.signing_secret is None
    assert registry.open_secrets(saved.registered).signing == (SIGNING,)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (CreateAgent(id="w", type="pull", headers={"X": "1"}), "headers"),
        (CreateAgent(id="w", type="pull", signing_secret=SIGNING), "signing_secret"),
        (webhook(type="openai", model="m", signing_secret=SIGNING), "signing_secret"),
        (webhook(signing_secret="whsec_"), "signing_secret"),
        (webhook(headers={"Host": "x"}), "headers.Host"),
        (webhook(concurrency=0), "concurrency"),
    ],
)
def test_what_is_refused_leaves_nothing(
    registry: Registry, archive: Archive, request_: CreateAgent, field: str
) -> None:
    with pytest.raises(InvalidAgentError) as refused:
        registry.create("default", request_)
    assert refused.value.details == {"field": field}
    assert archive.list_agents(None) == []


def test_agents_without_secrets_need_no_key(archive: Archive) -> None:
    keyless = registry_over(archive)
    assert keyless.create("default", CreateAgent(id="w", type="pull")).signing_secret is None
    openai = CreateAgent(id="o", type="openai", url=URL, model="m")
    assert keyless.create("default", openai).new
    for request in (webhook(), webhook(headers={}), replace(openai, id="p", headers={"X": "1"})):
        with pytest.raises(SecretsKeyMissingError):
            keyless.create("default", request)
    assert [each.agent.id for each in keyless.list("default")] == ["echo", "lorem", "o", "w"]


def test_the_built_in_agents_are_everywhere_and_stay_as_they_are(registry: Registry) -> None:
    for workspace in ("default", "another"):
        for name in BUILT_IN:
            shown = registry.show(workspace, name)
            assert (shown.built_in, shown.agent, shown.workspace) == (
                True,
                BUILT_IN[name],
                workspace,
            )
            assert registry.open_secrets(shown).signing == ()
            with pytest.raises(AgentBuiltInError):
                registry.create(workspace, CreateAgent(id=name, type=name))
            with pytest.raises(AgentBuiltInError):
                registry.change(workspace, name, ChangeAgent(status="disabled"))
            with pytest.raises(AgentBuiltInError):
                registry.delete(workspace, name)
    own = registry.create("default", CreateAgent(id="mine", type="lorem", debounce_window_ms=0))
    assert own.registered.agent.debounce_window_ms == 0


def test_a_list_has_all_of_a_workspace_by_id_in_pages(registry: Registry) -> None:
    for name in ("a", "f", "z"):
        registry.create("default", CreateAgent(id=name, type="pull"))
    registry.create("other", CreateAgent(id="b", type="pull"))
    for limit in (1, 2, 3, 10):
        found: list[str] = []
        while page := registry.list("default", found[-1] if found else "", limit):
            assert len(page) <= limit
            found += [each.agent.id for each in page]
        assert found == ["a", "echo", "f", "lorem", "z"]


def test_many_are_read_at_once_of_those_that_are_there(registry: Registry) -> None:
    registry.create("default", webhook())
    keys = [("default", "support"), ("default", "none"), ("other", "support"), ("other", "echo")]
    assert set(registry.read(keys)) == {("default", "support"), ("other", "echo")}
    assert registry.read([]) == {}


# Changing


def test_a_change_is_seen_at_the_next_look_and_counts(registry: Registry) -> None:
    registry.create("default", webhook())
    change = ChangeAgent(status="disabled", headers={"x-key": None, "X-New": "2"})
    saved = registry.change("default", "support", change)
    assert saved.registered == registry.show("default", "support")
    assert (saved.registered.version, saved.registered.agent.status) == (2, "disabled")
    assert saved.registered.updated_at_ms > saved.registered.created_at_ms
    assert registry.open_secrets(saved.registered).headers == {"X-New": "2"}
    same = registry.change("default", "support", ChangeAgent(status="disabled"))
    assert same.registered.version == 2


def test_signing_secrets_are_replaced_in_two_steps(registry: Registry) -> None:
    first = registry.create("default", webhook()).signing_secret
    second = registry.change("default", "support", ChangeAgent(signing_secret="generate"))
    opened = registry.open_secrets(second.registered)
    assert opened.signing == (second.signing_secret, first)
    assert opened.headers == {"X-Key": "canary"}
    retired = registry.change("default", "support", ChangeAgent(signing_secret="retire"))
    assert registry.open_secrets(retired.registered).signing == (second.signing_secret,)
    assert retired.signing_secret is None
    own = registry.change("default", "support", ChangeAgent(signing_secret=SIGNING))
    assert registry.open_secrets(own.registered).signing == (SIGNING, second.signing_secret)
    assert own.signing_secret is None


def test_a_change_of_what_is_not_there_or_not_as_expected_is_refused(registry: Registry) -> None:
    with pytest.raises(AgentNotFoundError):
        registry.change("default", "support", ChangeAgent())
    registry.create("default", webhook())
    with pytest.raises(AgentNotFoundError):
        registry.change("other", "support", ChangeAgent())
    with pytest.raises(AgentConflictError) as refused:
        registry.change("default", "support", ChangeAgent(status="disabled", expected_version=4))
    assert refused.value.details == {"agent": "support", "expected_version": 4, "version": 1}
    with pytest.raises(InvalidAgentError):
        registry.change("default", "support", ChangeAgent(signing_secret="nonsense"))
    assert registry.show("default", "support").version == 1
    changed = ChangeAgent(status="disabled", expected_version=1)
    assert registry.change("default", "support", changed).registered.version == 2


def test_of_changes_at_once_none_is_lost(archive: Archive, registry: Registry) -> None:
    registry.create("default", webhook())
    writers = 4

    def change(number: int) -> None:
        own = registry_over(archive, KEY)
        own.change("default", "support", ChangeAgent(headers={f"X-{number}": str(number)}))

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(change, range(writers)))
    final = registry.show("default", "support")
    assert final.version == 1 + writers
    wanted = {"X-Key": "canary"} | {f"X-{number}": str(number) for number in range(writers)}
    assert registry.open_secrets(final).headers == wanted


def test_a_change_gives_up_if_the_agent_changes_all_the_time(
    archive: Archive, registry: Registry
) -> None:
    registry.create("default", webhook())
    looks = count()

    def interfere() -> int:
        next(looks)
        row = archive.read_agents([("default", "support")])[("default", "support")]
        assert archive.change_agent(replace(row, version=row.version + 1), row)
        return 1

    busy = Registry(archive, Vault([KEY]), interfere)
    with pytest.raises(AgentConflictError):
        busy.change("default", "support", ChangeAgent(status="disabled"))
    assert next(looks) == CHANGE_ATTEMPTS_MAX
    with pytest.raises(AgentConflictError):
        busy.delete("default", "support")
    assert registry.show("default", "support").agent.status == "enabled"


def test_a_deleted_agent_is_gone_with_its_secrets_and_its_id_can_be_used_again(
    archive: Archive, registry: Registry
) -> None:
    registry.create("default", webhook())
    with pytest.raises(AgentConflictError):
        registry.delete("default", "support", 2)
    registry.delete("default", "support", 1)
    for attempt in (
        lambda: registry.show("default", "support"),
        lambda: registry.delete("default", "support"),
        lambda: registry.change("default", "support", ChangeAgent(expected_version=UNSET)),
    ):
        with pytest.raises(AgentNotFoundError):
            attempt()
    again = registry.create("default", webhook(headers={}))
    assert (again.new, again.registered.version) == (True, 3)
    assert again.registered.sealed.header_names == []


# Keys


def test_what_another_key_has_sealed_can_be_replaced_though_not_read(
    archive: Archive, registry: Registry
) -> None:
    registry.create("default", webhook())
    other = registry_over(archive, make_key())
    shown = other.show("default", "support")
    assert shown.sealed.header_names == ["X-Key"]
    with pytest.raises(SecretsKeyUnknownError) as refused:
        other.open_secrets(shown)
    assert refused.value.details == {"agent": "support", "key_id": KEY.id}
    with pytest.raises(SecretsKeyUnknownError):
        other.create("default", webhook())
    assert (
        other.change("default", "support", ChangeAgent(status="disabled")).registered.version == 2
    )
    assert dict(registry.open_secrets(registry.show("default", "support")).headers) == {
        "X-Key": "canary"
    }
    for secret in ("generate", "retire"):
        other.change("default", "support", ChangeAgent(signing_secret=secret))
    renewed = other.change("default", "support", ChangeAgent(headers={"X-Key": "new"}))
    assert other.open_secrets(renewed.registered).headers == {"X-Key": "new"}


def test_all_are_sealed_anew_in_every_workspace_without_counting(archive: Archive) -> None:
    old, new, lost = make_key(), make_key(), make_key()
    before = registry_over(archive, old)
    for number in range(5):
        before.create(f"w{number % 2}", webhook(id=f"a{number}"))
    before.create("w0", CreateAgent(id="plain", type="pull"))
    registry_over(archive, lost).create("w1", webhook(id="lost"))
    archive.create_agent(AgentRow("w2", "odd", 1, 1, 1, b'{"id":"odd","type":"pull"}', b"{"))
    archive.create_agent(AgentRow("w2", "odder", 1, 1, 1, b'{"id":"odder","type":"pull"}', b'{"header:X":"AAAA"}'))  # fmt: skip

    both = registry_over(archive, new, old)
    unreadable = (
        (("w1", "lost"), lost.id),
        (("w2", "odd"), DAMAGED),
        (("w2", "odder"), DAMAGED),
    )
    looked = both.rotate(dry_run=True)
    assert (len(looked.renewed), looked.current, looked.unreadable) == (5, 0, unreadable)
    assert both.rotate() == looked
    again = both.rotate()
    assert (again.renewed, again.current, again.unreadable) == ((), 5, unreadable)

    after = registry_over(archive, new)
    for number in range(5):
        shown = after.show(f"w{number % 2}", f"a{number}")
        assert shown.version == 1
        assert after.open_secrets(shown).headers == {"X-Key": "canary"}
    with pytest.raises(SecretsDamagedError):
        after.show("w2", "odd")
    after.delete("w2", "odd")


def test_a_change_during_a_rotation_is_sealed_with_the_newest_key(archive: Archive) -> None:
    old, new = make_key(), make_key()
    registry_over(archive, old).create("default", webhook())
    both = registry_over(archive, new, old)
    changed = both.change("default", "support", ChangeAgent(status="disabled"))
    assert changed.registered.sealed.key_ids == {new.id}

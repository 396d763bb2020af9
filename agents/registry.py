"""The registry: agents as they are stored, with their secrets sealed.

A change is a compare-and-swap on the row that was read, so that of two changes at once none is lost, and nothing
is kept here between two calls: every process sees a change at its next look. Every method blocks and may be called
from any thread; any may raise ArchiveUnavailableError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET
from msgspec.structs import replace

from agents.agent import (
    BUILT_IN,
    SIGNED,
    WITH_HEADERS,
    Agent,
    ChangeAgent,
    CreateAgent,
    agent_of,
    decode,
    encode,
    merge,
)
from agents.errors import (
    AgentBuiltInError,
    AgentConflictError,
    AgentExistsError,
    AgentNotFoundError,
    InvalidAgentError,
    SecretsDamagedError,
)
from agents.sealed import (
    GENERATE,
    RETIRE,
    Sealed,
    Secrets,
    decode_sealed,
    is_same,
    make_signing_secret,
)
from agents.vault import Vault
from storage import AgentKey, AgentRow, Archive

CHANGE_ATTEMPTS_MAX = 8
"""A change that does not say what version it expects is tried again; people do not race for longer."""

ROTATION_ROWS = 200
"""Agents read at once while all are sealed anew: a few megabytes at most."""

DAMAGED = "damaged"
"""Stands for a key's id where what is stored was sealed by none."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An agent of a workspace. One that is built in has version 0 and no times."""

    workspace: str
    agent: Agent
    version: int
    created_at_ms: int
    updated_at_ms: int
    sealed: Sealed

    @property
    def built_in(self) -> bool:
        """Whether it exists without having been created."""
        return self.version == 0


@dataclass(frozen=True, slots=True)
class Saved:
    """What a request led to. `signing_secret` is one that was made for it: nobody is told it again."""

    registered: Registered
    new: bool = False
    signing_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Agents with secrets: sealed anew, left as they were, and those whose key is not here, with its id."""

    renewed: tuple[AgentKey, ...]
    current: int
    unreadable: tuple[tuple[AgentKey, str], ...]


class Registry:
    """The agents of all workspaces."""

    def __init__(self, archive: Archive, vault: Vault, clock_ms: Callable[[], int]) -> None:
        self._archive = archive
        self._vault = vault
        self._clock_ms = clock_ms

    def read(self, keys: Sequence[AgentKey]) -> dict[AgentKey, Registered]:
        """Return agents by (workspace, id), of those that exist; one query, whatever their number.

        Raises:
            SecretsDamagedError: the secrets of one are not what was stored.
        """
        found = {key: _built_in(*key) for key in keys if key[1] in BUILT_IN}
        stored = [key for key in keys if key not in found]
        rows = self._archive.read_agents(stored) if stored else {}
        return found | {key: _registered(row) for key, row in rows.items()}

    def show(self, workspace: str, id: str) -> Registered:
        """Return one agent.

        Raises:
            AgentNotFoundError: it is not there.
        """
        found = self.read([(workspace, id)])
        if not found:
            raise AgentNotFoundError(id)
        return found[(workspace, id)]

    def list(self, workspace: str, after: str = "", limit: int = 50) -> list[Registered]:
        """Return agents by id, beginning after `after`; the built-in ones too."""
        rows = self._archive.list_agents(workspace, (workspace, after), limit)
        known = [_registered(row) for row in rows]
        known += [_built_in(workspace, name) for name in BUILT_IN if name > after]
        return sorted(known, key=lambda each: each.agent.id)[:limit]

    def open_secrets(self, registered: Registered) -> Secrets:
        """Return an agent's secrets, for a call that is made now.

        Raises:
            SecretsKeyMissingError, SecretsKeyUnknownError, SecretsDamagedError: they cannot be opened.
        """
        return registered.sealed.open(self._vault)

    def create(self, workspace: str, request: CreateAgent) -> Saved:
        """Create an agent; the same again: as it is.

        An agent that is signed gets a signing secret if the request names none; it is in the answer, this once.

        Raises:
            InvalidAgentError, IncompleteAgentError: a field is not allowed, or missing.
            AgentBuiltInError, AgentExistsError: the id is taken.
            SecretsKeyMissingError, SecretsKeyUnknownError: there is no key for its secrets.
        """
        agent = agent_of(request)
        if agent.id in BUILT_IN:
            raise AgentBuiltInError(agent.id)
        secret = request.signing_secret
        _check_takes_secrets(agent, headers=bool(request.headers), signing=secret is not None)
        sealed = Sealed(workspace, agent.id).with_headers(self._vault, request.headers)
        made = None
        if agent.type in SIGNED:
            made = make_signing_secret() if secret is None else None
            sealed = sealed.with_signing(self._vault, made or secret or "")
        now = self._clock_ms()
        row = AgentRow(workspace, agent.id, 1, now, now, encode(agent), sealed.encode())
        while True:
            version = self._archive.create_agent(row)
            if version is not None:
                new = _registered(replace(row, version=version))
                return Saved(new, new=True, signing_secret=made)
            found = self.read([row.key]).get(row.key)
            if found is None:
                continue  # it was deleted a moment ago
            if not self._is_same(found, agent, request):
                raise AgentExistsError(agent.id)
            return Saved(found)

    def change(self, workspace: str, id: str, change: ChangeAgent) -> Saved:
        """Change an agent; a change that changes nothing leaves its version.

        Raises:
            InvalidAgentError, IncompleteAgentError: a field is not allowed, or missing.
            AgentNotFoundError, AgentBuiltInError: there is nothing to change.
            AgentConflictError: it is at another version than the change expects.
            SecretsKeyMissingError: there is no key for its new secrets.
        """
        expected = None if change.expected_version is UNSET else change.expected_version
        seen = 0
        for _ in range(CHANGE_ATTEMPTS_MAX):
            row = self._row(workspace, id, expected)
            seen = row.version
            old = _registered(row)
            agent = merge(old.agent, change)
            sealed, made = self._change_secrets(old, change)
            if agent == old.agent and sealed is old.sealed:
                return Saved(old)
            new = replace(
                row,
                version=row.version + 1,
                updated_at_ms=max(row.updated_at_ms, self._clock_ms()),
                body=encode(agent),
                # Secrets that stay are sealed with the newest key too, as those are that a rotation meets.
                secrets=sealed.renewed(self._vault).encode(),
            )
            if self._archive.change_agent(new, row):
                return Saved(_registered(new), signing_secret=made)
        raise AgentConflictError(id, seen, seen + 1)

    def delete(self, workspace: str, id: str, expected_version: int | None = None) -> None:
        """Delete an agent: it is called no more, and its secrets are erased.

        Raises:
            AgentNotFoundError, AgentBuiltInError: there is nothing to delete.
            AgentConflictError: it is at another version than expected.
        """
        seen = 0
        for _ in range(CHANGE_ATTEMPTS_MAX):
            row = self._row(workspace, id, expected_version)
            seen = row.version
            now = max(row.updated_at_ms, self._clock_ms())
            if self._archive.delete_agent(row.key, row.version, now):
                return
        raise AgentConflictError(id, seen, seen + 1)

    def rotate(self, *, dry_run: bool = False) -> Rotation:
        """Seal every secret of every workspace with the newest key; versions stay as they are.

        What a key that is not here has sealed stays, and is told. With `dry_run` nothing is changed.
        """
        renewed, unreadable, current = [], [], 0
        after: AgentKey = ("", "")
        while rows := self._archive.list_agents(None, after, ROTATION_ROWS):
            after = rows[-1].key
            for row in rows:
                if not row.secrets:
                    continue
                outcome = self._renew(row, dry_run=dry_run)
                if outcome is None:
                    current += 1
                elif outcome:
                    unreadable.append((row.key, outcome))
                else:
                    renewed.append(row.key)
        return Rotation(tuple(renewed), current, tuple(unreadable))

    def _renew(self, row: AgentRow, *, dry_run: bool) -> str | None:
        """Seal one agent's secrets anew: None if there was no need, "" if it is done, else why it is not."""
        while True:
            try:
                sealed = decode_sealed(row.workspace, row.id, row.secrets)
            except SecretsDamagedError:
                return DAMAGED
            new = sealed.renewed(self._vault)
            stale = new.key_ids - set(self._vault.key_ids[:1])
            left = ", ".join(sorted(key_id or DAMAGED for key_id in stale))
            if new == sealed:
                return left or None
            swapped = dry_run or self._archive.change_agent(replace(row, secrets=new.encode()), row)
            if swapped:
                return left
            again = self._archive.read_agents([row.key])
            if row.key not in again:
                return None
            row = again[row.key]

    def _row(self, workspace: str, id: str, expected_version: int | None) -> AgentRow:
        if id in BUILT_IN:
            raise AgentBuiltInError(id)
        row = self._archive.read_agents([(workspace, id)]).get((workspace, id))
        if row is None:
            raise AgentNotFoundError(id)
        if expected_version is not None and expected_version != row.version:
            raise AgentConflictError(id, expected_version, row.version)
        return row

    def _change_secrets(self, old: Registered, change: ChangeAgent) -> tuple[Sealed, str | None]:
        """Return the secrets after a change, and one that was made for it; the same object if none change."""
        secret = None if change.signing_secret is UNSET else change.signing_secret
        _check_takes_secrets(old.agent, headers=bool(change.headers), signing=secret is not None)
        sealed = old.sealed
        if change.headers:
            sealed = sealed.with_headers(self._vault, change.headers)
        if secret == RETIRE:
            return sealed.with_newest_signing_only(), None
        if secret is None:
            return sealed, None
        made = make_signing_secret() if secret == GENERATE else None
        return sealed.with_signing(self._vault, made or secret), made

    def _is_same(self, found: Registered, agent: Agent, request: CreateAgent) -> bool:
        """Tell whether an agent is what a request asks for; a signing secret that was made for it counts as that."""
        if found.agent != agent or set(found.sealed.header_names) != set(request.headers):
            return False
        opened = self.open_secrets(found)
        newest = opened.signing[:1]
        wanted = newest if request.signing_secret is None else (request.signing_secret,)
        return is_same(Secrets(opened.headers, newest), Secrets(request.headers, wanted))


def _check_takes_secrets(agent: Agent, *, headers: bool, signing: bool) -> None:
    if headers and agent.type not in WITH_HEADERS:
        raise InvalidAgentError("headers", f"are not for an agent of type {agent.type}")
    if signing and agent.type not in SIGNED:
        raise InvalidAgentError("signing_secret", f"is not for an agent of type {agent.type}")


def _registered(row: AgentRow) -> Registered:
    sealed = decode_sealed(row.workspace, row.id, row.secrets)
    agent = decode(row.body)
    return Registered(
        row.workspace, agent, row.version, row.created_at_ms, row.updated_at_ms, sealed
    )


def _built_in(workspace: str, id: str) -> Registered:
    return Registered(workspace, BUILT_IN[id], 0, 0, 0, Sealed(workspace, id))

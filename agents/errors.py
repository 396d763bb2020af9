"""What a request about an agent can be refused for.

Each class is one stable `code`, the same over HTTP, on the command line and in the logs. No message and no
detail holds a secret: fields are named, never repeated.
"""

from typing import Any


class AgentError(Exception):
    """Root of this package's errors: `details` holds what a program needs, `hint` what to do next."""

    code = "agent_error"
    hint = ""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidAgentError(AgentError):
    """A field of an agent has a value that is not allowed; `details["field"]` names it."""

    code = "invalid_field"
    hint = "see the field's rules in docs/agents.md"

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}", field=field)


class IncompleteAgentError(AgentError):
    """An agent of its type needs a field that is not there; `details["field"]` names it."""

    code = "missing_field"
    hint = "add the field that is named; see docs/agents.md"

    def __init__(self, field: str, type: str) -> None:
        super().__init__(f"field {field} is missing: an agent of type {type} needs it", field=field)


class AgentNotFoundError(AgentError):
    """There is no such agent in the workspace, or it was deleted."""

    code = "agent_not_found"
    hint = "the agents are in GET /v1/agents; create one with POST /v1/agents"

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no agent {id}", agent=id)


class AgentExistsError(AgentError):
    """The id is taken by an agent with another configuration."""

    code = "agent_exists"
    hint = "choose another id, or change the agent with PATCH"

    def __init__(self, id: str) -> None:
        super().__init__(f"agent {id} exists with another configuration", agent=id)


class AgentBuiltInError(AgentError):
    """The agent is built in: it can be used, not created, changed or deleted."""

    code = "agent_built_in"
    hint = "create an agent of that type under another id"

    def __init__(self, id: str) -> None:
        super().__init__(f"agent {id} is built in", agent=id)


class AgentConflictError(AgentError):
    """The agent is at another version than was expected, or changes all the time."""

    code = "conflict"
    hint = "read the agent, decide again, and repeat with its version"

    def __init__(self, id: str, expected_version: int, version: int) -> None:
        super().__init__(
            f"expected_version is {expected_version}, but agent {id} is at version {version}",
            agent=id,
            expected_version=expected_version,
            version=version,
        )


class SecretsKeyMissingError(AgentError):
    """A secret is to be sealed or opened, and this process was given no key."""

    code = "secrets_key_missing"
    hint = (
        "start every process of the cluster with the same --secrets-key FILE, or RINGLOG_SECRETS_KEY;"
        " a new key: openssl rand -base64 32"
    )

    def __init__(self) -> None:
        super().__init__("secrets of agents need a key, and this server has none")


class SecretsKeyUnknownError(AgentError):
    """A secret was sealed with a key that this process does not have."""

    code = "secrets_key_unknown"
    hint = (
        "add the key with that id to secrets_key and restart; if it is lost, give the agent its"
        " secrets anew with PATCH (docs/agents.md)"
    )

    def __init__(self, key_id: str, agent: str) -> None:
        super().__init__(
            f"a secret of agent {agent} is sealed with key {key_id}, which is not here",
            agent=agent,
            key_id=key_id,
        )


class SecretsDamagedError(AgentError):
    """A sealed secret is not what was sealed, or stands where it does not belong."""

    code = "secrets_damaged"
    hint = "give the agent its secrets anew with PATCH, and look into who writes to the archive"

    def __init__(self, reason: str, agent: str) -> None:
        super().__init__(f"a secret of agent {agent} cannot be opened: {reason}", agent=agent)


class SecretsKeyInvalidError(AgentError):
    """What was given as the key is none; the message names its source, never its text."""

    code = "invalid_secrets_key"
    hint = (
        "one key a line, the newest first, each 32 random bytes as base64: openssl rand -base64 32"
    )

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")

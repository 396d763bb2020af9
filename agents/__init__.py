"""Calling other people's code over HTTP.

The `Registry` knows the agents of every workspace: their configuration (`Agent`), and their secrets, sealed by a
`Vault`. The `Engine` calls them for the sessions of a node.
"""

from agents.agent import (
    BUILT_IN,
    CHANGEABLE,
    CHOICES,
    RANGES,
    SIGNED,
    TYPES,
    WITH_HEADERS,
    Agent,
    ChangeAgent,
    CreateAgent,
)
from agents.engine import Engine, run_engine
from agents.errors import (
    AgentBuiltInError,
    AgentConflictError,
    AgentError,
    AgentExistsError,
    AgentNotFoundError,
    IncompleteAgentError,
    InvalidAgentError,
    SecretsDamagedError,
    SecretsKeyInvalidError,
    SecretsKeyMissingError,
    SecretsKeyUnknownError,
)
from agents.registry import Registered, Registry, Rotation, Saved
from agents.sealed import GENERATE, RETIRE, Secrets
from agents.secretskey import SecretsKey, make_key_file, parse_keys, read_keys
from agents.vault import Vault

__all__ = [
    "BUILT_IN",
    "CHANGEABLE",
    "CHOICES",
    "GENERATE",
    "RANGES",
    "RETIRE",
    "SIGNED",
    "TYPES",
    "WITH_HEADERS",
    "Agent",
    "AgentBuiltInError",
    "AgentConflictError",
    "AgentError",
    "AgentExistsError",
    "AgentNotFoundError",
    "ChangeAgent",
    "CreateAgent",
    "Engine",
    "IncompleteAgentError",
    "InvalidAgentError",
    "Registered",
    "Registry",
    "Rotation",
    "Saved",
    "Secrets",
    "SecretsDamagedError",
    "SecretsKey",
    "SecretsKeyInvalidError",
    "SecretsKeyMissingError",
    "SecretsKeyUnknownError",
    "Vault",
    "make_key_file",
    "parse_keys",
    "read_keys",
    "run_engine",
]

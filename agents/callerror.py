"""Why a call to an agent did not come about, or ended early: one class, one table of stable codes."""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class CallErrorKind:
    """What one code means: whether the same call may succeed later, and what a person should do."""

    hint: str
    retryable: bool = False


CALL_ERRORS: MappingProxyType[str, CallErrorKind] = MappingProxyType(
    {
        # Refused before a connection is made; the same call is refused again.
        "agent_url_invalid": CallErrorKind(
            "give the agent an address such as https://agent.example.com/answer"
        ),
        "agent_request_invalid": CallErrorKind("correct the agent's headers"),
        "agent_address_refused": CallErrorKind(
            "use a public address, or have the operator allow this network"
        ),
        "secrets_key_missing": CallErrorKind("give this process the key that seals its secrets"),
        "secrets_key_unknown": CallErrorKind("give this process the key that seals its secrets"),
        "secrets_damaged": CallErrorKind("give the agent its secrets anew"),
        # No connection.
        "agent_unreachable": CallErrorKind(
            "look whether the agent runs, and its address", retryable=True
        ),
        "agent_tls": CallErrorKind("look at the agent's certificate, and at http and https"),
        "agent_calls_full": CallErrorKind("wait, or allow more calls at once", retryable=True),
        # The agent took too long.
        "agent_timeout_connect": CallErrorKind(
            "look whether the agent can be reached", retryable=True
        ),
        "agent_timeout_first_byte": CallErrorKind(
            "have the agent answer sooner, or raise first_byte_timeout_ms", retryable=True
        ),
        "agent_timeout_idle": CallErrorKind(
            "have the agent send something meanwhile, or raise idle_timeout_ms", retryable=True
        ),
        # The same again would most likely take as long again.
        "agent_timeout_total": CallErrorKind(
            "have the agent send less or faster, or raise timeout_ms"
        ),
        # The connection was there, the answer was not.
        "agent_disconnected": CallErrorKind(
            "look why the agent ended the connection", retryable=True
        ),
        "agent_protocol": CallErrorKind("look whether this address speaks HTTP"),
        "agent_compressed": CallErrorKind(
            "have the agent heed accept-encoding: identity, as an answer is not unpacked"
        ),
        "agent_response_too_large": CallErrorKind("have the agent send less"),
    }
)


class CallError(Exception):
    """A call failed; `code` stands in the table. No message holds a header, or more of a URL than its host."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        kind = CALL_ERRORS[code]
        self.code = code
        self.message = message
        self.retryable = kind.retryable
        """Whether the same call may succeed later; what had come of an answer is another question."""
        self.hint = kind.hint

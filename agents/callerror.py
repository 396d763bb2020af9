"""Why a call brought no answer. `retryable`: another try may go better."""


class CallError(Exception):
    """A call failed: `code` says how.

    Codes: `agent_unreachable`, `agent_address_refused`, `agent_tls`, `agent_timeout_connect`,
    `agent_timeout_first_byte`, `agent_timeout_idle`, `agent_timeout_total`, `agent_protocol`.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable

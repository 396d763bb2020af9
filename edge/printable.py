"""Text that comes from outside, made safe to print: one line, nothing that drives a terminal, no secret."""

import re

# C0, DEL, C1, the two line separators, and lone surrogates, which UTF-8 has no way to write.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# A secret key, or a JSON Web Token with or without its signature, wherever a client has put it.
CREDENTIAL = re.compile(
    r"(?<![A-Za-z0-9])(?:rl_[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?)"
)
REDACTED = "[redacted]"


def redact_credentials(text: str) -> str:
    """Return `text` without anything that looks like a credential of ours."""
    return CREDENTIAL.sub(REDACTED, text)


def escape(text: str) -> str:
    r"""Return `text` on one line, every control character written as \uXXXX."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)

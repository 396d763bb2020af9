"""Text that comes from outside, made safe to print: one line, nothing that drives a terminal."""

import re

# C0, DEL, C1, the two line separators, and lone surrogates, which UTF-8 has no way to write.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Return `text` on one line, every control character written as \uXXXX."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)

"""What is asked of other people's JSON that is kept as it came: one line, and not nested too deeply. Pure."""

import re

DEPTH_MAX = 128
"""Nesting of content and metadata: far above what chat products send, far below any parser's stack."""

_LF, _CR = b"\n\r"
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)


def is_too_deep(content: bytes) -> bool:
    """Tell whether valid JSON is nested more than `DEPTH_MAX` deep."""
    # Depth d takes 2d brackets, so most content needs no look. Brackets in strings only cost the scan.
    return (
        len(content) > 2 * DEPTH_MAX
        and content.count(b"{") + content.count(b"[") > DEPTH_MAX
        and depth_of(content) > DEPTH_MAX
    )


def one_line(content: bytes) -> bytes:
    """Return valid JSON on one line: a raw line break can only stand between tokens, and becomes a space."""
    # As numbers: a search for bytes in bytes first fails to take them for one, which costs ten times as much.
    if _LF in content or _CR in content:
        return content.translate(_LINE_BREAKS)
    return content


def depth_of(content: bytes) -> int:
    """Return how deep arrays and objects nest in valid JSON."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(content):
        byte = content[token.start()]
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest

"""The values of options, as people write them: addresses, sizes, choices, URLs.

Every `parse_…` takes text and returns a value, or raises ValueError with what would be allowed; those
that need a range or a list return such a function.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
SIZE_UNITS = {"": 1, "b": 1, "kib": KIB, "kb": KIB, "k": KIB, "mib": MIB, "mb": MIB, "m": MIB}
SIZE_UNITS |= {"gib": GIB, "gb": GIB, "g": GIB}
# So many characters of a key may be shown: enough to tell keys apart, useless to a thief.
KEY_CHARACTERS_SHOWN = 7


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; a host name is taken as it is and resolved when it is bound."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. A name other than localhost counts as public."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class HiddenText:
    """A secret that was given as text; it does not show itself."""

    text: str = field(repr=False)

    def __str__(self) -> str:
        return "…"


def parse_address(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT or :PORT (this machine only)."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s/@]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("it must be HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:4000")
    return Address(match[1] or match[2] or "127.0.0.1", int(match[3]))


def parse_path(text: str) -> Path:
    """Read a path; ~ is the home directory."""
    if not text or "\0" in text:
        raise ValueError("it must be a path")
    return Path(text).expanduser()


def parse_text(text: str) -> str:
    """Read any text that is not empty and stays on one line."""
    if not text or not text.isprintable():
        raise ValueError("it must be printable text on one line")
    return text


def parse_archive(text: str) -> str:
    """Read the archive's URL."""
    if (
        not text.startswith(("sqlite:///", "postgresql://", "postgres://"))
        or not text.isprintable()
    ):
        raise ValueError("it must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME")
    if text.startswith("sqlite:///") and text.removeprefix("sqlite:///") in {"", ":memory:"}:
        raise ValueError("SQLite needs a file: an archive in memory would not survive the process")
    return text


def parse_url(text: str) -> str:
    """Read a server's URL: scheme, host and port, nothing after them."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("it must be http://HOST:PORT or https://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def parse_origin(text: str) -> str:
    """Read a browser's origin: scheme, host and port, as it stands in the Origin header."""
    if text == "*":
        raise ValueError("every origin cannot be allowed; name each, such as https://app.example")
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(
            "it must be an origin such as https://app.example or http://localhost:5173"
        )
    return f"{parts.scheme}://{parts.netloc}".lower()


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read a network of addresses: 10.0.0.0/8, or one address."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("it must be a network such as 10.0.0.0/8, or an address") from None


def parse_single(raw: object) -> str:
    """Read what stands for one value: text, or a number from the file."""
    if isinstance(raw, str | int | float | Path) and not isinstance(raw, bool):
        return str(raw)
    raise ValueError("it must be a single value")


def parse_list(raw: object) -> list[str]:
    """Read a list: repeated flags, an array in the file, or text with commas between the parts."""
    if isinstance(raw, str):
        return [part.strip() for part in raw.split(",") if part.strip()]
    if isinstance(raw, list | tuple) and all(isinstance(part, str) for part in raw):
        return [part for text in raw for part in parse_list(text)]
    raise ValueError("it must be a list of texts")


def parse_choice(*choices: str, unbuilt: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return the parser of one of `choices`; `unbuilt` are choices of the design not yet there."""

    def parse(text: str) -> str:
        if text in choices:
            return text
        if unbuilt and text in unbuilt:
            raise ValueError(f"{unbuilt[text]} is not built yet; use {' or '.join(choices)}")
        raise ValueError(f"it must be {' or '.join(choices)}")

    return parse


def parse_float(low: float, high: float) -> Callable[[str], float]:
    """Return the parser of a number within a range; NaN is within none."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"it must be a number from {low:g} to {high:g}")
        return number

    return parse


def parse_integer(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a whole number within a range."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,9}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"it must be a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_size(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a number of bytes within a range: 1048576, 1024KiB, 1MiB, 1GiB."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"(\d{1,18}) ?([A-Za-z]*)", text)
        unit = SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None or not low <= int(match[1]) * unit <= high:
            raise ValueError(f"it must be {size_text(low)} to {size_text(high)}, such as 64MiB")
        return int(match[1]) * unit

    return parse


def size_text(size: int) -> str:
    """Write a number of bytes in the largest unit that divides it."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}"


def redact(text: str) -> str:
    """Mask the password in a URL (or its query), or all but the first characters of a key."""
    if "://" not in text:
        return text[:KEY_CHARACTERS_SHOWN] + "…" if text else text
    text = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:…@", text)
    return re.sub(r"(?i)([?&](?:password|sslpassword)=)[^&]*", r"\1…", text)

"""Where a URL says a call goes: scheme, host, port and path, read once. Pure.

What reads a URL here is also what the call is made with, so no second reader can see another host in it. The
host may still be anything: which address it stands for is decided by `network`, when it connects.
"""

import re
from dataclasses import dataclass

import httpx2

from agents.callerror import CallError

PORTS = {"http": 80, "https": 443}

# The ports that browsers refuse too (the Fetch standard's bad ports), below 1024 and above: whatever listens there
# is no agent, and some of them (mail, chat, printers) act on lines that an HTTP request can be made to hold.
# fmt: off
PORTS_REFUSED = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389,
    427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636,
    989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665,
    6666, 6667, 6668, 6669, 6679, 6697, 10080,
))
# fmt: on

# After IDNA; with the colons of IPv6. No percent signs: neither escapes nor scopes.
_is_host = re.compile(r"[A-Za-z0-9._:-]{1,253}").fullmatch


@dataclass(frozen=True, slots=True)
class Target:
    """One address of an agent, without anything that would have to be kept secret but the path."""

    scheme: str
    host: str
    """A name or an address; IPv6 without its brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them, and as messages may name them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def read_target(url: str) -> Target:
    """Return where `url` leads.

    Raises:
        CallError: agent_url_invalid. It does not repeat the URL, which may hold a secret.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise CallError("agent_url_invalid", "the agent's URL cannot be read") from error
    if parsed.scheme not in PORTS:
        raise CallError("agent_url_invalid", "the agent's URL must begin with http:// or https://")
    if parsed.userinfo:
        raise CallError("agent_url_invalid", "the agent's URL must hold no user or password")
    host = parsed.raw_host.decode("ascii")
    if not _is_host(host):
        raise CallError("agent_url_invalid", "the agent's URL has no host that can be looked up")
    port = PORTS[parsed.scheme] if parsed.port is None else parsed.port
    if not 0 < port < 1 << 16:
        raise CallError("agent_url_invalid", f"{port} is no port")
    if port in PORTS_REFUSED:
        raise CallError("agent_url_invalid", f"port {port} belongs to another protocol")
    return Target(parsed.scheme, host, port, parsed.raw_path.decode("ascii"))

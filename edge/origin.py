"""Which web pages and which host names may reach this server: a pure decision on two headers.

Two attacks come through a visitor's browser. A page of another site may call us (it is named in
`Origin`), and a name of the attacker's may be pointed at our address (it is named in `Host`). In
development there are no credentials, so these checks are what stands between a random page and the data;
they hold for every request and every WebSocket handshake. A request without `Origin` is not a browser's
cross-site call, and is judged by its credentials alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from edge.errors import EdgeError

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """The origins and host names that are let in.

    `allowed_hosts` empty means any name where credentials are needed anyway; in development it always
    means loopback names only. `development` is asked each time: the first key ends it.
    """

    development: Callable[[], bool]
    allowed_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()

    def check_host(self, host: str | None) -> None:
        """Check the name that the client believes it is talking to.

        Raises:
            EdgeError: host_not_allowed.
        """
        name = None if host is None else host_name(host)
        if name is None:
            raise EdgeError("host_not_allowed", "the Host header is missing or malformed")
        if is_loopback_name(name) or name in self.allowed_hosts:
            return
        if self.development():
            raise EdgeError(
                "host_not_allowed",
                f"without keys this server answers to loopback names only, not to {name}",
                hint="use localhost or 127.0.0.1, or create a key: ringlog key create",
                host=name,
            )
        if self.allowed_hosts:
            raise EdgeError("host_not_allowed", f"host {name} is not allowed", host=name)

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Check the page that a browser sends the request for.

        Raises:
            EdgeError: origin_not_allowed.
        """
        if origin is not None and not self.allows(origin, host):
            raise EdgeError("origin_not_allowed", f"origin {origin} is not allowed", origin=origin)

    def allows(self, origin: str, host: str | None) -> bool:
        """Tell whether a page of this origin may call: listed, our own, or local in development."""
        if origin.lower() in self.allowed_origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or name is None or parts.path:
            return False
        # Our own pages: the same host and port. The Host header was checked before.
        if host is not None and parts.netloc.lower() == host.lower():
            return True
        return self.development() and is_loopback_name(name)


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without its port; None if malformed."""
    match = _HOST.fullmatch(host)
    return None if match is None else match["name"].lower().strip("[]")


def is_loopback_name(name: str) -> bool:
    """Tell whether a name can only ever mean this machine (RFC 6761 reserves localhost)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False

"""May this IP address be connected to? Pure.

Agents are called at addresses that users choose, from inside the operator's network. So only the public
internet is reached unless the operator says otherwise, and what counts is the address that a connection
goes to, never the text of a URL: `2130706433`, `0x7f.1` and a name of anybody's domain are all 127.0.0.1.

An address may be connected to if and only if

- one of the operator's networks holds it, or
- it is private and the operator allows private ones, or
- it stands in no row of the table below, is IPv4 or in 2000::/3, and the standard library calls it global.

An IPv4-mapped address counts, and is connected to, as the IPv4 address. Other forms that hold an IPv4
address inside (NAT64, 6to4, Teredo, ISATAP, IPv4-compatible) are refused whatever they hold. The table is
ours because the standard library's answer differs from one version of Python to the next, and is wrong for
several rows in 3.11 (`64:ff9b::7f00:1`, `2002:7f00:1::`, `::127.0.0.1`, `fec0::1`, `224.0.0.1`).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What `allow_private` lets through: where a developer's own agents run. Not link-local, where clouds keep the
# credentials of their machines.
_PRIVATE: Sequence[tuple[str, str]] = (
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("fc00::/7", "private"),
    ("100.64.0.0/10", "shared address space"),
)

# The registries of special-purpose addresses at IANA, and what was special once.
_SPECIAL: Sequence[tuple[str, str]] = (
    ("0.0.0.0/8", "this host"),
    ("169.254.0.0/16", "link-local"),
    ("192.0.0.0/24", "protocol assignment"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/96", "unspecified or IPv4-compatible"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("100::/64", "discard-only"),
    ("2001::/32", "Teredo"),
    ("2001::/23", "protocol assignment"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)

_GLOBAL_UNICAST = IPv6Network("2000::/3")

# The lower half of an ISATAP address is 0:5efe or 200:5efe and an IPv4 address.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def _rows(table: Sequence[tuple[str, str]]) -> tuple[tuple[Network, str], ...]:
    return tuple((ipaddress.ip_network(network), kind) for network, kind in table)


_PRIVATE_NETWORKS = _rows(_PRIVATE)
_SPECIAL_NETWORKS = _rows(_SPECIAL)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What the operator allows beyond public addresses."""

    allow_private: bool = False
    """Loopback and private networks: for development, and where every user is trusted."""
    networks: tuple[Network, ...] = ()
    """These too, whatever they are; `169.254.169.254/32` would hand out a cloud's credentials."""

    def refusal(self, address: Address) -> str | None:
        """Return what keeps `address` (unmapped) from being connected to, in a word, or None where nothing does."""
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return "bound to one network interface"
        if any(address in network for network in self.networks):
            return None
        kind = _find(address, _PRIVATE_NETWORKS)
        if kind is not None:
            return None if self.allow_private else kind
        kind = _find(address, _SPECIAL_NETWORKS)
        if kind is not None:
            return kind
        if isinstance(address, IPv6Address):
            if address not in _GLOBAL_UNICAST:
                return "not global"
            if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
                return "ISATAP"
        if not address.is_global or address.is_multicast:
            return "not global"
        return None


def read_address(text: str) -> Address | None:
    """Return the address that `text` spells out in its usual form, unmapped, or None for any other text."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of an operator's list, such as `10.1.0.0/16, fd00:1::/64`.

    Raises:
        ValueError: One is no network; the message names it.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _find(address: Address, rows: Sequence[tuple[Network, str]]) -> str | None:
    return next((kind for network, kind in rows if address in network), None)

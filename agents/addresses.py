"""Which addresses an agent may be called at. Pure.

A URL comes from a tenant, and a server reaches what tenants should not: itself, its neighbours, a cloud's metadata. So
it is the address that is connected to that is looked at, never how it was written: `2130706433`, `0x7f.1` and a name
that resolves to 127.0.0.1 are one address. What is not known to be public is refused, also inside an address that
stands for another: IPv4 mapped into IPv6, NAT64, 6to4, Teredo.

Registries: IANA's special-purpose addresses (RFC 6890 and what updates it), which `ipaddress.is_global` knows but for the
networks below; it takes a multicast address for global too.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from agents.callerror import CallError

Network = IPv4Network | IPv6Network

REFUSED: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, RFC 6890
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "64:ff9b::/96",  # NAT64, RFC 6052: another address inside
            "64:ff9b:1::/48",  # NAT64 of the network's own, RFC 8215
            "2002::/16",  # 6to4, RFC 3056: another address inside
            "2001::/32",  # Teredo, RFC 4380: another address inside
            "::/96",  # IPv4-compatible, RFC 4291: another address inside
            "100::/64",  # discarded, RFC 6666
            "5f00::/16",  # segment routing, RFC 9602
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)
"""What `is_global` takes for public, in one version of Python or another."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return networks that are separated by commas, as an operator allows them.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def check_address(text: str, allowed: Sequence[Network] = ()) -> None:
    """Return if an address may be connected to.

    Raises:
        CallError: agent_address_refused.
    """
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    inner: IPv4Address | IPv6Address = address if mapped is None else mapped
    if any(inner in network for network in allowed):
        return
    if (
        not inner.is_global
        or inner.is_multicast
        or inner.is_reserved
        or any(inner in network for network in REFUSED)
    ):
        raise CallError(
            "agent_address_refused",
            "its address is private or special; an operator may allow it",
            retryable=False,
        )

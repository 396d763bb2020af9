"""Which addresses may be connected to."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.addresses import Address, AddressRules, parse_networks, read_address

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.254",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:200::1",
    "2001:4860:4860::8888",
    "::ffff:1.1.1.1",
]

PRIVATE = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "::ffff:192.168.1.1": "private",
    "fc00::1": "private",
    "fd12:3456:789a::1": "private",
    "100.64.0.1": "shared address space",
    "100.127.255.255": "shared address space",
}

SPECIAL = {
    "0.0.0.0": "this host",
    "0.1.2.3": "this host",
    "169.254.169.254": "link-local",
    "::ffff:169.254.169.254": "link-local",
    "192.0.0.8": "protocol assignment",
    "192.0.0.170": "protocol assignment",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified or IPv4-compatible",
    "::127.0.0.1": "unspecified or IPv4-compatible",
    "::8.8.8.8": "unspecified or IPv4-compatible",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b::808:808": "NAT64",
    "64:ff9b:1::7f00:1": "NAT64",
    "100::1": "discard-only",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:2::1": "protocol assignment",
    "2001:10::1": "protocol assignment",
    "2001:20::1": "protocol assignment",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:808:808::1": "6to4",
    "3fff::1": "documentation",
    "5f00::1": "segment routing",
    "fe80::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "4000::1": "not global",
    "::ffff:0:127.0.0.1": "not global",
    "1::1": "not global",
    "2a00:1450::5efe:7f00:1": "ISATAP",
    "2a00:1450::200:5efe:a00:1": "ISATAP",
    "fe80::1%lo": "bound to one network interface",
    "2a00:1450::1%1": "bound to one network interface",
}


def refusal(text: str, rules: AddressRules | None = None) -> str | None:
    address = read_address(text)
    assert address is not None
    return (rules or AddressRules()).refusal(address)


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_connected_to(text: str) -> None:
    assert refusal(text) is None


@pytest.mark.parametrize(("text", "kind"), [*PRIVATE.items(), *SPECIAL.items()])
def test_every_other_address_is_refused_by_its_kind(text: str, kind: str) -> None:
    assert refusal(text) == kind


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_let_through_where_all_are(text: str) -> None:
    assert refusal(text, AddressRules(allow_private=True)) is None


@pytest.mark.parametrize(("text", "kind"), SPECIAL.items())
def test_special_addresses_are_refused_where_private_ones_are_not(text: str, kind: str) -> None:
    assert refusal(text, AddressRules(allow_private=True)) == kind


def test_the_operators_networks_are_let_through_and_nothing_beside_them() -> None:
    rules = AddressRules(networks=parse_networks("10.1.0.0/16, fd00:1::/64,169.254.7.7"))

    assert refusal("10.1.2.3", rules) is None
    assert refusal("::ffff:10.1.2.3", rules) is None
    assert refusal("fd00:1::5", rules) is None
    assert refusal("169.254.7.7", rules) is None
    assert refusal("10.2.0.1", rules) == "private"
    assert refusal("fd00:2::1", rules) == "private"
    assert refusal("64:ff9b::10.1.2.3", rules) == "NAT64"
    assert refusal("169.254.169.254", rules) == "link-local"
    assert refusal("fd00:1::5%eth0", rules) == "bound to one network interface"


def test_no_list_allows_nothing() -> None:
    assert parse_networks("") == parse_networks(" , ") == ()


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "example.com", "10.0.0.0/8;::1"])
def test_a_list_that_holds_no_networks_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_networks(text)


@pytest.mark.parametrize(
    "text",
    ["", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "localhost", "127.0.0.1 ", "[::1]"],
)
def test_what_is_no_address_in_its_usual_form_is_none(text: str) -> None:
    assert read_address(text) is None


@settings(deadline=None)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_the_standard_library_calls_special_is_never_let_through(address: Address) -> None:
    """Whatever version of Python knows more than the table is heeded."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert AddressRules().refusal(address) is not None


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_what_it_holds(address: IPv4Address) -> None:
    assert refusal(f"::ffff:{address}") == AddressRules().refusal(address)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_no_other_form_that_holds_an_ipv4_address_is_let_through(address: IPv4Address) -> None:
    high, low = int(address) >> 16, int(address) & 0xFFFF
    for form in (
        "::{}:{}",
        "64:ff9b::{}:{}",
        "64:ff9b:1::{}:{}",
        "2002:{}:{}::1",
        "2001:0:{}:{}::",
    ):
        assert refusal(form.format(f"{high:x}", f"{low:x}")) is not None

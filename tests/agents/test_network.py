"""No form of a URL, of an address or of an answer of a name server leads to where agents may not be."""

import errno
import os
import socket
from collections.abc import Sequence

import pytest
import trio

from agents.addresses import AddressRules, parse_networks
from agents.callerror import CallError
from agents.http import CallerOptions, open_caller
from agents.network import ADDRESSES_TRIED_MAX, Resolve, Resolver
from tests.agents.scripted import LOCAL, PATIENT, Exchange, answer, open_agent, open_listener

PUBLIC_ONLY = CallerOptions()


async def numeric(host: str) -> Sequence[str]:
    """The system's reading of everything that it takes for a number; asks no name server."""
    flags = socket.AI_NUMERICHOST
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return [str(entry[4][0]) for entry in found]


def always(*addresses: str) -> Resolve:
    async def resolve(host: str) -> Sequence[str]:
        return addresses

    return resolve


class Sockets(trio.abc.SocketFactory):
    """Counts the sockets that are made."""

    def __init__(self) -> None:
        self.made = 0

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> trio.socket.SocketType:
        self.made += 1
        return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


@pytest.fixture
def sockets() -> Sockets:
    return Sockets()


async def refused(url: str, resolve: Resolve, options: CallerOptions = PUBLIC_ONLY) -> CallError:
    async with open_caller(options, resolve=resolve) as caller:
        with pytest.raises(CallError) as info:
            async with caller.post(url, {}, b"{}", PATIENT):
                pass
    return info.value


# Each of these is 127.0.0.1, ::1 or 0.0.0.0 to some reader, or to the system.
LOOPBACK_HOSTS = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "0x7f.0.1",
    "017700000001",
    "0177.1",
    "0177.0.1",
    "127.0x1",
    "127.00000000001",
    "127.65535",
    "127。0。0。1",
    "127．0．0．1",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:127.0.0.1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:0.0.0.0]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001::1]",
    "[2001:0:7f00:1::]",
]

# And these are other places that an operator has and does not show.
INSIDE_HOSTS = [
    "10.0.0.1",
    "10.1",
    "167772161",
    "0xa.1",
    "012.1",
    "172.16.0.1",
    "172.31.255.255",
    "0xac100001",
    "192.168.0.1",
    "192.168.1",
    "0xc0a80001",
    "3232235521",
    "169.254.169.254",
    "169.254.43518",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd12::1]",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.0.8",
    "198.18.0.1",
    "224.0.0.1",
    "[ff02::1]",
    "255.255.255.255",
    "240.0.0.1",
    "[2001:db8::1]",
    "[2a00:1450::5efe:7f00:1]",
    "[100::1]",
    "[5f00::1]",
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", [*LOOPBACK_HOSTS, *INSIDE_HOSTS])
async def test_no_form_of_an_inner_address_is_connected_to(
    host: str, scheme: str, sockets: Sockets
) -> None:
    async def serve(stream: trio.SocketStream, agent: object) -> None:
        raise AssertionError

    async with open_listener(serve) as four, open_listener(serve, "::1") as six:
        trio.socket.set_custom_socket_factory(sockets)
        for port in (four.port, six.port):
            error = await refused(f"{scheme}://{host}:{port}/", numeric)

            assert (error.code, error.retryable) == ("agent_address_refused", False)
        assert sockets.made == 0
        assert four.connections == six.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["93.184.216.34", "127.0.0.1"],
        ["127.0.0.1", "93.184.216.34"],
        ["2606:4700::1", "fd00::1"],
        ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5", "10.0.0.1"],
        ["fe80::1%eth0"],
        ["/run/agent.sock"],
        ["nonsense"],
        [""],
    ],
)
async def test_a_name_with_one_inner_address_is_connected_to_nowhere(
    addresses: list[str], sockets: Sockets
) -> None:
    trio.socket.set_custom_socket_factory(sockets)
    error = await refused("https://agent.example/", always(*addresses))

    assert error.code == "agent_address_refused"
    assert sockets.made == 0
    assert not any(address and address in str(error) for address in addresses), "it is not told"


async def test_a_name_that_changes_between_look_ups_is_looked_up_once() -> None:
    """DNS rebinding, with 127.0.0.1 for a public address and 127.0.0.2 for an inner one."""
    lookups = 0

    async def rebinding(host: str) -> Sequence[str]:
        nonlocal lookups
        lookups += 1
        return ["127.0.0.1"] if lookups == 1 else ["127.0.0.2"]

    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))
        if len(agent.exchanges) == 2:
            await exchange.stream.aclose()

    options = CallerOptions(AddressRules(networks=parse_networks("127.0.0.1/32")))
    async with open_agent(script) as agent, open_caller(options, resolve=rebinding) as caller:
        url = f"http://rebinding.example:{agent.port}/"
        for _ in range(2):
            async with caller.post(url, {}, b"{}", PATIENT) as response:
                assert [piece async for piece in response.stream()] == [b"ok"]
            assert lookups == 1

        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(CallError) as info:
            async with caller.post(url, {}, b"{}", PATIENT):
                pass

    assert info.value.code == "agent_address_refused"
    assert (lookups, agent.connections) == (2, 1)


async def test_what_is_allowed_is_connected_to_by_address_and_named_by_name() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))

    allowed = CallerOptions(AddressRules(networks=parse_networks("127.0.0.1/32")))
    async with (
        open_agent(script) as agent,
        open_caller(allowed, resolve=always("127.0.0.1")) as caller,
    ):
        url = f"http://agent.example:{agent.port}/"
        async with caller.post(url, {}, b"{}", PATIENT) as response:
            assert response.status == 200
        assert b"host: agent.example:%d" % agent.port in agent.exchanges[0].lines

        error = await refused(url, always("127.0.0.2"), allowed)
        assert error.code == "agent_address_refused"
        assert str(error) == (
            "agent.example resolves to an address that agents may not have here: loopback"
        )


async def test_a_redirect_to_an_inner_address_is_not_followed(sockets: Sockets) -> None:
    async def serve(stream: trio.SocketStream, agent: object) -> None:
        raise AssertionError

    async def script(exchange: Exchange) -> None:
        location = f"location: http://127.0.0.2:{inside.port}/".encode()
        await exchange.send(answer(b"", b"302 Found", location))

    allowed = CallerOptions(AddressRules(networks=parse_networks("127.0.0.1/32")))
    async with (
        open_listener(serve, "127.0.0.2") as inside,
        open_agent(script) as agent,
        open_caller(allowed, resolve=numeric) as caller,
    ):
        trio.socket.set_custom_socket_factory(sockets)
        url = f"http://127.0.0.1:{agent.port}/"
        async with caller.post(url, {}, b"{}", PATIENT) as response:
            assert response.status == 302
            assert [piece async for piece in response.stream()] == []

        assert sockets.made == 1
        assert inside.connections == 0


async def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))

    resolve = always("127.0.0.3", "::1", "127.0.0.1")
    async with open_agent(script) as agent, open_caller(LOCAL, resolve=resolve) as caller:
        url = f"http://agent.example:{agent.port}/"
        async with caller.post(url, {}, b"{}", PATIENT) as response:
            assert response.status == 200


async def test_only_some_addresses_of_a_name_are_tried(sockets: Sockets) -> None:
    trio.socket.set_custom_socket_factory(sockets)
    resolve = always(*(f"127.0.0.{number}" for number in range(1, 100)))
    error = await refused("http://agent.example:1024/", resolve, LOCAL)

    assert (error.code, error.retryable) == ("agent_unreachable", True)
    assert (
        str(error)
        == "cannot connect to agent.example, port 1024: " + os.strerror(errno.ECONNREFUSED).lower()
    )
    assert sockets.made == ADDRESSES_TRIED_MAX


async def test_a_name_without_an_address_is_unreachable() -> None:
    async def unknown(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolve in (unknown, always()):
        error = await refused("http://agent.example/", resolve)

        assert (error.code, error.retryable) == ("agent_unreachable", True)
        assert str(error) == "the name agent.example has no address"


async def test_the_system_is_asked_for_names() -> None:
    assert set(await Resolver()("localhost")) <= {"127.0.0.1", "::1"}
    assert await Resolver()("0x7f.1") == ["127.0.0.1"]


async def test_localhost_is_refused_as_the_system_resolves_it() -> None:
    async with open_caller(PUBLIC_ONLY) as caller:
        for host in ("localhost", "LOCALHOST", "2130706433"):
            with pytest.raises(CallError) as info:
                async with caller.post(f"http://{host}:8080/", {}, b"{}", PATIENT):
                    pass
            assert info.value.code == "agent_address_refused"

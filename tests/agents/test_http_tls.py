"""Calls over TLS: whose certificates are taken, and what is said of others."""

import ssl
import warnings

import trio

from agents.http import open_caller
from tests.agents.calls import BODY, HEADERS, refused
from tests.agents.scripted import (
    LOCAL,
    PATIENT,
    Agent,
    Authority,
    Exchange,
    answer,
    loopback,
    open_agent,
    open_listener,
)


async def test_a_call_over_tls_checks_the_name_of_the_url_and_not_the_address() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer(b"ok"))

    authority = Authority("agent.example")
    async with (
        open_agent(script, tls=authority.server) as agent,
        open_caller(authority.options, resolve=loopback) as caller,
        caller.post(f"https://agent.example:{agent.port}/", HEADERS, BODY, PATIENT) as response,
    ):
        assert [piece async for piece in response.stream()] == [b"ok"]
        assert b"host: agent.example:%d" % agent.port in agent.exchanges[0].lines


async def test_a_certificate_for_another_name_is_refused() -> None:
    async def script(exchange: Exchange) -> None:
        raise AssertionError

    authority = Authority("other.example")
    async with open_agent(script, tls=authority.server) as agent:
        error = await refused(agent, options=authority.options)

        assert (error.code, error.retryable) == ("agent_tls", False)
        assert "hostname mismatch" in str(error).lower()


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    async def script(exchange: Exchange) -> None:
        raise AssertionError

    async with open_agent(script, tls=Authority().server) as agent:
        assert (await refused(agent, options=Authority().options)).code == "agent_tls"
        assert (await refused(agent, options=LOCAL)).code == "agent_tls"


async def test_an_old_version_of_tls_is_refused() -> None:
    async def script(exchange: Exchange) -> None:
        raise AssertionError

    authority = Authority()
    authority.server.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        authority.server.minimum_version = ssl.TLSVersion.TLSv1
        authority.server.maximum_version = ssl.TLSVersion.TLSv1_1
    async with open_agent(script, tls=authority.server) as agent:
        error = await refused(agent, options=authority.options)

        # Whether the server says why is up to it.
        assert error.code in {"agent_tls", "agent_unreachable"}
        assert not agent.exchanges


async def test_a_plain_server_behind_an_https_url_is_named() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async with open_listener(serve) as agent:
        agent.scheme = "https"

        assert (await refused(agent)).code == "agent_tls"


async def test_an_agent_that_hangs_up_on_the_handshake_is_unreachable() -> None:
    async def serve(stream: trio.SocketStream, agent: Agent) -> None:
        await stream.receive_some()

    async with open_listener(serve) as agent:
        agent.scheme = "https"
        error = await refused(agent)

        assert (error.code, error.retryable) == ("agent_unreachable", True)

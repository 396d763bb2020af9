"""Links over TLS, over real sockets: who has a certificate of the cluster's authority gets in, and nobody else."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from runtime import LinkTls, Router, append_durably
from runtime.errors import OwnerUnavailableError
from runtime.links.handshake import HandshakeError
from runtime.links.pool import dial_tcp
from storage import Archive, open_archive
from tests.runtime.clusters import open_edge, open_member, until_settled

W = "default"
Told = list[tuple[str, Exception]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """One archive; which database it is makes no difference to links."""
    opened = open_archive(f"sqlite:///{tmp_path}/archive.db")
    yield opened
    opened.close()


class Authority:
    """Signs certificates for nodes, in files below a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._authority = trustme.CA()
        self._directory = directory / name
        self._directory.mkdir()
        self.path = self._directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.path)

    def certify(self, host: str, *, trusts: "Authority | None" = None) -> LinkTls:
        """Return what a node uses whose certificate is for `host`."""
        issued = self._authority.issue_cert(host)
        certificate, key = self._directory / f"{host}.pem", self._directory / f"{host}.key"
        key.unlink(missing_ok=True)
        certificate.unlink(missing_ok=True)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(certificate, append=True)
        issued.private_key_pem.write_to_path(key)
        return LinkTls(str(certificate), str(key), str((trusts or self).path))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "cluster")


def codes(told: Told) -> list[str]:
    found = []
    for _, error in told:
        assert isinstance(error, HandshakeError), error
        assert error.hint
        found.append(error.code)
    return found


async def is_refused(edge: Router) -> None:
    with pytest.raises(OwnerUnavailableError):
        await edge.open(W, "s")


async def test_nodes_with_certificates_of_one_authority_reach_each_other(
    tmp_path: Path, archive: Archive, authority: Authority
) -> None:
    owner_tls, edge_tls = authority.certify("127.0.0.1"), authority.certify("edge.example")
    (tmp_path / "owner").mkdir()
    async with open_member(tmp_path / "owner", archive, tls=owner_tls) as member:
        ring = await until_settled(archive, [member])
        async with open_edge(archive, tls=edge_tls) as edge:
            await edge.catalog.create(W, "s", user_id="alice")
            server = await edge.open(W, "s", to_append=True)
            # More than a TLS record, and than the pieces that links cut.
            content = b'"' + b"x" * 400_000 + b'"'
            for seq in range(1, 4):
                ack = await append_durably(server, sender="alice", content=content)
                assert ack.seq == seq
            page = await server.read_after(0, 10)
            assert all(content in body for body in page.bodies)
        secured = await edge_tls.dial(ring.nodes[0].address)
        assert isinstance(secured, trio.SSLStream)
        assert secured.version() == "TLSv1.3"
        await secured.aclose()


@pytest.mark.parametrize(
    ("who", "code"),
    [("signed by another", "link_tls"), ("trusts another", "link_tls"), ("plain", "link_refused")],
)
async def test_who_has_no_certificate_of_the_authority_is_refused_and_both_are_told(
    tmp_path: Path,
    archive: Archive,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    code: str,
) -> None:
    monkeypatch.setattr("runtime.links.remote.REQUEST_SECONDS", 1.5)
    stranger = Authority(tmp_path, "stranger")
    tls = {
        "signed by another": stranger.certify("edge", trusts=authority),
        "trusts another": authority.certify("edge", trusts=stranger),
        "plain": None,
    }[who]
    told: Told = []
    owner_told: Told = []
    (tmp_path / "owner").mkdir()
    async with open_member(
        tmp_path / "owner", archive, tls=authority.certify("127.0.0.1"), told=owner_told
    ) as member:
        await until_settled(archive, [member])
        async with open_edge(archive, tls=tls, told=told) as edge:
            await is_refused(edge)
    assert codes(told) == [code]
    assert codes(owner_told) == ["link_tls"]


async def test_an_owner_whose_certificate_names_another_host_is_not_believed(
    tmp_path: Path, archive: Archive, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.links.remote.REQUEST_SECONDS", 1.5)
    told: Told = []
    owner_told: Told = []
    (tmp_path / "owner").mkdir()
    tls = authority.certify("other.example")
    async with open_member(tmp_path / "owner", archive, tls=tls, told=owner_told) as member:
        await until_settled(archive, [member])
        async with open_edge(archive, tls=authority.certify("edge"), told=told) as edge:
            await is_refused(edge)
    assert codes(told) == ["link_tls"]
    assert "not valid for '127.0.0.1'" in str(told[0][1])
    assert codes(owner_told) == ["link_tls"]


async def test_an_owner_without_tls_is_not_spoken_to_in_the_clear(
    tmp_path: Path, archive: Archive, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.links.remote.REQUEST_SECONDS", 1.5)
    told: Told = []
    owner_told: Told = []
    (tmp_path / "owner").mkdir()
    async with open_member(tmp_path / "owner", archive, told=owner_told) as member:
        await until_settled(archive, [member])
        async with open_edge(archive, tls=authority.certify("edge"), told=told) as edge:
            await is_refused(edge)
    assert codes(told) == ["link_tls"]
    assert codes(owner_told) == ["link_protocol"]


async def test_older_tls_is_refused_and_a_look_at_the_port_is_nothing_to_tell(
    tmp_path: Path, archive: Archive, authority: Authority
) -> None:
    told: Told = []
    (tmp_path / "owner").mkdir()
    async with open_member(
        tmp_path / "owner", archive, tls=authority.certify("127.0.0.1"), told=told
    ) as member:
        ring = await until_settled(archive, [member])
        address = ring.nodes[0].address
        async with await dial_tcp(address):
            pass
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(authority.path)
        stream = trio.SSLStream(await dial_tcp(address), context, server_hostname="127.0.0.1")
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)
        with trio.fail_after(10):
            while not told:
                await trio.sleep(0.01)
        assert codes(told) == ["link_tls"]


async def test_a_handshake_of_tls_that_never_ends_is_not_waited_for(
    tmp_path: Path, archive: Archive, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: Told = []
    (tmp_path / "owner").mkdir()
    async with open_member(
        tmp_path / "owner", archive, tls=authority.certify("127.0.0.1"), told=told
    ) as member:
        ring = await until_settled(archive, [member])
        monkeypatch.setattr("runtime.links.tls.HANDSHAKE_SECONDS", 0.3)
        async with await dial_tcp(ring.nodes[0].address) as stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00")
            with trio.fail_after(10):
                assert await stream.receive_some() == b""
        assert codes(told) == ["link_timeout"]

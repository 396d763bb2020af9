"""TLS around links: both sides show a certificate that the cluster's own authority has signed.

An owner's must name the host that is in its `--link` address, so that no other holder of a certificate is taken for
it; of an edge's only the signature counts. What `handshake` does comes on top, inside. TLS 1.3 alone, because both
ends are Ringlog.
"""

import socket
import ssl

import trio

from runtime.links.handshake import HandshakeError
from runtime.links.pool import dial_tcp
from runtime.links.stream import HANDSHAKE_SECONDS, LinkLostError


class LinkTls:
    """This node's certificate and key, and the authority that it trusts; all are PEM files, read once.

    Raises:
        OSError, ssl.SSLError: they cannot be read, or do not fit each other.
    """

    def __init__(self, certificate: str, key: str, authority: str) -> None:
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (self._server, self._client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)

    async def accept(self, stream: trio.SocketStream) -> trio.abc.Stream:
        """Be the owner's side of a new connection.

        Raises:
            HandshakeError: the other side has no such certificate, does not want this one, or does not speak TLS.
            LinkLostError: it hung up at once, as one does who looks whether the port is open.
        """
        secured = trio.SSLStream(stream, self._server, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                if not await stream.socket.recv(1, socket.MSG_PEEK):
                    raise LinkLostError("the other side hung up")
                await secured.do_handshake()
        except trio.TooSlowError as error:
            raise _refusal("the edge", error) from error
        except OSError as error:
            raise LinkLostError("the connection broke") from error
        except trio.BrokenResourceError as error:
            raise _refusal("the edge", error) from error
        return secured

    async def dial(self, address: str) -> trio.abc.Stream:
        """Connect to an owner.

        Raises:
            OSError, trio.TooSlowError: it does not accept.
            HandshakeError: it has no such certificate, or does not speak TLS.
        """
        host = address.rpartition(":")[0].strip("[]")
        stream = await dial_tcp(address)
        secured = trio.SSLStream(stream, self._client, server_hostname=host, https_compatible=True)
        refused: Exception
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await secured.do_handshake()
                return secured
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            refused = _refusal("the owner", error)
        await trio.aclose_forcefully(stream)
        raise refused


def _refusal(other: str, error: Exception) -> HandshakeError:
    cause = error.__cause__
    if isinstance(error, trio.TooSlowError):
        reason = f"{other} did not finish the TLS handshake in {HANDSHAKE_SECONDS:g} s"
        return HandshakeError("link_timeout", reason)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"{other}'s certificate is not accepted: {cause.verify_message}"
    elif isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        reason = (
            f"TLS with {other} failed: {(cause.reason or str(cause)).lower().replace('_', ' ')}"
        )
    else:
        reason = (
            f"{other} hung up on TLS: it may not accept this node's certificate, or not speak TLS"
        )
    return HandshakeError("link_tls", reason)

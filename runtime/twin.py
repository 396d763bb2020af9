"""Whether a process of this very node runs already, elsewhere: this one would be on a copy of its data directory.

Two processes of one node are safe, but not well: whichever takes the later epoch fences the other at its next
flush, so a copy that is started would end the one that serves. Where the archive tells at which address the node was
last, who answers there is asked first. Nobody who answers in time proves nothing, and needs to prove nothing.
"""

import trio

from runtime.links.handshake import LINK_SECRET, HandshakeError
from runtime.links.pool import Dial, dial_tcp
from runtime.links.stream import LinkLostError, greet
from storage import Archive, NodeRunningError, Place

CONNECT_SECONDS = 1.0
"""How long a connection is waited for: a machine that is away must not keep a start waiting."""

ANSWER_SECONDS = 3.0
"""How long its answer is waited for then: something is there, and may only be busy."""


async def check_no_twin(
    archive: Archive, node_id: str, place: Place | None, dial: Dial = dial_tcp
) -> None:
    """Ask at the node's last address whether it runs there; at its own new one, `place`, nobody else can.

    Raises:
        NodeRunningError: it does.
        ArchiveUnavailableError: the archive does not answer.
    """
    ring = await trio.to_thread.run_sync(archive.read_ring)
    entry = ring.node(node_id)
    if entry is None or not entry.address or (place is not None and place.address == entry.address):
        return
    secret = await trio.to_thread.run_sync(archive.secret, LINK_SECRET)
    if await _answers(dial, entry.address, secret, node_id, len(ring.owners)):
        raise NodeRunningError(node_id, entry.address)


async def _answers(dial: Dial, address: str, secret: bytes, node_id: str, slots: int) -> bool:
    answered = False
    with trio.move_on_after(CONNECT_SECONDS) as patience:
        try:
            async with await dial(address) as stream:
                patience.deadline = trio.current_time() + ANSWER_SECONDS
                await greet(stream, secret, node_id, slots, node_id)
                answered = True
        except (OSError, trio.TooSlowError, LinkLostError, HandshakeError):
            pass
    return answered

import pytest
import trio
from websockets.frames import CloseCode, Frame, Opcode
from websockets.server import ServerProtocol

from bench.connection import ConnectionLostError, open_connection
from bench.protocol import Hello, Leave


async def greet_and_say_goodbye(stream: trio.SocketStream) -> None:
    """Upgrade, and answer the first request with an answer and a goodbye in one write."""
    protocol = ServerProtocol()
    while not (requests := protocol.events_received()):
        protocol.receive_data(await stream.receive_some(4096))
    protocol.send_response(protocol.accept(requests[0]))  # type: ignore[arg-type]
    await stream.send_all(b"".join(protocol.data_to_send()))
    await stream.receive_some(4096)
    last = Frame(Opcode.TEXT, b'{"type":"hello"}').serialize(mask=False)
    goodbye = Frame(Opcode.CLOSE, CloseCode.GOING_AWAY.to_bytes(2, "big")).serialize(mask=False)
    await stream.send_all(last + goodbye)
    await stream.receive_some(4096)


async def test_a_goodbye_right_behind_an_answer_is_a_lost_connection(
    nursery: trio.Nursery,
) -> None:
    listener, *_ = await nursery.start(trio.serve_tcp, greet_and_say_goodbye, 0)
    port = listener.socket.getsockname()[1]
    async with open_connection(f"ws://127.0.0.1:{port}/v1/ws") as connection:
        await connection.send(Leave(ref="l", session="s"))
        answers = await connection.receive()
        assert [type(answer) for answer in answers] == [Hello]
        with pytest.raises(ConnectionLostError):
            await connection.send(Leave(ref="l", session="s"))
    nursery.cancel_scope.cancel()

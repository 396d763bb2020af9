import json
import socket
import threading

from tests.edge.cli.conftest import Ringlog


def test_a_server_that_does_not_answer_in_time_is_exit_code_5(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"--url=http://127.0.0.1:{silent.getsockname()[1]}"
        result = ringlog("session", "list", url, "--timeout-seconds", "0.2", "--json")

    assert result.code == 5
    assert json.loads(result.err)["error"]["code"] == "timeout"


def test_something_else_at_the_address_is_said_to_be_no_ringlog_server(ringlog: Ringlog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-x\r\n\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        result = ringlog("session", "list", f"--url=http://127.0.0.1:{other.getsockname()[1]}")
        greeter.join()

    assert (result.code, "no Ringlog server" in result.err) == (4, True)

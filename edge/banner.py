"""What a person sees when the server is ready: where it is, what it keeps where, and what to paste."""

import os
import platform
from pathlib import Path

from edge.config import Config, shown
from edge.values import Address
from edge.version import VERSION


def banner(config: Config, address: Address, *, development: bool, seconds: float) -> str:
    """Return the lines; every one of the commands in them works as it stands, from another terminal."""
    scheme = "https" if config.tls_cert else "http"
    where = f"{scheme}://{_reachable(address)}"
    user = "?user_id=alice" if development else ""
    socket = f"{where.replace('http', 'ws', 1)}/v1/ws{user}"
    who = "development mode: no keys yet, this machine only" if development else "keys required"
    python = f"Python {platform.python_version()}, process {os.getpid()}"
    kept = f"{_short(config.data)}, archive {shown(config)['archive']}, {config.durability}"
    lines = [
        f"ringlog {VERSION} ready in {seconds:.2f} s ({python})",
        f"  listening  {where}  ({who})",
        f"  websocket  {socket}",
        f"  data       {kept}",
        "",
        "  try it:",
        *(f"    {line}" for line in examples(where, development=development)),
        "",
        "  stop with Ctrl-C; what was acknowledged is there when you start again",
    ]
    return "\n".join(lines)


def examples(where: str, *, development: bool) -> list[str]:
    """Return three commands that make a session, write into it and follow it."""
    key = "" if development else ' -H "Authorization: Bearer $RINGLOG_KEY"'
    api = f"{where}/v1/sessions"
    return [
        f"""curl{key} -d '{{"id":"demo","user_id":"alice"}}' {api}""",
        f"""curl{key} -d '{{"sender":"alice","content":{{"text":"hello"}}}}' {api}/demo/messages""",
        f"""curl{key} -N '{api}/demo/stream?last_seq=0'""",
    ]


def _reachable(address: Address) -> Address:
    """Return an address that a client on this machine can connect to."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
    return Address(anywhere.get(address.host, address.host), address.port)


def _short(path: Path) -> str:
    """Return a path below the working directory as relative, others in full."""
    try:
        return f"./{path.absolute().relative_to(Path.cwd())}"
    except ValueError:
        return str(path)

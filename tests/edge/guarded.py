"""A real server process with keys, and credentials of every kind for it."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import jwt

from edge.auth import JWT_ISSUER, SIGNING_KEY_NAME, generate_key, hash_key
from storage import ApiKey, open_archive
from tests.edge.server_process import ServerProcess, server_process

SCOPES = {
    "all": ("read", "write", "tokens", "admin"),
    "read": ("read",),
    "write": ("write",),
    "tokens": ("tokens",),
    "none": (),
    "revoked": ("read", "write", "tokens", "admin"),
    "elsewhere": ("read", "write", "tokens", "admin"),
}


@dataclass
class Guarded:
    """A server with keys, and credentials of every kind for it."""

    server: ServerProcess
    keys: dict[str, str]
    signing_key: bytes
    tokens: dict[str, str] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(
        self, method: str, path: str, body: object = None, credential: str | None = None
    ) -> tuple[int, Any]:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        with closing(http.client.HTTPConnection(self.server.address, timeout=10)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            if response.getheader("Content-Type", "").startswith("text/event-stream"):
                return response.status, {}
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else {}

    def new_session(self) -> str:
        """Create a session that alice owns and of which bob is a member."""
        name = f"s-{next(self.names)}"
        body = {"id": name, "user_id": "alice", "members": ["bob"]}
        status, _ = self.ask("POST", "/v1/sessions", body, self.keys["all"])
        assert status == 201
        return name

    def mint(self, user: str, sessions: list[str] | None = None) -> str:
        body = {"user_id": user} | ({} if sessions is None else {"sessions": sessions})
        status, answer = self.ask("POST", "/v1/tokens", body, self.keys["all"])
        assert status == 201
        token: str = answer["token"]
        return token

    def forge(self, key: bytes | None = None, algorithm: str = "HS256", **claims: object) -> str:
        """Sign a token by hand: a good one, but for what is given. None removes a claim."""
        whole: dict[str, object] = {"iss": JWT_ISSUER, "sub": "alice", "ws": "default"}
        whole["exp"] = int(time.time()) + 600
        kept = {name: value for name, value in (whole | claims).items() if value is not None}
        return jwt.encode(kept, self.signing_key if key is None else key, algorithm)


@contextmanager
def open_guarded(
    directory: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[Guarded]:
    """A server whose archive holds a key of each kind in `SCOPES`; it must end without an error."""
    archive_url = f"sqlite:///{directory}/archive.db"
    keys = {name: generate_key() for name in SCOPES}
    archive = open_archive(archive_url)
    for name, key in keys.items():
        workspace = "elsewhere" if name == "elsewhere" else "default"
        archive.create_key(ApiKey(name, name, hash_key(key), SCOPES[name], workspace, 1))
    archive.revoke_key("revoked", 2)
    signing_key = archive.secret(SIGNING_KEY_NAME)
    archive.close()
    flags = (f"--archive={archive_url}", *flags)
    with server_process(directory / "data", *flags, environment=environment) as server:
        yield Guarded(server.wait_ready(), keys, signing_key)
        assert [event for event in server.events() if event["level"] == "error"] == []
        assert server.stop() == 0

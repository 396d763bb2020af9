"""A browser's own WebSocket and EventSource, which nobody here wrote, against a real server."""

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edge.auth import generate_key, hash_key
from storage import ApiKey, open_archive
from tests.e2e.chromium import browsing, open_page
from tests.e2e.transports import open_socket, receive
from tests.edge.server_process import ServerProcess, server_process

pytestmark = pytest.mark.slow

COMMON = """
const report = value => fetch("/report", {method: "POST", body: JSON.stringify(value)});
const step = name => fetch("/step/" + name, {method: "POST", body: ""});
onerror = (event, source, line) => report({error: `${event} in line ${line}`});
onunhandledrejection = event => report({error: String(event.reason && event.reason.stack)});

// The client that docs/protocol.md describes: reconnects, follows from its own cursor, resends.
class Session {
  constructor(url, session, protocols) {
    Object.assign(this, {url, session, protocols, lastSeq: 0, seen: [], pending: new Map(), joins: 0});
    this.closes = [];
    this.waits = [];
    this.open();
  }
  open() {
    this.socket = new WebSocket(this.url, this.protocols);
    this.socket.onopen = () => {
      this.protocol = this.socket.protocol;
      this.write({type: "join", ref: "join", session: this.session, last_seq: this.lastSeq, create: {}});
      for (const frame of this.pending.values()) this.write(frame);
    };
    this.socket.onmessage = event => { this.take(JSON.parse(event.data)); this.look(); };
    this.socket.onclose = event => {
      this.closes.push(event.code);
      this.look();
      if (!this.left) setTimeout(() => this.open(), 100);
    };
  }
  write(frame) { this.socket.send(JSON.stringify(frame)); }
  take(frame) {
    if (frame.type === "joined") this.joins += 1;
    if (frame.type === "ack") this.pending.delete(frame.client_id);
    if (frame.type === "error") report({error: frame});
    if (frame.type === "message") {
      this.lastSeq = frame.seq;
      this.seen.push([frame.seq, frame.content.text]);
    }
  }
  send(text) {
    const frame = {type: "send", ref: text, session: this.session, client_id: crypto.randomUUID(), content: {text}};
    this.pending.set(frame.client_id, frame);
    if (this.socket.readyState === WebSocket.OPEN) this.write(frame);
  }
  leave() { this.left = true; this.socket.close(); }
  until(condition) { return new Promise(done => { this.waits.push([condition, done]); this.look(); }); }
  look() {
    this.waits = this.waits.filter(([condition, done]) => !condition(this) || done());
  }
}
"""

DROPS = """
(async () => {
  const events = [];
  const source = new EventSource("http://ADDRESS/v1/sessions/s/stream?last_seq=0&user_id=bob");
  let opened = 0;
  source.onopen = () => { opened += 1; };
  source.onmessage = event => events.push([Number(event.lastEventId), JSON.parse(event.data).content.text]);

  const first = new Session("ws://ADDRESS/v1/ws?user_id=alice", "s");
  for (const text of ["one", "two", "\\u0000 \\u2028 \\ud83d\\ude00"]) first.send(text);
  await first.until(it => it.seen.length === 3 && it.pending.size === 0);
  first.leave();
  await first.until(it => it.closes.length === 1);

  await step("while_away");

  const second = new Session("ws://ADDRESS/v1/ws?user_id=alice", "s");
  second.lastSeq = first.lastSeq;
  await second.until(it => it.seen.length === 2);
  const late = step("kill_and_restart");
  await second.until(it => it.closes.length >= 1);
  second.send("while it was down");
  await late;
  await second.until(it => it.joins === 2 && it.pending.size === 0 && it.seen.length === 3);
  second.send("last");
  await second.until(it => it.seen.length === 4);
  while (events.length < 7) await new Promise(done => setTimeout(done, 20));
  second.leave();
  await report({first: first.seen, second: second.seen, closes: second.closes, events, opened});
})();
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def send(server: ServerProcess, *texts: str) -> None:
    with open_socket(server.address, "bob") as websocket:
        assert b'"hello"' in receive(websocket)
        for text in texts:
            websocket.send(f'{{"type":"send","session":"s","content":{{"text":"{text}"}}}}')
            assert b'"ack"' in receive(websocket)


def test_a_page_sees_every_message_once_through_drops_and_a_killed_server(tmp_path: Path) -> None:
    listen = f"--listen=127.0.0.1:{free_port()}"
    data = tmp_path / "data"
    with server_process(data, listen) as first:
        with open_socket(first.wait_ready().address) as websocket:
            websocket.send('{"type":"join","session":"s","create":{"members":["bob"]}}')
            assert b'"hello"' in receive(websocket)
            assert b'"joined"' in receive(websocket)
        servers = [first]

        def while_away() -> None:
            send(first, "from bob", "again from bob")

        def kill_and_restart() -> None:
            first.kill()
            servers.append(ServerProcess(data, listen).wait_ready())

        script = COMMON + DROPS.replace("ADDRESS", first.address)
        steps = {"while_away": while_away, "kill_and_restart": kill_and_restart}
        try:
            with (
                open_page(script, steps) as page,
                browsing(f"http://localhost:{page.port}/", tmp_path),
            ):
                seen: dict[str, Any] = page.report()
        finally:
            for server in servers[1:]:
                server.close()

    texts = [
        "one",
        "two",
        "\x00 \u2028 😀",
        "from bob",
        "again from bob",
        "while it was down",
        "last",
    ]
    everything = [[seq, text] for seq, text in enumerate(texts, 1)]
    assert "error" not in seen, seen
    assert seen["first"] == everything[:3]
    assert seen["second"] == everything[3:]
    # Killed, then refused for as long as nobody listened: 1006 is what a browser calls both.
    assert set(seen["closes"]) == {1006}
    # It would have begun at 1 again without Last-Event-ID.
    assert seen["events"] == everything
    assert seen["opened"] == 2


TOKENS = """
(async () => {
  const token = location.hash.slice(1);
  const result = {};
  const session = new Session("ws://ADDRESS/v1/ws", "s", ["ringlog.v1", "bearer." + token]);
  session.send("with a token");
  const refused = new Promise(done => setTimeout(done, 1500));
  await Promise.race([session.until(it => it.seen.length === 1), refused]);
  session.leave();
  result.protocol = session.protocol || null;
  result.seen = session.seen;
  const source = new EventSource("http://ADDRESS/v1/sessions/s/stream?last_seq=0&access_token=" + token);
  result.event = await new Promise(done => {
    source.onmessage = event => done(JSON.parse(event.data).content.text);
    source.onerror = () => done("refused");
  });
  source.close();
  result.post = await fetch("http://ADDRESS/v1/sessions/s/messages", {
    method: "POST",
    headers: {"Authorization": "Bearer " + token, "Content-Type": "application/json"},
    body: JSON.stringify({content: {text: "by fetch"}}),
  }).then(response => response.status, () => "refused");
  await report(result);
})();
"""


def request(server: ServerProcess, key: str, path: str, body: dict[str, object]) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    data = json.dumps(body).encode()
    asked = urllib.request.Request(f"{server.url}{path}", data, headers)
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.load(response)


def test_a_listed_page_gets_in_with_a_token_and_another_does_not(tmp_path: Path) -> None:
    archive_url = f"sqlite:///{tmp_path}/archive.db"
    key = generate_key()
    archive = open_archive(archive_url)
    archive.create_key(ApiKey("k", "test", hash_key(key), ("tokens", "write"), "default", 0))
    archive.close()
    address = f"127.0.0.1:{free_port()}"
    with open_page(COMMON + TOKENS.replace("ADDRESS", address)) as page:
        listed, other = f"http://127.0.0.1:{page.port}", f"http://localhost:{page.port}"
        flags = (f"--listen={address}", f"--archive={archive_url}", f"--allow-origin={listed}")
        with server_process(tmp_path / "data", *flags) as server:
            request(server.wait_ready(), key, "/v1/sessions", {"id": "s", "user_id": "alice"})
            token = request(server, key, "/v1/tokens", {"user_id": "alice"})["token"]
            reports = []
            for number, origin in enumerate((listed, other)):
                profile = tmp_path / str(number)
                profile.mkdir()
                with browsing(f"{origin}/#{token}", profile):
                    reports.append(page.report())
            server.stop()

    seen = [[1, "with a token"]]
    assert reports[0] == {
        "protocol": "ringlog.v1",
        "seen": seen,
        "event": "with a token",
        "post": 201,
    }
    assert reports[1] == {"protocol": None, "seen": [], "event": "refused", "post": "refused"}
    logged = "\n".join(server.lines)
    assert token not in logged
    assert "access_token=[redacted]" in logged

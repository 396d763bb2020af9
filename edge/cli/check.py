"""`ringlog doctor` looks at this machine, `ringlog health` at a running server."""

import time
from typing import TYPE_CHECKING

import typer

from edge.cli.options import Json, takes
from edge.cli.output import Output, cell
from edge.config import ClientConfig, Config

if TYPE_CHECKING:
    from edge.cli.remote import Remote

MARKS = {"ok": "ok  ", "warning": "warn", "failure": "FAIL"}


@takes(Config)
def doctor(*, config: Config, as_json: Json = False) -> None:
    """Check this machine: disk latency, limits, archive, address. Exits with 1 if a server would fail.

    \b
      ringlog doctor
      ringlog doctor --data /var/lib/ringlog --archive postgresql://ringlog@db/ringlog
    """
    from edge.doctor import Finding, examine

    findings: list[Finding] = []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            print(f"{MARKS[finding.level]}  {finding.what}: {cell(finding.detail)}", flush=True)
            if finding.fix:
                print(f"      → {cell(finding.fix)}")
    if as_json:
        fields = ("level", "what", "detail", "fix")
        rows = [{name: getattr(finding, name) for name in fields} for finding in findings]
        Output(as_json=True).json({"data": rows})
    if any(finding.level == "failure" for finding in findings):
        raise typer.Exit(1)


@takes(ClientConfig)
def health(*, config: ClientConfig, as_json: Json = False) -> None:
    """Ask a server whether it lives and is ready. Exits with 1 if it is not ready, 4 if it is away.

    \b
      ringlog health
      ringlog health --url https://log.example --json
    """
    from edge.cli.failure import read_problem
    from edge.cli.remote import Remote

    remote = Remote(config)
    started = time.perf_counter()
    alive, answer = remote.ask("GET", "/healthz")
    elapsed = time.perf_counter() - started
    _check_is_ringlog(remote, alive, answer, "ok")
    ready, answer = remote.ask("GET", "/readyz")
    _check_is_ringlog(remote, ready, answer, "ready")
    body = read_problem(answer)
    details = body.get("details") or {}
    told = body if ready == 200 else details if isinstance(details, dict) else {}
    ring = told.get("ring")
    fields = {
        "url": remote.url,
        "alive": alive == 200,
        "ready": ready == 200,
        "reasons": details.get("reasons", []) if isinstance(details, dict) else [],
        "role": told.get("role"),
        "epoch": told.get("epoch"),
        "ring_state": ring.get("state") if isinstance(ring, dict) else None,
        "answer_ms": round(elapsed * 1000, 2),
    }
    Output(as_json=as_json).fields(fields)
    if not (fields["alive"] and fields["ready"]):
        raise typer.Exit(1)


def _check_is_ringlog(remote: "Remote", status: int, answer: bytes, good: str) -> None:
    """Raise unless the answer is a Ringlog server's: its status word, or a problem with a code."""
    from edge.cli.failure import read_problem

    body = read_problem(answer)
    if status == 200 and body.get("status") != good:
        raise remote.something_else("its answer is not one of Ringlog's API")
    if status != 200 and not isinstance(body.get("code"), str):
        raise remote.refused(status, body)

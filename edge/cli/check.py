"""`ringlog doctor` looks at this machine, `ringlog health` at a running server."""

import time

import typer

from edge.cli.options import Json, takes
from edge.cli.output import Output, cell
from edge.config import ClientConfig, Config

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
    alive, _ = remote.ask("GET", "/healthz")
    elapsed = time.perf_counter() - started
    ready, answer = remote.ask("GET", "/readyz")
    details = read_problem(answer).get("details") or {}
    fields = {
        "url": remote.url,
        "alive": alive == 200,
        "ready": ready == 200,
        "reasons": details.get("reasons", []) if isinstance(details, dict) else [],
        "answer_ms": round(elapsed * 1000, 2),
    }
    Output(as_json=as_json).fields(fields)
    if not (fields["alive"] and fields["ready"]):
        raise typer.Exit(1)

"""The command line: `ringlog COMMAND`.

Data goes to stdout and everything else to stderr; `--json` gives every command a stable form for
programs; the exit codes are in `edge/cli/failure.py`. Commands import what they need when they run, so
that `ringlog --help` is quick.
"""


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    from edge.cli.program import run

    run()

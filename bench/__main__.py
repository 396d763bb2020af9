"""``python -m bench``: the questions that can be asked of a server, from the command line."""

import typer

from bench.commands.append import ancestor, append, flush, rate
from bench.commands.chat import chat
from bench.commands.compare import compare
from bench.commands.demo import demo
from bench.commands.fanout import fanout
from bench.commands.mixed import mixed
from bench.commands.peers import peers
from bench.commands.plot import plot
from bench.server import end_on_sigterm

COMMANDS = (append, rate, ancestor, flush, demo, compare, peers, fanout, plot, mixed, chat)

app = typer.Typer(
    help="Measure Ringlog, and check that it kept its promise while it was measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)

end_on_sigterm()
app(prog_name="python -m bench")

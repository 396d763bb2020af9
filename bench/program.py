"""The commands of ``python -m bench``: the questions that can be asked of a server."""

import typer

from bench.commands.append import ancestor, append, flush, rate
from bench.commands.chat import chat
from bench.commands.cluster import cluster, drain, failover, replicated, ring
from bench.commands.compare import compare
from bench.commands.demo import demo
from bench.commands.fanout import fanout
from bench.commands.idle import idle
from bench.commands.mixed import mixed
from bench.commands.peers import peers
from bench.commands.plot import plot
from bench.commands.recover import recover
from bench.commands.replay import replay
from bench.commands.results import results
from bench.commands.tour import tour

COMMANDS = (
    tour, append, rate, ancestor, flush, fanout, mixed, chat, replay, recover, idle, peers,
    cluster, replicated, drain, failover, ring, demo, compare, plot, results,
)  # fmt: skip

app = typer.Typer(
    help="Measure Ringlog, and check that it kept its promise while it was measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)

